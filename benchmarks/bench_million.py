"""Hits at a million entries on disk, against hits at a thousand.

Two stores are filled with entries of about 850 bytes, under the keys of real requests in no order,
by large batches. The files are read once, so that they lie in the system's cache as far as that has
room. Then hits spread over all keys are timed, typed through the wrapped client and from the store
alone (reads that it leaves to a worker, since the disk proved slow, are counted). `--small` fills
100,000 instead of a million.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from _harness import Report, Timed, in_turn, run
from _upstream import ANSWER, MODEL, in_memory_client, messages

from asynccache import AsyncCache, Cache
from asynccache.entries.entry import Entry, Meta, encode_entry
from asynccache.keys.canonical import canonical_json
from asynccache.keys.key import Namespace, Prefix
from asynccache.stores.base import UNKNOWN, Record
from asynccache.stores.disk import DiskStore

FEW, MANY, MANY_SMALL = 1_000, 1_000_000, 100_000
BATCH, HITS, ROUNDS = 100_000, 1_000, 20
NAMESPACE = Namespace("42")
UPSTREAM = "benchmark"


def key_of(prefix: Prefix, number: int) -> bytes:
    return prefix.key(canonical_json({"messages": messages(number), "model": MODEL}))


async def fill(root: Path, count: int) -> float:
    """Write so many entries and return the seconds it took."""
    prefix = Prefix(NAMESPACE, method="POST", upstream=UPSTREAM, path="/chat/completions")
    meta = Meta("json", content_type="application/json", model=MODEL, output_tokens=38)
    store = DiskStore(root, NAMESPACE.seed)
    await store.open()
    began = perf_counter()
    for start in range(0, count, BATCH):
        records = []
        for number in range(start, min(start + BATCH, count)):
            key = key_of(prefix, number)
            records.append(
                Record(
                    key=key,
                    body=encode_entry(Entry(key, 1_730_000_000_000_000, 0, meta, (ANSWER,))),
                )
            )
        # A batch's rows in the table's order; the batches interleave all the same.
        records.sort(key=lambda record: record.key)
        written = await store.set_many(NAMESPACE, records)
        assert all(written)
    await store.aclose()
    return perf_counter() - began


def warm(database: Path) -> None:
    """Read a file nobody has open, so that what is timed isn't the disk."""
    with database.open("rb", buffering=0) as file:
        while file.read(2**20):
            pass


def typed(cache: AsyncCache, count: int, latencies: list[float]) -> Timed:
    client = cache.wrap(in_memory_client(), upstream=UPSTREAM)

    async def timed() -> float:
        asked = [messages(random.randrange(count)) for _ in range(HITS)]
        began = last = perf_counter()
        for question in asked:
            await client.chat.completions.create(model=MODEL, messages=question)
            now = perf_counter()
            latencies.append(now - last)
            last = now
        return (last - began) / HITS

    return timed


def stored(cache: AsyncCache, count: int, elsewhere: Counter[int]) -> Timed:
    prefix = Prefix(NAMESPACE, method="POST", upstream=UPSTREAM, path="/chat/completions")

    async def timed() -> float:
        keys: Sequence[bytes] = [key_of(prefix, random.randrange(count)) for _ in range(HITS)]
        peek = cache._lifecycle.store.peek
        began = perf_counter()
        answers = [peek(NAMESPACE, key) for key in keys]
        taken = (perf_counter() - began) / HITS
        elsewhere[count] += answers.count(UNKNOWN)
        return taken

    return timed


async def main(report: Report) -> None:
    many = MANY_SMALL if report.small else MANY
    random.seed(42)
    elsewhere: Counter[int] = Counter()
    latencies: dict[int, list[float]] = {FEW: [], many: []}
    with tempfile.TemporaryDirectory() as folder:
        roots = {count: Path(folder) / str(count) for count in (FEW, many)}
        for count, root in roots.items():
            report.fact(f"seconds to fill {count:,}", round(await fill(root, count), 1))
            warm(root / NAMESPACE.seed / "asynccache.db")
        size = (roots[many] / NAMESPACE.seed / "asynccache.db").stat().st_size
        report.fact("bytes of file per entry", round(size / many))
        async with (
            Cache.disk(cache_path_root=roots[FEW]) as at_few,
            Cache.disk(cache_path_root=roots[many]) as at_many,
        ):
            times = await in_turn(
                {
                    "typed, many": typed(at_many, many, latencies[many]),
                    "typed, few": typed(at_few, FEW, latencies[FEW]),
                    "store, many": stored(at_many, many, elsewhere),
                    "store, few": stored(at_few, FEW, elsewhere),
                },
                ROUNDS,
            )
            for cache in (at_few, at_many):
                stats = cache.stats()
                assert stats.hits == HITS * (ROUNDS + 1), stats
                assert stats.misses == 0, stats
    what = f"hit at {many:,} entries on disk"
    peer = f"at {FEW:,}"
    times = type(times)({
        {"typed, few": peer, "store, few": f"store alone, {peer}"}.get(name, name): taken
        for name, taken in times.rounds.items()
    })  # fmt: skip
    report.versus(what, times, "typed, many", peer, target=2)
    report.versus(what, times, "store, many", f"store alone, {peer}", note="the store alone")
    for count, found in latencies.items():
        asked = HITS * (ROUNDS + 1)
        report.fact(f"left to a worker at {count:,}", f"{elsewhere[count]:,} of {asked:,}")
        found.sort()
        report.value(f"99th of 100 hits at {count:,}", found[int(len(found) * 0.99)], unit="us")


if __name__ == "__main__":
    run(main, __doc__, "openai")
