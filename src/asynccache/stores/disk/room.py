"""What all seeds of a root share: the limit on their size, the order of uses, and a spare."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from asynccache.stores.disk.files import create_file, ignore_in_git, make_folder

SHARED: Final = ".asynccache"
DATABASE: Final = "asynccache.db"
LEASES_DATABASE: Final = "leases.db"
BODIES: Final = "bodies"
_SHARE: Final = 2  # of its volume's bytes, a cache takes one in two
_TIGHT: Final = 2**30  # bytes: with more left beside the cache, a volume isn't full of a sudden
_UNITS: Final = 64  # of the limit: what may be written between two looks at the size
_LEAST_UNIT, _LARGEST_UNIT = 64 * 2**10, 4 * 2**20
_LOGS: Final = 8  # a log that a reader pins counts as an eighth of the limit: evicting frees none
_PLACE: Final = struct.Struct("<q")
_BEYOND: Final = 2**62  # a place that no cache reaches: the file is damaged
_FLAGS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Usage(Struct, frozen=True):
    """What lies under a root."""

    size: int
    """Bytes that count against the limit."""
    beside: int
    """Those of them that no deletion of entries frees: logs, leases, the spare."""
    seeds: dict[Path, bool]
    """The folders that hold a database, and whether somebody has it open."""


class Room:
    """The room of one root, which every process that uses it sees alike.

    A use has a place in an order, not a time, so that no clock can turn it round: as many bytes as
    were written under the root before. The place lies in a file that is read and written without a
    lock: two processes may take the same place, which harms nobody.

    Args:
        root: The folder of all seeds.
        max_bytes: The limit asked for.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.limit = self.asked = max_bytes
        """The limit in force: what was asked for, or half of the volume."""
        self._order = root / SHARED / "order"
        self._spare = root / SHARED / "spare"
        self._place = 0

    @property
    def unit(self) -> int:
        """How many bytes may be written before the size is looked at, or a log folded in."""
        return min(_LARGEST_UNIT, max(_LEAST_UNIT, self.limit // _UNITS))

    def prepare(self) -> None:
        """Make what is shared, as far as there is room for it."""
        folder = self._order.parent
        with suppress(OSError):
            if make_folder(folder):
                ignore_in_git(folder)
            if not self._order.exists():
                with suppress(FileExistsError):
                    os.close(create_file(self._order))

    def look(self) -> Usage:
        """Add up what lies under the root, and what its volume has left."""
        entries = logs = beside = 0
        seeds: dict[Path, bool] = {}
        for folder in _folders(self.root):
            files = list(_sizes(folder))
            if folder.name != SHARED:
                names = {name for name, _ in files}
                if DATABASE not in names:
                    continue
                seeds[folder] = f"{DATABASE}-shm" in names
            for name, size in files:
                if name == DATABASE:
                    entries += size
                elif name.endswith("-wal"):
                    logs += size
                else:
                    beside += size
            with suppress(OSError):
                entries += sum(size for _, size in _sizes(folder / BODIES))
        volume = shutil.disk_usage(self.root)
        self.limit = min(self.asked, volume.total // _SHARE)
        beside += min(logs, self.limit // _LOGS)
        return Usage(entries + beside, beside, seeds)

    def lack(self, size: int = 0) -> int:
        """Return how many bytes the volume lacks for writing so many with some left."""
        free = shutil.disk_usage(self.root).free
        with suppress(OSError):
            free += self._spare.stat().st_size
        return size + 4 * self.unit - free

    def keep_spare(self) -> None:
        """Keep some room of a tight volume: deleting needs some, and SQLite to open a database."""
        free, size = shutil.disk_usage(self.root).free, 2 * self.unit
        if not size < free < _TIGHT + 2 * self.asked:
            return
        with suppress(OSError):  # it is there, or somebody else took the room
            fd = create_file(self._spare)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(fd, 0, size)
                else:
                    os.write(fd, bytes(size))
            finally:
                os.close(fd)

    def place(self) -> int:
        """Return the latest place in the order of uses."""
        with suppress(OSError, struct.error):  # not there, cut off
            fd = os.open(self._order, os.O_RDONLY | _FLAGS)
            try:
                (found,) = _PLACE.unpack(os.read(fd, _PLACE.size))
            finally:
                os.close(fd)
            if found < _BEYOND:
                self._place = max(self._place, found)
        return self._place

    def move(self, place: int) -> None:
        """Go on to a place in the order of uses."""
        self._place = place
        with suppress(OSError):  # each database holds the places of its own entries
            fd = os.open(self._order, os.O_WRONLY | _FLAGS)
            try:
                os.write(fd, _PLACE.pack(place))
            finally:
                os.close(fd)

    def give_up_spare(self) -> bool:
        """Free what was kept for a full volume; return whether there was something."""
        try:
            self._spare.unlink()
        except OSError:
            return False
        return True


def _folders(root: Path) -> Iterator[Path]:
    with os.scandir(root) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                yield root / entry.name


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    with suppress(OSError), os.scandir(folder) as found:  # removed meanwhile, or somebody else's
        for entry in found:
            with suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    yield entry.name, entry.stat(follow_symlinks=False).st_size
