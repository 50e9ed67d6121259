"""One seed's open folder: its files, the connections that read its database, and the reads."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Final

from asynccache.entries.entry import ENVELOPE_BYTES
from asynccache.runtime.clock import Clock
from asynccache.stores.base import Page
from asynccache.stores.disk import generations
from asynccache.stores.disk.bodies import read_body
from asynccache.stores.disk.database import (
    CACHE,
    Mode,
    connect,
    entry_id,
    select_ids,
    select_owned,
)
from asynccache.stores.disk.files import identity
from asynccache.stores.disk.inline import Inline
from asynccache.stores.disk.room import BODIES, DATABASE, LEASES_DATABASE

_INLINE_LIMIT: Final = 16  # loops with a reader of their own; the one opened longest ago goes first
_PAGE: Final = 256  # envelopes per page of a scan
_TRIES: Final = 3  # a body's file replaced between row and file: the new row names another

# Cast, as a row that somebody has planted may hold a text where ours hold a number or bytes.
_COLUMNS: Final = (
    "id, key, tenant, CAST(expires AS INTEGER), CAST(size AS INTEGER), CAST(file AS TEXT)"
)
_VALUES: Final = f"{_COLUMNS}, CAST(value AS BLOB)"
_HEADS: Final = (  # substr makes NULL of nothing
    f"{_COLUMNS}, CAST(coalesce(substr(value, 1, {ENVELOPE_BYTES}), x'') AS BLOB)"
)


class Folder:
    """An open folder. Once its database is deleted or replaced, another takes its place.

    Args:
        path: ``<root>/<seed>``, prepared by `open_folder`.
        clock: For expiry and rests.
        touched: Where the row ids of entries are noted that are read.
        mode: How readers open the database.
        wal: The database is in WAL mode, so that no reader ever waits for a writer.
    """

    def __init__(
        self, path: Path, clock: Clock, touched: dict[int, None], *, mode: Mode, wal: bool
    ) -> None:
        self.path = path
        self.database = path / DATABASE
        self.leases = path / LEASES_DATABASE
        self.bodies = path / BODIES
        self.inline: dict[int, Inline] = {}
        self.touched = touched
        self.asked = 0
        """When it was last asked for, as the session counts."""
        self.writable = mode == "rw"
        self._mode: Mode = "ro" if mode == "rw" else mode
        self._clock = clock
        self._wal = wal
        self._identity = identity(self.database)
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    def moved(self) -> bool:
        """Return whether the database was deleted or another one put in its place."""
        return identity(self.database) != self._identity

    @contextmanager
    def reader(self) -> Generator[sqlite3.Connection, None, None]:
        """Lend a read-only connection to the worker that asks."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
        try:
            yield connection
        finally:
            with self._lock:
                if not self._closed:
                    self._idle.append(connection)
                    connection = None
            if connection is not None:
                connection.close()

    def entries(
        self,
        tenant: str | None,
        keys: Sequence[bytes],
        *,
        heads: bool = False,
        largest: int | None = None,
    ) -> list[bytes | None]:
        """Return the live entry of each key, or with ``heads`` its envelope alone.

        So does one of more than ``largest`` bytes.
        """
        now = self._clock.time_us()
        select = f"SELECT {_HEADS if heads else _VALUES} FROM entries"  # noqa: S608 - both our own
        found: dict[bytes, bytes | None] = dict.fromkeys(keys)
        wanted = list(found)
        with self.reader() as connection:
            for _ in range(_TRIES):
                ids = [entry_id(tenant, key) for key in wanted]
                wanted.clear()  # for those whose file was replaced between row and file
                for _, key, owner, expires, size, file, value in select_ids(
                    connection, select, ids
                ):
                    if key not in found or owner != tenant or 0 < expires <= now:
                        continue
                    short = heads or (largest is not None and size > largest)
                    body = value if file is None else self._body(file, size, heads=short)
                    found[key] = body
                    if body is None:
                        wanted.append(key)
                if not wanted:
                    break
        if not heads:
            for key, body in found.items():
                if body is not None:
                    self.touched[entry_id(tenant, key)] = None
        return [found[key] for key in keys]

    def generation(self) -> bytes:
        """Return the generation that every key has now."""
        with self.reader() as connection:
            return generations.read(connection)

    def count_alone(self, tenant: str | None) -> int | None:
        """Return how many live entries a tenant has, or None if others have any."""
        with self.reader() as connection:
            ((live, others),) = connection.execute(
                "SELECT count(*) FILTER (WHERE NOT expires BETWEEN 1 AND ?),"
                " count(*) FILTER (WHERE tenant IS NOT ?) FROM entries",
                (self._clock.time_us(), tenant),
            ).fetchall()
        return None if others else int(live)

    def page(self, tenant: str | None, cursor: str | None) -> Page:
        """Return the envelopes of the next live rows, in the order of their ids."""
        now = self._clock.time_us()
        with self.reader() as connection:
            begin = None if cursor is None else int(cursor)
            rows, after = select_owned(connection, _HEADS, tenant, begin, _PAGE)
        heads = [
            value if file is None else self._body(file, size, heads=True)
            for _, _, _, expires, size, file, value in rows
            if not 0 < expires <= now
        ]
        return Page(
            envelopes=[head for head in heads if head is not None],
            cursor=None if after is None else str(after),
        )

    def _body(self, file: str, size: int, *, heads: bool) -> bytes | None:
        return read_body(self.bodies, file, size, ENVELOPE_BYTES if heads else None)

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
        connection = self._connect()
        connection.execute("PRAGMA busy_timeout = 0")  # a loop waits for nobody, a worker may
        fresh = Inline(connection, self.touched, self._clock, blocks, self.moved)
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

    def _connect(self) -> sqlite3.Connection:
        # Reads the schema too, here on the worker.
        return connect(self.database, self._mode, CACHE, "SELECT 1 FROM entries LIMIT 1")
