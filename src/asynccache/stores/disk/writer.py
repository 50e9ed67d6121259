"""The writer thread: sets, deletes and clears as SQL, and the upkeep of the databases."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from operator import methodcaller
from typing import Any, Final, TypeAlias

from asynccache.runtime.clock import Clock
from asynccache.stores.base import Record
from asynccache.stores.disk.bodies import BodyFile, remove_bodies
from asynccache.stores.disk.commit import CommitThread, FolderOf, Job, Work
from asynccache.stores.disk.database import connect_writer, entry_id, select_ids, select_owned
from asynccache.stores.disk.evict import Evictor
from asynccache.stores.disk.folder import Folder
from asynccache.stores.disk.generations import ALL, Generations, forget_old

_CLEAR_ROWS: Final = 1000  # per transaction, so that other writers get in between
_CHECKPOINT_BYTES: Final = 4 * 2**20  # written since the last one: SQLite's own default
_NOTE_ROWS: Final = 1000  # uses noted per transaction, so that sets get in between
_NOTE_AGE_US: Final = 60 * 10**6  # evicting by the minute is exact enough
_IDLE_SECONDS: Final = 5.0  # between two rounds of noting last uses
_FORGET_SECONDS: Final = 3600.0  # between two rounds of forgetting old generations
_PAGE_BYTES: Final = 4096  # what an evicted or noted row costs the log

_Row: TypeAlias = tuple[int, bytes, str | None, int, int, int, str | None, bytes]
"""Id, key, tenant, size, expires, used, file, and the value (empty if it is in a file)."""

_REPLACE: Final = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_NOTE: Final = "UPDATE entries SET used = ? WHERE id = ? AND used < ?"
# What has expired, and another key of the same first 64 bits, counts as absent.
_INSERT: Final = (
    "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
    " key = excluded.key, tenant = excluded.tenant, size = excluded.size,"
    " expires = excluded.expires, used = excluded.used, file = excluded.file,"
    " value = excluded.value"
    " WHERE entries.expires BETWEEN 1 AND excluded.used OR entries.key <> excluded.key"
    " OR entries.tenant IS NOT excluded.tenant"
)


class Put(Work, frozen=True):
    """Records to be written. The result is a list: which of them were."""

    records: Sequence[Record]
    bodies: dict[int, BodyFile]
    """The files of large bodies, by the record's position. No row names them before the commit."""


class Delete(Work, frozen=True):
    """Keys to be removed. The result is how many live ones were there."""

    keys: Sequence[bytes]


class Clear(Work, frozen=True):
    """One step of a clear. The result is how many live rows went, and where to go on, or None."""

    after: int | None


class Renew(Work, frozen=True):
    """Keys to be given new generations. The result is these."""

    keys: Sequence[bytes]


EntryWork: TypeAlias = Put | Delete | Clear | Renew


class Transaction:
    """What is done within one transaction, and the files to remove once it is committed."""

    def __init__(self, connection: sqlite3.Connection, now: int) -> None:
        self.removed: list[str] = []
        self._connection, self._now = connection, now
        any_file = "SELECT 1 FROM entries WHERE file IS NOT NULL LIMIT 1"
        self._has_files = bool(connection.execute(any_file).fetchall())

    def run(self, works: Sequence[EntryWork]) -> list[Any]:
        """Do works in their order, runs of plain sets as one statement; return their results."""
        keys = [(work.tenant, key) for work in works for key in _keys(work)]
        self._generations = Generations(self._connection, keys, self._now)
        results: list[Any] = []
        rows: list[_Row] = []
        for work in works:
            if isinstance(work, Put) and _is_plain(work):
                allowed = self._allowed(work)
                rows += self._rows(work, allowed)
                results.append(allowed)
            else:
                self._replace(rows)
                rows = []
                results.append(self._do(work))
        self._replace(rows)
        self._generations.write()
        return results

    def _do(self, work: EntryWork) -> list[bool] | list[bytes] | int | tuple[int, int | None]:
        generations = self._generations
        if isinstance(work, Put):
            allowed = self._allowed(work)
            rows = iter(self._rows(work, allowed))
            both = zip(work.records, allowed, strict=True)
            return [may and self._insert(record, next(rows)) for record, may in both]
        if isinstance(work, Clear):
            if work.after is None:
                generations.renew(work.tenant)
            return self._clear(work)
        renewed = [generations.renew(work.tenant, key) for key in work.keys]
        return renewed if isinstance(work, Renew) else self._delete(work)

    def _allowed(self, put: Put) -> list[bool]:
        return [self._generations.allows(put.tenant, record) for record in put.records]

    def _rows(self, put: Put, allowed: Sequence[bool]) -> list[_Row]:
        rows: list[_Row] = []
        for at, record in enumerate(put.records):
            if not allowed[at]:
                continue
            key, value, file = record.key, record.body, None
            size = len(value)
            if at in put.bodies:
                value, file = b"", put.bodies[at].path.name
            row_id = entry_id(put.tenant, key)
            rows.append((row_id, key, put.tenant, size, record.expires, self._now, file, value))
        return rows

    def _replace(self, rows: list[_Row]) -> None:
        if rows:
            self.removed += self._files([row[0] for row in rows])
            self._connection.executemany(_REPLACE, rows)

    def _insert(self, record: Record, row: _Row) -> bool:
        """Write one row; return whether it was written."""
        replaced = self._files([row[0]])
        statement = _INSERT if record.if_absent else _REPLACE
        if self._connection.execute(statement, row).rowcount < 1:
            return False
        self.removed += replaced
        self._has_files = self._has_files or row[6] is not None
        return True

    def _delete(self, work: Delete) -> int:
        keys = set(work.keys)
        rows = select_ids(
            self._connection,
            "SELECT id, key, tenant, expires FROM entries",
            [entry_id(work.tenant, key) for key in keys],
        )
        return self._remove(
            [
                (row_id, expires)
                for row_id, key, tenant, expires in rows
                if key in keys and tenant == work.tenant
            ]
        )

    def _clear(self, work: Clear) -> tuple[int, int | None]:
        """Remove the next rows in the order of their ids."""
        rows, after = select_owned(
            self._connection, "id, expires", work.tenant, work.after, _CLEAR_ROWS
        )
        return self._remove(rows), after

    def _remove(self, rows: Sequence[tuple[int, int]]) -> int:
        """Remove rows, given by id and expiry; return how many of them were live."""
        self.removed += self._files([row_id for row_id, _ in rows])
        self._connection.executemany(
            "DELETE FROM entries WHERE id = ?", [(row_id,) for row_id, _ in rows]
        )
        return sum(not 0 < expires <= self._now for _, expires in rows)

    def _files(self, ids: Sequence[int]) -> list[str]:
        """Return the files that rows name; nearly always there are none at all."""
        if not self._has_files:
            return []
        rows = select_ids(self._connection, "SELECT file FROM entries", ids)
        return [file for (file,) in rows if file is not None]


def _keys(work: EntryWork) -> Sequence[bytes]:
    """Return whose generations have to be known; that of the whole tenant always has."""
    if isinstance(work, Put):
        return [record.key for record in work.records]
    return [ALL] if isinstance(work, Clear) else work.keys


def _is_plain(put: Put) -> bool:
    return not put.bodies and True not in [record.if_absent for record in put.records]


class WriterThread(CommitThread[EntryWork]):
    """Writes the entries of all seeds, and does the upkeep between two groups.

    Args:
        folder_of: Finds the folder of a seed.
        folders: Returns all open folders, whose uses are noted.
        evictor: Keeps the limit.
        clock: Tells when an entry was last used.
    """

    def __init__(
        self,
        folder_of: FolderOf,
        folders: Callable[[], Iterable[tuple[str, Folder]]],
        evictor: Evictor,
        clock: Clock,
    ) -> None:
        self._folders, self._evictor, self._clock = folders, evictor, clock
        self._removed: list[str] = []
        self._logged = 0  # bytes since the last checkpoint
        self._noted = self._forgot = time.monotonic()
        self.transactions = 0
        """How many groups were committed, for tests and curiosity."""
        super().__init__("asynccache-write", folder_of)

    def connect(self, folder: Folder) -> sqlite3.Connection:
        """Open the connection to the entries, and forget what is too old to matter."""
        connection = connect_writer(folder.database, durable=True)
        self._forget_old(connection)
        return connection

    def apply(self, connection: sqlite3.Connection, works: Sequence[EntryWork]) -> list[Any]:
        """Do works in their order."""
        transaction = Transaction(connection, self._clock.time_us())
        results = transaction.run(works)
        self._removed = transaction.removed
        return results

    def committed(self, folder: Folder, jobs: Sequence[Job[EntryWork]]) -> None:
        """Keep the files that rows now name, and remove those that they named before."""
        self.transactions += 1
        rows = size = 0
        for job in jobs:
            size += job.size
            if isinstance(job.work, Put):
                rows += len(job.work.records)
                for at, body in job.work.bodies.items():
                    size += body.size
                    if job.result[at]:
                        body.keep()
                    else:
                        body.discard()
        self._logged += size
        self._evictor.wrote(rows, size)
        remove_bodies(folder.bodies, self._removed)

    def failed(self, work: EntryWork) -> None:
        """Remove the files that no row names."""
        if isinstance(work, Put):
            for body in work.bodies.values():
                body.discard()

    def between(self) -> float:
        """Checkpoint, note uses, evict: a little of each that is due."""
        if self._logged >= _CHECKPOINT_BYTES:
            self._logged = 0
            for _, connection in self._connections.values():
                # Passive: it takes what no reader holds, and never makes anyone wait.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        if time.monotonic() - self._forgot >= _FORGET_SECONDS:
            for _, connection in self._connections.values():
                self._forget_old(connection)
        more = False
        if time.monotonic() - self._noted >= _IDLE_SECONDS:
            more = self._note_uses()
            if not more:
                self._noted = time.monotonic()
        before = self._evictor.evicted + self._evictor.expired
        own = {folder.database: connection for folder, connection in self._connections.values()}
        more |= bool(own) and self._evictor.step(own)
        self._logged += _PAGE_BYTES * (self._evictor.evicted + self._evictor.expired - before)
        return 0.0 if more else _IDLE_SECONDS

    def _forget_old(self, connection: sqlite3.Connection) -> None:
        self._forgot = time.monotonic()
        with suppress(sqlite3.Error):  # full, or another process is at it: later is soon enough
            forget_old(connection, self._clock.time_us())

    def finish(self) -> None:
        """Note all uses; the last connection to a database that closes folds its log into it."""
        while self._note_uses():
            pass

    def _note_uses(self) -> bool:
        """Write the last use of some entries read of late; return whether there are more."""
        more = False
        for seed, folder in self._folders():
            used: list[int] = []
            while folder.touched and len(used) < _NOTE_ROWS:
                used.append(folder.touched.popitem()[0])
            if used and folder.writable:
                now = self._clock.time_us()  # after all of these uses
                notes = [(now, row_id, now - _NOTE_AGE_US) for row_id in used]
                _, noted = self.transact(seed, methodcaller("executemany", _NOTE, notes))
                self._logged += _PAGE_BYTES * noted.rowcount
            more |= len(used) == _NOTE_ROWS
        return more
