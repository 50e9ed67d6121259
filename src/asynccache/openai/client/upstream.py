"""Makes the SDK's own call, checks what leaves the client, and records the answer.

Every way in leads to the client's ``request`` in the end. A call that goes upstream for an entry,
or past the cache, leaves a check in a context variable. ``request`` finds it there, lets the call
pass, and shows it what is sent. Whatever stands in between (a patch on the SDK's class, an
override, another version of the SDK) can then cost an entry, but never make a wrong one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from asynccache.cache.facade import Answer, Fate, Flight, Judging
from asynccache.entries.entry import Kind, Meta
from asynccache.errors import NotCanonicalError
from asynccache.openai.client import sdk, sdk_responses
from asynccache.openai.client.attempts import Attempts
from asynccache.openai.client.call import KeyedCall, RawCall
from asynccache.providers.bodies import keyed_form
from asynccache.providers.facts import DONE, Facts, choices_of
from asynccache.providers.frames import EventReader, EventSplitter
from asynccache.providers.judging import judge_of
from asynccache.providers.secrets import repeats

T = TypeVar("T")

_KEPT_HEADERS: Final = (
    "x-request-id",
    "openai-model",
    "openai-organization",
    "openai-processing-ms",
    "openai-project",
    "openai-version",
    "apim-request-id",
    "azureml-model-session",
    "x-ms-deployment-name",
    "x-ms-rai-invoked",
    "x-ms-region",
)
"""What tells of the answer, and not of the moment and the account that it was sent to."""
_NO_REST: Final = frozenset({b"", b"data: " + DONE, b"data:" + DONE})
"""What may follow a stream's last event: a server's last line may lack its empty line."""
_DRAIN: Final = 1.0  # seconds to read on after the last event, so that the connection can be reused


_sending: Final[ContextVar[OutboundCheck | None]] = ContextVar("asynccache_sending", default=None)


class OutboundCheck:
    """One call of ours that goes upstream.

    Args:
        key: The request's; empty for none.
        matches: Tells whether the options of a request are what the key stands for; None for a
            call that has no key.
        single: Makes options of one attempt of a request's; None for the SDK's own retries.
    """

    __slots__ = ("_matches", "_single", "_strayed", "key", "same")

    def __init__(
        self,
        key: bytes = b"",
        matches: Callable[[Any], bool] | None = None,
        single: Callable[[Any], Any] | None = None,
    ) -> None:
        self.key: Final = key
        self.same = False
        """Whether the request of the key was really sent, and no other."""
        self._matches = matches
        self._single = single
        self._strayed = False

    def note(self, options: Any) -> Any:
        """Look at a request that is being sent, and return the options that it is sent with."""
        # Once something else was sent, nobody knows which of the answers came back.
        if self._matches is not None and not self._strayed:
            self.same = self._matches(options)
            self._strayed = not self.same
        return options if self._single is None else self._single(options)

    async def over(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await a call whose requests are let pass."""
        before = _sending.get()
        _sending.set(self)
        try:
            return await call()
        finally:
            _sending.set(before)
            # A connection that was opened meanwhile keeps the context it was opened in, and us.
            self._matches = self._single = None


PAST: Final = OutboundCheck()
"""A call that goes past the cache."""


def current_sending() -> OutboundCheck | None:
    """Return the call of ours that the caller is beneath, if it is."""
    return _sending.get()


def is_beneath(key: bytes) -> bool:
    """Tell whether the caller is beneath a call of ours for the same, which waits for it."""
    sending = _sending.get()
    return sending is not None and sending.key == key


def check_of(client: Any, call: KeyedCall, canonical: bytes, attempts: Attempts) -> OutboundCheck:
    """Return what checks that the request sent for a call is the one that its key stands for.

    Args:
        client: The SDK's.
        call: The call.
        canonical: What of the body that is to be sent is in keys: see `keyed_form`.
        attempts: Of which this is one.
    """

    def matches(options: Any) -> bool:
        path, query = sdk.request_place(client, options.url)
        if query is None or path != call.endpoint.path or options.method.lower() != "post":
            return False
        scope = call.scope
        settings = scope.cache.settings
        try:
            headers = dict(sdk.headers_in(options) or {})
            headers.pop(sdk.RAW_HEADER, None)  # ours
            data, sent = sdk.body_in(options)
            if sent != canonical:  # nearly every body is its own keyed form
                sent, _ = keyed_form(
                    data,
                    sent,
                    ignore=settings.ignore,
                    normalize=settings.normalize,
                )
            if sent != canonical:
                return False
            query.update(options.params)
            prefix = call.address.prefix(scope.namespace, headers, query)
        except NotCanonicalError:
            return False
        # Two prefixes may stand for one request, as its headers may have come by another way.
        return prefix is call.prefix or prefix.key(b"") == call.prefix.key(b"")

    return OutboundCheck(call.key, matches, attempts.single)


class UpstreamCall:
    """Makes one call and records its answer.

    Args:
        call: The call.
        make: Makes it.
        check: Looks at what is sent.
    """

    __slots__ = ("_call", "_check", "_choices", "_judge", "_make")

    def __init__(self, call: KeyedCall, make: RawCall, check: OutboundCheck) -> None:
        self._call = call
        self._make = make
        self._check = check
        self._choices = choices_of(call.data)  # now, as its caller may change it
        self._judge = judge_of(call.endpoint.path, call.data)  # likewise

    def judge(self, answer: Answer) -> Judging | None:
        """Return what tells whether an answer is usable; None where there is nothing to judge."""
        if self._judge is None:
            return None
        return self._judge.work(answer.chunks, streamed=answer.meta.kind == "sse")

    async def plain(self, flight: Flight) -> Answer:
        """Make a call whose answer is one JSON body."""
        response = (await self._check.over(self._make)).http_response
        body: bytes = response.content
        facts = self._call.endpoint.facts()
        facts.read(body)
        flight.add(body)
        received = self._received(response)
        return self._answer(facts, response, "json", (body,), received, complete=facts.complete)

    async def streamed(self, flight: Flight) -> Answer:
        """Make a call whose answer is a stream of server-sent events."""
        raw = await self._check.over(self._make)
        response = sdk_responses.http_of(raw)
        facts = self._call.endpoint.facts()
        pieces = response.aiter_bytes()
        if not self._check.same:
            flight.worsen(Fate.PRIVATE)
        received = self._received(response)
        flight.start_body(meta_of(facts, response, "sse"), received)
        try:
            left = await _record(flight, facts, pieces)
            chunks = tuple(flight.chunks)
            whole = facts.closed or (left in _NO_REST and facts.is_finished(self._choices))
            complete = whole and facts.complete
            return self._answer(facts, response, "sse", chunks, received, complete=complete)
        except Exception as exc:
            error = sdk.as_sdk_error(exc, response.request)
            if error is exc:
                raise
            raise error from exc
        finally:
            # In a task of its own, as this one may have been cancelled. No flight waits for it.
            unread = pieces if facts.closed else None
            self._call.scope.engine.spawn(_finish(raw, response, unread))

    def _received(self, response: Any) -> sdk_responses.Received:
        return sdk_responses.received(response, self._call.form.raw)

    def _answer(
        self,
        facts: Facts,
        response: Any,
        kind: Kind,
        chunks: tuple[bytes, ...],
        received: sdk_responses.Received,
        *,
        complete: bool,
    ) -> Answer:
        secrets = self._call.secrets
        return Answer(
            meta=meta_of(facts, response, kind),
            chunks=chunks,
            error=facts.error,
            filtered=facts.filtered,
            complete=complete,
            private=bool(secrets) and repeats(b"".join(chunks), secrets),
            received=received,
        )


async def _record(flight: Flight, facts: Facts, pieces: Any) -> bytes:
    """Hand a stream's events over as they come; return what came after the last whole one."""
    splitter, reader = EventSplitter(), EventReader()
    async for piece in pieces:
        for event in splitter.feed(piece):
            _read(facts, reader, event)
            flight.add(event)
            if facts.closed:
                return b""
    rest = splitter.rest()
    if rest:  # no event, but what came came
        flight.add(rest)
    return rest.strip()


def _read(facts: Facts, reader: EventReader, event: bytes) -> None:
    try:
        found = reader.read(event)
    except UnicodeDecodeError:
        facts.error = True  # who reads the stream will see it
        return
    for data in found:
        facts.read_event(data)
        if facts.closed:
            return


def meta_of(facts: Facts, response: Any, kind: Kind) -> Meta:
    """Return what is kept of a response beside its body."""
    headers = response.headers
    return Meta(
        kind,
        status=response.status_code,
        content_type=headers.get("content-type", ""),
        headers=tuple((name, headers[name]) for name in _KEPT_HEADERS if name in headers),
        model=facts.model,
        input_tokens=facts.input_tokens,
        output_tokens=facts.output_tokens,
        cut=facts.cut,
    )


async def _finish(raw: Any, response: Any, rest: Any) -> None:
    """Close a response; after its end read what is left, so that the connection lives on."""
    # The answer is whole or given up: nothing that happens here can matter to anybody.
    with suppress(Exception):
        try:
            if rest is not None:
                async with asyncio.timeout(_DRAIN):
                    async for _ in rest:
                        pass
        finally:
            if sdk_responses.is_opened(raw):
                async with raw:  # whoever made a stream of it waits for its end
                    pass
            await response.aclose()
