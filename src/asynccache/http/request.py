"""What a request on the wire asks for: whose operation it is, and its key."""

from __future__ import annotations

import functools
import json
from contextlib import suppress
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from asynccache.cache.facade import Scope
from asynccache.errors import NotCanonicalError
from asynccache.keys.canonical import canonical_json, json_of
from asynccache.keys.key import Prefix
from asynccache.providers import table
from asynccache.providers.bodies import keyed_form
from asynccache.providers.table import Match
from asynccache.providers.wire import (
    METHOD,
    RawHeaders,
    Where,
    WireRequest,
    address_of,
    at_host,
    combined,
    prefix_of,
)
from asynccache.runtime.bounded import BoundedDict

_SOURCES: Final = 256  # clients and models in use, as headers and paths tell them apart
_PREFIXES: Final = 64  # tenants and queries of each
_UNSIGNED: Final = frozenset({"", "bearer", "basic", "apikey", "api-key", "key", "token"})
"""Schemes of authorization that say nothing of the body."""
_EVENTS: Final = "text/event-stream"
_MODEL: Final = frozenset({"model"})
_DECODE: Final = msgspec.json.Decoder().decode
_ENCODE: Final = msgspec.json.Encoder().encode


class Source(Struct, frozen=True, eq=False):
    """What all requests have in common that are alike but for query and body."""

    match: Match
    headers: dict[str, str]
    """By names in lower case; the values of a name that is given twice are joined."""
    prefixes: BoundedDict[Where, tuple[Prefix, bytes]]
    """What `prefix_of` gave."""

    def __repr__(self) -> str:  # as `WireRequest` has it
        return f"Source({self.match.place!r})"


class Question(Struct, frozen=True, gc=False):
    """A request that is a provider's, whose answer may be cached."""

    wire: WireRequest
    source: Source
    data: dict[str, Any]
    """The body."""
    exact: bool
    """Whether the body has been found to name each member once."""

    def __repr__(self) -> str:  # as `WireRequest` has it
        return f"Question({self.wire!r})"

    @property
    def match(self) -> Match:
        """What the request's address says of it."""
        return self.source.match

    @property
    def path(self) -> str:
        """The endpoint's path, for people to read."""
        return self.match.place.path

    @property
    def streaming(self) -> bool:
        """Whether a stream is asked for."""
        return self.match.operation.streams(self.data, self.match.place.path)

    @property
    def is_signed(self) -> bool:
        """Whether its authorization may be a signature of this very body."""
        scheme = self.source.headers.get("authorization", "").partition(" ")[0].lower()
        return scheme not in _UNSIGNED

    @property
    def model(self) -> object:
        """The model, wherever it is named."""
        return self.match.place.model or self.data.get("model")


def question_of(wire: WireRequest) -> Question | None:
    """Return what a request asks a provider for; None for one that is none of ours."""
    if wire.method != METHOD or not wire.body:
        return None
    source = _source(wire.host, wire.path, wire.headers, table.version())
    if source is None:
        return None
    odd = False
    try:
        data = _DECODE(wire.body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        data, odd = _odd(wire.body), True
    if not isinstance(data, dict):
        return None
    body = cast("dict[str, Any]", data)
    match = source.match
    missing = match.operation.required.difference(body)
    # Azure's deployment says which model.
    if missing and not (match.place.deployment and missing == _MODEL):
        return None
    return Question(wire, source, body, not odd and _names_once(body, wire.body))


def _odd(body: bytes) -> object:
    """Return what a body says that isn't quite JSON, such as NaN: it is sent, and counted."""
    with suppress(ValueError, RecursionError):
        return json.loads(body)
    return None


def _names_once(data: dict[str, Any], body: bytes) -> bool:
    """Tell at a glance that a body names each member once, and that no number was rounded.

    Then it is written again as it was, but for spaces.
    """
    written = _ENCODE(data)
    return written == body or written == msgspec.json.format(body, indent=-1)


@functools.lru_cache(maxsize=_SOURCES)
def _source(host: str, path: str, headers: RawHeaders, _version: int) -> Source | None:
    named = combined(headers)
    match = table.find(host, path, named)
    return None if match is None else Source(match, named, BoundedDict(_PREFIXES))


class HttpCall(Struct, frozen=True, gc=False):
    """One request on its way to an answer."""

    question: Question
    scope: Scope
    data: dict[str, Any]
    """The body, exactly."""
    prefix: Prefix
    key: bytes
    sample: int
    first: bytes
    """The key of the first sample."""
    canonical: bytes
    """The body's part of the key: see `keyed_form`."""
    secrets: tuple[str, ...]
    """What was left out of that as secret."""
    credentials: bytes
    """A digest of whose call it is; kept in memory only."""
    streaming: bool

    def give_back(self) -> None:
        """Let the caller's next attempt have this one's sample, where a block counts them."""
        samples = self.scope.options.samples
        if samples is not None:
            samples.give_back(self.first, self.sample)

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

    def __repr__(self) -> str:  # as `WireRequest` has it
        return f"HttpCall({self.about})"


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
    streaming = question.streaming
    accepted = question.source.headers.get("accept", "")
    if streaming and (
        match.operation.stream_query not in wire.query
        or (match.operation.streamed == "lines" and _EVENTS in accepted)
    ):
        raise NotCanonicalError("its stream is framed in a way that isn't known")
    data = question.data if question.exact else cast("dict[str, Any]", json_of(wire.body or b""))
    canonical, secrets = keyed_form(
        data,
        canonical_json(data),
        operation=match.operation,
        ignore=settings.ignore,
        normalize=settings.normalize,
    )
    source, place = question.source, match.place
    address = address_of(wire, place, data.get("model"), upstream)
    if (named := source.headers.get("host", "")) != wire.host:
        address = at_host(address, named, wire)
    known = (scope.namespace, address, wire.query, wire.user_info, settings.ignore_headers)
    found = source.prefixes.get(known)
    if found is None:
        found = source.prefixes[known] = prefix_of(source.headers, place.path, known)
    prefix, credentials = found
    key, sample, first = scope.keyed(prefix, canonical)
    return HttpCall(
        question,
        scope,
        data,
        prefix,
        key,
        sample,
        first,
        canonical,
        secrets,
        credentials,
        streaming,
    )
