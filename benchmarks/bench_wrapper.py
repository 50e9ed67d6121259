"""One hit through `OpenAIWrapper.acreate()`, against the same hit of the wrapped SDK client.

The same message is asked over and over and the same answer of 850 bytes comes back, typed: once
from `acreate` of a wrapper with one entry and a price, which finds the cache in force by itself and
counts what was used, and once from `create` of a client that was wrapped with that very cache. From
disk and from memory. A row with a list of messages that takes a context shows what templates cost,
and one with `cache=` and one with a `cache_seed` what they do. The answers come from memory: the
transport is asked once for each cache and seed, and counted.
"""

from __future__ import annotations

import tempfile

from _harness import Report, in_turn, repeated, run
from _upstream import ANSWER, MODEL, in_memory_client, messages

from asynccache import AsyncCache, Cache, status as status_of
from asynccache.openai import OpenAIWrapper

ROUNDS, CALLS = 30, 1000
PRICE = [0.0025, 0.01]  # of a thousand tokens, as in a config_list
TARGET = 1.3
OTHER_SEED = 7
CONTEXT = {"river": "Danube"}


async def compared(report: Report, cache: AsyncCache, where: str) -> None:
    made: list[int] = []

    def pieces() -> list[bytes]:
        made.append(1)
        return [ANSWER]

    async with cache, in_memory_client(pieces) as client:
        wrapped = cache.wrap(client)
        wrapper = OpenAIWrapper(config_list=[{"client": client, "model": MODEL, "price": PRICE}])

        async def theirs() -> object:
            return await wrapped.chat.completions.create(model=MODEL, messages=messages())

        async def ours() -> object:
            return await wrapper.acreate(messages=messages())

        async def named() -> object:
            return await wrapper.acreate(messages=messages(), cache=cache)

        async def seeded() -> object:
            return await wrapper.acreate(messages=messages(), cache_seed=OTHER_SEED)

        async def templated() -> object:
            return await wrapper.acreate(messages=messages(), context=CONTEXT)

        ways = {"wrapped client": theirs, "acreate": ours, "cache=": named,
                "cache_seed=": seeded, "context=": templated}  # fmt: skip
        for call in ways.values():
            await call()
        filled = len(made)
        times = await in_turn(
            {name: repeated(call, CALLS) for name, call in ways.items()},
            5 if report.small else ROUNDS,
        )
        assert len(made) == filled == 2, made
        status = status_of(await ours())
        assert status is not None
        assert status.outcome == "hit"
    what = f"hit from {where} through acreate()"
    report.versus(what, times, "acreate", "wrapped client", target=TARGET)
    for name in ("cache=", "cache_seed=", "context="):
        report.versus(what, times, name, "wrapped client", note=f"with {name}")


async def main(report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await compared(report, Cache.memory(), "memory")
        await compared(report, Cache.disk(cache_path_root=folder), "disk")


if __name__ == "__main__":
    run(main, __doc__, "openai", "pydantic")
