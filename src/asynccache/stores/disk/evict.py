"""Keeps all databases under one root within a limit: the expired go first, then the unused."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

from asynccache.errors import StoreError
from asynccache.runtime.clock import Clock
from asynccache.stores.disk.bodies import remove_bodies
from asynccache.stores.disk.database import connect_writer
from asynccache.stores.disk.files import LOGGER, check_folder
from asynccache.stores.disk.folder import BODIES, DATABASE
from asynccache.stores.disk.opening import ENTRIES, inspect

_CHECK_ROWS: Final = 1000  # written rows between two looks at the size
_CHECK_PART: Final = 64  # of the limit, written between two looks
_CHECK_SECONDS: Final = 4.0  # after which a look is due for whatever was written
_TARGET: Final = 0.9  # of the limit, so that eviction comes in runs and not with every write
_LEAST_PART: Final = 200  # of the limit, freed at once: fewer, larger transactions
_BATCH: Final = 500  # rows per transaction, so that sets get in between
_SIBLINGS_SECONDS: Final = 10.0  # for which the size of folders not open here is remembered
_ROW_BYTES: Final = 160  # of a row beside its value: other columns, indexes, cell

Databases = Mapping[Path, sqlite3.Connection]


class Evictor:
    """Counts what is written, and frees a little whenever the writer has a moment.

    Args:
        root: Whose sub-folders share the limit.
        max_bytes: The limit.
        clock: For expiry.
    """

    def __init__(self, root: Path, max_bytes: int, clock: Clock) -> None:
        self.evicted = self.expired = 0
        self._root, self._max_bytes, self._clock = root, max_bytes, clock
        self._rows = _CHECK_ROWS  # the first write looks: the limit may have been lowered
        self._bytes = 0
        self._looked = time.monotonic()
        self._siblings_bytes = 0
        self._measured = -_SIBLINGS_SECONDS
        self._evicting = False

    def wrote(self, rows: int, size: int) -> None:
        """Count what was written."""
        self._rows += rows
        self._bytes += size

    def step(self, own: Databases) -> bool:
        """Free a little if it is time to; return whether there is more to do.

        Args:
            own: The writer's connections, by database.
        """
        if not self._evicting:
            late = time.monotonic() - self._looked >= _CHECK_SECONDS
            much = self._rows >= _CHECK_ROWS or self._bytes * _CHECK_PART >= self._max_bytes
            if not much and not (late and self._rows):
                return False
            if self._purge(own):
                return True
            self._rows = self._bytes = 0
            self._looked = time.monotonic()
            if sum(map(_used_bytes, own.values())) + self._others_bytes(own) <= self._max_bytes:
                return False
        self._evicting = True
        with self._siblings(own) as siblings:
            databases = {**siblings, **own}
            excess = sum(map(_used_bytes, databases.values())) - int(self._max_bytes * _TARGET)
            self._evicting = excess > 0 and self._evict(databases, excess) > 0
        return self._evicting

    def _purge(self, own: Databases) -> bool:
        """Remove some expired rows; return whether there may be more."""
        more = False
        for path, connection in own.items():
            rows = connection.execute(
                f"SELECT id, used FROM entries WHERE expires > 0 AND expires <= ? LIMIT {_BATCH}",  # noqa: S608 - a number of ours
                (self._clock.time_us(),),
            ).fetchall()
            self.expired += _delete(path, connection, rows)
            more |= len(rows) == _BATCH
        return more

    def _evict(self, databases: Databases, excess: int) -> int:
        """Remove the least recently used rows of all databases; return how many."""
        oldest = sorted(
            (used, size, row_id, path)
            for path, connection in databases.items()
            for used, size, row_id in connection.execute(
                f"SELECT used, size, id FROM entries ORDER BY used LIMIT {_BATCH}"  # noqa: S608 - a number of ours
            ).fetchall()
        )
        # A row often frees more than its size (its page, if it had that alone): go half the way
        # and look again.
        goal = max(excess // 2, self._max_bytes // _LEAST_PART, 1)
        chosen: dict[Path, list[tuple[int, int]]] = {}
        for used, size, row_id, path in oldest[:_BATCH]:
            chosen.setdefault(path, []).append((row_id, used))
            goal -= size + _ROW_BYTES
            if goal <= 0:
                break
        gone = sum(_delete(path, databases[path], rows) for path, rows in chosen.items())
        if gone and not self.evicted:
            LOGGER.info(
                "the cache under %s reached its limit of %d bytes: the least recently used entries"
                " are evicted",
                self._root,
                self._max_bytes,
            )
        self.evicted += gone
        return gone

    def _others_bytes(self, own: Databases) -> int:
        if time.monotonic() - self._measured >= _SIBLINGS_SECONDS:
            with self._siblings(own) as siblings:
                self._siblings_bytes = sum(map(_used_bytes, siblings.values()))
            self._measured = time.monotonic()
        return self._siblings_bytes

    @contextmanager
    def _siblings(self, own: Databases) -> Generator[Databases]:
        """Open the databases of folders that aren't open here."""
        with ExitStack() as stack:
            siblings: dict[Path, sqlite3.Connection] = {}
            for folder in list(os.scandir(self._root)):
                path = self._root / folder.name / DATABASE
                if path in own or not path.exists():
                    continue
                try:
                    check_folder(path.parent)
                    inspect(path, ENTRIES)
                    connection = closing(connect_writer(path, durable=True))
                    siblings[path] = stack.enter_context(connection)
                except (StoreError, sqlite3.Error, OSError) as exc:
                    LOGGER.debug("%s is left out of the limit: %s", path, exc)
            yield siblings


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size, bodies = (
        connection.execute(statement).fetchone()[0]
        for statement in (
            "PRAGMA page_count",
            "PRAGMA freelist_count",
            "PRAGMA page_size",
            "SELECT TOTAL(size) FROM entries WHERE file IS NOT NULL",
        )
    )
    return int((pages - free) * size + bodies)


def _delete(path: Path, connection: sqlite3.Connection, rows: list[tuple[int, int]]) -> int:
    """Delete rows by id, unless used or replaced meanwhile; return how many went."""
    if not rows:
        return 0
    files: list[tuple[str]] = []
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for row in rows:
            files += connection.execute(
                "SELECT file FROM entries WHERE id = ? AND used = ? AND file IS NOT NULL", row
            ).fetchall()
        delete = "DELETE FROM entries WHERE id = ? AND used = ?"
        gone = connection.executemany(delete, rows).rowcount
    remove_bodies(path.with_name(BODIES), [file for (file,) in files])
    return gone
