"""The one event loop that an aiocache cache is used in, and how others ask it to do their work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from asynccache.errors import StoreUnavailableError
from asynccache.runtime.background import blocked_loop
from asynccache.runtime.forks import forget_in_child
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
        anywhere: The cache has no connections, and no command of it waits: any loop may use it,
            one at a time.
        end: Ends the commands that are under way, since cancelling them would leave answers unread.
    """

    def __init__(self, *, anywhere: bool, end: Callable[[], None] | None = None) -> None:
        self._anywhere = anywhere
        self._end = end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inherited = False  # by a fork, so that the loop isn't run by anybody here
        self._lock = threading.RLock()  # what runs may run commands
        self._under_way: set[asyncio.Task[Any]] = set()
        self._left: set[asyncio.Task[Any]] = set()
        self.turn = asyncio.Lock()
        """For steps that must not come between each other's; of the home loop."""
        forget_in_child(self)

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run work in the home loop, and return what it returns.

        Raises:
            StoreUnavailableError: The loop that the cache belongs to can't do anything now.
        """
        here = asyncio.get_running_loop()
        with self._lock:
            if self._anywhere:
                return await work()  # which waits for nothing, so that no loop is held up here
            home = self._of(here)
        if home is here:
            return await work()
        try:
            return await result_in(home, work)
        except LoopEndedError:
            raise StoreUnavailableError(_NO_HOME) from None

    def _of(self, here: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        home = self._loop
        if home is None or (home.is_closed() and not self._inherited):
            self._loop = home = here
            self._under_way, self._left, self.turn = set(), set(), asyncio.Lock()
        running = not self._inherited and (home is here or home.is_running())
        if running and (home is here or home is not blocked_loop()):
            return home
        raise StoreUnavailableError(_HELD if running else _NO_HOME)

    async def command(self, command: Coroutine[Any, Any, T]) -> T:
        """Run one command of the cache's to its end, also if who waits for it is cancelled."""
        if self._anywhere:
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
        task.add_done_callback(self._left.discard)
        ending = asyncio.get_running_loop().call_later(_LEFT_ALONE, self._end or task.cancel)
        task.add_done_callback(lambda _: ending.cancel())

    async def settle(self) -> None:
        """Wait for the commands that were left alone, which end in time."""
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=_LEFT_ALONE + 1)

    def forget(self) -> None:
        """Forget, in a forked child, who holds the lock, and that the loop was running."""
        self._lock = threading.RLock()
        self._inherited = self._loop is not None
