"""Hits at the HTTP client: what they add to it, and what SDKs and peers take for the same.

Hits through Anthropic's SDK are compared with the same SDK over a transport that hands over the
same bytes from memory, without socket or server, and with vcrpy and cassetter, which replay
cassettes that they have recorded from a local server through the same SDK. The share of a library
is what a hit takes by its own `post`, less the same `post` over such a transport, without an SDK:
the difference of the least of all rounds, as noise would count twice. Streams have 200 events. Then
2,000 ask one question at once, by each library, of a real server that counts.

All but the last is timed by the process's own clock, as nothing in it waits.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path
from time import process_time
from typing import Any

import _harness
import aiohttp
import cassetter
import httpx
import httpx2
import vcr
from _harness import Report, Timed, at_once, in_turn, run
from _upstream import (
    KEY,
    MESSAGE,
    MESSAGE_MODEL,
    MODEL,
    Server,
    empty_transport,
    in_memory_client,
    message_events,
    messages,
)
from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient

from asynccache import Cache
from asynccache.http.aiohttp_session import AiohttpRequest, Given
from asynccache.http.upstream import ResponseHead

ROUNDS, CALLS, EVENTS, STREAMS, AT_ONCE = 30, 200, 200, 10, 2000
LIBRARIES: tuple[Any, ...] = (httpx2, httpx)
URL = "https://api.anthropic.com/v1/messages"


def asked(number: int = 0) -> dict[str, Any]:
    system, user = messages(number)
    return {
        "model": MESSAGE_MODEL, "max_tokens": 99, "system": system["content"], "messages": [user],
    }  # fmt: skip


ASKED = asked()
HEADERS = {"x-api-key": KEY, "anthropic-version": "2026-10-21"}


def sdk(transport: Any = None, url: str | None = None) -> AsyncAnthropic:
    """Return a client of the SDK over a transport, its own for none."""
    http = DefaultAsyncHttpxClient(transport=transport)
    return AsyncAnthropic(api_key=KEY, base_url=url, http_client=http, max_retries=0)


def asks(client: AsyncAnthropic, number: int = 0) -> Callable[[], Awaitable[object]]:
    question = asked(number)
    return lambda: client.messages.create(**question)


def reads(client: AsyncAnthropic) -> Callable[[], Awaitable[list[Any]]]:
    async def read() -> list[Any]:
        stream = await client.messages.create(**ASKED, stream=True)
        return [event async for event in stream]

    return read


def posts(client: Any) -> Callable[[], Awaitable[object]]:
    return lambda: client.post(URL, json=ASKED, headers=HEADERS)


def reads_posts(session: aiohttp.ClientSession) -> Callable[[], Awaitable[object]]:
    async def post() -> bytes:
        async with session.post(URL, json=ASKED, headers=HEADERS) as response:
            return await response.read()

    return post


async def empty_middleware(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Answer without a socket, as an empty transport does."""
    made = AiohttpRequest(request, handler, Given(None, decoded=True))
    return made.response(ResponseHead(200, [(b"content-type", b"application/json")], {}), MESSAGE)


def repeated(call: Callable[[], Awaitable[object]], times: int) -> Timed:
    return _harness.repeated(call, times, process_time)


def in_thread(call: Callable[[], object], times: int) -> Timed:
    """Return what calls a function several times in a thread without a loop: seconds per call."""

    def calls() -> float:
        began = process_time()
        for _ in range(times):
            call()
        return (process_time() - began) / times

    return lambda: asyncio.to_thread(calls)


async def main(report: Report) -> None:
    rounds = 5 if report.small else ROUNDS
    await measure_hits(report, rounds)
    for questions in (1, 100):
        await measure_peers(report, max(3, rounds // 3), questions)
    await measure_streams(report, rounds)
    await measure_shares(report, rounds)
    await measure_crowds(report)


async def measure_hits(report: Report, rounds: int) -> None:
    """Measure hits through SDKs."""
    over = empty_transport(httpx2, lambda: [MESSAGE])
    empty = sdk(over)
    with tempfile.TemporaryDirectory() as folder:
        async with Cache.memory() as cache, Cache.disk(cache_path_root=folder) as disk:
            ours, stored = sdk(cache.transport(over)), sdk(disk.transport(over))
            typed = cache.wrap(in_memory_client())

            def ask_typed() -> Awaitable[object]:
                return typed.chat.completions.create(model=MODEL, messages=messages())

            answer = await asks(empty)()
            assert await asks(ours)() == await asks(ours)() == await asks(stored)() == answer
            await ask_typed()
            times = await in_turn(
                {
                    "hit": repeated(asks(ours), CALLS),
                    "from disk": repeated(asks(stored), CALLS),
                    "SDK over an empty transport": repeated(asks(empty), CALLS),
                    "typed": repeated(ask_typed, CALLS),
                },
                rounds,
            )
            assert cache.stats().upstream_calls == 2
            assert disk.stats().upstream_calls == 1
    what = "hit through Anthropic's SDK"
    report.versus(what, times, "hit", "SDK over an empty transport", target=1.15)
    report.versus(f"{what}, from disk", times, "from disk", "SDK over an empty transport")
    report.value("typed hit of OpenAI's SDK", times.median("typed"), unit="us")


async def measure_peers(report: Report, rounds: int, questions: int) -> None:
    """Measure replays of some questions, one after the other."""
    with tempfile.TemporaryDirectory() as folder, Server(MESSAGE) as server:
        bare, times = sdk(url=server.root_url), max(1, CALLS // 2 // questions)
        exact = ["method", "uri", "body"]
        tapes: dict[str, Callable[[], AbstractContextManager[object]]] = {
            "vcrpy": lambda: vcr.use_cassette(
                Path(folder) / "vcrpy.yaml", match_on=exact, allow_playback_repeats=True
            ),
            "cassetter": lambda: cassetter.use_cassette(
                Path(folder) / "cassetter.yaml", match_on=exact
            ),
        }

        def replayed(peer: str) -> Timed:
            async def timed() -> float:
                with tapes[peer]():
                    return await asked_all(bare, questions, times)

            return timed

        async with Cache.memory() as cache:
            ours = sdk(cache.transport(), server.root_url)
            await asked_all(ours, questions)
            for tape in tapes.values():
                with tape():
                    await asked_all(bare, questions)
            taken = await in_turn(
                {
                    "hit": lambda: asked_all(ours, questions, times),
                    **{peer: replayed(peer) for peer in tapes},
                },
                rounds,
            )
        assert server.calls == 3 * questions
    what = f"hit / replay, {questions} recorded"
    for peer in tapes:
        report.versus(what, taken, "hit", peer, target=0.6)


async def asked_all(client: AsyncAnthropic, questions: int, times: int = 1) -> float:
    """Ask each question, so many times; return seconds per call."""
    asking = [asks(client, number) for number in range(questions)]
    began = process_time()
    for _ in range(times):
        for ask in asking:
            await ask()
    return (process_time() - began) / times / questions


async def measure_streams(report: Report, rounds: int) -> None:
    """Measure a recorded stream."""
    events = message_events(EVENTS)
    whole = b"".join(events)
    async with Cache.memory() as cache:

        def over(pieces: list[bytes]) -> Any:
            return empty_transport(httpx2, lambda: pieces, "text/event-stream")

        ours, bare = sdk(cache.transport(over(events))), sdk(over([whole]))
        expected = await reads(bare)()
        assert await reads(ours)() == await reads(ours)() == expected
        assert len(expected) == EVENTS
        times = await in_turn(
            {
                "hit": repeated(reads(ours), STREAMS),
                "SDK, in one piece": repeated(reads(bare), STREAMS),
                "SDK, event by event": repeated(reads(sdk(over(events))), STREAMS),
            },
            rounds,
        )
        assert cache.stats().upstream_calls == 1
    what = f"recorded stream of {EVENTS} events through Anthropic's SDK"
    report.versus(what, times, "hit", "SDK, in one piece", target=1.1, unit="ms")
    report.versus(what, times, "hit", "SDK, event by event", unit="ms")


async def measure_shares(report: Report, rounds: int) -> None:
    """Measure what is ours of a hit by an HTTP library's own client."""
    contestants: dict[str, Timed] = {}
    async with AsyncExitStack() as stack:
        cache = await stack.enter_async_context(Cache.memory())
        for library in LIBRARIES:
            name = library.__name__
            empty = library.AsyncClient(transport=empty_transport(library, lambda: [MESSAGE]))
            ours = cache.wrap(await stack.enter_async_context(empty))
            calm = library.Client(transport=empty_transport(library, lambda: [MESSAGE]))
            calm_ours = cache.wrap(stack.enter_context(calm))
            contestants |= {
                name: repeated(posts(ours), CALLS),
                f"{name}, empty": repeated(posts(empty), CALLS),
                f"{name}, sync": in_thread(posts(calm_ours), CALLS),
                f"{name}, sync, empty": in_thread(posts(calm), CALLS),
            }
        session = await stack.enter_async_context(
            aiohttp.ClientSession(middlewares=[empty_middleware])
        )
        around = await stack.enter_async_context(aiohttp.ClientSession())
        contestants |= {
            "aiohttp": repeated(reads_posts(cache.wrap(around)), CALLS),
            "aiohttp, empty": repeated(reads_posts(session), CALLS),
        }
        times = await in_turn(contestants, rounds)
        assert cache.stats().upstream_calls == 1
    for name in contestants:
        if not name.endswith("empty"):
            report.versus(f"hit by {name}", times, name, f"{name}, empty")
            share = times.least(name) - times.least(f"{name}, empty")
            target = None if "sync" in name else 30e-6
            report.value(f"share of a hit by {name}", share, target=target, unit="us")


async def measure_crowds(report: Report) -> None:
    """Count what reaches a server where one question is asked by many at once."""
    crowd = 200 if report.small else AT_ONCE
    kinds: dict[str, Any] = {
        "httpx2": httpx2.AsyncClient, "httpx": httpx.AsyncClient, "aiohttp": aiohttp.ClientSession,
    }  # fmt: skip
    for name, kind in kinds.items():
        with Server(MESSAGE) as server:
            async with Cache.memory() as cache, kind() as client:
                took = await at_once(crowd_of(crowd, cache.wrap(client), server), per_call=False)()
            report.value(f"{crowd:,} at once by {name}", took, note="all of them")
            report.fact(f"calls upstream for {crowd:,} at once by {name}", server.calls)
            assert server.calls == 1


def crowd_of(count: int, client: Any, server: Server) -> Callable[[], list[Awaitable[object]]]:
    url = f"{server.root_url}/v1/messages"

    async def post() -> None:
        response = await client.post(url, json=ASKED, headers=HEADERS)
        body = response.read() if isinstance(client, aiohttp.ClientSession) else response.aread()
        assert await body == MESSAGE

    return lambda: [post() for _ in range(count)]


if __name__ == "__main__":
    run(main, __doc__, "anthropic", "openai", "httpx2", "httpx", "aiohttp", "vcrpy", "cassetter")
