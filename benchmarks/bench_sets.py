"""2,000 concurrent durable sets of 2 kB on disk, against one bare `executemany` transaction.

Ours: a gather of 2,000 `AsyncCache.set`, each of which returns once its entry survives power loss.
The peer: the same keys and encoded entries by one `executemany` in one transaction of SQLite, in
WAL mode with `synchronous=FULL`, in the same folder, over a table of row id, key and value: as few
steps as there can be, off no loop and for no one else to share. The store alone, given all in one
batch, is shown too.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sqlite3
import statistics
import tempfile
from pathlib import Path
from time import perf_counter, time_ns

from _harness import Report, in_turn, run

from asynccache import Cache
from asynccache._entry import Entry, Meta, encode_entry
from asynccache._key import Namespace, value_key
from asynccache._values import encode_value
from asynccache.stores._base import Record
from asynccache.stores._disk_database import entry_id

SETS, BYTES, ROUNDS = 2000, 2000, 20
NAMESPACE = Namespace("42")


def fsync_seconds(folder: Path) -> float:
    """Return what it takes here to get 4 kB onto the disk."""
    taken = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(50):
            began = perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            taken.append(perf_counter() - began)
    return statistics.median(taken)


async def main(report: Report) -> None:
    fresh = itertools.count()
    noise = random.Random(42)
    meta = Meta("value", content_type="application/msgpack")

    def pairs() -> list[tuple[int, bytes]]:
        return [(next(fresh), noise.randbytes(BYTES)) for _ in range(SETS)]

    def records() -> list[Record]:
        now = time_ns() // 1000
        found = []
        for key, value in pairs():
            digest = value_key(NAMESPACE, "value", key)
            entry = Entry(digest, now, 0, meta, (encode_value(value),))
            found.append(Record(key=digest, body=encode_entry(entry)))
        return found

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bare = sqlite3.connect(root / "bare.db", isolation_level=None)
        bare.execute("PRAGMA journal_mode = WAL").fetchall()
        bare.execute("PRAGMA synchronous = FULL")
        bare.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, key BLOB, value BLOB)")
        async with Cache.disk(cache_path_root=root / "ours") as cache:

            async def sets() -> float:
                items = pairs()
                began = perf_counter()
                stored = await asyncio.gather(*[cache.set(key, value) for key, value in items])
                taken = perf_counter() - began
                assert all(stored)
                return taken

            async def set_many() -> float:
                items = pairs()
                began = perf_counter()
                stored = await cache.set_many(items)
                taken = perf_counter() - began
                assert all(stored)
                return taken

            async def store_alone() -> float:
                batch = records()
                began = perf_counter()
                stored = await cache._store.set_many(NAMESPACE, batch)
                taken = perf_counter() - began
                assert all(stored)
                return taken

            async def executemany() -> float:
                rows = [(entry_id(None, each.key), each.key, each.body) for each in records()]
                began = perf_counter()
                bare.execute("BEGIN IMMEDIATE")
                bare.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
                bare.execute("COMMIT")
                return perf_counter() - began

            peer = "bare executemany"
            times = await in_turn(
                {"sets": sets, "set_many": set_many, "store": store_alone, peer: executemany},
                5 if report.small else ROUNDS,
            )
        bare.close()
        report.fact("fsync of 4 kB, ms", round(fsync_seconds(root) * 1e3, 3))
    what = f"{SETS:,} durable sets of 2 kB"
    report.versus(f"{what}, concurrent", times, "sets", peer, target=2, unit="ms")
    report.versus(f"{what}, one set_many", times, "set_many", peer, unit="ms")
    report.versus(f"{what}, the store alone", times, "store", peer, unit="ms")


if __name__ == "__main__":
    run(main, __doc__)
