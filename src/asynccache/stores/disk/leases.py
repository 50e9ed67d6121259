"""The lease thread: claims, renewals and releases of one turn as one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from asynccache.errors import StoreRefusedError
from asynccache.runtime.clock import Clock
from asynccache.stores.base import Claim, Claimed, Lease
from asynccache.stores.disk.commit import CommitThread, FolderOf, Job, Work
from asynccache.stores.disk.database import (
    connect_writer,
    entry_id,
    is_busy,
    is_damaged,
    is_full,
    select_ids,
)
from asynccache.stores.disk.folder import Folder
from asynccache.stores.disk.opening import LEASES, prepare, remove_damaged
from asynccache.stores.disk.room import Room

_PATIENCE: Final = 1.0  # seconds for another process, which takes a millisecond or stands still
_ABANDONED_US: Final = 24 * 3600 * 10**6  # no call takes a day; what is older nobody waits for

_Held: TypeAlias = dict[int, tuple[bytes, int]]  # token and renewals, by row id


class LeaseWork(Work, frozen=True):
    """Claims, renewals or releases of one namespace. The result is a list of answers."""

    items: Sequence[Claim | Lease]
    release: bool = False


class LeaseThread(CommitThread[LeaseWork]):
    """Keeps the leases of all seeds.

    Args:
        folder_of: Finds the folder of a seed.
        clock: Tells which leases nobody remembers.
        room: Has a spare for when the volume is full.
    """

    def __init__(self, folder_of: FolderOf, clock: Clock, room: Room) -> None:
        self._clock, self._room = clock, room
        self._impatient = False
        super().__init__("asynccache-lease", folder_of)

    def path(self, folder: Folder) -> Path:
        """Return the database of leases."""
        return folder.leases

    def relieve(self, seed: str, exc: Exception, size: int) -> bool:
        """Make a damaged database anew, which holds nothing of worth; make room on a full volume.

        A power cut may damage it, since nothing in it is synced to the disk. A process that stands
        still in the middle of a write is waited for once.
        """
        if is_busy(exc) and seed in self._connections:
            self._wait(seed, 0)
        bad = is_damaged(exc) or isinstance(exc, StoreRefusedError)
        if bad and remove_damaged(self._folder_of(seed).leases, LEASES):
            return True
        return is_full(exc) and self._room.give_up_spare()

    def _wait(self, seed: str, seconds: float) -> None:
        """Wait that long for other processes from now on."""
        _, _, connection = self._connections[seed]
        connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
        self._impatient = not seconds

    def connect(self, folder: Folder) -> sqlite3.Connection:
        """Open the connection to the leases, and remove those that are long forgotten."""
        prepare(folder.leases, LEASES)
        connection = connect_writer(folder.leases, durable=False, timeout=_PATIENCE)
        connection.execute("PRAGMA busy_timeout = 0")
        with suppress(sqlite3.Error):  # another process may be at it: tomorrow is soon enough
            connection.execute(
                "DELETE FROM leases WHERE touched < ?", (self._clock.time_us() - _ABANDONED_US,)
            )
        connection.execute(f"PRAGMA busy_timeout = {int(_PATIENCE * 1000)}")
        return connection

    def apply(
        self, connection: sqlite3.Connection, works: Sequence[LeaseWork]
    ) -> Sequence[list[Claimed | bool]]:
        """Decide all works in their order on what is held, then write what changed."""
        rows = select_ids(
            connection,
            "SELECT id, token, renewals FROM leases",
            [entry_id(work.tenant, item.key) for work in works for item in work.items],
        )
        held: _Held = {row_id: (token, renewals) for row_id, token, renewals in rows}
        changed: set[int] = set()
        results = [[_decide(held, changed, work, item) for item in work.items] for work in works]
        now = self._clock.time_us()
        connection.executemany(
            "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)",
            [(row_id, *held[row_id], now) for row_id in changed if row_id in held],
        )
        connection.executemany(
            "DELETE FROM leases WHERE id = ?",
            [(row_id,) for row_id in changed if row_id not in held],
        )
        return results

    def committed(self, folder: Folder, jobs: Sequence[Job[LeaseWork]]) -> None:
        """Look for the generations and entries of granted claims.

        After the commit: who stored an entry did so before giving the lease back, so whoever is
        granted it sees the entry.
        """
        if self._impatient:
            self._wait(jobs[0].work.seed, _PATIENCE)
        granted: dict[str | None, list[tuple[Job[LeaseWork], int]]] = {}
        for job in jobs:
            for at, answer in enumerate(job.result):
                if isinstance(answer, Claimed) and answer.granted:
                    granted.setdefault(job.work.tenant, []).append((job, at))
        for tenant, places in granted.items():
            keys = [job.work.items[at].key for job, at in places]
            with suppress(sqlite3.Error, OSError):  # not seen is a miss, and costs one call
                generation = folder.generation()  # before the entries, as it must be no newer
                entries = folder.entries(tenant, keys)
                for (job, at), entry in zip(places, entries, strict=True):
                    job.result[at] = Claimed(granted=True, entry=entry, generation=generation)


def _decide(held: _Held, changed: set[int], work: LeaseWork, item: Claim | Lease) -> Claimed | bool:
    """Apply one claim, renewal or release to what is held, and return the answer."""
    row_id = entry_id(work.tenant, item.key)
    holder = held.get(row_id)
    if isinstance(item, Claim):
        # Its own token is no obstacle: the transaction is run again where a database was replaced.
        if holder is not None and holder[0] != item.token:
            found = Lease(item.key, *holder)
            if item.expect != found:
                return Claimed(granted=False, holder=found)
        held[row_id] = (item.token, 0)
        changed.add(row_id)
        return Claimed(granted=True)
    if holder is None or holder[0] != item.token:
        return False
    changed.add(row_id)
    if work.release:
        del held[row_id]
    else:
        held[row_id] = (holder[0], holder[1] + 1)
    return True
