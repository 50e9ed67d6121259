"""What must be done one at a time, or to its end, whatever becomes of a loop or a task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Final

from asynccache.runtime.loops import finish

_LOOK: Final = 0.05  # seconds between two looks at what may have changed elsewhere


class Turns:
    """Gives one task at a time a turn, among the tasks of all event loops.

    A turn passes to the next task if its loop stands still.
    """

    def __init__(self) -> None:
        self.current: Turn | None = None
        self._lock = threading.Lock()

    def take(self, turn: Turn) -> Turn | None:
        """Make a turn the current one, or return the one that has to end first."""
        with self._lock:
            other = self.current
            if other is not None and other.loop.is_running():
                return other
            self.current = turn
            return None

    def leave(self, turn: Turn) -> None:
        """End a turn, unless it has passed to another task."""
        with self._lock:
            if self.current is turn:
                self.current = None

    def forget(self) -> None:
        """Forget, in a forked child, whose turn it is in the parent."""
        self.current = None
        self._lock = threading.Lock()


class Turn:
    """The turn of the running task, from `begin` to `end`."""

    __slots__ = ("_turns", "ended", "loop")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.ended: Final[Future[None]] = Future()
        self.loop: Final = asyncio.get_running_loop()

    @property
    def lasts(self) -> bool:
        """Whether it is this task's turn."""
        return self._turns.current is self

    async def begin(self) -> None:
        """Wait for the turn, and have it."""
        while (other := self._turns.take(self)) is not None:
            ended: asyncio.Future[None] = self.loop.create_future()
            other.ended.add_done_callback(partial(_wake, ended))
            await asyncio.wait({ended}, timeout=_LOOK)

    def end(self) -> None:
        """Let the next task have its turn."""
        self._turns.leave(self)
        self.ended.set_result(None)


def _wake(waiting: asyncio.Future[None], _: Future[None]) -> None:
    finish(waiting)


class Uncut:
    """Does work to its end although the task is cancelled; `end` raises what came meanwhile.

    Work has a deadline of its own, and may be begun again where it was cut off.
    """

    __slots__ = ("_cut",)

    def __init__(self) -> None:
        self._cut: asyncio.CancelledError | None = None

    async def do(self, work: Callable[[], Awaitable[None]]) -> None:
        """Await work, again after each cancellation."""
        from anyio import CancelScope

        with CancelScope(shield=True):  # anyio's cancellations come again in each turn of the loop
            while True:
                try:
                    return await work()
                except asyncio.CancelledError as exc:
                    self._cut = exc

    def end(self) -> None:
        """Be cancelled now, if that was asked for."""
        if self._cut is not None:
            raise self._cut
