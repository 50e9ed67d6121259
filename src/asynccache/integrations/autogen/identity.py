"""What identifies a call of AutoGen's: which client is asked, and what for, as plain data."""

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
import secrets
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

from autogen_core import Image
from autogen_core.models import ChatCompletionClient
from autogen_core.tools import Tool
from msgspec import Struct
from pydantic import BaseModel, PydanticUserError, SecretBytes, SecretStr

from asynccache.errors import NotCanonicalError
from asynccache.keys.canonical import canonical_json
from asynccache.keys.denied import (
    DENIED_MEMBERS,
    is_credential_header,
    is_denied_query,
    kept_headers,
    without_credentials,
)

_FORM: Final = "1"  # of what is stored: another form has other keys
_KNOWN: Final = ("autogen_ext.", "asynccache.")  # packages whose clients are told apart exactly
_CREDENTIALS: Final = frozenset({
    "access_token", "api_key", "apikey", "auth_token", "aws_access_key", "aws_secret_key",
    "aws_session_token", "azure_ad_token", "azure_ad_token_provider",
    "credential", "credentials", "password", "secret", "token",
})  # fmt: skip
"""Arguments that are never in a key, beside those named as a header of credentials is.

A `SecretStr` isn't either, whatever its name.
"""
_BESIDE: Final = _CREDENTIALS | DENIED_MEMBERS | {"max_retries", "timeout"}
"""No answer depends on these."""
_BILLED: Final = frozenset({"organization", "project"})  # OpenAI's: whom to bill
_ADDRESSES: Final = frozenset({"azure_endpoint", "base_url", "endpoint", "host"})
_NESTED: Final = frozenset({"bedrock_info"})  # holds arguments, as the whole does
_SENT: Final = ("api_key", "auth_token", "_azure_ad_token", "_custom_headers", "_custom_query")
"""What the SDKs' clients send with each request, some of it from the environment."""
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_SECRETS: Final = (SecretStr, SecretBytes)


class UnknownClientError(TypeError):
    """Nothing tells one client from another. It never leaves the integration."""


class Identity(Struct, frozen=True):
    """Which client is asked."""

    text: str
    """Its class, its arguments and its address, as keys have them."""
    model: object
    credentials: bytes
    """A digest of all it was made with, credentials too. Random where not all of it is known."""


class ClientIdentity:
    """Tells a client from others. It looks at each call anew, as arguments may be changed.

    Args:
        client: Any client.
        upstream: A name for what it asks. It takes the place of its address, and of arguments that
            have no form to make keys of.

    Raises:
        UnknownClientError: The client isn't one of autogen-ext's, and has no name.
        NotCanonicalError: One of its arguments has no form to make keys of.
    """

    __slots__ = ("_client", "_identity", "_seen", "_stranger", "_upstream")

    def __init__(self, client: ChatCompletionClient, upstream: str | None) -> None:
        self._client, self._upstream = client, upstream
        self._stranger = secrets.token_bytes(16)
        self._seen: bytes | None = None
        self._identity: Identity
        self.now()

    def now(self) -> Identity:
        """Return the client's identity as it is now; raises as the constructor does."""
        seen = _snapshot(self._client)
        if seen is None or seen != self._seen:
            facts = _facts(self._client, self._upstream)
            text = canonical_json({"form": _FORM, **facts}).decode()
            model = {**facts["arguments"], **facts.get("create", {})}.get("model", "")
            credentials = self._stranger if seen is None else sha256(seen).digest()
            self._identity, self._seen = Identity(text, model, credentials), seen
        return self._identity


def _snapshot(client: ChatCompletionClient) -> bytes | None:
    """Return all that identifies a client of plain arguments, as bytes; None for other clients."""
    made_of, http = _made_of(client), _http_client(client)
    if made_of is None:
        return None
    address = str(getattr(http, "base_url", None))
    sent = [getattr(http, name, None) for name in _SENT]
    try:
        # Version 2, as later ones tell one object that occurs twice from two that are equal.
        return marshal.dumps((made_of, address, sent), 2)
    except ValueError:  # an object of somebody's, which may change unseen
        return None


def _made_of(client: ChatCompletionClient) -> tuple[Any, Any, Any] | None:
    """Return what autogen-ext's clients keep of how they were made; None for others."""
    raw, create_args = getattr(client, "_raw_config", None), getattr(client, "_create_args", None)
    if isinstance(raw, Mapping) and isinstance(create_args, Mapping):
        return raw, create_args, getattr(client, "_model_info", None)
    return None


def _http_client(client: ChatCompletionClient) -> Any:  # noqa: ANN401 - an SDK's
    """Return the SDK's client of one of AutoGen's, or the HTTP client that stands on (Ollama's)."""
    sdk: Any = getattr(client, "_client", None)
    return sdk if hasattr(sdk, "base_url") else getattr(sdk, "_client", None)


def _facts(client: ChatCompletionClient, upstream: str | None) -> dict[str, Any]:
    """Return what tells a client from others, as far as answers go: plain data."""
    kind, inner = type(client), getattr(client, "client", None)
    name, known = f"{kind.__module__}.{kind.__qualname__}", kind.__module__.startswith(_KNOWN)
    if known and isinstance(inner, ChatCompletionClient):  # AutoGen's cache, or this one
        beneath = _facts(inner, upstream or getattr(client, "_upstream", None))
        return {**beneath, "class": f"{name} of {beneath['class']}"}
    if upstream is None and not known:
        raise UnknownClientError("it isn't one of autogen-ext's clients")
    named = upstream is not None
    facts: dict[str, Any] = {"class": name, "upstream": upstream}
    left_out = _BESIDE | _ADDRESSES if named else _BESIDE
    made_of = _made_of(client)
    if made_of is None:
        facts["arguments"] = _arguments(_config_of(client, named=named), left_out, lenient=named)
        return facts
    raw, create_args, model_info = made_of
    # Not the component config, which lacks what its model of a config doesn't name.
    facts["arguments"] = _arguments(raw, left_out | _BILLED, lenient=named)
    facts["create"] = _arguments(create_args, left_out | _BILLED, lenient=named)
    facts["model_info"] = plain(model_info)
    http = _http_client(client)
    if not named:
        facts["address"] = without_credentials(str(getattr(http, "base_url", None)))[0]
    facts["headers"] = _headers(getattr(http, "_custom_headers", None) or {})
    facts["query"] = _query(getattr(http, "_custom_query", None) or {})
    return facts


def _config_of(client: ChatCompletionClient, *, named: bool) -> dict[str, Any]:
    """Return a client's component config; for want of one, a name does."""
    try:
        return dict(client._to_config())  # noqa: SLF001 - AutoGen's documented hook has this name
    except Exception as exc:  # of somebody's class, which may raise anything
        if not named:
            raise UnknownClientError("it has no component config") from exc
        return {}


def _arguments(
    found: Mapping[Any, Any], left_out: frozenset[str], *, lenient: bool = False
) -> dict[str, Any]:
    """Return arguments as plain data, less credentials and what is to be left out.

    ``lenient`` leaves out what has no plain form, too.
    """
    kept: dict[str, Any] = {}
    for name, value in found.items():
        secret = isinstance(value, _SECRETS) or is_credential_header(str(name))
        if secret or name in left_out:
            continue
        try:
            if isinstance(value, Mapping) and name in _SENT_ALONG:
                if sent := _SENT_ALONG[name](value):
                    kept[name] = sent
            elif isinstance(value, Mapping) and name in _NESTED:
                kept[name] = _arguments(value, left_out)
            elif name in _ADDRESSES:
                kept[name] = without_credentials(str(value))[0]
            else:
                kept[str(name)] = plain(value)
        except NotCanonicalError:
            if not lenient:
                raise
    return kept


def _headers(found: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a dict
    return plain(dict(kept_headers(found.items())))


def _body(found: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a dict
    return plain({name: value for name, value in found.items() if name not in DENIED_MEMBERS})


def _query(found: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a dict
    return plain({name: value for name, value in found.items() if not is_denied_query(name)})


_SENT_ALONG: Final[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = {
    "default_headers": _headers, "extra_headers": _headers, "headers": _headers,
    "default_query": _query, "extra_query": _query,
    "extra_body": _body,
}  # fmt: skip
"""Arguments that hold credentials and traces among others, and how to leave these out."""


def request_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call to a client as plain data.

    Raises:
        NotCanonicalError: One of them has no plain form.
    """
    return {
        name: _arguments(value, _BESIDE) if name == "extra_create_args" else plain(value)
        for name, value in arguments.items()
    }


def plain(value: Any) -> Any:  # noqa: ANN401 - anything
    """Return any data as JSON would have it, less `SecretStr` in mappings.

    Raises:
        NotCanonicalError: There is no such form.
    """
    if type(value) in _SCALARS:  # nearly all
        return value
    if isinstance(value, BaseModel):
        value = dict(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        pairs = [
            (name if isinstance(name, str) else _json_key(name), plain(inner))
            for name, inner in value.items()
            if not isinstance(inner, _SECRETS)
        ]
        if len(kept := dict(pairs)) < len(pairs):
            raise NotCanonicalError("a mapping names the same key twice")
        return kept
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return _described(value)


def _described(value: Any) -> Any:  # noqa: ANN401 - as above
    """Return what stands for an object that isn't data itself."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, type) and issubclass(value, BaseModel):
        return _schema_of(value)
    if isinstance(value, Image):
        # A digest of the pixels, which take no encoding.
        pixels = f"{value.image.mode} {value.image.size} ".encode() + value.image.tobytes()
        return {"image": sha256(pixels).hexdigest()}
    if isinstance(value, Tool):
        return plain(value.schema)
    kind = type(value)
    raise NotCanonicalError(f"{kind.__module__}.{kind.__qualname__} has no form to make keys of")


def _json_key(name: object) -> str:
    """Return a key of a mapping as JSON has it."""
    try:
        return json.dumps(name)
    except TypeError as exc:
        kind = type(name).__qualname__
        raise NotCanonicalError(f"a mapping has a key of type {kind}, which JSON lacks") from exc


@functools.lru_cache(maxsize=256)
def _schema_of(model: type[BaseModel]) -> Any:  # noqa: ANN401 - any JSON
    """Return what a model sees of a class that it is to answer as: its name and JSON schema."""
    try:
        return {"class": model.__name__, "schema": model.model_json_schema()}
    except PydanticUserError as exc:
        raise NotCanonicalError(f"{model.__qualname__} has no JSON schema") from exc
