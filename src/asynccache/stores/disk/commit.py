"""Group commit: a thread writes all that has queued up as one transaction for each seed."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeAlias, TypeVar

from msgspec import Struct

from asynccache.errors import StoreError, StoreFullError, StoreUnavailableError
from asynccache.runtime.loops import call_in
from asynccache.stores.disk.database import is_local, is_missing, mapped
from asynccache.stores.disk.files import LOGGER, identity
from asynccache.stores.disk.folder import Folder
from asynccache.stores.disk.forks import working

_QUEUE_BYTES: Final = 64 * 2**20  # what may wait in memory for a slow disk
_GROUP_BYTES: Final = 4 * 2**20  # after which a group ends, so that the log and the limit hold
_CONNECTIONS: Final = 10  # open at once; the one used longest ago is closed
_SETTLE: Final = 200  # futures per turn of the loop: waking their tasks takes about a millisecond
_RETRY_SECONDS: Final = 5.0  # before background work that failed is tried again
_TRIES: Final = 3  # a database deleted while it is written to; three times in a row is no accident

T = TypeVar("T")


class Work(Struct, frozen=True):
    """Something to be done within a transaction, in one namespace."""

    seed: str
    tenant: str | None


W = TypeVar("W", bound=Work)


FolderOf: TypeAlias = Callable[[str], Folder]
"""Returns a seed's open folder: where its database was replaced, the new one."""


class Job(Generic[W]):
    """One piece of work, and who waits for it."""

    def __init__(self, work: W, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.size = size
        self.result: Any = None
        self.error: StoreError | None = None


class CommitThread(ABC, Generic[W]):
    """A thread with a queue, and a connection for each seed that it writes to.

    A subclass says what is done. Its methods are called on the thread.

    Args:
        name: The thread's name.
        folder_of: Finds the folder of a seed.
    """

    def __init__(self, name: str, folder_of: FolderOf) -> None:
        self._folder_of = folder_of
        self._connections: dict[str, tuple[Folder, object, sqlite3.Connection]] = {}
        self._lock = threading.Lock()
        self._jobs: deque[Job[W]] = deque()
        self._bytes = 0
        self._kicking: set[asyncio.AbstractEventLoop] = set()
        self._wake = threading.Event()
        self._accepting = True
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # -- for any thread --------------------------------------------------------------------------

    def submit(self, work: W, size: int = 0) -> asyncio.Future[Any]:
        """Queue work and return the future of its result. Cancelling that leaves the work queued.

        Args:
            work: What is to be done.
            size: How many bytes it holds in memory.

        Raises:
            StoreFullError: More than the queue's limit is waiting already.
            StoreUnavailableError: The thread was stopped.
        """
        loop = asyncio.get_running_loop()
        job = Job(work, loop, size)
        with self._lock:
            if not self._accepting:
                raise StoreUnavailableError("The disk store is closed: open it first.")
            if self._bytes and self._bytes + size > _QUEUE_BYTES:
                raise StoreFullError("The disk is slower than what is written: entry dropped.")
            self._jobs.append(job)
            self._bytes += size
            first = loop not in self._kicking
            self._kicking.add(loop)
        if first:
            # At the end of the turn, so that all its jobs make one group, and the thread doesn't
            # fight for the interpreter with a loop that is still queueing.
            loop.call_soon(self._kick, loop)
        return job.future

    def wake(self) -> None:
        """Have background work done soon."""
        self._wake.set()

    def stop(self) -> None:
        """Do what is queued, then end the thread. This blocks."""
        with self._lock:
            self._accepting = False
        self._wake.set()
        self._thread.join()

    def _kick(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._kicking.discard(loop)
        self._wake.set()

    # -- what a subclass says --------------------------------------------------------------------

    @abstractmethod
    def path(self, folder: Folder) -> Path:
        """Return the database of a folder that is written to."""

    @abstractmethod
    def connect(self, folder: Folder) -> sqlite3.Connection:
        """Open the connection that writes to a folder."""

    @abstractmethod
    def apply(self, connection: sqlite3.Connection, works: Sequence[W]) -> Sequence[object]:
        """Do works within the transaction that is open; return the result of each.

        Called again for the same works where the database was replaced meanwhile.
        """

    @abstractmethod
    def committed(self, folder: Folder, jobs: Sequence[Job[W]]) -> None:
        """Do what comes after the commit of these jobs, before their callers are told."""

    def before(self, size: int) -> None:
        """Do what comes before a transaction.

        Args:
            size: How many bytes are to be written.
        """

    def relieve(self, seed: str, exc: Exception, size: int) -> bool:
        """Do something about a failed transaction; return whether to try it again.

        Args:
            seed: Where it failed.
            exc: What it raised.
            size: How many bytes were to be written.
        """
        return False

    def failed(self, work: W) -> None:
        """Clean up after work that was not committed."""

    def between(self) -> float | None:
        """Do a little background work.

        Returns:
            How many seconds to wait for jobs before this is called again; None for until there are
            some.
        """
        return None

    def finish(self) -> None:
        """Do what is left to do: the thread ends."""

    # -- the thread ------------------------------------------------------------------------------

    def transact(self, seed: str, do: Callable[[sqlite3.Connection], T]) -> tuple[Folder, T]:
        """Do something within a transaction; return its committed result and where it is.

        Raises:
            Exception: What ``do`` or SQLite raised; nothing was changed.
        """
        for left in reversed(range(_TRIES)):
            self._close_moved(seed)
            folder = self._folder_of(seed)
            try:
                there, connection = self._connected(seed, folder)
            except sqlite3.Error as exc:
                if not left or not is_missing(exc):
                    raise
                continue
            try:
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    result = do(connection)
            except BaseException:
                if identity(self.path(folder)) == there and not folder.moved():
                    raise
            else:
                # Asked after the commit: what went into a deleted file is written once more.
                if identity(self.path(folder)) == there and not folder.moved():
                    return folder, result
        raise StoreUnavailableError(f"The database of {seed!r} is replaced again and again.")

    def disconnect(self) -> None:
        """Close all connections; the next transaction opens one anew."""
        while self._connections:
            self._connections.popitem()[1][2].close()

    def _close_moved(self, seed: str) -> None:
        """Close a connection to a deleted file, whose room is free only then."""
        found = self._connections.get(seed)
        if found is not None and found[1] != identity(self.path(found[0])):
            self._connections.pop(seed)[2].close()

    def _connected(self, seed: str, folder: Folder) -> tuple[object, sqlite3.Connection]:
        found = self._connections.pop(seed, None)
        if found is not None and found[0] is not folder:
            found[2].close()
            found = None
        if found is None:
            while len(self._connections) >= _CONNECTIONS:
                self._connections.pop(next(iter(self._connections)))[2].close()
            connection = self.connect(folder)
            found = folder, identity(self.path(folder)), connection
        self._connections[seed] = found
        return found[1:]

    def _run(self) -> None:
        pause: float | None = None
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            with self._lock:
                jobs: list[Job[W]] = []
                size = 0
                while self._jobs and size <= _GROUP_BYTES:
                    jobs.append(self._jobs.popleft())
                    size += jobs[-1].size
                last = not (self._accepting or self._jobs)
                if self._jobs:
                    self._wake.set()
            if jobs:
                self._group(jobs)
            if last:
                break
            pause = self._background()
        try:
            with working():
                try:
                    self.finish()
                finally:
                    self.disconnect()
        except Exception as exc:  # noqa: BLE001 - closing must not fail whoever closes
            LOGGER.warning("the disk store could not be closed cleanly: %r", exc)

    def _group(self, jobs: list[Job[W]]) -> None:
        by_seed: dict[str, list[Job[W]]] = {}
        by_loop: dict[asyncio.AbstractEventLoop, list[Job[W]]] = {}
        for job in jobs:
            by_seed.setdefault(job.work.seed, []).append(job)
            by_loop.setdefault(job.loop, []).append(job)
        with working():
            for seed, group in by_seed.items():
                try:
                    self._commit(seed, group)
                except Exception as exc:  # noqa: BLE001 - nothing may end this thread
                    for job in group:
                        job.error = mapped(exc)
        with self._lock:
            self._bytes -= sum(job.size for job in jobs)
        for loop, settled in by_loop.items():
            call_in(loop, _settle, loop, settled, 0)  # a loop that is closed has no one who waits

    def _commit(self, seed: str, jobs: Sequence[Job[W]], *, again: bool = True) -> None:
        works = [job.work for job in jobs]
        size = sum(job.size for job in jobs)
        try:
            self.before(size)
            folder, results = self.transact(seed, lambda found: self.apply(found, works))
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is one job's or the group's
            if len(jobs) > 1 and is_local(exc):
                for job in jobs:
                    self._commit(seed, [job])
                return
            if again and self.relieve(seed, exc, size):
                self._commit(seed, jobs, again=False)
                return
            for job in jobs:
                job.error = mapped(exc)
                self.failed(job.work)
            return
        for job, result in zip(jobs, results, strict=True):
            job.result = result
        self.committed(folder, jobs)

    def _background(self) -> float | None:
        try:
            with working():
                return self.between()
        except Exception as exc:  # noqa: BLE001 - nothing may end this thread
            LOGGER.debug("background work of the disk store failed: %r", exc)
            return _RETRY_SECONDS


def _settle(loop: asyncio.AbstractEventLoop, jobs: Sequence[Job[Any]], start: int) -> None:
    for job in jobs[start : start + _SETTLE]:
        if job.future.done():  # who waited was cancelled
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)
    if start + _SETTLE < len(jobs):
        loop.call_soon(_settle, loop, jobs, start + _SETTLE)
