"""2,000 different hits at once from disk, against autogen-ext, with a heartbeat beside them.

Each of 2,000 messages was answered before (850 bytes, by a real server); then all are asked for in
one gather, typed. The heartbeat is a task that sleeps one millisecond again and again; its lag is
what a sleep took beyond that, its largest lag in a storm is what counts. Garbage is collected
before each storm, and the collector is left on during it, as in a program: the longest collection
that fell into a storm is shown apart, since such a pause is the interpreter's, over all objects of
the process, and is in the lag. Starting 2,000 tasks in one gather holds the loop by itself,
whatever they do: the lag beside tasks that only yield shows how long. An idle loop's shows what the
machine alone adds.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from time import perf_counter

import diskcache
from _harness import Report, at_once, in_turn, run
from _upstream import KEY, MODEL, Server, messages
from autogen_core.models import SystemMessage, UserMessage
from autogen_ext.cache_store.diskcache import DiskCacheStore
from autogen_ext.models.cache import ChatCompletionCache
from autogen_ext.models.openai import OpenAIChatCompletionClient

from asynccache import Cache

HITS, ROUNDS, BEAT = 2000, 20, 0.001


class Heartbeat:
    """Notes how late a task's millisecond sleeps end, and how long collections took meanwhile."""

    def __init__(self) -> None:
        self.lag = 0.0
        self.collecting = 0.0
        self._began = 0.0

    async def beside(self, begin: Callable[[], Awaitable[object]]) -> None:
        beating = asyncio.create_task(self._beat())
        await asyncio.sleep(10 * BEAT)  # it beats before the storm begins
        self.lag = 0.0
        gc.callbacks.append(self._collect)
        try:
            await begin()  # not before: a gather starts when it is made
            await asyncio.sleep(2 * BEAT)  # a beat that was late has ended
        finally:
            gc.callbacks.remove(self._collect)
            beating.cancel()

    async def _beat(self) -> None:
        while True:
            slept = perf_counter()
            await asyncio.sleep(BEAT)
            self.lag = max(self.lag, perf_counter() - slept - BEAT)

    def _collect(self, phase: str, _: object) -> None:
        if phase == "start":
            self._began = perf_counter()
        else:
            self.collecting = max(self.collecting, perf_counter() - self._began)


async def heartbeats(
    rounds: int, work: Mapping[str, Callable[[], Awaitable[object]]]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return, by work, the largest lag beside each run of it, and its longest collection."""
    lags: dict[str, list[float]] = {name: [] for name in work}
    pauses: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, begin in work.items():
            gc.collect()
            heartbeat = Heartbeat()
            await heartbeat.beside(begin)
            lags[name].append(heartbeat.lag)
            pauses[name].append(heartbeat.collecting)
    return lags, pauses


async def main(report: Report) -> None:
    rounds = 3 if report.small else ROUNDS
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        root = Path(folder)
        async with Cache.disk(cache_path_root=root / "ours") as cache, server.client() as client:
            ours = cache.wrap(client)
            autogen = OpenAIChatCompletionClient(model=MODEL, api_key=KEY, base_url=server.base_url)
            theirs = ChatCompletionCache(
                autogen, DiskCacheStore(diskcache.Cache(str(root / "autogen")))
            )

            def ask_ours(number: int) -> Awaitable[object]:
                return ours.chat.completions.create(model=MODEL, messages=messages(number))

            def ask_theirs(number: int) -> Awaitable[object]:
                system, user = (message["content"] for message in messages(number))
                return theirs.create(
                    [SystemMessage(content=system), UserMessage(content=user, source="user")]
                )

            for ask in (ask_ours, ask_theirs):
                for number in range(HITS):
                    await ask(number)
            filled = server.calls
            assert filled == 2 * HITS, filled

            def storm(ask: Callable[[int], Awaitable[object]]) -> list[Awaitable[object]]:
                return [ask(number) for number in range(HITS)]

            times = await in_turn(
                {
                    "disk": at_once(lambda: storm(ask_ours)),
                    "autogen-ext DiskCacheStore": at_once(lambda: storm(ask_theirs)),
                },
                rounds,
            )
            report.versus(
                f"{HITS:,} distinct hits at once from disk, per call", times, "disk",
                "autogen-ext DiskCacheStore", target=0.5,
            )  # fmt: skip

            lags, pauses = await heartbeats(
                rounds,
                {
                    "idle": lambda: asyncio.sleep(times.median("disk") * HITS),
                    "ours": lambda: asyncio.gather(*storm(ask_ours)),
                    "theirs": lambda: asyncio.gather(*storm(ask_theirs)),
                    "empty": lambda: asyncio.gather(*[asyncio.sleep(0) for _ in range(HITS)]),
                },
            )
            assert server.calls == filled, "something went upstream while hits were timed"
            stats = cache.stats()
            await autogen.close()
    report.value(
        "largest lag beside it", statistics.median(lags["ours"]), target=0.005,
        note="median of storms",
    )  # fmt: skip
    report.value("largest lag beside it", max(lags["ours"]), target=0.005, note="worst storm")
    report.value("longest garbage collection in it", max(pauses["ours"]), note="worst storm")
    report.value("largest lag beside autogen-ext", statistics.median(lags["theirs"]))
    report.value(
        f"largest lag beside {HITS:,} tasks that only yield", statistics.median(lags["empty"])
    )
    report.value("largest lag of an idle loop", statistics.median(lags["idle"]))
    report.value("largest lag of an idle loop", max(lags["idle"]), note="worst")
    report.fact("store errors", stats.store_errors)


if __name__ == "__main__":
    run(main, __doc__, "openai", "pydantic", "autogen-ext", "diskcache")
