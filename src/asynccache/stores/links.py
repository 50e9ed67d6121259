"""A link to a server for each event loop that uses a store, closed in its own loop, left by a fork.

What a driver opens belongs to the loop that opened it: this keeps one of it for each.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from asynccache.errors import StoreUnavailableError
from asynccache.runtime.background import blocked_loop
from asynccache.runtime.forks import forget_in_child
from asynccache.runtime.loops import LoopEnd, done_in

_FOREIGN_CLOSE: Final = 5.0  # seconds that another loop may take to close its connections
_ENDING: Final = 2.0  # seconds that cancelled tasks may take to end when a link is closed


T = TypeVar("T")


class LoopLink(ABC):
    """What one event loop has of a server. Only that loop may use it."""

    def __init__(self) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._end: Final = LoopEnd.here()
        self._end.add(self, self.close, last=True)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task that goes on if its caller gives up; closing the link ends it."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end_tasks(self, *, patience: float = 0.0) -> None:
        """Wait some seconds for the tasks, then cancel those that aren't done."""
        if self._tasks and patience:
            await asyncio.wait(self._tasks, timeout=patience)
        until = self.loop.time() + _ENDING
        while self._tasks and (left := until - self.loop.time()) > 0:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=left)

    async def close(self) -> None:
        """Close the link: when the store is closed, or the loop ends before that."""
        await self.aclose()
        self.leave()

    def leave(self) -> None:
        """Let the loop end without closing the link."""
        self._end.discard(self)

    @abstractmethod
    async def aclose(self) -> None:
        """End the tasks, and give connections back."""


LinkT = TypeVar("LinkT", bound=LoopLink)


class Links(Generic[LinkT]):
    """All links of a store.

    Args:
        make: Makes the link of the loop it is called in; waits for nothing.
        only_one: What the links stand on serves one loop alone; says what to do for more.
    """

    def __init__(self, make: Callable[[], LinkT], *, only_one: str | None = None) -> None:
        self.are_open = False
        self._make = make
        self._only_one = only_one
        self._opening = 0
        self._lock = threading.Lock()
        self._links: dict[asyncio.AbstractEventLoop, LinkT] = {}
        self._closing: dict[asyncio.AbstractEventLoop, LinkT] = {}
        self._leaked: object = None
        forget_in_child(self)

    async def open(self, reach: Callable[[LinkT], Awaitable[object]]) -> None:
        """Let loops have links from now on, if the running loop's link reaches the server.

        Args:
            reach: Asks the server for something; what it raises is raised.
        """
        was_open, self.are_open = self.are_open, True
        self._opening += 1
        try:
            await reach(self.mine())
        except BaseException:
            if not was_open and self._opening == 1:  # nobody else is trying at the moment
                await self.aclose()
            raise
        finally:
            self._opening -= 1

    def mine(self) -> LinkT:
        """Return the running loop's link.

        Raises:
            StoreUnavailableError: The store isn't open, or serves another loop alone.
        """
        loop = asyncio.get_running_loop()
        return self._links.get(loop) or self._new(loop)

    def _new(self, loop: asyncio.AbstractEventLoop) -> LinkT:
        with self._lock:
            if not self.are_open:
                raise StoreUnavailableError("the store isn't open in this process: open it first")
            if self._only_one is not None and self._links:
                raise StoreUnavailableError(self._only_one)
            for past in [past for past in self._links if past.is_closed()]:
                del self._links[past]
            made = self._links[loop] = self._make()
            return made

    async def aclose(self) -> None:
        """Close all links, each in its own loop."""
        with self._lock:
            self.are_open = False
            self._closing.update(self._links)
            self._links = {}
        while self._closing:
            loop, link = next(iter(self._closing.items()))
            if loop is asyncio.get_running_loop():
                await link.close()
            else:
                patience = 0 if loop is blocked_loop() else _FOREIGN_CLOSE  # it does, once it may
                await done_in(loop, link.close, patience=patience)
            self._closing.pop(loop, None)  # last: who is cancelled before closes it the next time

    def forget(self) -> None:
        """Forget, in a forked child, what belongs to the parent: not even closed, it isn't ours."""
        for link in self._links.values():
            link.leave()
        self._leaked = (self._links, self._leaked)
        self.are_open = False
        self._links, self._closing = {}, {}
        self._lock = threading.Lock()
