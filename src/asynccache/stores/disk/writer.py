"""The writer thread: sets, deletes and clears as SQL, and the upkeep of the databases."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from asynccache.runtime.clock import Clock
from asynccache.stores.base import Record
from asynccache.stores.disk.bodies import BodyFile, remove_bodies
from asynccache.stores.disk.commit import CommitThread, FolderOf, Job, Work
from asynccache.stores.disk.database import (
    connect_writer,
    entry_id,
    fold,
    is_full,
    select_ids,
    select_owned,
)
from asynccache.stores.disk.evict import ROW_BYTES, Evictor
from asynccache.stores.disk.folder import Folder
from asynccache.stores.disk.generations import ALL, Generations, forget_old
from asynccache.stores.disk.room import Room

_NOTE_ROWS: Final = 250  # uses noted per transaction, so that sets get in between
_NOTE_BYTES: Final = 3 * 4096  # of the log that a note may take: three pages, two of an index
_NOTES: Final = 16  # of the limit: a use is noted once so much was written since the last one
_SEEDS: Final = 50  # whose uses may be remembered: most of their folders are closed
_IDLE_SECONDS: Final = 1.0  # between two looks whether there is something to note
_FORGET_SECONDS: Final = 3600.0  # between two rounds of forgetting old generations
_FINISH_SECONDS: Final = 5.0  # that closing may take to get below the limit

_Row: TypeAlias = tuple[int, bytes, str | None, int, int, int, str | None, bytes]
"""Id, key, tenant, size, expires, used, file, and the value (empty if it is in a file)."""

_REPLACE: Final = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_LATEST: Final = "SELECT max(used) FROM entries"
_NOTE: Final = "UPDATE entries SET used = ? WHERE id = ? AND used < ?"
# What has expired, and another key of the same first 64 bits, counts as absent.
_INSERT: Final = (
    "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
    " key = excluded.key, tenant = excluded.tenant, size = excluded.size,"
    " expires = excluded.expires, used = excluded.used, file = excluded.file,"
    " value = excluded.value"
    " WHERE entries.expires BETWEEN 1 AND ? OR entries.key <> excluded.key"
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
    rows: int


class Renew(Work, frozen=True):
    """Keys to be given new generations. The result is these."""

    keys: Sequence[bytes]


class MakeRoom(Work, frozen=True):
    """Free some of a full volume for a body's file."""

    bytes: int


EntryWork: TypeAlias = Put | Delete | Clear | Renew | MakeRoom


class Transaction:
    """What is done within one transaction, and the files to remove once it is committed.

    Args:
        connection: Has begun it.
        now: The time, for expiry.
        place: The latest place in the order of uses. What is written comes behind it.
    """

    def __init__(self, connection: sqlite3.Connection, now: int, place: int) -> None:
        self.removed: list[str] = []
        self.place = place
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
        if isinstance(work, MakeRoom):
            return 0
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
            self.place += size + ROW_BYTES
            rows.append((row_id, key, put.tenant, size, record.expires, self.place, file, value))
        return rows

    def _replace(self, rows: list[_Row]) -> None:
        if rows:
            self.removed += self._files([row[0] for row in rows])
            self._connection.executemany(_REPLACE, rows)

    def _insert(self, record: Record, row: _Row) -> bool:
        """Write one row; return whether it was written."""
        replaced = self._files([row[0]])
        done = (
            self._connection.execute(_INSERT, (*row, self._now))
            if record.if_absent
            else self._connection.execute(_REPLACE, row)
        )
        if done.rowcount < 1:
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
            self._connection, "id, expires", work.tenant, work.after, work.rows
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
    return work.keys if isinstance(work, Delete | Renew) else [ALL]


def _is_plain(put: Put) -> bool:
    return not put.bodies and True not in [record.if_absent for record in put.records]


class WriterThread(CommitThread[EntryWork]):
    """Writes the entries of all seeds, and does the upkeep between two groups.

    Args:
        folder_of: Finds the folder of a seed.
        room: What all seeds of the root share.
        touched: The row ids of entries read of late, by seed.
        clock: For expiry.
    """

    def __init__(
        self, folder_of: FolderOf, room: Room, touched: dict[str, dict[int, None]], clock: Clock
    ) -> None:
        self._room, self._touched, self._clock = room, touched, clock
        self._removed: list[str] = []
        self._logs: dict[str, int] = {}  # of each seed, how long it was after it was folded in
        self._noted_at = self._forgot = time.monotonic()
        self._noted_place = 0
        self._noting: Iterator[None] = iter(())
        self.evictor = Evictor(room, clock, self._own, self._note_uses)
        self.transactions = 0
        """How many groups were committed, for tests and curiosity."""
        super().__init__("asynccache-write", folder_of)

    def path(self, folder: Folder) -> Path:
        """Return the database of entries."""
        return folder.database

    def connect(self, folder: Folder) -> sqlite3.Connection:
        """Open the connection to the entries, and forget what is too old to matter."""
        connection = connect_writer(folder.database, durable=True)
        self._forget_old(connection)
        return connection

    def apply(self, connection: sqlite3.Connection, works: Sequence[EntryWork]) -> list[Any]:
        """Do works in their order."""
        (latest,) = connection.execute(_LATEST).fetchone()
        place = max(self._room.place(), latest or 0)
        transaction = Transaction(connection, self._clock.time_us(), place)
        results = transaction.run(works)
        self._removed = transaction.removed
        self._room.move(transaction.place)
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
        remove_bodies(folder.bodies, self._removed)
        if rows:
            self.evictor.wrote(rows, size)
        for job in jobs:
            if isinstance(job.work, MakeRoom):
                self.evictor.make_room(job.work.bytes)
            elif isinstance(job.work, Clear) and (job.result[1] is None or self._room.lack() > 0):
                fold(self._own()[folder.path])  # which gives back what it took

    def before(self, size: int) -> None:
        """Make room where the volume is nearly full: a full one has none to delete with."""
        with suppress(OSError):  # there is no root: then there is nothing to evict
            if size and self._room.lack(2 * size) > 0:  # once in the log, and once in the database
                self.evictor.make_room(2 * size)

    def relieve(self, seed: str, exc: Exception, size: int) -> bool:
        """Make room if the disk is full."""
        return is_full(exc) and self.evictor.make_room(2 * size)

    def failed(self, work: EntryWork) -> None:
        """Remove the files that no row names."""
        if isinstance(work, Put):
            for body in work.bodies.values():
                body.discard()

    def between(self) -> float:
        """Fold logs in, note uses, evict: a little of each that is due."""
        self._fold_logs()
        if time.monotonic() - self._forgot >= _FORGET_SECONDS:
            for _, _, connection in self._connections.values():
                self._forget_old(connection)
        if time.monotonic() - self._noted_at >= _IDLE_SECONDS:
            self._noted_at = time.monotonic()
            much = self._room.place() - self._noted_place >= self._room.limit // _NOTES
            if much or len(self._touched) > _SEEDS:
                self._noting = self._note_uses()
        more = next(self._noting, self) is None
        return 0.0 if self.evictor.step() or more else _IDLE_SECONDS

    def _forget_old(self, connection: sqlite3.Connection) -> None:
        self._forgot = time.monotonic()
        with suppress(sqlite3.Error):  # full, or another process is at it: later is soon enough
            forget_old(connection, self._clock.time_us())

    def finish(self) -> None:
        """Note all uses; the last connection to a database that closes folds its log into it."""
        for _ in self._note_uses():
            self._fold_logs()
        self.evictor.finish(_FINISH_SECONDS)

    def _own(self) -> dict[Path, sqlite3.Connection]:
        return {folder.path: connection for folder, _, connection in self._connections.values()}

    def _fold_logs(self) -> None:
        """Fold in logs that have grown beyond what is kept of them to be written over."""
        for seed, (folder, _, connection) in self._connections.items():
            with suppress(OSError):  # there is none
                log = f"{folder.database}-wal"
                size = os.stat(log).st_size  # noqa: PTH116 - asked once per group, and is faster
                # Where a reader pins it, it is as long as before: tried again once it has grown.
                if size > self._logs.get(seed, 0) + self._room.unit:
                    fold(connection)
                    self._logs[seed] = os.stat(log).st_size  # noqa: PTH116

    def _note_uses(self) -> Iterator[None]:
        """Write down the last use of entries that were read of late, some at a time."""
        for seed, touched in list(self._touched.items()):
            for _ in range(0, len(touched), _NOTE_ROWS):  # more may be read meanwhile
                place = self._noted_place = self._room.place()
                since = place - self._room.limit // _NOTES
                notes: list[tuple[int, int, int]] = []
                with suppress(KeyError):
                    while len(notes) < _NOTE_ROWS:
                        notes.append((place, touched.popitem()[0], since))
                if self._room.lack(len(notes) * _NOTE_BYTES) > 0:
                    return
                self.evictor.within(self._room.root / seed, partial(_note, notes))
                yield


def _note(notes: Sequence[tuple[int, int, int]], connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_NOTE, notes)
