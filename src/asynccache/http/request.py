"""What a request on the wire asks for: whose operation it is, and its key."""

from __future__ import annotations

import functools
from hashlib import sha256
from typing import Any, Final, cast
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from asynccache.cache.facade import Scope
from asynccache.keys.canonical import canonical_json, json_of
from asynccache.keys.denied import is_credential_header, is_denied_query
from asynccache.keys.key import Namespace, Prefix
from asynccache.providers.bodies import keyed_form
from asynccache.providers.table import Match, find

_METHOD: Final = "POST"
_VARYING: Final = frozenset({
    b"content-length", b"idempotency-key", b"traceparent", b"x-stainless-retry-count",
})  # fmt: skip
"""Headers that differ from call to call. None is in a key, so that a prefix is good for all."""
_DECODE: Final = msgspec.json.Decoder().decode
_ENCODE: Final = msgspec.json.Encoder().encode

RawHeaders = tuple[tuple[bytes, bytes], ...]


class WireRequest(Struct, frozen=True, kw_only=True, gc=False):
    """A request as an HTTP library is about to send it."""

    method: str
    """In capitals."""
    scheme: str
    host: str
    """With its port, if the URL names it."""
    path: str
    """As it is sent."""
    query: str
    user_info: str
    headers: RawHeaders
    body: bytes | None
    """None for one that isn't there in one piece."""


class Question(Struct, frozen=True, gc=False):
    """A request that is a provider's, whose answer may be cached."""

    wire: WireRequest
    match: Match
    data: dict[str, Any]
    """The body."""
    exact: bool
    """Whether the body has been found to name each member once."""

    @property
    def path(self) -> str:
        """The endpoint's path, for people to read."""
        return self.match.path

    @property
    def streaming(self) -> bool:
        """Whether a stream is asked for."""
        return self.match.operation.streams(self.data, self.match.path)

    @property
    def model(self) -> object:
        """The model, wherever it is named."""
        return self.match.model or self.data.get("model")


def question_of(wire: WireRequest) -> Question | None:
    """Return what a request asks a provider for; None for one that is none of ours."""
    if wire.method != _METHOD or not wire.body:
        return None
    named = {
        name.lower().decode("latin-1"): value.decode("latin-1") for name, value in wire.headers
    }
    match = find(wire.host, wire.path, named)
    if match is None:
        return None
    try:
        data = _DECODE(wire.body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    body = cast("dict[str, Any]", data)
    if not match.operation.required.issubset(body):
        return None
    # What is written again as it was named each member once, and no number was rounded.
    return Question(wire, match, body, _ENCODE(body) == wire.body)


class HttpCall(Struct, frozen=True, gc=False):
    """One request on its way to an answer."""

    question: Question
    scope: Scope
    prefix: Prefix
    key: bytes
    sample: int
    canonical: bytes
    """The body's part of the key: see `keyed_form`."""
    secrets: tuple[str, ...]
    """What was left out of that as secret."""
    credentials: bytes
    """A digest of whose call it is; kept in memory only."""
    streaming: bool

    def paths(self) -> dict[str, int]:
        """Return a digest of each part of the request, by its path."""
        return self.prefix.paths(self.canonical)

    @property
    def about(self) -> str:
        """What is asked for, to be read in an error: no more of the address than the host."""
        question = self.question
        how = ", streamed" if self.streaming else ""
        which = f", sample {self.sample}" if self.sample else ""
        return f"{question.path} at {question.wire.host}, model {question.model!r}{how}{which}"


def keyed(question: Question, scope: Scope, upstream: str | None) -> HttpCall:
    """Return a request with its key.

    Args:
        question: The request.
        scope: Which cache and which options are in force.
        upstream: A name that takes the address's place.

    Raises:
        NotCanonicalError: It has no key, or its answer depends on state at the server.
    """
    wire, match, settings = question.wire, question.match, scope.cache.settings
    data = question.data if question.exact else cast("dict[str, Any]", json_of(wire.body or b""))
    canonical, secrets = keyed_form(
        data,
        canonical_json(data),
        stateful=match.operation.stateful,
        ignore=settings.ignore,
        normalize=settings.normalize,
    )
    before, deployment = match.before, match.deployment
    if deployment and deployment.rpartition("/")[2] != data.get("model"):
        before += deployment
    headers = tuple([pair for pair in wire.headers if pair[0].lower() not in _VARYING])
    address = upstream or f"{wire.scheme}://{wire.host}{before}"
    prefix, credentials = _prefix(
        scope.namespace, address, match.path, wire.query, wire.user_info, headers,
        settings.ignore_headers,
    )  # fmt: skip
    normalize = settings.normalize
    marked = canonical if normalize is None else normalize.mark + canonical
    key, sample = prefix.key(marked), 0
    if scope.options.samples is not None or scope.options.sample:
        sample = scope.sample(key)
        key = prefix.key(marked, sample)
    return HttpCall(
        question, scope, prefix, key, sample, canonical, secrets, credentials, question.streaming
    )


@functools.lru_cache(maxsize=256)
def _prefix(
    namespace: Namespace,
    upstream: str,
    path: str,
    query: str,
    user_info: str,
    headers: RawHeaders,
    ignore_headers: frozenset[str],
) -> tuple[Prefix, bytes]:
    """Return the hashed part of a request that stands before its body, and whose request it is."""
    asked: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        asked.setdefault(name, []).append(value)
    named = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    combined: dict[str, str] = {}
    for name, value in named:
        lowered = name.lower()
        combined[lowered] = f"{combined[lowered]}, {value}" if lowered in combined else value
    prefix = Prefix(
        namespace,
        method=_METHOD,
        upstream=upstream,
        path=path,
        query={name: given[0] if len(given) == 1 else given for name, given in asked.items()},
        headers=combined,
        ignore_headers=ignore_headers,
    )
    whose = (
        user_info,
        sorted(pair for pair in combined.items() if is_credential_header(pair[0])),
        sorted((name, given) for name, given in asked.items() if is_denied_query(name)),
    )
    return prefix, sha256(repr(whose).encode("utf-8", "replace")).digest()
