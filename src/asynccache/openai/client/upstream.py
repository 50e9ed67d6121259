"""Makes the SDK's own call and records it: a body as it came, or a stream event by event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final

from asynccache.core.calls import Answer
from asynccache.core.flight import Fate, Flight
from asynccache.entries.entry import Kind, Meta
from asynccache.openai.client import sdk, sdk_responses
from asynccache.openai.client.sse import EventReader, EventSplitter
from asynccache.providers.facts import Facts
from asynccache.providers.secrets import repeats

Spawn = Callable[[Coroutine[Any, Any, None]], Any]
RawCall = Callable[[], Awaitable[Any]]
"""Makes the SDK's call and returns its raw response."""

_KEPT_HEADERS: Final = (
    "x-request-id",
    "openai-model",
    "openai-organization",
    "openai-processing-ms",
    "openai-version",
)
_DRAIN: Final = 1.0  # seconds to read on after the last event, so that the connection can be reused


class UpstreamCall:
    """How one kind of request is made and recorded.

    Args:
        call: Makes it.
        facts: Reads what the answer says of itself.
        secrets: Of the request: an answer that repeats one isn't stored.
        same: Tells whether what was sent is what the key stands for.
    """

    __slots__ = ("_call", "_facts", "_same", "_secrets")

    def __init__(
        self,
        call: RawCall,
        facts: type[Facts],
        secrets: Sequence[str],
        same: Callable[[], bool],
    ) -> None:
        self._call = call
        self._facts = facts
        self._secrets = secrets
        self._same = same

    async def plain(self, flight: Flight) -> Answer:
        """Make a call whose answer is one JSON body."""
        response = (await self._call()).http_response
        body: bytes = response.content
        facts = self._facts()
        facts.read(body)
        flight.add(body)
        return self._answer(facts, response, "json", (body,), complete=facts.complete)

    def streamed(self, spawn: Spawn) -> Callable[[Flight], Awaitable[Answer]]:
        """Return what makes a call whose answer is a stream of server-sent events.

        ``spawn`` starts the task that reads on after the last event: no flight waits for it.
        """

        async def upstream(flight: Flight) -> Answer:
            raw = await self._call()
            response = sdk_responses.http_of(raw)
            facts = self._facts()
            pieces = response.aiter_bytes()
            if not self._same():
                flight.worsen(Fate.PRIVATE)
            flight.start_body(meta_of(facts, response, "sse"))
            try:
                await _record(flight, facts, pieces)
                chunks = tuple(flight.chunks)
                complete = facts.closed and facts.complete
                return self._answer(facts, response, "sse", chunks, complete=complete)
            except Exception as exc:
                error = sdk.as_sdk_error(exc, response.request)
                if error is exc:
                    raise
                raise error from exc
            finally:
                # In a task of its own, as this one may have been cancelled.
                spawn(_finish(raw, response, pieces if facts.closed else None))

        return upstream

    def _answer(
        self,
        facts: Facts,
        response: Any,
        kind: Kind,
        chunks: tuple[bytes, ...],
        *,
        complete: bool,
    ) -> Answer:
        return Answer(
            meta=meta_of(facts, response, kind),
            chunks=chunks,
            error=facts.error,
            filtered=facts.filtered,
            complete=complete,
            private=bool(self._secrets) and repeats(b"".join(chunks), self._secrets),
        )


async def _record(flight: Flight, facts: Facts, pieces: Any) -> None:
    """Hand a stream's events over as they come, up to its end."""
    splitter, reader = EventSplitter(), EventReader()
    async for piece in pieces:
        for event in splitter.feed(piece):
            _read(facts, reader, event)
            flight.add(event)
            if facts.closed:
                return
    if rest := splitter.rest():  # no event, but what came came
        flight.add(rest)


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
