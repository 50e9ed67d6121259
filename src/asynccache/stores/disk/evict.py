"""Keeps all databases under one root within a limit: the expired go first, then the unused."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Final, TypeVar

from asynccache.errors import StoreError, StoreUnavailableError
from asynccache.runtime.clock import Clock
from asynccache.stores.disk.bodies import remove_bodies
from asynccache.stores.disk.database import connect, connect_writer, fold, is_busy, is_full
from asynccache.stores.disk.files import LOGGER, check_folder, locked
from asynccache.stores.disk.generations import forget_old
from asynccache.stores.disk.opening import ENTRIES, inspect, remove
from asynccache.stores.disk.room import BODIES, DATABASE, LEASES_DATABASE, Room, Usage

_CHECK_ROWS: Final = 1000  # written rows between two looks at the size
_CHECK_SECONDS: Final = 4.0  # after which a look is due for whatever was written
_GROWTH: Final = 4  # times what is written is evicted meanwhile: pages may be half full
_STEP_SECONDS: Final = 0.5  # that sets may have to wait; a fork waits as long
_CALM: Final = 10  # times as long as a look has taken passes before the next one
_URGENT: Final = 8  # units of the room: once so much is written, a look is due in spite of that
_TARGET: Final = 0.9  # of the limit, so that eviction comes in runs and not with every write
_BATCH: Final = 500  # rows per transaction, so that sets get in between
_UNIT_PER_ROW: Final = 1024  # bytes of what may be written at once, for each row evicted at once
_SLACK: Final = 64  # of the limit: the order of two databases' entries is kept that exactly
_PATIENCE: Final = 0.1  # seconds for a database that another process is writing to
_FUTILE_SECONDS: Final = 60.0  # without making room, where it didn't help
_LIMIT_PER_CHANGE: Final = 1024  # bytes of the limit for each change of a key that is remembered
ROW_BYTES: Final = 160  # of a row beside its value: other columns, indexes, cell
_END: Final = 2**63 - 1  # beyond every place in the order of uses

T = TypeVar("T")


class Evictor:
    """Counts what is written, and frees a little whenever the writer has a moment.

    Args:
        room: What there is, and how much there may be.
        clock: For expiry.
        own: Returns the writer's connections, by the folder of the seed.
        note_uses: Writes down what was read of late, so that it doesn't look unused.
    """

    def __init__(
        self,
        room: Room,
        clock: Clock,
        own: Callable[[], Mapping[Path, sqlite3.Connection]],
        note_uses: Callable[[], Iterator[None]],
    ) -> None:
        self.evicted = self.expired = 0
        self._room, self._clock, self._own, self._note_uses = room, clock, own, note_uses
        self.is_due = False
        """Whether to look at the size at once: a folder was opened."""
        self._rows = self._bytes = self._behind = 0
        self._looked = self._calm_until = self._futile_until = float("-inf")
        self._run: Iterator[None] | None = None
        self._tried = self._said = self._wrote = False

    def wrote(self, rows: int, size: int) -> None:
        """Count what was written."""
        self._rows += rows
        self._bytes += size
        self._behind += _GROWTH * size
        self._tried, self._wrote = False, True

    def step(self) -> bool:
        """Free a little if it is time to; return whether there is more to do."""
        if self._run is None:
            if not self._due():
                return False
            if max((self._purge(*each) for each in self._own().items()), default=0) == _BATCH:
                return True
            self._rows, self._bytes, self.is_due = 0, 0, False
            begun = time.monotonic()
            usage = self._room.look()
            self._looked = time.monotonic()
            self._calm_until = self._looked + _CALM * (self._looked - begun)
            self._room.keep_spare()
            if usage.size <= self._room.limit:
                return False
            self._run = self._evict(usage)
            self._behind = 0
        until = time.monotonic() + _STEP_SECONDS
        while more := self._advance():
            # More goes than comes meanwhile, however fast it comes.
            if self._behind <= 0 or time.monotonic() > until:
                break
        return more

    def finish(self, seconds: float) -> None:
        """Free what is to be freed, if anything was written, in that many seconds at most."""
        if not self._wrote:
            return
        for connection in self._own().values():
            fold(connection)
        self.is_due, self._calm_until = True, float("-inf")
        until = time.monotonic() + seconds
        while (self.step() or self.is_due) and time.monotonic() < until:
            pass
        self._room.keep_spare()

    def make_room(self, size: int) -> bool:
        """Free some of a full volume at once; return whether that may have helped.

        Args:
            size: How many bytes are to be written; 0 for what only deletes.
        """
        now = time.monotonic()
        if size and self._tried:  # and nothing could be written all the same
            self._tried = False
            self._futile_until = now + _FUTILE_SECONDS
        if size and now < self._futile_until:
            return False
        if not self._said:
            self._said = True
            LOGGER.warning(
                "the volume of %s is full: the least recently used entries are evicted to make"
                " room, and calls go on",
                self._room.root,
            )
        self._room.give_up_spare()
        for connection in self._own().values():
            fold(connection)
        if size:
            self._evict_at_once(size)
        return True

    def _evict_at_once(self, size: int) -> None:
        lack = self._room.lack(size)
        self._tried = lack <= 0
        self._run = self._evict(self._room.look(), lack if lack > 0 else size + self._room.unit)
        try:
            while (lack <= 0 or self._room.lack(size) > 0) and self._advance():
                pass
        except sqlite3.Error as exc:
            LOGGER.debug("no room could be made under %s: %s", self._room.root, exc)
        if lack > 0 and self._room.lack(size) > 0:  # it is full of what others write
            self._futile_until = time.monotonic() + _FUTILE_SECONDS
        self._room.keep_spare()

    def within(self, folder: Path, do: Callable[[sqlite3.Connection], T]) -> T | None:
        """Do something with a seed's database; None if it can't be done, so that it is left out.

        One that the writer hasn't open is opened for the moment: there may be thousands.
        """
        path = folder / DATABASE
        try:
            if (own := self._own().get(folder)) is not None:
                return do(own)
            check_folder(folder)
            inspect(path, ENTRIES)
            with closing(connect_writer(path, durable=True, timeout=_PATIENCE)) as connection:
                return do(connection)
        except (StoreError, sqlite3.Error, OSError) as exc:
            if is_full(exc):
                raise
            LOGGER.debug("%s is left out of the limit: %s", path, exc)
            return None

    def _due(self) -> bool:
        now = time.monotonic()
        much = self._rows >= _CHECK_ROWS or self._bytes >= self._room.unit
        late = bool(self._rows or self._bytes) and now - self._looked >= _CHECK_SECONDS
        urgent = self._bytes >= _URGENT * self._room.unit
        return urgent or ((self.is_due or much or late) and now >= self._calm_until)

    def _advance(self) -> bool:
        """Go on with what is being evicted; return whether there is more."""
        if self._run is not None and next(self._run, self) is None:
            return True
        self._run = None
        return False

    def _evict(self, usage: Usage, needed: int = 0) -> Iterator[None]:
        """Evict entries in the order of their use, by small steps.

        Args:
            usage: What was found.
            needed: How many bytes are to go at least.
        """
        if needed <= 0:  # a full volume has no room for notes
            yield from self._note_uses()
        size = usage.beside
        queue: list[tuple[int, Path]] = []
        for folder in usage.seeds:
            found = self.within(folder, partial(self._survey, folder))
            if found is not None:
                size += found[0]
                queue.append((found[1], folder))
            yield
        heapify(queue)
        excess = max(needed, size - int(self._room.limit * _TARGET))
        while excess > 0 and queue:
            _, folder = heappop(queue)
            until = queue[0][0] + self._room.limit // _SLACK if queue else _END
            done = self.within(folder, partial(self._shrink, folder, until, excess))
            freed, oldest = done or (0, None)
            excess -= freed
            self._behind -= freed
            if oldest is not None:
                heappush(queue, (oldest, folder))
            elif done and not usage.seeds[folder]:
                excess -= self.within(folder, partial(_remove, folder)) or 0
            yield

    def _survey(self, folder: Path, connection: sqlite3.Connection) -> tuple[int, int]:
        """Return how many bytes a database and its bodies take, and its least recent use."""
        self._purge(folder, connection)
        with suppress(sqlite3.OperationalError):  # a full volume may have no room for it
            most = self._room.limit // _LIMIT_PER_CHANGE
            forget_old(connection, self._clock.time_us(), most)
        (bodies,) = connection.execute(
            "SELECT TOTAL(size) FROM entries WHERE file IS NOT NULL"
        ).fetchone()
        return _bytes(connection) + int(bodies), _oldest(connection) or 0

    def _shrink(
        self, folder: Path, until: int, goal: int, connection: sqlite3.Connection
    ) -> tuple[int, int | None]:
        """Remove some of a database's least recently used rows.

        Returns:
            How many bytes that has freed, and the least recent use that is left, if any.
        """
        before = _bytes(connection)
        rows = connection.execute(
            "SELECT id, used, size FROM entries WHERE used <= ? ORDER BY used LIMIT ?",
            (until, min(_BATCH, self._room.unit // _UNIT_PER_ROW)),
        ).fetchall()
        chosen: list[tuple[int, int]] = []
        for row_id, used, size in rows:
            chosen.append((row_id, used))
            goal -= size + ROW_BYTES
            if goal <= 0:
                break
        gone, bodies = _delete(connection, folder, chosen)
        if gone and not self.evicted and not self._said:
            self._say()
        self.evicted += gone
        fold(connection)
        return before - _bytes(connection) + bodies, _oldest(connection)

    def _say(self) -> None:
        share = "" if self._room.limit == self._room.asked else ", half of its volume"
        LOGGER.info(
            "the cache under %s reached its limit of %d bytes%s: the least recently used entries"
            " are evicted",
            self._room.root, self._room.limit, share,
        )  # fmt: skip

    def _purge(self, folder: Path, connection: sqlite3.Connection) -> int:
        """Remove some expired rows; return how many."""
        rows = connection.execute(
            "SELECT id, used FROM entries WHERE expires > 0 AND expires <= ? LIMIT ?",
            (self._clock.time_us(), _BATCH),
        ).fetchall()
        gone, _ = _delete(connection, folder, rows)
        self.expired += gone
        return gone


def _bytes(connection: sqlite3.Connection) -> int:
    """Return how many bytes a database takes once its log is folded in."""
    pages, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
    )
    return int(pages * size)


def _oldest(connection: sqlite3.Connection) -> int | None:
    oldest: int | None = connection.execute("SELECT min(used) FROM entries").fetchone()[0]
    return oldest


def _delete(
    connection: sqlite3.Connection, folder: Path, rows: list[tuple[int, int]]
) -> tuple[int, int]:
    """Delete rows by id, unless used or replaced meanwhile.

    Returns:
        How many rows went, and how many bytes of bodies.
    """
    files: list[tuple[str, int]] = []
    gone = 0
    while rows:
        try:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for row in rows:
                    files += connection.execute(
                        "SELECT file, size FROM entries"
                        " WHERE id = ? AND used = ? AND file IS NOT NULL",
                        row,
                    ).fetchall()
                delete = "DELETE FROM entries WHERE id = ? AND used = ?"
                gone = connection.executemany(delete, rows).rowcount
            break
        except sqlite3.Error as exc:
            if not is_full(exc) or len(rows) == 1:
                raise
        rows = rows[: len(rows) // 4 or 1]  # which takes less of the log
        files.clear()
    remove_bodies(folder / BODIES, [file for file, _ in files])
    return gone, sum(size for _, size in files)


def _remove(folder: Path, connection: sqlite3.Connection) -> int:
    """Remove the databases of a seed that has no entries and no leases; return their bytes.

    Who writes to them meanwhile waits for the lock, finds them gone, and makes new ones.
    """
    with suppress(StoreUnavailableError), locked(folder, _PATIENCE):
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _oldest(connection) is not None or _is_leased(folder / LEASES_DATABASE):
                return 0
            size = _bytes(connection)
            for name in (DATABASE, LEASES_DATABASE):
                remove(folder / name)
        finally:
            connection.rollback()
        return size
    return 0


def _is_leased(path: Path) -> bool:
    try:
        with closing(connect(path, "ro", timeout=0)) as connection:
            return bool(connection.execute("SELECT 1 FROM leases LIMIT 1").fetchall())
    except sqlite3.DatabaseError as exc:
        return is_busy(exc)  # else it is gone or damaged
