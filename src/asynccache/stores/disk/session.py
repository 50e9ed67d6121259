"""A disk store while it is open: its folders, its threads, and how reads get to them."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import Final, TypeVar

from asynccache.errors import (
    StoreFullError,
    StoreReadOnlyError,
    StoreRefusedError,
    StoreUnavailableError,
)
from asynccache.runtime.clock import Clock
from asynccache.stores.disk.database import is_full, is_missing, mapped
from asynccache.stores.disk.folder import Folder
from asynccache.stores.disk.forks import add, working
from asynccache.stores.disk.inline import blocks_read
from asynccache.stores.disk.leases import LeaseThread
from asynccache.stores.disk.opening import open_folder, remove_whole
from asynccache.stores.disk.room import Room
from asynccache.stores.disk.writer import WriterThread

_FOLDERS: Final = 10  # open at once; the one asked for longest ago is closed, so that files are few
_TRIES: Final = 3  # a database removed while it is read; three times in a row is no accident
_READ_THREADS: Final = 2  # one may be held up by a cold read

T = TypeVar("T")


class Session:
    """All that lives between opening and closing a store.

    Args:
        root: The folder of all seeds.
        clock: For expiry and last uses.
        max_bytes: The limit on all that lies under ``root``.
        read_only: Create and write nothing.
        gitignore: Keep ``root`` out of version control.
    """

    def __init__(
        self, root: Path, clock: Clock, *, max_bytes: int, read_only: bool, gitignore: bool
    ) -> None:
        self.read_only = read_only
        self.folders: dict[str, Folder] = {}
        self.touched: dict[str, dict[int, None]] = {}
        """Row ids of entries read since the writer last noted their use, by seed."""
        self.room = Room(root, max_bytes)
        self.files = ThreadPoolExecutor(1, "asynccache-files")
        """Writes large bodies and closes the session; one thread, so that steps stay in order."""
        self._root, self._clock, self._gitignore = root, clock, gitignore
        self._opening = threading.Lock()
        self._count = itertools.count(1)
        self._readers = ThreadPoolExecutor(_READ_THREADS, "asynccache-read")
        self.writer = WriterThread(self.folder_of, self.room, self.touched, clock)
        self.leaser = LeaseThread(self.folder_of, clock, self.room)
        add(self)

    async def read(self, seed: str, do: Callable[[Folder], T], nothing: T) -> T:
        """Read a seed's folder on a worker, and leave this thread an inline reader of it.

        Args:
            seed: The folder's.
            do: Reads.
            nothing: What is there where there is no database and none may be made.

        Raises:
            StoreError: It can't be read.
        """
        thread, blocks = get_ident(), blocks_read()

        def read() -> T:
            tries = 0
            while True:
                folder = self._find(seed)
                if folder is None:
                    return nothing
                tries += 1
                try:
                    result = do(folder)
                    folder.warm(thread, blocks)
                except (sqlite3.Error, OSError) as exc:
                    # Removed just now, by a user, or as it was empty: the next one is read.
                    if tries == _TRIES or not (folder.moved() or is_missing(exc)):
                        raise
                else:
                    return result

        return await self._run(read)

    async def writable(self, seed: str) -> Folder:
        """Return a seed's folder, opened on a worker if need be.

        Raises:
            StoreError: It can't be opened or written.
        """
        return await self._run(lambda: self.folder_of(seed))

    async def remove(self, seed: str, tenant: str | None) -> int:
        """Remove a database whole, where a volume is too full for deleting in it.

        Returns:
            How many live entries there were.

        Raises:
            StoreFullError: Others have entries there, too.
            StoreError: It can't be removed.
        """

        def remove() -> int:
            folder = self._find(seed)
            live = 0 if folder is None else folder.count_alone(tenant)
            if live is None:
                raise StoreFullError(
                    "The disk has no room to delete in, and the database holds entries of other"
                    " tenants: free some room."
                )
            if folder is not None:
                remove_whole(folder.database)
                folder.close()
            return live

        return await self._run(remove)

    def folder_of(self, seed: str) -> Folder:
        """Return a seed's folder to write to; blocks.

        Raises:
            StoreReadOnlyError: It can't be written.
            StoreRefusedError, sqlite3.Error, OSError: It can't be opened.
        """
        folder = self._find(seed)
        if folder is not None and not (folder.writable or self.read_only) and self.room.lack() > 0:
            raise StoreFullError(
                "The disk had no room for the cache when it was opened: free some."
            )
        if folder is None or not folder.writable:
            raise StoreReadOnlyError("The disk store was, or can only be, opened for reading.")
        return folder

    def close(self) -> None:
        """Write what is queued, close all connections, stop all threads; blocks."""
        self._readers.shutdown()
        # Before the writer's: the last connection to close folds the log into the database.
        with working():
            for folder in self.folders.values():
                folder.close()
        self.leaser.stop()
        self.writer.stop()
        self.files.shutdown(wait=False)

    async def aclose(self) -> None:
        """Do as `close`, on a worker that goes on if the caller is cancelled."""
        try:
            closing = self.files.submit(self.close)
        except RuntimeError:  # the interpreter is ending, and starts none any more
            self.close()
        else:
            await asyncio.wrap_future(closing)

    def disconnect(self, until: float) -> bool:
        """Close all connections, to be opened anew when they are needed; no thread is at work.

        Args:
            until: When to give up waiting for an inline read, by `time.monotonic`.

        Returns:
            Whether all are closed.
        """
        closed = [folder.disconnect(until) for folder in list(self.folders.values())]
        self.leaser.disconnect()
        self.writer.disconnect()
        return all(closed)

    async def _run(self, do: Callable[[], T]) -> T:
        def run() -> T:
            try:
                with working():
                    return do()
            except (sqlite3.Error, OSError) as exc:
                raise mapped(exc) from exc

        try:
            running = asyncio.get_running_loop().run_in_executor(self._readers, run)
        except RuntimeError as exc:
            raise StoreUnavailableError("The disk store was closed meanwhile.") from exc
        return await running

    def _find(self, seed: str) -> Folder | None:
        """Return a seed's folder, opened if it isn't, or anew where another took its place."""
        found = self.folders.get(seed)
        if found is None or found.moved():
            with self._opening:
                found = self._open(seed)
        if found is not None:
            found.asked = next(self._count)
        return found

    def _open(self, seed: str) -> Folder | None:
        found = self.folders.get(seed)
        if found is not None and not found.moved():
            return found
        if seed in {"", os.curdir, os.pardir} or os.path.basename(seed) != seed:  # noqa: PTH119 - of a name, not a path
            raise StoreRefusedError(f"{seed!r} can't be a folder's name: choose another seed.")
        if found is not None:
            found.close()  # before the new one is made: a deleted file's room is free only then
        fresh = self._opened(seed)
        if fresh is None:
            self.folders.pop(seed, None)
        else:
            self.folders[seed] = fresh
        self._close_others(seed)
        return fresh

    def _opened(self, seed: str) -> Folder | None:
        opening = partial(
            open_folder, self._root, seed, self._clock, self.touched.setdefault(seed, {}),
            gitignore=self._gitignore,
        )  # fmt: skip
        fresh = self._tried(opening)
        if fresh is not None and fresh.writable:
            self.room.prepare()
            self.writer.evictor.is_due = True
            self.writer.wake()
        return fresh

    def _tried(self, opening: Callable[..., Folder | None]) -> Folder | None:
        """Open a folder, as often as it is removed meanwhile, and somehow on a full volume."""
        read_only, tries = self.read_only, 0
        while True:
            tries += 1
            try:
                return opening(read_only=read_only)
            except (sqlite3.Error, OSError) as exc:
                if tries == _TRIES or self.read_only or not (is_full(exc) or is_missing(exc)):
                    raise
                if is_full(exc):
                    read_only = not self.room.give_up_spare()

    def _close_others(self, seed: str) -> None:
        """Close the folders that nobody has used for the longest time, beyond so many."""
        while len(self.folders) > _FOLDERS:
            others = {name: folder for name, folder in self.folders.items() if name != seed}
            # What was read inline of late is in use, though nobody had to ask for the folder.
            name = min(others, key=lambda name: (bool(others[name].touched), others[name].asked))
            self.folders.pop(name).close()
        for name in self.touched.keys() - self.folders.keys():
            if not self.touched[name]:
                del self.touched[name]
