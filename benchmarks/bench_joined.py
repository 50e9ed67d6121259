"""10,000 tasks asking the same thing at once: one upstream call, against 10,000 empty tasks.

As bytes: `AsyncCache.get_or_create` with a value of 850 bytes, whose maker yields to the loop once.
Typed: `create` of the wrapped SDK client, over a transport in memory, so that the one call upstream
costs what the SDK itself does and no network. Each round asks something new. The empty tasks yield
once and return; all three are started and awaited alike. Garbage is collected between runs: without
that the empty tasks slow down threefold, and hide what joining costs.
"""

from __future__ import annotations

import asyncio
import itertools
from time import perf_counter

from _harness import Report, Times, in_turn, run
from _upstream import ANSWER, MODEL, in_memory_client, messages

from asynccache import AsyncCache, Cache

TASKS, ROUNDS = 10_000, 15


async def compared(cache: AsyncCache, report: Report) -> tuple[Times, dict[str, int]]:
    tasks = 2_000 if report.small else TASKS
    client = cache.wrap(in_memory_client())
    fresh = itertools.count()
    made = 0

    async def gathered(start: object) -> float:
        assert callable(start)
        before = cache.stats()
        began = perf_counter()
        results = await asyncio.gather(*[asyncio.create_task(start()) for _ in range(tasks)])
        taken = perf_counter() - began
        assert len(results) == tasks
        if start is not empty:
            after = cache.stats()
            assert after.upstream_calls - before.upstream_calls == 1
            assert all(result == results[0] for result in results[:: tasks // 10])
        return taken

    async def empty() -> None:
        await asyncio.sleep(0)

    async def make() -> bytes:
        nonlocal made
        made += 1
        await asyncio.sleep(0)
        return ANSWER

    async def as_bytes() -> float:
        key = next(fresh)

        async def ask() -> object:
            return await cache.get_or_create(key, make, type=bytes)

        return await gathered(ask)

    async def typed() -> float:
        asked = messages(next(fresh))

        async def ask() -> object:
            return await client.chat.completions.create(model=MODEL, messages=asked)

        return await gathered(ask)

    async def nothing() -> float:
        return await gathered(empty)

    times = await in_turn(
        {"as bytes": as_bytes, "typed": typed, "empty tasks": nothing},
        3 if report.small else ROUNDS,
    )
    stats = cache.stats()
    assert made == len(times.rounds["as bytes"]) + 1
    return times, {"joined": stats.joined, "hits": stats.hits, "misses": stats.misses}


async def main(report: Report) -> None:
    import tempfile
    from pathlib import Path

    tasks = 2_000 if report.small else TASKS
    with tempfile.TemporaryDirectory() as folder:
        for name, cache in (
            ("memory", Cache.memory()),
            ("disk", Cache.disk(cache_path_root=Path(folder) / "ours")),
        ):
            async with cache:
                times, outcomes = await compared(cache, report)
            what = f"{tasks:,} tasks on one question"
            for ours, target in (("as bytes", 3), ("typed", 6)):
                report.versus(
                    f"{what}, {ours}, {name}", times, ours, "empty tasks", target=target, unit="ms",
                )  # fmt: skip
            report.fact(f"outcomes, {name}", outcomes)


if __name__ == "__main__":
    run(main, __doc__, "openai", "pydantic")
