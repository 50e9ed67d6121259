"""What identifies a call of AutoGen's: which client is asked, with what arguments, for what."""

# Clients and their arguments are other people's, so that pyright can't know what is in them.
# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import marshal
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit
from weakref import WeakKeyDictionary

from autogen_core import Image
from autogen_core.models import ChatCompletionClient
from autogen_core.tools import Tool
from msgspec import Struct
from pydantic import BaseModel, PydanticUserError, SecretBytes, SecretStr

from asynccache._canonical import canonical_json, canonical_value
from asynccache._errors import NotCanonicalError
from asynccache._key import DENIED_QUERY, kept_headers

_FORM: Final = "1"  # of what is stored: another form has other keys
_CREDENTIALS: Final = frozenset({
    "access_token", "api_key", "apikey", "auth_token", "authorization", "aws_access_key",
    "aws_secret_key", "aws_session_token", "azure_ad_token", "azure_ad_token_provider",
    "credential", "credentials", "password", "secret", "token",
})  # fmt: skip
"""Names of arguments that are never in a key. Of a `SecretStr` no name matters."""
_BILLED: Final = frozenset({"organization", "project"})  # OpenAI's: whom to bill
_PATIENCE: Final = frozenset({"max_retries", "timeout"})  # no answer depends on them
_ADDRESSES: Final = frozenset({"azure_endpoint", "base_url", "endpoint", "host"})
_HEADERS: Final = frozenset({"default_headers", "extra_headers", "headers"})
_NESTED: Final = frozenset({"bedrock_info"})  # holds arguments, as the whole does
_WRAPPERS: Final = ("asynccache.integrations.autogen", "autogen_ext.models.cache.")
_HARMLESS: Final = ("__", "_abc_", "component_")  # what a subclass may name without being another

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})

_schemas: Final[WeakKeyDictionary[type[BaseModel], Any]] = WeakKeyDictionary()


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


class _Reading:
    """Turns arguments into plain data, and sets aside what doesn't belong into a key.

    Args:
        lenient: Leave out what has no plain form, instead of raising.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        self.aside: list[str] = []
        self._lenient = lenient

    def arguments(self, found: Mapping[Any, Any], left_out: frozenset[str]) -> dict[str, Any]:
        """Return a client's arguments, less credentials and what is to be left out."""
        kept: dict[str, Any] = {}
        for name, value in found.items():
            if name in _CREDENTIALS or name in left_out:
                self.set_aside(value)
            elif name in _HEADERS and isinstance(value, Mapping):
                self.set_aside(dict(value))
                kept[name] = self.plain(dict(kept_headers(value.items())))
            elif name in _NESTED and isinstance(value, Mapping):
                kept[name] = self.arguments(value, left_out)
            elif name in _ADDRESSES:
                kept[name] = plain_url(str(value))
            else:
                self._keep(kept, str(name), value)
        return kept

    def set_aside(self, value: object) -> None:
        """Note what tells callers apart without being in the key. In memory only."""
        if isinstance(value, SecretStr | SecretBytes):
            value = value.get_secret_value()
        plain = isinstance(value, str | bytes | int | float | dict | None)
        self.aside.append(repr(value) if plain else f"{type(value)} {id(value)}")

    def plain(self, value: Any) -> Any:  # noqa: ANN401 - anything
        """Return any data as JSON would have it.

        Raises:
            NotCanonicalError: There is no such form.
        """
        if type(value) in _SCALARS:  # nearly all
            return value
        if isinstance(value, bool | int | float | str):
            return getattr(value, "value", value)  # an enum's
        if isinstance(value, Mapping):
            kept: dict[str, Any] = {}
            for name, inner in value.items():
                text = name if isinstance(name, str) else _named(name)
                if text in kept:
                    raise NotCanonicalError("a mapping names the same key twice")
                self._keep(kept, text, inner)
            return kept
        if isinstance(value, list | tuple):
            return [self.plain(item) for item in value]
        return self._object(value)

    def _object(self, value: Any) -> Any:  # noqa: ANN401 - as above
        if isinstance(value, type) and issubclass(value, BaseModel):
            return schema_of(value)
        if isinstance(value, BaseModel):
            return self.plain(dict(value))
        if isinstance(value, enum.Enum):
            return self.plain(value.value)
        if isinstance(value, Image):
            return _picture(value)
        if isinstance(value, Tool):
            return self.plain(value.schema)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: self.plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        kind = type(value)
        raise NotCanonicalError(
            f"{kind.__module__}.{kind.__qualname__} has no form to make keys of"
        )

    def _keep(self, kept: dict[str, Any], name: str, value: Any) -> None:  # noqa: ANN401 - as above
        if isinstance(value, SecretStr | SecretBytes):
            self.set_aside(value)
            return
        try:
            kept[name] = self.plain(value)
        except NotCanonicalError:
            if not self._lenient:
                raise
            self.set_aside(value)


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
            (getattr(http, "api_key", None), str(getattr(http, "base_url", None)))
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
    reading = _Reading(lenient=upstream is not None)
    left_out = _PATIENCE if upstream is None else _PATIENCE | _ADDRESSES
    raw, create_args, model_info = _arguments_of(client)
    known = False
    if isinstance(raw, Mapping) and isinstance(create_args, Mapping):
        known = True
        # Not its component config, which lacks what its model of a config doesn't name.
        facts["arguments"] = reading.arguments(raw, left_out | _BILLED)
        facts["create"] = reading.arguments(create_args, left_out | _BILLED)
        facts["model_info"] = reading.plain(model_info)
        for http in _beneath(client):
            reading.set_aside(getattr(http, "api_key", None))
            if upstream is None and (address := getattr(http, "base_url", None)) is not None:
                facts["address"] = plain_url(str(address))
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
    reading = _Reading()
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


def _named(name: object) -> str:
    """Return a key of a mapping as JSON has it."""
    try:
        return json.dumps(name)
    except TypeError as exc:
        kind = type(name).__qualname__
        raise NotCanonicalError(f"a mapping has a {kind} as a key, which JSON can't say") from exc


def schema_of(model: type[BaseModel]) -> Any:  # noqa: ANN401 - any JSON
    """Return what a model sees of a class that it is to answer as: its name and JSON schema.

    Raises:
        NotCanonicalError: It has no JSON schema.
    """
    found = _schemas.get(model)
    if found is None:
        try:
            found = {"class": model.__name__, "schema": model.model_json_schema()}
        except PydanticUserError as exc:
            raise NotCanonicalError(f"{model.__qualname__} has no JSON schema") from exc
        _schemas[model] = found
    return found


def plain_url(url: str) -> str:
    """Return a URL less its credentials."""
    parts = urlsplit(url)
    kept = [
        pair
        for pair in parts.query.split("&")
        if unquote(pair.partition("=")[0]).lower() not in DENIED_QUERY
    ]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host, query="&".join(kept)))


def _picture(image: Image) -> dict[str, str]:
    """Return what stands for an image: a digest of its pixels, which take no encoding."""
    picture = image.image
    seen = sha256(f"{picture.mode} {picture.size} ".encode())
    seen.update(picture.tobytes())
    return {"image": seen.hexdigest()}


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
