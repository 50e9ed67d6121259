"""What the writer thread does: each group of sets and deletes a transaction, then the upkeep."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from asynccache.runtime.clock import Clock
from asynccache.stores.disk.bodies import remove_bodies
from asynccache.stores.disk.database import connect_writer, is_local, mapped
from asynccache.stores.disk.evict import Evictor
from asynccache.stores.disk.folder import Folder
from asynccache.stores.disk.group import FolderOf, Transactions
from asynccache.stores.disk.thread import Job
from asynccache.stores.disk.work import Put, Transaction, Work

_CHECKPOINT_BYTES: Final = 4 * 2**20  # written since the last one: SQLite's own default
_NOTE_ROWS: Final = 1000  # uses noted per transaction, so that sets get in between
_NOTE_AGE_US: Final = 60 * 10**6  # evicting by the minute is exact enough
_IDLE_SECONDS: Final = 5.0  # between two rounds of noting last uses
_PAGE_BYTES: Final = 4096  # what an evicted or noted row costs the log


class Writer:
    """The work of the writer thread.

    Args:
        folder_of: Where seeds are.
        folders: All open folders, whose uses are noted.
        evictor: Keeps the limit.
        clock: For last uses.
    """

    def __init__(
        self,
        folder_of: FolderOf,
        folders: Callable[[], Iterable[tuple[str, Folder]]],
        evictor: Evictor,
        clock: Clock,
    ) -> None:
        self._transactions = Transactions(
            folder_of, lambda folder: connect_writer(folder.database, durable=True)
        )
        self._folders, self._evictor, self._clock = folders, evictor, clock
        self._logged = 0  # bytes since the last checkpoint
        self._noted = time.monotonic()
        self.transactions = 0
        """How many were committed, for tests and curiosity."""

    def do(self, jobs: Sequence[Job[Work]]) -> None:
        """Commit a group, one transaction per seed."""
        by_seed: dict[str, list[Job[Work]]] = {}
        for job in jobs:
            by_seed.setdefault(job.work.seed, []).append(job)
        for seed, group in by_seed.items():
            self._commit(seed, group)

    def between(self) -> float:
        """Checkpoint, note uses, evict: a little of each that is due."""
        if self._logged >= _CHECKPOINT_BYTES:
            self._logged = 0
            for _, _, connection in self._transactions.opened():
                # Passive: it takes what no reader holds, and never makes anyone wait.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        more = False
        if time.monotonic() - self._noted >= _IDLE_SECONDS:
            more = self.note_uses()
            if not more:
                self._noted = time.monotonic()
        before = self._evictor.evicted + self._evictor.expired
        own = {folder.database: found for _, folder, found in self._transactions.opened()}
        more |= bool(own) and self._evictor.step(own)
        self._logged += _PAGE_BYTES * (self._evictor.evicted + self._evictor.expired - before)
        return 0.0 if more else _IDLE_SECONDS

    def note_uses(self) -> bool:
        """Write the last use of some entries read of late; return whether there are more."""
        more = False
        for seed, folder in self._folders():
            used: list[int] = []
            while folder.touched and len(used) < _NOTE_ROWS:
                used.append(folder.touched.popitem()[0])
            if used and folder.writable:
                now = self._clock.time_us()  # after all of these uses
                _, changed = self._transactions.run(seed, partial(_note, now, used))
                self._logged += _PAGE_BYTES * max(changed, 0)
            more |= len(used) == _NOTE_ROWS
        return more

    def finish(self) -> None:
        """Note all uses and close; the last connection to a database folds its log into it."""
        try:
            while self.note_uses():
                pass
        finally:
            self.disconnect()

    def disconnect(self) -> None:
        """Close all connections; the next transaction opens one anew."""
        self._evictor.close()
        self._transactions.close()

    def leak(self) -> list[sqlite3.Connection]:
        """Hand over the connections, in a fork, to be kept and never closed."""
        return self._transactions.leak() + self._evictor.leak()

    def _commit(self, seed: str, jobs: Sequence[Job[Work]]) -> None:
        works = [job.work for job in jobs]

        def run(connection: sqlite3.Connection) -> tuple[Transaction, list[object]]:
            transaction = Transaction(connection)
            return transaction, transaction.run(works)

        try:
            folder, (transaction, results) = self._transactions.run(seed, run)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is one job's or the group's
            if len(jobs) > 1 and is_local(exc):
                for job in jobs:
                    self._commit(seed, [job])
                return
            for job in jobs:
                job.error = mapped(exc)
                if isinstance(job.work, Put):
                    job.work.settle(())
            return
        self.transactions += 1
        rows = size = 0
        for job, result in zip(jobs, results, strict=True):
            job.result = result
            if isinstance(job.work, Put):
                rows += len(job.work.rows)
                size += job.size
                if job.work.bodies:
                    job.work.settle(job.result)
                    size += sum(body.size for body in job.work.bodies.values())
        self._logged += size
        self._evictor.wrote(rows, size)
        remove_bodies(folder.bodies, transaction.removed)


def _note(now: int, used: list[int], connection: sqlite3.Connection) -> int:
    return connection.executemany(
        "UPDATE entries SET used = ? WHERE id = ? AND used < ?",
        [(now, row_id, now - _NOTE_AGE_US) for row_id in used],
    ).rowcount
