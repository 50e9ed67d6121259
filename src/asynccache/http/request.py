"""What a request on the wire asks for: whose operation it is, and its key."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final, cast
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from asynccache.cache.facade import Scope
from asynccache.keys.canonical import canonical_json, json_of
from asynccache.keys.denied import is_credential_header, is_denied_query
from asynccache.keys.key import Namespace, Prefix
from asynccache.providers import table
from asynccache.providers.bodies import is_keyed_form, keyed_form
from asynccache.providers.table import Match
from asynccache.runtime.bounded import BoundedDict

_METHOD: Final = "POST"
_VARYING: Final = frozenset({
    b"content-length", b"idempotency-key", b"traceparent", b"x-stainless-retry-count",
})  # fmt: skip
"""Headers that differ from call to call. None is in a key."""
_SOURCES: Final = 256  # clients and models in use, as headers and paths tell them apart
_PREFIXES: Final = 64  # tenants and queries of each
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
    """Those that `steady` gives."""
    body: bytes | None
    """None for one that isn't there in one piece."""


def steady(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """Return the headers less those that differ from call to call, and are in no key."""
    return tuple([pair for pair in headers if pair[0].lower() not in _VARYING])


class Source(Struct, frozen=True, eq=False):
    """What all requests have in common that are alike but for query and body."""

    match: Match
    headers: dict[str, str]
    """By names in lower case; the values of a name that is given twice are joined."""
    prefixes: BoundedDict[tuple[Namespace, str, str, str, frozenset[str]], tuple[Prefix, bytes]]
    """By namespace, address, query, user-info, and headers to ignore."""


class Question(Struct, frozen=True, gc=False):
    """A request that is a provider's, whose answer may be cached."""

    wire: WireRequest
    source: Source
    data: dict[str, Any]
    """The body."""
    exact: bool
    """Whether the body has been found to name each member once."""

    @property
    def match(self) -> Match:
        """What the request's address says of it."""
        return self.source.match

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
    source = _source(wire.host, wire.path, wire.headers, table.version())
    if source is None:
        return None
    try:
        data = _DECODE(wire.body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    body = cast("dict[str, Any]", data)
    if not source.match.operation.required.issubset(body):
        return None
    # What is written again as it was named each member once, and no number was rounded.
    return Question(wire, source, body, _ENCODE(body) == wire.body)


@functools.lru_cache(maxsize=_SOURCES)
def _source(host: str, path: str, headers: RawHeaders, _version: int) -> Source | None:
    named: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.lower().decode("latin-1"), raw_value.decode("latin-1")
        named[name] = f"{named[name]}, {value}" if name in named else value
    match = table.find(host, path, named)
    return None if match is None else Source(match, named, BoundedDict(_PREFIXES))


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
    canonical = canonical_json(data)
    secrets: tuple[str, ...] = ()
    stateful = match.operation.stateful
    if (
        settings.ignore
        or settings.normalize is not None
        or not is_keyed_form(data, canonical, stateful)
    ):
        canonical, secrets = keyed_form(
            data,
            canonical,
            stateful=stateful,
            ignore=settings.ignore,
            normalize=settings.normalize,
        )
    before, deployment = match.before, match.deployment
    if deployment and deployment.rpartition("/")[2] != data.get("model"):
        before += deployment
    address = upstream or f"{wire.scheme}://{wire.host}{before}"
    known = (scope.namespace, address, wire.query, wire.user_info, settings.ignore_headers)
    found = question.source.prefixes.get(known)
    if found is None:
        found = question.source.prefixes[known] = _prefix(question.source, *known)
    prefix, credentials = found
    normalize = settings.normalize
    marked = canonical if normalize is None else normalize.mark + canonical
    key, sample = prefix.key(marked), 0
    if scope.options.samples is not None or scope.options.sample:
        sample = scope.sample(key)
        key = prefix.key(marked, sample)
    return HttpCall(
        question, scope, prefix, key, sample, canonical, secrets, credentials, question.streaming
    )


def _prefix(
    source: Source,
    namespace: Namespace,
    upstream: str,
    query: str,
    user_info: str,
    ignore_headers: frozenset[str],
) -> tuple[Prefix, bytes]:
    """Return the hashed part of a request that stands before its body, and whose request it is."""
    asked: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        asked.setdefault(name, []).append(value)
    prefix = Prefix(
        namespace,
        method=_METHOD,
        upstream=upstream,
        path=source.match.path,
        query={name: given[0] if len(given) == 1 else given for name, given in asked.items()},
        headers=source.headers,
        ignore_headers=ignore_headers,
    )
    whose = (
        user_info,
        sorted(pair for pair in source.headers.items() if is_credential_header(pair[0])),
        sorted((name, given) for name, given in asked.items() if is_denied_query(name)),
    )
    return prefix, sha256(repr(whose).encode("utf-8", "replace")).digest()
