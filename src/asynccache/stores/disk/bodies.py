"""Bodies too large for a row: a file each, whole before a row names it, swept if none ever does.

A file no row names yet is held in flock by its writer, so that a sweep by any process tells a live
writer's file from what a killed one left.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import aiofiles

from asynccache.stores.disk.database import mapped
from asynccache.stores.disk.files import create_file, make_folder, sync_folder, try_lock

_NAME: Final = re.compile(r"[0-9a-f]{64}-[0-9a-f]{16}")
_TEMPORARY: Final = re.compile(r"tmp-[0-9a-f]{16}")
_PIECE: Final = 2**20  # bytes per write: a few milliseconds of a slow disk
_ABANDONED_SECONDS: Final = 3600  # without locks, a file untouched that long has no live writer
_NO_FILE: Final = (errno.ENOENT, errno.ELOOP, errno.ENXIO)  # none, a symbolic link, a socket
_FLAGS: Final = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_BINARY", "O_NONBLOCK"))


class BodyFile:
    """A body's file that no row names yet. Ends in `keep` or `discard`, on a worker.

    Args:
        folder: Where bodies are.
        size: How many bytes it is to hold.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.fd = -1
        self.path = folder
        self.size = size

    def make(self) -> None:
        """Make the file, under a name for the time being."""
        folder = self.path
        make_folder(folder)  # somebody may have removed it since the store was opened
        while True:
            self.path = folder / f"tmp-{secrets.token_hex(8)}"
            self.fd = create_file(self.path)
            if try_lock(self.fd) is not False and os.fstat(self.fd).st_nlink:
                return
            self.keep()  # a sweep came between the two calls and took it for an orphan

    def finish(self, key: bytes) -> None:
        """Give the file its name, to survive power loss with all that was written."""
        os.fsync(self.fd)
        self.path = self.path.rename(self.path.with_name(f"{key.hex()}-{secrets.token_hex(8)}"))
        sync_folder(self.path.parent)

    def keep(self) -> None:
        """Let go of the file: a committed row names it."""
        os.close(self.fd)
        self.fd = -1

    def discard(self) -> None:
        """Remove the file: no row will name it."""
        if self.fd >= 0:
            # While it is still locked; where that can't be, the next sweep finds it.
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            self.keep()


async def write_body(folder: Path, key: bytes, data: bytes, worker: ThreadPoolExecutor) -> BodyFile:
    """Write a body to a file that survives power loss once this returns.

    Args:
        folder: Where bodies are.
        key: The key they are named after.
        data: The body.
        worker: Has one thread: what is undone after a cancelled step then comes behind that step.

    Raises:
        StoreError: It could not be written; nothing is left of it.
    """
    body = BodyFile(folder, len(data))
    try:
        await asyncio.wrap_future(worker.submit(body.make))
        async with aiofiles.open(
            body.fd, "wb", buffering=0, closefd=False, executor=worker
        ) as file:
            left = memoryview(data)
            while left:
                left = left[await file.write(left[:_PIECE]) :]
        await asyncio.wrap_future(worker.submit(body.finish, key))
    except BaseException as exc:
        undone = discard([body], worker)
        if isinstance(exc, OSError | RuntimeError):  # the latter if the store is closed meanwhile
            for each in undone:  # making room on a full volume needs what it took
                await asyncio.wrap_future(each)
            raise mapped(exc) from exc
        raise
    return body


def discard(bodies: Iterable[BodyFile], worker: ThreadPoolExecutor) -> list[Future[None]]:
    """Remove files without waiting for it; return what may be waited for."""
    futures: list[Future[None]] = []
    for body in bodies:
        try:
            futures.append(worker.submit(body.discard))
        except RuntimeError:  # the store is closed meanwhile, so it is this or an orphan
            body.discard()
    return futures


def read_body(folder: Path, name: str, size: int, limit: int | None = None) -> bytes | None:
    """Return a body, or its first ``limit`` bytes; None where no file of this size is there."""
    if not _NAME.fullmatch(name):  # a row that names a file elsewhere isn't ours
        return None
    try:
        fd = os.open(folder / name, os.O_RDONLY | _FLAGS)
    except OSError as exc:
        if exc.errno in _NO_FILE:
            return None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    with os.fdopen(fd, "rb", buffering=0) as file:
        if os.fstat(fd).st_size != size:
            return None
        wanted = size if limit is None else min(size, limit)
        found = file.read(wanted)
        return found if len(found) == wanted else None


def remove_bodies(folder: Path, names: Iterable[str]) -> None:
    """Remove files whose rows are gone; one that can't be removed is left to the next sweep."""
    for name in names:
        if _NAME.fullmatch(name):
            with contextlib.suppress(OSError):
                (folder / name).unlink(missing_ok=True)


def sweep(folder: Path, named: Callable[[str], bool]) -> None:
    """Remove files that no row names and no live writer holds.

    Args:
        folder: Where bodies are.
        named: Tells whether a committed row names a file, each time afresh.
    """
    for found in list(os.scandir(folder)):
        if _TEMPORARY.fullmatch(found.name) or (
            _NAME.fullmatch(found.name) and not named(found.name)
        ):
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours to remove
                _sweep_one(folder / found.name, named)


def _sweep_one(path: Path, named: Callable[[str], bool]) -> None:
    fd = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        # Its writer lets go only once the row is committed, so who has the lock asks again.
        ours = try_lock(fd)
        if ours and not named(path.name):
            path.unlink()
    finally:
        os.close(fd)
    if ours is None and time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
        path.unlink()
