"""From the arguments of a call to the canonical form of the body that the SDK would send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from asynccache._canonical import canonical_json, json_of, without_paths
from asynccache._errors import NotCanonicalError
from asynccache.openai import _sdk

TRANSPORT: Final = frozenset({"extra_headers", "extra_query", "extra_body", "timeout"})
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder().decode


def canonical_body(
    arguments: dict[str, Any],
    params: Any,
    ignore: Sequence[tuple[str, ...]],
) -> bytes:
    """Return the canonical body, and leave in ``arguments`` only what can be read again.

    Args:
        arguments: Of the call, by name. What isn't plain data is replaced by its wire form, so that
            an iterator that this has read is still sent whole.
        params: The SDK's type of the arguments, for turning models and iterables into JSON.
        ignore: Paths to leave out.

    Raises:
        NotCanonicalError: The body has no canonical form.
        Exception: What an argument itself raises while it is read, as it would in the SDK.
    """
    body = {name: value for name, value in arguments.items() if name not in TRANSPORT}
    try:
        if extra := arguments.get("extra_body"):
            body = {**body, **extra}
        canonical = canonical_json(body)
    except (NotCanonicalError, TypeError):
        body = _wire_body(arguments, params)
        canonical = canonical_json(body)
    return canonical_json(without_paths(body, ignore)) if ignore else canonical


def _wire_body(arguments: dict[str, Any], params: Any) -> dict[str, Any]:
    """Return the body by the SDK's road: models, tuples, generators and the like become JSON."""
    given = {k: v for k, v in arguments.items() if k not in TRANSPORT and _sdk.is_given(v)}
    transformed = _sdk.transformed(given, params)
    arguments.update(transformed)  # whatever was an iterator is a list now
    body = _plain(transformed)
    arguments.update(body)
    if not (extra := arguments.get("extra_body")):
        return body
    if not hasattr(extra, "items"):
        raise NotCanonicalError("extra_body is no mapping")
    added = _plain({k: v for k, v in extra.items() if _sdk.is_given(v)})
    arguments["extra_body"] = added
    body |= added
    for name, value in extra.items():
        if _sdk.is_omit(value) and name in body:  # so much for that argument
            del body[name]
            arguments[name] = value
    return body


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    try:
        wire = _sdk.dumped(data)
    except Exception as exc:  # whatever user objects raise; the SDK's own call will say it better
        # Not the message, which may show a value.
        raise NotCanonicalError(f"an argument has no JSON form ({type(exc).__name__})") from exc
    found: dict[str, Any] = json_of(wire)
    return found


class Sent:
    """A copy of a call's arguments, taken when the key was made of them.

    The call goes upstream later, maybe after its caller has left and changed the messages: what is
    stored under a key must be the answer to just that request.

    Args:
        arguments: As `canonical_body` left them.
    """

    __slots__ = ("_arguments", "_body", "_extra", "_headers", "_query")

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._arguments = arguments
        self._body = _ENCODE(
            {k: v for k, v in arguments.items() if k not in TRANSPORT and _sdk.is_given(v)}
        )
        extra = arguments.get("extra_body")
        self._extra = _ENCODE(extra) if extra else None
        self._headers = dict(arguments.get("extra_headers") or {})
        query = arguments.get("extra_query")
        self._query = dict(query) if query else query

    def arguments(self) -> dict[str, Any]:
        """Return arguments that make the SDK return its raw response."""
        arguments = {**self._arguments, **_DECODE(self._body)}
        arguments["extra_headers"] = {**self._headers, _sdk.RAW_HEADER: "true"}
        if self._query:
            arguments["extra_query"] = self._query
        if self._extra is not None:
            arguments["extra_body"] = _DECODE(self._extra)
        return arguments
