"""AutoGen 0.7's client through a slow store: how late a heartbeat gets, and what a hit takes.

The store takes 0.3 s for each operation: ours awaits it, as a remote store's driver does; that of
autogen-ext can only hold its caller. A task that sleeps for a millisecond beats beside a miss, a
hit and a stream; the figure is the longest time between two beats, less that millisecond, and the
median of the rounds. The client beneath answers at once. A hit is one through OpenAI's client of
AutoGen's, one at a time, from memory and from disk.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from _harness import Report, in_turn, repeated, run
from _upstream import KEY, MODEL, Server
from autogen_core import InMemoryStore
from autogen_core.models import UserMessage
from autogen_ext.models.cache import ChatCompletionCache
from autogen_ext.models.openai import OpenAIChatCompletionClient
from autogen_ext.models.replay import ReplayChatCompletionClient

from asynccache import Cache
from asynccache.integrations.autogen import CachedChatCompletionClient
from asynccache.stores import Capabilities
from asynccache.stores.memory import MemoryStore
from asynccache.testing import FaultyStore

SLOW, BEAT, ROUNDS, HITS, HIT_ROUNDS = 0.3, 0.001, 7, 200, 15
ASKED = [UserMessage(content="Why is the sky blue?", source="user")]


class AwaitedStore(FaultyStore):
    def __init__(self) -> None:
        remote = Capabilities(inline=False, remote=True)
        super().__init__(MemoryStore(), hide_inline=True, capabilities=remote)

    async def get_many(self, *args: Any) -> Any:
        await asyncio.sleep(SLOW)
        return await super().get_many(*args)

    async def set_many(self, *args: Any) -> Any:
        await asyncio.sleep(SLOW)
        return await super().set_many(*args)

    async def claim(self, *args: Any) -> Any:
        await asyncio.sleep(SLOW)
        return await super().claim(*args)

    async def release(self, *args: Any) -> Any:
        await asyncio.sleep(SLOW)
        return await super().release(*args)


class HoldingStore(InMemoryStore):  # type: ignore[misc]  # of an environment of its own
    def get(self, key: str, default: Any = None) -> Any:
        time.sleep(SLOW)
        return super().get(key, default)

    def set(self, key: str, value: Any) -> None:
        time.sleep(SLOW)
        super().set(key, value)


async def longest_gap(work: Callable[[], Awaitable[object]]) -> float:
    gaps: list[float] = []

    async def beat() -> None:
        while True:
            began = perf_counter()
            await asyncio.sleep(BEAT)
            gaps.append(perf_counter() - began - BEAT)

    gc.collect()
    beating = asyncio.ensure_future(beat())
    await asyncio.sleep(10 * BEAT)
    await work()
    await asyncio.sleep(10 * BEAT)  # a beat that was held up has to be counted, too
    beating.cancel()
    return max(gaps)


async def asked(client: Any) -> None:
    await client.create(ASKED)
    assert (await client.create(ASKED)).cached
    _ = [item async for item in client.create_stream(ASKED)]


def replayed() -> Any:
    return ReplayChatCompletionClient(["Because of Rayleigh scattering."] * 5)


async def ours() -> float:
    async with Cache.from_store(AwaitedStore(), store_timeout=5) as cache:
        return await longest_gap(lambda: asked(CachedChatCompletionClient(replayed(), cache)))


async def theirs() -> float:
    return await longest_gap(lambda: asked(ChatCompletionCache(replayed(), HoldingStore())))


async def hits(report: Report, server: Server, folder: str) -> None:
    def client() -> OpenAIChatCompletionClient:
        return OpenAIChatCompletionClient(model=MODEL, api_key=KEY, base_url=server.base_url)

    inner = client()
    async with (
        Cache.memory() as memory,
        Cache.disk(cache_path_root=Path(folder)) as disk,
    ):
        contestants = {
            "memory": CachedChatCompletionClient(inner, memory),
            "disk": CachedChatCompletionClient(inner, disk),
            "autogen-ext, memory": ChatCompletionCache(inner),
        }
        for contestant in contestants.values():
            await contestant.create(ASKED)
            assert (await contestant.create(ASKED)).cached
        paid = server.calls
        times = await in_turn(
            {
                name: repeated(lambda c=contestant: c.create(ASKED), HITS)
                for name, contestant in contestants.items()
            },
            3 if report.small else HIT_ROUNDS,
        )
        assert server.calls == paid
    await inner.close()
    for name in ("memory", "disk"):
        note = "theirs is a shared object, under a key without model and client"
        report.versus(f"AutoGen: a hit, {name}", times, name, "autogen-ext, memory", note=note)


async def main(report: Report) -> None:
    rounds = 2 if report.small else ROUNDS
    held = [await ours() for _ in range(rounds)]
    theirs_held = [await theirs() for _ in range(min(rounds, 2))]
    report.value(
        "AutoGen: longest stall, store of 0.3 s", statistics.median(held), target=0.005,
        note=f"most {max(held) * 1e3:.1f} ms",
    )  # fmt: skip
    report.value("autogen-ext: longest stall, store of 0.3 s", statistics.median(theirs_held))
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        await hits(report, server, folder)


if __name__ == "__main__":
    run(main, __doc__, "autogen-core", "autogen-ext", "openai", "pydantic")
