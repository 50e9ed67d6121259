"""The one event loop that an aiocache cache is used in, and how others ask it to do their work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from asynccache._errors import StoreUnavailableError
from asynccache._loops import begin

T = TypeVar("T")

_LEFT_ALONE: Final = 5.0  # seconds that a command goes on which nobody waits for any more
_NO_HOME: Final = (
    "the aiocache cache belongs to an event loop that isn't running"
    " in this process: make one for each loop that outlives another"
)


class Home:
    """Runs commands in the loop that uses a cache first; other loops send theirs there.

    A cancelled caller doesn't cut a command short: what answers it would be read as the answer to
    the next. Commands that come after one that was left alone wait for its end, so that nothing
    overtakes.

    Args:
        roaming: What is used has no connections: where its loop doesn't run, another may take over.
        end: Ends the commands that are under way, since cancelling them would leave answers unread.
    """

    def __init__(self, *, roaming: bool, end: Callable[[], None] | None = None) -> None:
        self._roaming = roaming
        self._end = end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._left: set[asyncio.Task[Any]] = set()
        self.turn = asyncio.Lock()
        """For steps that must not come between each other's; of the home loop."""

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run work in the home loop, and return what it returns.

        Raises:
            StoreUnavailableError: The loop that the cache belongs to can't do anything now.
        """
        here = asyncio.get_running_loop()
        home = self._of(here)
        if home is here:
            return await work()
        try:
            working = begin(home, work)
        except RuntimeError:  # it was closed just now
            raise StoreUnavailableError(_NO_HOME) from None
        return await asyncio.wrap_future(working)

    def _of(self, here: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        home = self._loop
        forked = self._process != os.getpid()
        if home is not None and not forked and (home is here or home.is_running()):
            return home
        if home is None or self._roaming or (home.is_closed() and not forked):
            self._loop, self._process = here, os.getpid()
            self._under_way, self._left, self.turn = set(), set(), asyncio.Lock()
            return here
        raise StoreUnavailableError(_NO_HOME)

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
