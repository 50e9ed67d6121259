"""What the lease thread does: claims, renewals and releases of one turn as one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from asynccache.runtime.clock import Clock
from asynccache.stores.base import Claim, Claimed, Lease
from asynccache.stores.disk.database import connect_writer, entry_id, is_local, mapped
from asynccache.stores.disk.folder import Folder
from asynccache.stores.disk.group import FolderOf, Transactions
from asynccache.stores.disk.read import read_entries, select_ids
from asynccache.stores.disk.thread import Job

_ABANDONED_US: Final = 24 * 3600 * 10**6  # no call takes a day; what is older nobody waits for

_Held = tuple[bytes, int]  # token, renewals
_Answer = Claimed | bool  # to a claim; to a renewal or a release


class LeaseWork:
    """Claims, renewals or releases of one namespace."""

    __slots__ = ("ids", "items", "release", "seed", "tenant")

    def __init__(
        self,
        seed: str,
        tenant: str | None,
        items: Sequence[Claim | Lease],
        *,
        release: bool = False,
    ) -> None:
        self.seed, self.tenant, self.items, self.release = seed, tenant, items, release
        self.ids = [entry_id(tenant, item.key) for item in items]


class Leases:
    """The work of the lease thread.

    Args:
        folder_of: Where seeds are.
        clock: To tell leases nobody remembers.
    """

    def __init__(self, folder_of: FolderOf, clock: Clock) -> None:
        self._transactions = Transactions(folder_of, self._connect)
        self._clock = clock

    def do(self, jobs: Sequence[Job[LeaseWork]]) -> None:
        """Do a group, one transaction per seed."""
        by_seed: dict[str, list[Job[LeaseWork]]] = {}
        for job in jobs:
            by_seed.setdefault(job.work.seed, []).append(job)
        for seed, group in by_seed.items():
            self._commit(seed, group)

    def finish(self) -> None:
        """Close the connections."""
        self._transactions.close()

    def leak(self) -> list[sqlite3.Connection]:
        """Hand over the connections, in a fork, to be kept and never closed."""
        return self._transactions.leak()

    def _connect(self, folder: Folder) -> sqlite3.Connection:
        connection = connect_writer(folder.leases, durable=False)
        with suppress(sqlite3.Error):  # another process may be at it: tomorrow is soon enough
            connection.execute(
                "DELETE FROM leases WHERE touched < ?", (self._clock.time_us() - _ABANDONED_US,)
            )
        return connection

    def _commit(self, seed: str, jobs: Sequence[Job[LeaseWork]]) -> None:
        works = [job.work for job in jobs]
        try:
            folder, results = self._transactions.run(
                seed, lambda connection: _apply(connection, works, self._clock.time_us())
            )
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is one job's or the group's
            if len(jobs) > 1 and is_local(exc):
                for job in jobs:
                    self._commit(seed, [job])
            else:
                for job in jobs:
                    job.error = mapped(exc)
            return
        entries = self._look(folder, works, results)
        for job, answers in zip(jobs, results, strict=True):
            job.result = [
                Claimed(granted=True, entry=entry)
                if (entry := entries.get((job.work.tenant, item.key))) is not None
                and _granted(answer)
                else answer
                for item, answer in zip(job.work.items, answers, strict=True)
            ]

    def _look(
        self, folder: Folder, works: Sequence[LeaseWork], results: Sequence[list[_Answer]]
    ) -> dict[tuple[str | None, bytes], bytes]:
        """Return the entries of granted claims, by tenant and key.

        After the commit: who stored an entry did so before giving the lease back, so whoever is
        granted it sees the entry.
        """
        granted: dict[str | None, list[bytes]] = {}
        for work, answers in zip(works, results, strict=True):
            granted.setdefault(work.tenant, []).extend(
                item.key
                for item, answer in zip(work.items, answers, strict=True)
                if _granted(answer)
            )
        found: dict[tuple[str | None, bytes], bytes] = {}
        for tenant, keys in granted.items():
            with suppress(sqlite3.Error, OSError):  # not seen is a miss, and costs one call
                entries = read_entries(folder, tenant, keys, self._clock.time_us())
                for key, entry in zip(keys, entries, strict=True):
                    if entry is not None:
                        found[tenant, key] = entry
        return found


def _granted(answer: _Answer) -> bool:
    return isinstance(answer, Claimed) and answer.granted


def _apply(
    connection: sqlite3.Connection, works: Sequence[LeaseWork], now: int
) -> list[list[_Answer]]:
    """Decide all works in their order on what is held, then write what changed."""
    ids = [row_id for work in works for row_id in work.ids]
    held: dict[int, _Held | None] = {
        row_id: (token, renewals)
        for row_id, token, renewals in select_ids(
            connection, "SELECT id, token, renewals FROM leases", ids
        )
    }
    before = held.copy()
    results = [
        [
            _decide(held, row_id, item, release=work.release)
            for row_id, item in zip(work.ids, work.items, strict=True)
        ]
        for work in works
    ]
    changed = [(row_id, now_held) for row_id, now_held in held.items()
               if now_held != before.get(row_id)]  # fmt: skip
    connection.executemany(
        "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)",
        [(row_id, *now_held, now) for row_id, now_held in changed if now_held is not None],
    )
    connection.executemany(
        "DELETE FROM leases WHERE id = ?",
        [(row_id,) for row_id, now_held in changed if now_held is None],
    )
    return results


def _decide(
    held: dict[int, _Held | None], row_id: int, item: Claim | Lease, *, release: bool
) -> _Answer:
    """Apply one claim, renewal or release to what is held."""
    holder = held.get(row_id)
    if isinstance(item, Claim):
        # Its own token is no obstacle: the transaction is run again where a database was replaced.
        if holder is not None and holder[0] != item.token:
            found = Lease(item.key, *holder)
            if item.expect != found:
                return Claimed(granted=False, holder=found)
        held[row_id] = (item.token, 0)
        return Claimed(granted=True)
    if holder is None or holder[0] != item.token:
        return False
    held[row_id] = None if release else (holder[0], holder[1] + 1)
    return True
