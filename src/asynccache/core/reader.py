"""One caller's way through an answer that may still be coming."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress

from asynccache.core.flight import Caller, Flight, own_copy
from asynccache.entries.entry import Meta
from asynccache.runtime.waiters import WaitedTooLongError


class Reader:
    """One caller's way through a flight's body: its chunks from the start, then live.

    Counts as a caller until it is closed, exhausted, or collected.
    """

    __slots__ = (
        "__weakref__", "_caller", "_flight", "_loop", "_open", "_started", "on_close", "position",
    )  # fmt: skip

    def __init__(
        self, flight: Flight, caller: Caller, loop: asyncio.AbstractEventLoop, *, started: bool
    ) -> None:
        self._flight = flight
        self._caller = caller
        self._loop = loop
        self._started = started
        self._open = True
        self.position = 0
        self.on_close: Callable[[BaseException | None], None] | None = None
        flight.read_by(self)

    async def head(self) -> Meta | None:
        """Return the answer's head as soon as it is known, None if the flight failed before."""
        flight = self._flight
        deadline = self._loop.time() + self._caller.patience
        while flight.meta is None and flight.error is None:
            deadline = await self._more(deadline)
        return flight.meta

    async def _more(self, deadline: float) -> float:
        """Wait for the flight to grow, and return until when to wait the next time."""
        growth = self._flight.growth
        more = growth.enter(deadline)
        try:
            await more
        except WaitedTooLongError:
            if not self._flight.own_time(started=self._started):
                raise
            return math.inf
        finally:
            growth.leave(more)
        return deadline

    def next_ready(self) -> bytes | None:
        """Return the next chunk if it is there already."""
        flight = self._flight
        at = self.position - flight.base
        if at < len(flight.chunks):
            self.position += 1
            return flight.chunks[at]
        return None

    async def next(self) -> bytes | None:
        """Return the next chunk, None at the end; raise the error that ended the flight.

        Raises:
            WaitedTooLongError: Nothing came for as long as the caller would wait.
        """
        flight = self._flight
        deadline = self._loop.time() + self._caller.patience
        while True:
            chunk = self.next_ready()
            if chunk is not None:
                if flight.oversized:
                    flight.drop_read()
                return chunk
            if flight.ended:
                self.close()
                if flight.error is not None:
                    # Part of the answer was delivered, so that nobody can start anew.
                    raise flight.error if self._started else own_copy(flight.error)
                return None
            deadline = await self._more(deadline)

    @property
    def flight(self) -> Flight:
        """The flight that is read."""
        return self._flight

    def close(self, error: BaseException | None = None) -> None:
        """Stop reading; the flight ends if nobody else reads it. Closing twice is harmless.

        ``error`` is what reading ended with, for `on_close`.
        """
        if self._open:
            self._open = False
            self._flight.left_by(self)
            if self.on_close is not None:
                self.on_close(error)
                self.on_close = None

    def close_anywhere(self) -> None:
        """Do as `close`, in any thread and without waiting: the loop does it soon."""
        with suppress(RuntimeError):  # the loop is closed, and with it the flight
            self._loop.call_soon_threadsafe(self.close)

    def __del__(self) -> None:
        # A bare ``break`` leaves no other trace. Collection may happen in any thread, so the loop
        # is asked to do the counting.
        if self._open:
            self._open = False
            flight, on_close = self._flight, self.on_close
            with suppress(RuntimeError):  # the loop is closed, and with it the flight
                self._loop.call_soon_threadsafe(flight.leave)
                if on_close is not None:
                    self._loop.call_soon_threadsafe(on_close, None)
