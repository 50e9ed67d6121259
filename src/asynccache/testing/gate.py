"""A place where calls wait until a test lets them through."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from asynccache.runtime.loops import finish


class Gate:
    """A place where calls wait until a test lets them through, in any event loop and thread."""

    def __init__(self) -> None:
        self.arrivals = 0
        """How many calls have come to the gate so far."""
        self._open = False
        self._lock = threading.Lock()
        self._waiting: set[asyncio.Future[None]] = set()

    async def arrived(self, count: int = 1) -> None:
        """Wait until ``count`` calls have come to the gate since the beginning."""
        await self._until(lambda: self.arrivals >= count)

    def release(self) -> None:
        """Let all calls through that wait at the gate, and all that come later."""
        self._open = True
        self._changed()

    async def pass_through(self) -> None:
        """Come to the gate and wait for `release`."""
        with self._lock:
            self.arrivals += 1
        self._changed()
        await self._until(lambda: self._open)

    async def _until(self, condition: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        while not condition():
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.add(future)
            try:
                if not condition():  # it may have come true before anybody knew of the future
                    await future
            finally:
                self._waiting.discard(future)

    def _changed(self) -> None:
        for future in list(self._waiting):  # in one step, as nothing here runs code in Python
            finish(future)
