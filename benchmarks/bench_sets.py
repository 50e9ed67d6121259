"""2,000 concurrent durable sets of 2 kB on disk, against one bare `executemany` transaction.

Ours: a gather of 2,000 `AsyncCache.set`, each of which returns once its entry survives power loss.
The peer: the same keys and encoded entries by one `executemany` in one transaction of SQLite, in
WAL mode with `synchronous=FULL`, in the same folder, over a table of row id, key and value: as few
steps as there can be, off no loop and for no one else to share. SQLite checkpoints within a commit
that made the log long, we do after it: so the peer to beat checkpoints outside the time that is
measured, and the one with SQLite's own setting is shown beside it. Before each run everybody's disk
is left in peace for a while. The store alone, given all in one batch, is shown too.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sqlite3
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import perf_counter, time_ns
from typing import TypeVar

from _harness import Report, Timed, in_turn, run

from asynccache import Cache
from asynccache.entries.entry import Entry, Meta, encode_entry
from asynccache.entries.values import encode_value
from asynccache.keys.key import Namespace, value_key
from asynccache.stores.base import Record
from asynccache.stores.disk.database import entry_id

T = TypeVar("T")
SETS, BYTES, ROUNDS, PEACE = 2000, 2000, 20, 0.3
NAMESPACE, META = Namespace("42"), Meta("value", content_type="application/msgpack")


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


def record_of(key: object, value: bytes) -> Record:
    """Return what `AsyncCache.set` gives the store."""
    digest = value_key(NAMESPACE, "value", key)
    entry = Entry(digest, time_ns() // 1000, 0, META, (encode_value(value),))
    return Record(key=digest, body=encode_entry(entry))


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, key BLOB, value BLOB)")
    return connection


def in_peace(timed: Timed) -> Timed:
    """Let the writer's checkpoint and the system's writing out of the last run end first."""

    async def later() -> float:
        await asyncio.sleep(PEACE)
        return await timed()

    return later


async def timed_batch(batch: T, write: Callable[[T], Awaitable[Sequence[bool]]]) -> float:
    began = perf_counter()
    stored = await write(batch)
    taken = perf_counter() - began
    assert all(stored)
    return taken


async def main(report: Report) -> None:
    fresh = itertools.count()
    noise = random.Random(42)

    def pairs() -> list[tuple[int, bytes]]:
        return [(next(fresh), noise.randbytes(BYTES)) for _ in range(SETS)]

    def records() -> list[Record]:
        return [record_of(key, value) for key, value in pairs()]

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bare, usual = connect(root / "bare.db"), connect(root / "usual.db")
        bare.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        async with Cache.disk(cache_path_root=root / "ours") as cache:

            async def sets() -> float:
                items = pairs()
                began = perf_counter()
                stored = await asyncio.gather(*[cache.set(key, value) for key, value in items])
                taken = perf_counter() - began
                assert all(stored)
                return taken

            async def set_many() -> float:
                return await timed_batch(pairs(), cache.set_many)

            async def store_alone() -> float:
                return await timed_batch(
                    records(), lambda batch: cache._lifecycle.store.set_many(NAMESPACE, batch)
                )

            def executemany(database: sqlite3.Connection) -> Timed:
                async def timed() -> float:
                    rows = [(entry_id(None, each.key), each.key, each.body) for each in records()]
                    began = perf_counter()
                    database.execute("BEGIN IMMEDIATE")
                    database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
                    database.execute("COMMIT")
                    taken = perf_counter() - began
                    database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                    return taken

                return timed

            peer, checkpointing = "bare executemany", "the same, checkpointing"
            contestants = {
                "sets": sets, "set_many": set_many, "store": store_alone,
                peer: executemany(bare), checkpointing: executemany(usual),
            }  # fmt: skip
            times = await in_turn(
                {name: in_peace(timed) for name, timed in contestants.items()},
                5 if report.small else ROUNDS,
            )
        bare.close()
        usual.close()
        report.fact("fsync of 4 kB, ms", round(fsync_seconds(root) * 1e3, 3))
    what = f"{SETS:,} durable sets of 2 kB"
    report.versus(f"{what}, concurrent", times, "sets", peer, target=2, unit="ms")
    report.versus(f"{what}, concurrent", times, "sets", checkpointing, unit="ms")
    report.versus(f"{what}, one set_many", times, "set_many", peer, unit="ms")
    report.versus(f"{what}, the store alone", times, "store", peer, unit="ms")


if __name__ == "__main__":
    run(main, __doc__)
