"""A place where many tasks wait for one thing, each until its own deadline, on a single timer."""

from __future__ import annotations

import asyncio
import math

from asynccache.runtime.pacer import Pacer


class WaitedTooLongError(Exception):
    """A waiter's own deadline passed; never leaves the library."""


class Waiters:
    """Waiters of one event loop. Cancelling one disturbs no other.

    A future each, rather than one for all: cancelling a task cancels what it awaits.
    """

    __slots__ = ("_alarm", "_alarm_at", "_loop", "_pacer", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, pacer: Pacer) -> None:
        self._loop = loop
        self._pacer = pacer
        self._waiting: dict[asyncio.Future[None], float] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    def enter(self, deadline: float) -> asyncio.Future[None]:
        """Return a future to await, which ends when the gate opens next; then `leave`.

        Not a coroutine of its own, as thousands wait here.

        Args:
            deadline: Loop time at which the future raises `WaitedTooLongError`.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting[future] = deadline
        if deadline < self._alarm_at:
            self._arm(deadline)
        return future

    def leave(self, future: asyncio.Future[None]) -> None:
        """Wait no more; each `enter` needs one."""
        self._waiting.pop(future, None)

    def open(self) -> None:
        """Let all who wait go on."""
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            if len(waiting) > 1:
                self._pacer.resolve(waiting)
            else:
                for future in waiting:
                    if not future.done():
                        future.set_result(None)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm, self._alarm_at = None, math.inf

    def _arm(self, deadline: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = deadline
        self._alarm = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        self._alarm, self._alarm_at = None, math.inf
        for future, deadline in self._waiting.items():
            if deadline <= now and not future.done():
                future.set_exception(WaitedTooLongError())
        later = min((d for f, d in self._waiting.items() if not f.done()), default=math.inf)
        if later < math.inf:
            self._arm(later)
