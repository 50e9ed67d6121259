"""The one event loop that an aiocache cache is used in, and how others ask it to do their work."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar
from weakref import WeakSet

from asynccache.errors import StoreUnavailableError
from asynccache.runtime.background import blocked_loop
from asynccache.runtime.loops import LoopEndedError, result_in

T = TypeVar("T")

_LEFT_ALONE: Final = 5.0  # seconds that a command goes on which nobody waits for any more
_NO_HOME: Final = (
    "the aiocache cache belongs to an event loop that isn't running"
    " in this process: make one for each loop that outlives another"
)
_HELD: Final = (
    "the aiocache cache belongs to the event loop of the very thread that waits here:"
    " await the AsyncCache there, or open it with `with` before that loop uses it"
)


class Home:
    """Runs commands in the loop that uses a cache first; other loops send theirs there.

    A cancelled caller doesn't cut a command short: what answers it would be read as the answer to
    the next. Commands that come after one that was left alone wait for its end, so that nothing
    overtakes.

    Args:
        roaming: What is used has no connections, and no command that waits: where its loop doesn't
            run, or is held up by who asks, another takes over.
        end: Ends the commands that are under way, since cancelling them would leave answers unread.
    """

    def __init__(self, *, roaming: bool, end: Callable[[], None] | None = None) -> None:
        self._roaming = roaming
        self._end = end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inherited = False  # by a fork, so that the loop isn't run by anybody here
        self._lock = threading.Lock()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._left: set[asyncio.Task[Any]] = set()
        self.turn = asyncio.Lock()
        """For steps that must not come between each other's; of the home loop."""
        _ALL.add(self)

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run work in the home loop, and return what it returns.

        Raises:
            StoreUnavailableError: The loop that the cache belongs to can't do anything now.
        """
        here = asyncio.get_running_loop()
        with self._lock:
            home = self._of(here)
            if self._roaming and home is here:
                # It waits for nothing; and where another loop takes over, this one is through.
                return await work()
        if home is here:
            return await work()
        try:
            # Which may have moved when it gets there.
            return await result_in(home, lambda: self.run(work))
        except LoopEndedError:
            if not self._roaming:
                raise StoreUnavailableError(_NO_HOME) from None
        return await self.run(work)  # now that loop's turn is over

    def _of(self, here: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        home = self._loop
        running = home is not None and not self._inherited and (home is here or home.is_running())
        if home is not None and running and (home is here or home is not blocked_loop()):
            return home
        if home is None or self._roaming or (home.is_closed() and not self._inherited):
            self._loop, self._inherited = here, False
            self._under_way, self._left, self.turn = set(), set(), asyncio.Lock()
            return here
        raise StoreUnavailableError(_HELD if running else _NO_HOME)

    async def command(self, command: Coroutine[Any, Any, T]) -> T:
        """Run one command of the cache's to its end, also if who waits for it is cancelled."""
        if self._roaming:
            return await command  # it waits for nothing, so nothing can come between
        task = asyncio.ensure_future(self._in_order(command))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                self._leave(task)
            raise

    async def _in_order(self, command: Coroutine[Any, Any, T]) -> T:
        before = set(self._left)
        try:
            if before:
                await asyncio.wait(before)
        except BaseException:
            command.close()
            raise
        return await command

    def _leave(self, task: asyncio.Task[Any]) -> None:
        self._left.add(task)
        ending = asyncio.get_running_loop().call_later(_LEFT_ALONE, self._cut, task)

        def ended(task: asyncio.Task[Any]) -> None:
            ending.cancel()
            self._left.discard(task)

        task.add_done_callback(ended)

    def _cut(self, task: asyncio.Task[Any]) -> None:
        if self._end is not None:
            self._end()
        else:
            task.cancel()

    async def settle(self) -> None:
        """Wait for the commands that were left alone, and end what doesn't end in time."""
        if not self._under_way:
            return
        _, late = await asyncio.wait(set(self._under_way), timeout=_LEFT_ALONE)
        for task in late:
            self._cut(task)
        if late:
            await asyncio.wait(late, timeout=1)

    def forget(self) -> None:
        """Forget, in a forked child, who holds the lock, and that the loop was running."""
        self._lock = threading.Lock()
        self._inherited = self._loop is not None


_ALL: Final[WeakSet[Home]] = WeakSet()


def _forked() -> None:
    for home in list(_ALL):
        home.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
