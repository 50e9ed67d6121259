"""The hot path: one thread's own reader of one database, which answers at once or not at all."""

from __future__ import annotations

import sqlite3
import struct
import time
from time import perf_counter
from typing import Final

from asynccache._clock import Clock
from asynccache.stores._base import UNKNOWN, Unknown
from asynccache.stores._disk_database import entry_id

INLINE_BYTES: Final = 64 * 2**10  # 256 KiB took 0.4 ms, at worst 4: too long for a loop
_SLOW_SECONDS: Final = 0.001  # a read that waits for the disk is no longer a matter of the loop's
_REST_SECONDS: Final = 1.0  # for which a worker reads instead, and warms the system's cache
_CLOSE_SECONDS: Final = 0.0002  # between two looks at a read that is just being finished

_PEEK: Final = (  # noqa: S608 - a number of ours
    "SELECT value, expires FROM entries"
    f" WHERE id = ? AND key = ? AND tenant IS ? AND size <= {INLINE_BYTES}"
)
_THERE: Final = "SELECT 1 FROM entries WHERE id = ?"
_FIRST: Final = struct.Struct(">q").unpack_from


class Inline:
    """A connection that only one thread reads with, and a worker opens, wakes and closes.

    Args:
        connection: Read-only, with no busy timeout.
        touched: Where the ids of found rows are noted.
        clock: For expiry.
    """

    __slots__ = ("_busy", "_clock", "_execute", "_open", "_rest_until", "_touched", "connection")

    def __init__(
        self, connection: sqlite3.Connection, touched: dict[int, None], clock: Clock
    ) -> None:
        self.connection = connection
        self._execute = connection.cursor().execute
        self._touched = touched
        self._clock = clock
        self._busy = False
        self._rest_until = 0.0
        self._execute(_PEEK, (0, b"", None)).fetchall()  # reads the schema, here on the worker
        self._open = True

    def peek(self, tenant: str | None, key: bytes) -> bytes | Unknown | None:
        """Return an entry, None where surely none is, or `UNKNOWN`."""
        # Raised before asking whether it is open, as `close` does the reverse: one of us sees the
        # other. A lock would cost more than the digest's comparison.
        self._busy = True
        try:
            if not self._open:
                return UNKNOWN
            begun = perf_counter()
            row_id = _FIRST(key)[0] if tenant is None else entry_id(tenant, key)
            found = self._execute(_PEEK, (row_id, key, tenant)).fetchall()
            if perf_counter() - begun > _SLOW_SECONDS:
                self._rest()
            if not found:
                # Another key's row, a large or an expired one: a worker will tell.
                return UNKNOWN if self._execute(_THERE, (row_id,)).fetchall() else None
            value: bytes
            value, expires = found[0]
            if expires and expires <= self._clock.time_us():
                return None
            self._touched[row_id] = None
        except sqlite3.Error:
            self._rest()
            return UNKNOWN
        else:
            return value
        finally:
            self._busy = False

    def wake(self) -> None:
        """Answer again, if the rest is over."""
        if not self._open and time.monotonic() >= self._rest_until:
            self._open = True

    def close(self) -> None:
        """Close the connection as soon as no read is under way; called on a worker."""
        self._rest_until = float("inf")
        self._open = False
        while self._busy:
            time.sleep(_CLOSE_SECONDS)
        self.connection.close()

    def _rest(self) -> None:
        self._open = False
        self._rest_until = time.monotonic() + _REST_SECONDS
