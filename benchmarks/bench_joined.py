"""10,000 tasks asking the same thing at once: one upstream call, against 10,000 empty tasks.

As bytes: `AsyncCache.get_or_create` with a value of 850 bytes, whose maker yields to the loop once,
in a process that hasn't loaded the SDK. Then typed: `create` of the wrapped SDK client, over a
transport in memory, so that the one call upstream costs what the SDK itself does and no network.
Each round asks something new. The empty tasks return at once; tasks that yield to the loop once, as
whoever joins a flight has to, are shown beside them. All are started and awaited alike. Garbage is
collected between runs: without that the empty tasks slow down threefold, and hide what joining
costs. During a run the collector is on, as in a program; the same runs with it off show how much of
the time is its own.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import perf_counter
from typing import Any

from _harness import Report, Timed, in_turn, run

from asynccache import AsyncCache, Cache

TASKS, TASKS_SMALL, ROUNDS, BYTES = 10_000, 2_000, 15, 850
EMPTY, YIELDING = "empty tasks", "tasks that yield once"

Start = Callable[[], Coroutine[Any, Any, object]]


async def empty() -> None:
    pass


async def yielding() -> None:
    await asyncio.sleep(0)


async def compared(
    report: Report, cache: AsyncCache, what: str, new_question: Callable[[], Start], target: float
) -> None:
    tasks = TASKS_SMALL if report.small else TASKS

    async def gathered(start: Start) -> float:
        began = perf_counter()
        results = await asyncio.gather(*[asyncio.create_task(start()) for _ in range(tasks)])
        taken = perf_counter() - began
        assert all(result == results[0] for result in results[:: tasks // 10])
        return taken

    async def ours() -> float:
        before = cache.stats().upstream_calls
        taken = await gathered(new_question())
        assert cache.stats().upstream_calls == before + 1
        return taken

    def uncollected(timed: Timed) -> Timed:
        async def without() -> float:
            gc.disable()
            try:
                return await timed()
            finally:
                gc.enable()

        return without

    contestants: dict[str, Timed] = {
        "ours": ours,
        EMPTY: lambda: gathered(empty),
        YIELDING: lambda: gathered(yielding),
    }
    contestants |= {f"{name}, gc off": uncollected(timed) for name, timed in contestants.items()}
    times = await in_turn(contestants, 3 if report.small else ROUNDS)
    title = f"{tasks:,} tasks on one question, {what}"
    report.versus(title, times, "ours", EMPTY, target=target, unit="ms")
    report.versus(title, times, "ours", YIELDING, unit="ms")
    report.versus(title, times, "ours, gc off", f"{EMPTY}, gc off", unit="ms")
    stats = cache.stats()
    report.fact(
        f"outcomes {what}",
        {"joined": stats.joined, "hits": stats.hits, "misses": stats.misses},
    )


async def main(report: Report) -> None:
    fresh = itertools.count()
    with tempfile.TemporaryDirectory() as folder:
        caches = {
            "memory": Cache.memory(),
            "disk": Cache.disk(cache_path_root=Path(folder) / "ours"),
        }
        answer = bytes(BYTES)

        async def make() -> bytes:
            await asyncio.sleep(0)
            return answer

        for name, cache in caches.items():

            def as_bytes(cache: AsyncCache = cache) -> Start:
                key = next(fresh)
                return lambda: cache.get_or_create(key, make, type=bytes)

            async with cache:
                await compared(report, cache, f"as bytes, {name}", as_bytes, 3)

        from _upstream import MODEL, in_memory_client, messages

        for name, cache in caches.items():
            client = cache.wrap(in_memory_client())

            def typed(client: object = client) -> Start:
                create, asked = client.chat.completions.create, messages(next(fresh))  # type: ignore[attr-defined] # an AsyncOpenAI, which isn't loaded above
                return lambda: create(model=MODEL, messages=asked)

            async with cache:
                await compared(report, cache, f"typed, {name}", typed, 6)


if __name__ == "__main__":
    run(main, __doc__, "openai", "pydantic")
