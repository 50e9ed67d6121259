"""One seed's open folder: its databases, made or found, and the connections that read them."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Final

from asynccache.runtime.clock import Clock
from asynccache.stores.disk.bodies import sweep
from asynccache.stores.disk.database import (
    CACHE_KIB,
    ENTRIES,
    LEASES,
    Mode,
    connect,
    inspect,
    mapped,
    prepare,
)
from asynccache.stores.disk.files import (
    LOGGER,
    check_folder,
    identity,
    ignore_in_git,
    locked,
    make_folder,
)
from asynccache.stores.disk.inline import Inline

DATABASE: Final = "asynccache.db"
_LEASES: Final = "leases.db"
BODIES: Final = "bodies"
_INLINE_LIMIT: Final = 64  # loops with a reader of their own; the one opened longest ago goes first
LEAKED: Final[list[sqlite3.Connection]] = []
"""Connections that were in use at a fork: closing one here might undo what the parent writes."""


class _Nothing(dict[int, None]):
    """Keeps nothing: where nobody may write, nobody would ever empty it."""

    def __setitem__(self, row_id: int, value: None) -> None:
        pass

    def update(self, *_: object, **__: object) -> None:
        pass


class Folder:
    """An open folder. Once its database is deleted or replaced, another takes its place.

    Args:
        path: ``<root>/<seed>``, prepared by `open_folder`.
        clock: For expiry and rests.
        mode: How readers open the database.
        wal: The database is in WAL mode, so that no reader ever waits for a writer.
    """

    def __init__(self, path: Path, clock: Clock, *, mode: Mode, wal: bool) -> None:
        self.database = path / DATABASE
        self.leases = path / _LEASES
        self.bodies = path / BODIES
        self.inline: dict[int, Inline] = {}
        self.touched: dict[int, None] = {} if mode == "rw" else _Nothing()
        """Row ids of entries read since the writer last noted their use."""
        self.writable = mode == "rw"
        self._mode: Mode = "ro" if mode == "rw" else mode
        self._clock = clock
        self._wal = wal
        self._identity = self._identities()
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._lent: list[sqlite3.Connection] = []
        self._closed = False

    def moved(self) -> bool:
        """Return whether the database was deleted or another one put in its place."""
        return self._identities() != self._identity

    @contextmanager
    def reader(self) -> Generator[sqlite3.Connection, None, None]:
        """Lend a read-only connection to the worker that asks."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
        with self._lock:
            self._lent.append(connection)
        try:
            yield connection
        finally:
            with self._lock:
                self._lent.remove(connection)
                if not self._closed:
                    self._idle.append(connection)
                    connection = None
            if connection is not None:
                connection.close()

    def warm(self, thread: int, blocks: object) -> None:
        """Open an inline reader for a thread, or wake the one it has; called on a worker.

        Args:
            thread: The thread's id.
            blocks: What `blocks_read` said there.
        """
        found = self.inline.get(thread)
        if found is not None:
            found.wake(blocks)
            return
        if not self._wal:
            return
        connection = self._connect(timeout=0)
        try:
            fresh = Inline(connection, self.touched, self._clock, blocks)
        except BaseException:  # the database is damaged
            connection.close()
            raise
        with self._lock:
            if self._closed or thread in self.inline:
                surplus = fresh
            else:
                self.inline[thread] = fresh
                if len(self.inline) <= _INLINE_LIMIT:
                    return
                surplus = self.inline.pop(next(iter(self.inline)))
        surplus.close()

    def close(self) -> None:
        """Close what reads; connections still lent are closed when they come back."""
        with self._lock:
            self._closed = True
        self.disconnect()

    def disconnect(self, until: float = float("inf")) -> bool:
        """Close what reads and isn't lent; the next to read opens a connection anew.

        Args:
            until: When to give up waiting for an inline read, by `time.monotonic`.

        Returns:
            Whether all is closed.
        """
        with self._lock:
            idle, self._idle = self._idle, []
            inline, self.inline = self.inline, {}
        here = get_ident()  # whose read doesn't go on before this returns: a signal came in it
        closed = [reader.close(0 if thread == here else until) for thread, reader in inline.items()]
        for connection in idle:
            connection.close()
        return all(closed)

    def leak(self) -> None:
        """Forget every connection without closing it: this process is a fork."""
        LEAKED.extend(self._idle + self._lent)
        LEAKED.extend(reader.connection for reader in self.inline.values())
        self.inline, self._idle = {}, []

    def _identities(self) -> tuple[object, object]:
        return identity(self.database), identity(self.leases) if self.writable else None

    def _connect(self, timeout: float | None = None) -> sqlite3.Connection:
        connection = (
            connect(self.database, self._mode)
            if timeout is None
            else connect(self.database, self._mode, timeout=timeout)
        )
        try:
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        except BaseException:
            connection.close()
            raise
        return connection


def open_folder(
    root: Path, seed: str, clock: Clock, *, read_only: bool, gitignore: bool
) -> Folder | None:
    """Make or find a seed's folder and return it open; None if read-only and there is none.

    Raises:
        StoreRefusedError: What is there isn't safe to use.
        StoreError: It can't be opened.
    """
    path = root / seed
    try:
        # What can't be written can still be read; each write then says so.
        if not read_only and os.path.lexists(path / DATABASE) and not os.access(path, os.W_OK):
            LOGGER.warning("%s can't be written: the cache only reads there", path)
            read_only = True
        if read_only:
            return _open_read_only(root, path, clock)
        return _open(root, path, clock, gitignore=gitignore)
    except (sqlite3.Error, OSError) as exc:
        raise mapped(exc) from exc


def _open(root: Path, path: Path, clock: Clock, *, gitignore: bool) -> Folder:
    made = make_folder(root)
    if gitignore and (made or not os.path.lexists(root / ".gitignore")):
        ignore_in_git(root)
    make_folder(path)
    # One process at a time: several making one new file is the classic "database is locked".
    with locked(path):
        wal = prepare(path / DATABASE, ENTRIES)
        prepare(path / _LEASES, LEASES)
        make_folder(path / BODIES)
    folder = Folder(path, clock, mode="rw", wal=wal)
    with folder.reader() as connection:
        sweep(folder.bodies, _named(connection))
    return folder


def _named(connection: sqlite3.Connection) -> Callable[[str], bool]:
    def named(file: str) -> bool:
        return bool(connection.execute("SELECT 1 FROM entries WHERE file = ?", (file,)).fetchall())

    return named


def _open_read_only(root: Path, path: Path, clock: Clock) -> Folder | None:
    database = path / DATABASE
    for folder in (root, path, path / BODIES):
        if os.path.lexists(folder):
            check_folder(folder)
    if not os.path.lexists(database) or not database.stat().st_size:
        return None
    log = path / f"{DATABASE}-wal"
    # Where SQLite may not make its shared-memory file, a database with nothing in its log is read
    # as it stands; no one can change it there.
    still = not os.access(path, os.W_OK) and not (log.exists() and log.stat().st_size)
    mode: Mode = "immutable" if still else "ro"
    inspect(database, ENTRIES, mode)
    connection = connect(database, mode)
    try:
        journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
    finally:
        connection.close()
    return Folder(path, clock, mode=mode, wal=still or journal == "wal")
