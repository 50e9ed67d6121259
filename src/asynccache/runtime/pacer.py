"""Limits how long the loop is held: many callers are served in slices of about a millisecond."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from time import perf_counter
from typing import Any, Final

_INLINE: Final = 0.0008  # seconds of hits served in one turn before the next ones queue
_BREATH: Final = 32  # steps of some microseconds between two looks at the turn's time
_TURN: Final = 0.0015  # seconds that a slice may take; half of it, and the next one is larger
_FIRST_SLICE: Final = 32  # waiters: some 20 microseconds of decoding each
_LARGEST_SLICE: Final = 512


class Pacer:
    """Divides one event loop's time among callers. Only the loop's own thread uses it."""

    __slots__ = ("_armed", "_began", "_loop", "_queue", "_serving", "_slice", "_sliced_at")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: deque[tuple[asyncio.Future[Any], object]] = deque()
        self._armed = False
        self._serving = False
        self._began = 0.0
        self._slice = _FIRST_SLICE
        self._sliced_at = 0.0

    def spent(self) -> bool:
        """Tell whether this turn has served enough: ``await pacer.slot()`` before more work."""
        if self._armed:
            return self._serving or perf_counter() - self._began > _INLINE
        if self._serving:
            return True
        self._armed = True
        self._began = perf_counter()
        self._loop.call_soon(self._disarm)
        return False

    def is_due(self, step: int) -> bool:
        """Tell, at each step of a long work, whether ``await pacer.slot()`` has to come first."""
        return step % _BREATH == _BREATH - 1 and self.spent()

    def _disarm(self) -> None:
        self._armed = False

    async def slot(self) -> None:
        """Wait for a turn that has time left. Callers go on in the order in which they asked."""
        if not self._serving:  # nobody waits: the next turn is this caller's, without a future
            self._begin()
            try:
                await asyncio.sleep(0)
            finally:
                self._serve()
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.append((future, None))
        await future

    def resolve(self, futures: Iterable[asyncio.Future[Any]], value: object = None) -> None:
        """Set the same result on futures, slice by slice if there are many."""
        self.resolve_each((future, value) for future in futures)

    def resolve_each(self, pairs: Iterable[tuple[asyncio.Future[Any], object]]) -> None:
        """Set each future's own result, or its exception."""
        self._queue.extend(pairs)
        if len(self._queue) <= _FIRST_SLICE and not self._serving:
            self._release(len(self._queue))
        elif self._queue:
            self._serve_soon()

    def _serve_soon(self) -> None:
        if not self._serving:
            self._begin()
            self._loop.call_soon(self._serve)

    def _begin(self) -> None:
        self._serving = True
        self._slice = _FIRST_SLICE
        self._sliced_at = perf_counter()

    def _serve(self) -> None:
        # What a slice cost shows one turn later: its tasks run between two calls of this method.
        took = -self._sliced_at + perf_counter()
        self._sliced_at += took
        if took > _TURN:
            self._slice = max(4, self._slice // 2)
        elif took < _TURN / 2:
            self._slice = min(_LARGEST_SLICE, self._slice * 2)
        self._release(self._slice)
        if self._queue:
            self._loop.call_soon(self._serve)
        else:
            self._serving = False

    def _release(self, count: int) -> None:
        queue = self._queue
        while queue and count:
            future, value = queue.popleft()
            if future.done():  # its task was cancelled
                continue
            if isinstance(value, BaseException):
                future.set_exception(value)
            else:
                future.set_result(value)
            count -= 1
