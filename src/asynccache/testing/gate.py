"""A place where calls wait until a test lets them through."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from asynccache.runtime.loops import finish_in


class Gate:
    """Where calls wait until a test lets them through. Works across event loops and threads."""

    def __init__(self) -> None:
        self.arrivals = 0
        """Calls that have come to the gate so far."""
        self._open = False
        self._lock = threading.Lock()
        self._watchers: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    async def arrived(self, count: int = 1) -> None:
        """Wait until ``count`` calls in all have come to the gate."""
        await self._until(lambda: self.arrivals >= count)

    def release(self) -> None:
        """Let through who waits here, and whoever comes later."""
        with self._lock:
            self._open = True
        self._changed()

    async def pass_through(self) -> None:
        """Arrive, and wait for `release`."""
        with self._lock:
            self.arrivals += 1
        self._changed()
        await self._until(lambda: self._open)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while True:
            loop = asyncio.get_running_loop()
            watcher = (loop, loop.create_future())
            with self._lock:
                if condition():
                    return
                self._watchers.append(watcher)
            try:
                await watcher[1]
            finally:
                with self._lock, suppress(ValueError):
                    self._watchers.remove(watcher)

    def _changed(self) -> None:
        with self._lock:
            watchers, self._watchers = self._watchers, []
        for loop, future in watchers:
            finish_in(loop, future)
