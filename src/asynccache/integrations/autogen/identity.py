"""What identifies a call of AutoGen's: which client is asked, with what arguments, for what."""

# Clients and their arguments are other people's, so that pyright can't know what is in them.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import functools
import marshal
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from autogen_core.models import ChatCompletionClient
from autogen_core.tools import Tool
from msgspec import Struct
from pydantic import BaseModel

from asynccache.integrations.autogen.plain import ADDRESSES, Reading
from asynccache.keys.canonical import canonical_json, canonical_value
from asynccache.keys.denied import without_credentials

_FORM: Final = "1"  # of what is stored: another form has other keys
_BILLED: Final = frozenset({"organization", "project"})  # OpenAI's: whom to bill
_PATIENCE: Final = frozenset({"max_retries", "timeout"})  # no answer depends on them
_WRAPPERS: Final = ("asynccache.integrations.autogen", "autogen_ext.models.cache.")
_HARMLESS: Final = ("__", "_abc_", "component_")  # what a subclass may name without being another


class Identity(Struct, frozen=True):
    """Which client is asked."""

    facts: dict[str, Any]
    """Plain data: its class, its arguments, its address."""
    text: str
    """The same, as keys have it."""
    credentials: bytes | None
    """A digest of the credentials and patience found; None where nobody knows if these are all."""


class UnknownClientError(TypeError):
    """Nothing tells one client from another; never leaves the integration."""


class Identified:
    """A client, told from others at each call anew: its arguments may have been changed.

    Args:
        client: Any.
        upstream: As for `identity_of`.

    Raises:
        UnknownClientError: It doesn't say what it is.
        NotCanonicalError: One of its arguments has no form to make keys of.
    """

    __slots__ = ("_client", "_last", "_upstream")

    def __init__(self, client: ChatCompletionClient, upstream: str | None) -> None:
        self._client, self._upstream = client, upstream
        self._last: tuple[bytes | None, Identity] = (None, self._read())

    def now(self) -> Identity:
        """Return what the client is now; raises as the constructor."""
        seen = self._snapshot()
        last, identity = self._last
        if seen is None or seen != last:
            identity = self._read()
            self._last = (seen, identity)
        return identity

    def _read(self) -> Identity:
        return identity_of(self._client, self._upstream)

    def _snapshot(self) -> bytes | None:
        """Return all that identifies a client of plain arguments, as it is now; None for others."""
        raw, create_args, model_info = _arguments_of(self._client)
        if raw is None or create_args is None:
            return None
        found = [
            (
                *_credentials_of(http),
                str(getattr(http, "base_url", None)),
                getattr(http, "_custom_headers", None),
                getattr(http, "_custom_query", None),
            )
            for http in _beneath(self._client)
        ]
        try:
            # Of version 2, as later ones tell one object named twice from two that are equal.
            return marshal.dumps((raw, create_args, model_info, found), 2)
        except ValueError:  # an object of somebody's, which may change unseen
            return None


def identity_of(client: ChatCompletionClient, upstream: str | None) -> Identity:
    """Return what tells a client from others, as far as answers go.

    Args:
        client: Any.
        upstream: A name for what can't be known of it; it takes the place of its address, too.

    Raises:
        UnknownClientError: It doesn't say what it is.
        NotCanonicalError: One of its arguments has no form to make keys of.
    """
    kind: Any = type(client)
    facts: dict[str, Any] = {"class": f"{kind.__module__}.{kind.__qualname__}"}
    inner: Any = getattr(client, "client", None)
    if kind.__module__.startswith(_WRAPPERS) and isinstance(inner, ChatCompletionClient):
        beneath = identity_of(inner, upstream or getattr(client, "_upstream", None))
        return _identity({**facts, "client": beneath.facts}, beneath.credentials)
    reading = Reading(lenient=upstream is not None)
    left_out = _PATIENCE if upstream is None else _PATIENCE | ADDRESSES
    raw, create_args, model_info = _arguments_of(client)
    known = False
    if isinstance(raw, Mapping) and isinstance(create_args, Mapping):
        known = True
        # Not its component config, which lacks what its model of a config doesn't name.
        facts["arguments"] = reading.arguments(raw, left_out | _BILLED)
        facts["create"] = reading.arguments(create_args, left_out | _BILLED)
        facts["model_info"] = reading.plain(model_info)
        facts.update(_sent_along(client, reading, addressed=upstream is None))
        own = "_raw_config"
    else:
        own = "_to_config"
        config = _config(client)
        if config is not None:
            facts["config"] = reading.arguments(dict(config), left_out)
        elif upstream is None:
            raise UnknownClientError("it has no component config")
    if upstream is not None:
        facts["upstream"] = upstream
    elif changed := _changed(kind):
        raise UnknownClientError(
            f"it changes {changed} of its base class without {own!r} of its own"
        )
    credentials = sha256(canonical_value(reading.aside)).digest() if known else None
    return _identity(facts, credentials)


def _identity(facts: dict[str, Any], credentials: bytes | None) -> Identity:
    return Identity(facts, canonical_json({"form": _FORM, **facts}).decode(), credentials)


def _arguments_of(client: ChatCompletionClient) -> tuple[Any, Any, Any]:
    """Return what autogen-ext's clients keep of how they were made; None for what others lack."""
    raw, create_args = getattr(client, "_raw_config", None), getattr(client, "_create_args", None)
    return raw, create_args, getattr(client, "_model_info", None)


def request_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call to a client as plain data.

    Raises:
        NotCanonicalError: One of them has no plain form.
    """
    reading = Reading()
    request: dict[str, Any] = {}
    for name, value in arguments.items():
        if name == "extra_create_args":
            request[name] = reading.arguments(value, _PATIENCE)
        # Asking for a protocol takes longer than all else here.
        elif name == "tool_choice" and not isinstance(value, str) and isinstance(value, Tool):
            request[name] = {"tool": reading.plain(value.schema)}
        else:
            request[name] = reading.plain(value)
    return request


def _beneath(client: ChatCompletionClient) -> Iterator[Any]:
    """Return the HTTP clients of AutoGen's clients: the SDK's, and what that stands on."""
    found: Any = getattr(client, "_client", None)
    for _ in range(2):
        if found is None:
            return
        yield found
        if getattr(found, "base_url", None) is not None:
            return
        found = getattr(found, "_client", None)


def _sent_along(
    client: ChatCompletionClient, reading: Reading, *, addressed: bool
) -> dict[str, Any]:
    """Return what its HTTP client adds to each request, some of it from the environment."""
    facts: dict[str, Any] = {}
    for http in _beneath(client):
        for credential in _credentials_of(http):
            reading.set_aside(credential)
        if addressed and (address := getattr(http, "base_url", None)) is not None:
            facts["address"] = without_credentials(str(address))[0]
        if kept := reading.headers(getattr(http, "_custom_headers", None) or {}):
            facts["headers"] = kept
        if kept := reading.query(getattr(http, "_custom_query", None) or {}):
            facts["query"] = kept
    return facts


def _credentials_of(http: Any) -> list[Any]:  # noqa: ANN401 - an SDK's client
    return [getattr(http, name, None) for name in ("api_key", "auth_token", "_azure_ad_token")]


def _config(client: ChatCompletionClient) -> BaseModel | None:
    try:
        config = client._to_config()  # noqa: SLF001 - AutoGen's documented hook has this name
    except Exception:  # noqa: BLE001 - a component that can't say what it is; the caller is told so
        return None
    return config if isinstance(config, BaseModel) else None


@functools.lru_cache(maxsize=256)
def _changed(kind: type) -> str | None:
    """Return what a class changes below the one that says what clients of it are made of.

    Such a class may answer otherwise, by what no config tells.
    """
    for at, base in enumerate(kind.__mro__):
        if "_to_config" in vars(base):
            return None
        for name in vars(base):
            harmless = name.startswith(_HARMLESS) and name not in {"__init__", "__setattr__"}
            if not harmless and any(hasattr(below, name) for below in kind.__mro__[at + 1 :]):
                return f"{name!r}"
    return None
