"""What instrumenting adds to calls where no cache is in force, and what hits take then.

The addition is measured beneath the noise of the SDK's own work, which is a hundred times as much:
over methods of its classes that were replaced by empty ones, once instrumented and once not. A call
passes two that are patched, `create` and `request`; both are counted. A request of an HTTP library,
to somebody else's endpoint, passes what chooses its transport and that transport, or the session's
method and its middlewares, with nothing beneath; that is while it isn't known yet whether any call
is served, when it takes longest. Hits are compared with those
of a wrapped client, and synchronous ones, which cross over to the background loop, with the SDK's
own work for one call over a transport in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib import import_module
from time import perf_counter
from typing import Any

import aiohttp
import openai
from _harness import Report, in_turn, repeated, run
from _upstream import ANSWER, MODEL, in_memory_client, messages
from openai import OpenAI, _base_client
from openai.resources.chat import AsyncCompletions

from asynccache import Cache, instrument, instrument_openai

ROUNDS, CALLS = 30, 1000
URL = "http://h.invalid/v1/texts"
OTHER = {"to": "whatsapp:+1", "text": "hello" * 100}
"""A request that is none of ours."""
http: Any = getattr(_base_client, "httpx2", None) or getattr(_base_client, "httpx", None)


def instrumented(
    work: Callable[[], Awaitable[float]], means: Callable[[], Any] = instrument_openai
) -> Callable[[], Awaitable[float]]:
    async def timed() -> float:
        with means():
            return await work()

    return timed


async def main(report: Report) -> None:
    rounds = 5 if report.small else ROUNDS
    for library in ("httpx", "httpx2"):
        await measure_requests(report, rounds, import_module(library))
    await measure_sessions(report, rounds)
    await measure_nothing(report, rounds)
    await measure_hits(report, rounds)


async def measure_requests(report: Report, rounds: int, library: Any) -> None:
    class Nowhere(library.AsyncBaseTransport, library.BaseTransport):  # type: ignore[misc] # one of two
        async def handle_async_request(self, request: Any) -> Any:
            pass

        def handle_request(self, request: Any) -> Any:
            pass

    Nowhere.__module__ = library.__name__  # as the library's own, it may stand on no other
    client: Any = library.AsyncClient(transport=Nowhere())
    plain: Any = library.Client(transport=Nowhere())
    request = client.build_request("POST", URL, json=OTHER)
    url = request.url

    async def sync_requests() -> float:
        began = perf_counter()
        for _ in range(CALLS):
            plain._transport_for_url(url).handle_request(request)
        return (perf_counter() - began) / CALLS

    requests = repeated(lambda: client._transport_for_url(url).handle_async_request(request), CALLS)
    await measure_added(report, rounds, f"a request of {library.__name__}", requests)
    await measure_added(
        report, rounds, f"a request of {library.__name__}, synchronous", sync_requests
    )
    await client.aclose()
    plain.close()


async def measure_sessions(report: Report, rounds: int) -> None:
    session_class: Any = aiohttp.ClientSession
    kept = session_class._request
    asked: Any = None

    async def handler(_: Any) -> None:
        pass

    async def request(*_: Any, middlewares: Any = (), **__: Any) -> None:
        for middleware in middlewares:
            await middleware(asked, handler)

    async def sent(found: Any, _: Any) -> Any:
        nonlocal asked
        asked = found
        raise ConnectionError

    async with aiohttp.ClientSession(middlewares=(sent,)) as session:
        with suppress(aiohttp.ClientError):
            await session.post(URL, json=OTHER)
    session_class._request = request
    try:
        async with aiohttp.ClientSession() as session:
            whole: Any = session
            requests = repeated(lambda: whole._request("POST", URL, json=OTHER), CALLS)
            await measure_added(report, rounds, "a request of aiohttp", requests)
    finally:
        session_class._request = kept


async def measure_added(
    report: Report, rounds: int, what: str, work: Callable[[], Awaitable[float]]
) -> None:
    times = await in_turn({"instrumented": instrumented(work, instrument), "bare": work}, rounds)
    added = times.median("instrumented") - times.median("bare")
    report.value(f"added to {what}, outside any block", added, target=8e-6, unit="us")


async def measure_nothing(report: Report, rounds: int) -> None:
    kept = AsyncCompletions.create, _base_client.AsyncAPIClient.request
    sync_kept = _base_client.SyncAPIClient.request

    async def create(self: Any, **_: Any) -> None:
        await self._client.request(None, None)

    async def request(
        self: Any, cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
    ) -> None:
        pass

    def sync_request(
        self: Any, cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
    ) -> None:
        pass

    patched: Any = AsyncCompletions
    bases: Any = _base_client
    patched.create, bases.AsyncAPIClient.request = create, request
    bases.SyncAPIClient.request = sync_request
    try:
        client = in_memory_client()
        plain: Any = OpenAI(api_key="k")
        asked = {"model": MODEL, "messages": messages()}
        call = repeated(lambda: client.chat.completions.create(**asked), CALLS)

        async def sync_calls() -> float:
            began = perf_counter()
            for _ in range(CALLS):
                plain.request(None, None)
            return (perf_counter() - began) / CALLS

        times = await in_turn(
            {
                "instrumented": instrumented(call), "bare": call,
                "sync instrumented": instrumented(sync_calls), "sync bare": sync_calls,
            },
            rounds,
        )  # fmt: skip
        plain.close()
    finally:
        patched.create, bases.AsyncAPIClient.request = kept
        bases.SyncAPIClient.request = sync_kept
    report.value(
        "added to a call outside any block", times.median("instrumented") - times.median("bare"),
        target=5e-6, unit="us",
    )  # fmt: skip
    report.value(
        "the same, synchronous", times.median("sync instrumented") - times.median("sync bare"),
        target=5e-6, unit="us",
    )  # fmt: skip


async def measure_hits(report: Report, rounds: int) -> None:
    asked = {"model": MODEL, "messages": messages()}
    client = in_memory_client()
    answer = http.MockTransport(
        lambda _: http.Response(
            200, json=None, content=ANSWER, headers={"content-type": "application/json"}
        )
    )
    plain = OpenAI(api_key="k", http_client=openai.DefaultHttpxClient(transport=answer))
    async with Cache.memory() as cache:
        wrapped = cache.wrap(client)
        wrapped_plain = cache.wrap(plain)
        await wrapped.chat.completions.create(**asked)

        def threaded(used: Any) -> Callable[[], Awaitable[float]]:
            def calls() -> float:
                began = perf_counter()
                for _ in range(CALLS // 10):
                    used.chat.completions.create(**asked)
                return (perf_counter() - began) / (CALLS // 10)

            return lambda: asyncio.to_thread(calls)

        await threaded(wrapped_plain)()
        times = await in_turn(
            {
                "instrumented": instrumented(
                    repeated(lambda: client.chat.completions.create(**asked), CALLS)
                ),
                "wrapped": repeated(lambda: wrapped.chat.completions.create(**asked), CALLS),
                "sync": threaded(wrapped_plain),
                "sync, SDK": threaded(plain),
            },
            rounds,
        )
    report.versus("hit, instrumented / wrapped", times, "instrumented", "wrapped")
    report.versus("hit, synchronous / SDK's own call", times, "sync", "sync, SDK")
    plain.close()


if __name__ == "__main__":
    run(main, __doc__, "openai")
