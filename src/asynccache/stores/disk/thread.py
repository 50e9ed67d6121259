"""A thread that takes all that has queued up, from any event loop, and does it as one group."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from asynccache.errors import StoreError, StoreFullError, StoreUnavailableError
from asynccache.runtime.loops import call_in
from asynccache.stores.disk.database import mapped
from asynccache.stores.disk.files import LOGGER
from asynccache.stores.disk.forks import working

_QUEUE_BYTES: Final = 64 * 2**20  # what may wait in memory for a slow disk
_SETTLE: Final = 200  # futures per turn of the loop: waking their tasks takes about a millisecond
_RETRY_SECONDS: Final = 5.0  # before background work that failed is tried again

W = TypeVar("W")


class Job(Generic[W]):
    """One piece of work, and who waits for it."""

    __slots__ = ("error", "future", "loop", "result", "size", "work")

    def __init__(self, work: W, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.size = size
        self.result: Any = None
        self.error: StoreError | None = None


class GroupThread(Generic[W]):
    """The thread, its queue, and the way back.

    Args:
        name: Of the thread.
        do: Does a group: sets each job's ``result`` or ``error``. Called on the thread.
        between: Does a little background work; returns the seconds to wait for jobs before it is
            called again; None for until there are some.
        finish: Called on the thread when all is done.
    """

    def __init__(
        self,
        name: str,
        do: Callable[[Sequence[Job[W]]], None],
        *,
        between: Callable[[], float | None] = lambda: None,
        finish: Callable[[], None],
    ) -> None:
        self._do, self._between, self._finish = do, between, finish
        self._lock = threading.Lock()
        self._jobs: deque[Job[W]] = deque()
        self._bytes = 0
        self._kicking: set[asyncio.AbstractEventLoop] = set()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._accepting = True
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def submit(self, work: W, size: int = 0) -> Any:  # noqa: ANN401 - the job's own type
        """Queue work and return its result; cancelling the caller leaves the work queued.

        Raises:
            StoreFullError: More than the queue's limit is waiting already.
            StoreError: What the work failed with.
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
            if first:
                self._kicking.add(loop)
        if first:
            # At the end of the turn, so that all its jobs make one group, and the thread doesn't
            # fight for the interpreter with a loop that is still queueing.
            loop.call_soon(self._kick, loop)
        return await job.future

    def stop(self) -> None:
        """Do what is queued, then end the thread. Blocks: call it on a worker."""
        with self._lock:
            self._accepting = False
        self._wake.put(None)
        self._thread.join()

    def _kick(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._kicking.discard(loop)
        self._wake.put(None)

    def _run(self) -> None:
        pause: float | None = None
        while True:
            try:
                self._wake.get(timeout=pause)
                while True:
                    self._wake.get_nowait()
            except Empty:
                pass
            with self._lock:
                jobs = list(self._jobs)
                self._jobs.clear()
                last = not self._accepting
            if jobs:
                self._group(jobs)
            if last:
                break
            pause = self._background()
        try:
            with working():
                self._finish()
        except Exception as exc:  # noqa: BLE001 - closing must not fail whoever closes
            LOGGER.warning("the disk store could not be closed cleanly: %r", exc)

    def _group(self, jobs: list[Job[W]]) -> None:
        try:
            with working():
                self._do(jobs)
        except Exception as exc:  # noqa: BLE001 - nothing may end this thread
            for job in jobs:
                job.error = mapped(exc)
        with self._lock:
            self._bytes -= sum(job.size for job in jobs)
        by_loop: dict[asyncio.AbstractEventLoop, list[Job[W]]] = {}
        for job in jobs:
            by_loop.setdefault(job.loop, []).append(job)
        for loop, settled in by_loop.items():
            call_in(loop, _settle, loop, settled, 0)

    def _background(self) -> float | None:
        try:
            with working():
                return self._between()
        except Exception as exc:  # noqa: BLE001 - nothing may end this thread
            LOGGER.debug("background work of the disk store failed: %r", exc)
            return _RETRY_SECONDS


def _settle(loop: asyncio.AbstractEventLoop, jobs: list[Job[W]], start: int) -> None:
    for job in jobs[start : start + _SETTLE]:
        if job.future.done():  # who waited was cancelled
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)
    if start + _SETTLE < len(jobs):
        loop.call_soon(_settle, loop, jobs, start + _SETTLE)
