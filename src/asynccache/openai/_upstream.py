"""Makes the SDK's own call and records it: a body as it came, or a stream event by event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from asynccache._call import Answer
from asynccache._entry import Meta
from asynccache._flight import Flight
from asynccache.openai import _sdk
from asynccache.openai._facts import Facts
from asynccache.openai._sse import EventSplitter, event_data

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
_DONE: Final = b"[DONE]"
_DRAIN: Final = 1.0  # seconds to read on after the last event, so that the connection can be reused


def plain(call: RawCall) -> Callable[[Flight], Awaitable[Answer]]:
    """Return what makes a call whose answer is one JSON body."""

    async def upstream(flight: Flight) -> Answer:
        response = (await call()).http_response
        body: bytes = response.content
        facts = Facts()
        facts.read(body)
        flight.add(body)
        return _answer(facts, response, "json", (body,), complete=True)

    return upstream


def streamed(call: RawCall, spawn: Spawn) -> Callable[[Flight], Awaitable[Answer]]:
    """Return what makes a call whose answer is a stream of server-sent events.

    ``spawn`` starts the task that reads on after the last event: the flight doesn't wait for it.
    """

    async def upstream(flight: Flight) -> Answer:
        response = (await call()).http_response
        facts = Facts()
        splitter = EventSplitter()
        pieces = response.aiter_bytes()
        flight.start_body(_meta(facts, response, "sse"))
        try:
            async for piece in pieces:
                for event in splitter.feed(piece):
                    _read(facts, event)
                    flight.add(event)
                    if facts.terminated:
                        spawn(_drain(response, pieces))
                        return _answer(facts, response, "sse", tuple(flight.chunks), complete=True)
        except asyncio.CancelledError:
            spawn(response.aclose())
            raise
        except Exception as exc:
            spawn(response.aclose())
            raise _sdk.as_sdk_error(exc, response.request) from exc
        spawn(response.aclose())
        if rest := splitter.rest():  # the SDK reads an event that lacks only its empty line
            _read(facts, rest)
            flight.add(rest)
        return _answer(
            facts, response, "sse", tuple(flight.chunks), complete=facts.terminated
        )

    return upstream


def _read(facts: Facts, event: bytes) -> None:
    data = event_data(event)
    if data is None:
        return
    if data.startswith(_DONE):
        facts.terminated = True
    else:
        facts.read(data)


def _answer(
    facts: Facts, response: Any, kind: Any, chunks: tuple[bytes, ...], *, complete: bool  # noqa: ANN401 - httpx's or httpx2's
) -> Answer:
    return Answer(
        meta=_meta(facts, response, kind),
        chunks=chunks,
        error=facts.error,
        filtered=facts.filtered,
        complete=complete,
    )


def _meta(facts: Facts, response: Any, kind: Any) -> Meta:  # noqa: ANN401 - httpx's or httpx2's
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


async def _drain(response: Any, pieces: Any) -> None:  # noqa: ANN401 - httpx's or httpx2's
    try:
        async with asyncio.timeout(_DRAIN):
            async for _ in pieces:
                pass
    except Exception:  # noqa: BLE001, S110 - the answer is whole: what follows it can't matter
        pass
    finally:
        await response.aclose()
