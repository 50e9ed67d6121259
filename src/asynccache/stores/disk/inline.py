"""The hot path: one thread's own reader of one database, which answers at once or not at all."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from functools import lru_cache
from time import perf_counter
from typing import Final

from asynccache.runtime.clock import Clock
from asynccache.stores.base import UNKNOWN, Unknown
from asynccache.stores.disk.database import FIRST_BITS, entry_id

INLINE_BYTES: Final = 64 * 2**10  # 256 KiB took 0.4 ms, at worst 4: too long for a loop
_SLOW_SECONDS: Final = 0.001  # a read that waits for the disk is no longer a matter of the loop's
_FIRST_REST: Final = 0.02  # seconds for which a worker reads instead, and warms the system's cache
_LONGEST_REST: Final = 1.0  # seconds: a rest that follows closely on another is twice as long
_AGAIN_SECONDS: Final = 0.0005  # two slow reads so close are no bad luck, whatever was counted
_LOOK_SECONDS: Final = 0.5  # between two looks at whether the database is still the folder's
_CLOSE_SECONDS: Final = 0.0002  # between two looks at a read that is just being finished

_PEEK: Final = (
    "SELECT CAST(value AS BLOB), CAST(expires AS INTEGER), key, tenant FROM entries"  # noqa: S608 - a number of ours
    f" WHERE id = ? AND size <= {INLINE_BYTES}"
)
_THERE: Final = "SELECT 1 FROM entries WHERE id = ?"

_log = logging.getLogger("asynccache")

try:
    from resource import RUSAGE_THREAD, getrusage
except ImportError:  # only Linux counts by thread

    def blocks_read() -> object:
        """Return something new: where nobody counts, every slow read is the disk's."""
        return object()

else:

    def blocks_read() -> object:
        """Return how often this thread has had to read from a disk."""
        return getrusage(RUSAGE_THREAD).ru_inblock


class Inline:
    """A connection that only one thread reads with, and a worker opens, wakes and closes.

    Args:
        connection: Read-only, with no busy timeout.
        touched: Where the ids of found rows are noted.
        clock: For expiry.
        blocks: What `blocks_read` said in the reading thread.
        moved: Tells whether the database was deleted or another one put in its place.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        touched: dict[int, None],
        clock: Clock,
        blocks: object,
        moved: Callable[[], bool],
    ) -> None:
        self._connection = connection
        self._execute = connection.cursor().execute
        self._touched = touched
        self._clock = clock
        self._busy = False
        self._rest_until = 0.0
        self._rest_seconds = _FIRST_REST
        self._slow_at = 0.0
        self._blocks = blocks
        self._moved = moved
        self._look_at = perf_counter() + _LOOK_SECONDS
        self._open = True

    def peek(self, tenant: str | None, key: bytes) -> bytes | Unknown | None:
        """Return an entry, None where surely none is, or `UNKNOWN`."""
        # Raised before asking whether it is open, as `close` does the reverse: one of us sees the
        # other. A lock would cost more than the digest's comparison.
        self._busy = True
        try:
            begun = perf_counter()
            if not self._open or (begun > self._look_at and self._has_moved(begun)):
                return UNKNOWN
            row_id = FIRST_BITS(key)[0] if tenant is None else entry_id(tenant, key)
            row = None
            for row in self._execute(_PEEK, (row_id,)):  # noqa: B007 - read to its end, as it would pin the log
                pass
            if perf_counter() - begun > _SLOW_SECONDS:
                self._slow(begun)
            if row is None:  # nothing, or something large that a worker reads
                return UNKNOWN if self._execute(_THERE, (row_id,)).fetchall() else None
            value: bytes
            value, expires, stored, owner = row
            # Compared here: two columns more cost SQLite less than two conditions more.
            if stored != key or owner != tenant:
                return None
            if expires and expires <= self._clock.time_us():
                return None
            self._touched[row_id] = None
        except sqlite3.Error:
            self._rest()
            return UNKNOWN
        except Exception as exc:  # noqa: BLE001 - of any detector's own type
            self._rest_until = float("inf")
            self._open = False
            say_refused(type(exc).__name__)
            return UNKNOWN
        else:
            return value
        finally:
            self._busy = False

    def wake(self, blocks: object) -> None:
        """Answer again, if the rest is over."""
        if not self._open and time.monotonic() >= self._rest_until:
            self._blocks = blocks
            self._open = True

    def close(self, until: float = float("inf")) -> bool:
        """Close the connection as soon as no read is under way; not called in the reading thread.

        Args:
            until: When to give up, by `time.monotonic`.

        Returns:
            Whether it is closed.
        """
        self._rest_until = float("inf")
        self._open = False
        while self._busy:
            if time.monotonic() > until:
                return False
            time.sleep(_CLOSE_SECONDS)
        self._connection.close()
        return True

    def _has_moved(self, now: float) -> bool:
        self._look_at = now + _LOOK_SECONDS
        if self._moved():
            self._open, self._rest_until = False, float("inf")
        return not self._open

    def _slow(self, begun: float) -> None:
        """Rest if it was the disk that kept a read waiting, not another thread or process."""
        blocks = blocks_read()
        if blocks != self._blocks or begun - self._slow_at < _AGAIN_SECONDS:
            self._rest()
        self._blocks, self._slow_at = blocks, perf_counter()

    def _rest(self) -> None:
        self._open = False
        now = time.monotonic()
        closely = now - self._rest_until < _LONGEST_REST
        self._rest_seconds = min(_LONGEST_REST, self._rest_seconds * 2) if closely else _FIRST_REST
        self._rest_until = now + self._rest_seconds


@lru_cache(maxsize=64)
def say_refused(error: str) -> None:  # cached: said once
    """Tell that a detector of blocking calls refuses SQLite on an event loop's thread."""
    _log.warning(
        "A detector of blocking calls refuses the disk store's inline reads (%s): workers read"
        " instead from now on, which takes some 0.1 ms longer",
        error,
    )
