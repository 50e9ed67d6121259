"""What instrumenting the SDK adds to calls where no cache is in force, and what hits take then.

The addition is measured beneath the noise of the SDK's own work, which is a hundred times as much:
over methods of its classes that were replaced by empty ones, once instrumented and once not. A call
passes two that are patched, `create` and `request`; both are counted. Hits are compared with those
of a wrapped client, and synchronous ones, which cross over to the background loop, with the SDK's
own work for one call over a transport in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import openai
from _harness import Report, in_turn, repeated, run
from _upstream import ANSWER, MODEL, in_memory_client, messages
from openai import OpenAI, _base_client
from openai.resources.chat import AsyncCompletions

from asynccache import Cache, instrument_openai

ROUNDS, CALLS = 30, 1000
http: Any = getattr(_base_client, "httpx2", None) or getattr(_base_client, "httpx", None)


def instrumented(work: Callable[[], Awaitable[float]]) -> Callable[[], Awaitable[float]]:
    async def timed() -> float:
        with instrument_openai():
            return await work()

    return timed


async def main(report: Report) -> None:
    rounds = 5 if report.small else ROUNDS
    await measure_nothing(report, rounds)
    await measure_hits(report, rounds)


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
