"""Makes the SDK's own call, checks what leaves the client, and records the answer.

Every way in leads to the client's ``request`` in the end. A call that goes upstream for an entry,
or past the cache, leaves a check in a context variable. ``request`` finds it there, lets the call
pass, and shows it what is sent. Whatever stands in between (a patch on the SDK's class, an
override, another version of the SDK) can then cost an entry, but never make a wrong one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from asynccache.cache.facade import Answer, Fate, Flight, Judging
from asynccache.entries.entry import Kind, Meta
from asynccache.errors import NotCanonicalError
from asynccache.openai.client import sdk, sdk_responses
from asynccache.openai.client.attempts import Attempts
from asynccache.openai.client.call import KeyedCall, RawCall
from asynccache.providers import answers
from asynccache.providers.bodies import keyed_form
from asynccache.providers.facts import Facts
from asynccache.providers.openai import KEPT_HEADERS
from asynccache.providers.recording import StreamRecorder
from asynccache.providers.secrets import repeats
from asynccache.providers.sending import Sending
from asynccache.runtime.draining import drained

T = TypeVar("T")


class OutboundCheck(Sending):
    """One call of ours that goes upstream.

    Args:
        key: The request's.
        matches: Tells whether the options of a request are what the key stands for.
        single: Makes options of one attempt of a request's.
    """

    __slots__ = ("_matches", "_single", "_strayed", "same")

    def __init__(
        self, key: bytes, matches: Callable[[Any], bool], single: Callable[[Any], Any]
    ) -> None:
        super().__init__(key)
        self.same = False
        """Whether the request of the key was really sent, and no other."""
        self._matches: Callable[[Any], bool] | None = matches
        self._single: Callable[[Any], Any] | None = single
        self._strayed = False

    def note(self, options: Any) -> Any:
        # Once something else was sent, nobody knows which of the answers came back.
        if self._matches is not None and not self._strayed:
            self.same = self._matches(options)
            self._strayed = not self.same
        return options if self._single is None else self._single(options)

    async def over(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await super().over(call)
        finally:
            # A connection that was opened meanwhile keeps the context it was opened in, and us.
            self._matches = self._single = None


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
                    operation=call.endpoint.operation,
                    ignore=settings.ignore,
                    normalize=settings.normalize,
                )
            if sent != canonical:
                return False
            query.update(options.params)
            prefix = call.address.prefix(scope.namespace, headers, query, data.get("model"))
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
        operation = call.endpoint.operation
        self._choices = operation.choices(call.data)  # now, as its caller may change it
        self._judge = operation.judge and operation.judge(call.data)  # likewise

    def judge(self, answer: Answer) -> Judging | None:
        """Return what tells whether an answer is usable; None where there is nothing to judge."""
        if self._judge is None:
            return None
        return self._judge.work(answer.chunks, streamed=answer.meta.kind == "sse")

    async def plain(self, flight: Flight) -> Answer:
        """Make a call whose answer is one JSON body."""
        response = (await self._check.over(self._make)).http_response
        body: bytes = response.content
        facts = self._call.endpoint.operation.read(body)
        flight.add(body)
        received = self._received(response)
        return self._answer(facts, response, "json", (body,), received, complete=facts.complete)

    async def streamed(self, flight: Flight) -> Answer:
        """Make a call whose answer is a stream of server-sent events."""
        raw = await self._check.over(self._make)
        response = sdk_responses.http_of(raw)
        facts = self._call.endpoint.operation.facts()
        pieces = response.aiter_bytes()
        if not self._check.same:
            flight.worsen(Fate.PRIVATE)
        received = self._received(response)
        flight.start_body(meta_of(facts, response, "sse"), received)
        try:
            engine = self._call.scope.engine
            recorder = StreamRecorder(
                flight, facts, "sse", self._choices, lambda: engine.give_up(flight)
            )
            complete = await recorder.record(pieces)
            chunks = tuple(flight.chunks)
            return self._answer(facts, response, "sse", chunks, received, complete=complete)
        finally:
            # In a task of its own, as this one may have been cancelled. No flight waits for it.
            unread = pieces if facts.closed else None
            self._call.scope.engine.spawn(_finish(raw, response, unread))

    def _received(self, response: Any) -> answers.Received:
        return sdk_responses.received(response, self._call.form.raw)

    def _answer(
        self,
        facts: Facts,
        response: Any,
        kind: Kind,
        chunks: tuple[bytes, ...],
        received: answers.Received,
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


def meta_of(facts: Facts, response: Any, kind: Kind) -> Meta:
    """Return what is kept of a response beside its body."""
    kept = KEPT_HEADERS
    return answers.meta_of(facts, response.status_code, response.headers, kind, kept)


async def _finish(raw: Any, response: Any, rest: Any) -> None:
    """Close a response; after its end read what is left, so that the connection lives on."""
    # The answer is whole or given up: nothing that happens here can matter to anybody.
    with suppress(Exception):
        try:
            if rest is not None:
                await drained(rest)
        finally:
            if sdk_responses.is_opened(raw):
                async with raw:  # whoever made a stream of it waits for its end
                    pass
            await response.aclose()
