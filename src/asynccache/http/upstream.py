"""What the code of an HTTP library does for a request, and how its answer is recorded."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from asynccache.cache.facade import Answer, ChunkSource, Flight, Judging, ServerAnswer, Status
from asynccache.entries.entry import Kind, Meta
from asynccache.http.request import HttpCall
from asynccache.providers.answers import Received, meta_of
from asynccache.providers.facts import Facts
from asynccache.providers.recording import StreamRecorder, framing_of
from asynccache.providers.refusal import RefusedError
from asynccache.providers.secrets import repeats
from asynccache.providers.sending import Sending
from asynccache.runtime.draining import drained

R_co = TypeVar("R_co", covariant=True)

_GOOD: Final = range(200, 300)


class WireAnswer(Struct, frozen=True):
    """A response as an HTTP library got it, its body still to be read."""

    status: int
    headers: Mapping[str, str]
    """By names that are found without regard to case."""
    received: Received
    pieces: AsyncIterable[bytes]
    """Of the body, decoded."""
    aclose: Any
    """Closes the response; to be awaited."""


class ResponseHead(Struct, frozen=True):
    """What a response has beside its body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    extensions: Mapping[str, Any]
    status_of: Status | None = None
    """Where it came from; None for an error."""


class LibraryRequest(Protocol[R_co]):
    """One request of one HTTP library: what its own code has to do for it."""

    @property
    def patience(self) -> float:
        """Seconds that the caller would wait for the response, or for the next piece of it."""
        ...

    def past(self) -> Awaitable[R_co]:
        """Send the request as it came."""
        ...

    def send(self, body: bytes | None) -> Awaitable[WireAnswer]:
        """Send the request for an entry: with another body, or None for its own."""
        ...

    def response(self, head: ResponseHead, body: bytes | ChunkSource) -> R_co:
        """Return a response of the library's."""
        ...

    def timed_out(self) -> Exception:
        """Return the library's error for a caller who waited as long as it would."""
        ...

    def own_error(self, error: Exception) -> Exception:
        """Return the library's error for what ended a call; one that is no library's as it is."""
        ...


class Upstream:
    """Sends one request and records its answer."""

    __slots__ = ("_call", "_choices", "_judge", "_request")

    def __init__(self, request: LibraryRequest[Any], call: HttpCall) -> None:
        operation, data = call.question.match.operation, call.question.data
        self._request = request
        self._call = call
        self._choices = operation.choices(data)
        self._judge = None if operation.judge is None else operation.judge(data)

    def judge(self, answer: Answer) -> Judging | None:
        """Return what tells whether an answer is usable; None where there is nothing to judge."""
        if self._judge is None:
            return None
        return self._judge.work(answer.chunks, streamed=answer.meta.kind != "json")

    async def plain(self, flight: Flight) -> Answer:
        """Send a request whose answer is one JSON body."""
        response = await self._sent()
        body = await _whole(response)
        operation = self._call.question.match.operation
        facts = operation.read(body)
        flight.add(body)
        return self._answer(facts, response, "json", (body,), complete=facts.complete)

    async def part(self, body: bytes | None) -> ServerAnswer:
        """Send a request with another body, None for its own, and return its one JSON answer."""
        response = await self._sent(body)
        content = await _whole(response)
        facts = self._call.question.match.operation.facts()
        facts.read(content)
        meta = self._meta(facts, response, "json")
        return ServerAnswer(content, meta, facts.error, response.received)

    async def streamed(self, flight: Flight) -> Answer:
        """Send a request whose answer is a stream."""
        response = await self._sent()
        call = self._call
        operation, engine = call.question.match.operation, call.scope.engine
        facts = operation.facts()
        kind = operation.streamed
        framed = framing_of(response.headers.get("content-type", ""), kind)
        recorder = StreamRecorder(
            flight, facts, framed, self._choices, lambda: engine.give_up(flight),
            longest=flight.limit,
        )  # fmt: skip
        meta = self._meta(facts, response, kind)
        pieces = aiter(response.pieces)
        try:
            flight.start_body(meta, response.received)
            complete = await recorder.record(pieces)
            return self._answer(facts, response, kind, tuple(flight.chunks), complete=complete)
        finally:
            # In a task of its own, as this one may have been cancelled. No flight waits for it.
            engine.spawn(_finish(response, pieces if facts.closed else None))

    async def _sent(self, body: bytes | None = None) -> WireAnswer:
        """Send the request, maybe with another body.

        Raises:
            RefusedError: The answer isn't 2xx.
        """
        response = await Sending(self._call.key).over(lambda: self._request.send(body))
        if response.status not in _GOOD:
            raise RefusedError(response.status, response.received, await _whole(response))
        return response

    def _meta(self, facts: Facts, response: WireAnswer, kind: Kind) -> Meta:
        """Return what is kept of a response beside its body."""
        kept, model = self._call.question.match.provider.kept_headers, self._call.question.model
        meta = meta_of(facts, response.status, response.headers, kind, kept)
        return replace(meta, model=model) if not meta.model and isinstance(model, str) else meta

    def _answer(
        self,
        facts: Facts,
        response: WireAnswer,
        kind: Kind,
        chunks: tuple[bytes, ...],
        *,
        complete: bool,
    ) -> Answer:
        call = self._call
        secrets = call.secrets
        return Answer(
            meta=self._meta(facts, response, kind),
            chunks=chunks,
            error=facts.error,
            filtered=facts.filtered,
            complete=complete,
            private=bool(secrets) and repeats(b"".join(chunks), secrets),
            received=response.received,
        )


async def _whole(response: WireAnswer) -> bytes:
    """Read the whole body of a response, and close it."""
    try:
        return b"".join([piece async for piece in response.pieces])
    finally:
        await response.aclose()


async def _finish(response: WireAnswer, rest: AsyncIterable[bytes] | None) -> None:
    """Close a response; after its end read what is left, so that the connection lives on."""
    with suppress(Exception):  # the answer is whole or given up: this can't matter to anybody
        try:
            if rest is not None:
                await drained(rest)
        finally:
            await response.aclose()
