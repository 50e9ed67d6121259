"""From the arguments of a call, or the options of a request, to the canonical form of its body."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from asynccache.cache.settings import Settings
from asynccache.errors import NotCanonicalError
from asynccache.keys.canonical import canonical_json, json_of, without_paths
from asynccache.openai.client import sdk
from asynccache.providers.call_ids import may_hold_calls, with_renamed_calls
from asynccache.providers.secrets import may_hold_secrets, without_secrets

TRANSPORT: Final = frozenset({"extra_headers", "extra_query", "extra_body", "timeout"})
_STATEFUL: Final = frozenset({"background", "conversation"})  # parameters: each call is another
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder().decode


class RequestBody(Struct, frozen=True, gc=False):
    """The body of a request."""

    data: dict[str, Any]
    """As plain data, in the caller's order."""
    canonical: bytes
    """Its canonical form, less what is ignored and what is secret, ids renamed if they shall be."""
    secrets: tuple[str, ...] = ()


def body_of(data: dict[str, Any], canonical: bytes, settings: Settings) -> RequestBody:
    """Return a body in the form that keys are made of.

    Args:
        data: The body as plain data.
        canonical: Its canonical form.
        settings: Of the cache, which say what is left out of keys.

    Raises:
        NotCanonicalError: Its answer depends on state at the server.
    """
    if not _STATEFUL.isdisjoint(data) and any(data.get(name) for name in _STATEFUL):
        raise NotCanonicalError("it reads or changes state at the server")
    renamed = settings.rename_call_ids and may_hold_calls(canonical)
    if not settings.ignore and not renamed and not may_hold_secrets(canonical):
        return RequestBody(data, canonical)
    secrets: list[str] = []
    kept = without_paths(data, settings.ignore)
    shown = without_secrets(with_renamed_calls(kept) if renamed else kept, secrets)
    return RequestBody(data, canonical_json(shown), tuple(secrets))


def body_of_arguments(arguments: dict[str, Any], params: Any, settings: Settings) -> RequestBody:
    """Return the body of a call, and leave in ``arguments`` only what can be read again.

    Args:
        arguments: Of the call, by name. What isn't plain data is replaced by its wire form, so that
            an iterator that this has read is still sent whole.
        params: The SDK's type of the arguments, for turning models and iterables into JSON.
        settings: Of the cache, which say what is left out of keys.

    Raises:
        NotCanonicalError: The body has no canonical form.
        Exception: What an argument itself raises while it is read, as it would in the SDK.
    """
    data = {name: value for name, value in arguments.items() if name not in TRANSPORT}
    try:
        if extra := arguments.get("extra_body"):
            data = {**data, **extra}
        canonical = canonical_json(data)
    except (NotCanonicalError, TypeError):
        data = _wire_body(arguments, params)
        canonical = canonical_json(data)
    return body_of(data, canonical, settings)


def body_of_options(options: Any, settings: Settings) -> RequestBody:
    """Return the body of a request that is about to be sent.

    Raises:
        NotCanonicalError: It isn't a JSON object, or has no canonical form.
    """
    data: Any = options.json_data
    extra: Any = options.extra_json
    if options.content is not None or options.files or not isinstance(data, dict | None):
        raise NotCanonicalError("its body isn't a JSON object")
    merged: dict[str, Any] = {**(data or {}), **(extra or {})}
    try:
        canonical = canonical_json(merged)
    except (NotCanonicalError, TypeError):
        merged = _plain({k: v for k, v in merged.items() if not sdk.is_omit(v)})
        canonical = canonical_json(merged)
    return body_of(merged, canonical, settings)


def check_model(client: Any, body: Any, extra_body: object) -> None:
    """Look at what ``extra_body`` does to the model in the body proper.

    Raises:
        NotCanonicalError: The body doesn't tell where the request goes.
    """
    if extra_body and sdk.moves_with_model(client, body, extra_body):
        raise NotCanonicalError("its deployment is another than its body's model")


def _wire_body(arguments: dict[str, Any], params: Any) -> dict[str, Any]:
    """Return the body by the SDK's road: models, tuples, generators and the like become JSON."""
    given = {k: v for k, v in arguments.items() if k not in TRANSPORT and sdk.is_given(v)}
    transformed = sdk.transformed(given, params)
    arguments.update(transformed)  # whatever was an iterator is a list now
    body = _plain(transformed)
    arguments.update(body)
    if not (extra := arguments.get("extra_body")):
        return body
    if not hasattr(extra, "items"):
        raise NotCanonicalError("extra_body is no mapping")
    added = _plain({k: v for k, v in extra.items() if sdk.is_given(v)})
    arguments["extra_body"] = added
    body |= added
    for name, value in extra.items():
        if sdk.is_omit(value) and name in body:  # so much for that argument
            del body[name]
            arguments[name] = value
    return body


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    try:
        wire = sdk.dumped(data)
    except Exception as exc:  # whatever user objects raise; the SDK's own call will say it better
        # Not the message, which may show a value.
        raise NotCanonicalError(f"an argument has no JSON form ({type(exc).__name__})") from exc
    found: dict[str, Any] = json_of(wire)
    return found


def copied(body: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Return what makes copies of a body of plain data as it is now.

    The call goes upstream later, maybe after its caller has left and changed the messages: what is
    stored under a key must be the answer to just that request.
    """
    encoded = _ENCODE(body)

    def copy() -> dict[str, Any]:
        found: dict[str, Any] = _DECODE(encoded)
        return found

    return copy


class FrozenArguments:
    """A copy of a call's arguments, taken when the key was made of them; see `copied`.

    Args:
        arguments: As `body_of_arguments` left them.
        uncopied: Names of arguments that no JSON stands for, such as the class to parse into.
    """

    __slots__ = ("_arguments", "_body", "_extra", "_headers", "_query")

    def __init__(self, arguments: dict[str, Any], uncopied: Collection[str] = ()) -> None:
        self._arguments = arguments
        apart = TRANSPORT.union(uncopied) if uncopied else TRANSPORT
        self._body = copied(
            {k: v for k, v in arguments.items() if k not in apart and sdk.is_given(v)}
        )
        extra = arguments.get("extra_body")
        self._extra = copied(extra) if extra else None
        self._headers = dict(arguments.get("extra_headers") or {})
        query = arguments.get("extra_query")
        self._query = dict(query) if query else query

    def arguments(self) -> dict[str, Any]:
        """Return arguments that make the SDK return its raw response."""
        arguments = {**self._arguments, **self._body()}
        arguments["extra_headers"] = {**self._headers, sdk.RAW_HEADER: "true"}
        if self._query:
            arguments["extra_query"] = self._query
        if self._extra is not None:
            arguments["extra_body"] = self._extra()
        return arguments
