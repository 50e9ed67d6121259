"""A clock that stands still until a test moves it."""

from __future__ import annotations

from typing import Final

from asynccache.runtime.clock import Clock

_MICROSECONDS: Final = 1_000_000
_START: Final = 1_700_000_000.0  # seconds since the epoch: November 2023, as good as any


class ManualClock(Clock):
    """A clock that a test moves, so that it can test expiry without waiting.

    Args:
        start: Where the wall clock starts, in seconds since the Unix epoch.
        monotonic: Where the monotonic clock starts, in seconds.

    Example:
        >>> clock = ManualClock(start=100.0)
        >>> clock.advance(1.5)
        >>> clock.time_us()
        101500000
    """

    __slots__ = ("_monotonic_us", "_wall_us")

    def __init__(self, start: float = _START, *, monotonic: float = 0.0) -> None:
        # Whole microseconds, so that many small steps add up exactly.
        self._wall_us = round(start * _MICROSECONDS)
        self._monotonic_us = round(monotonic * _MICROSECONDS)

    def time_ns(self) -> int:
        """Return nanoseconds since the Unix epoch."""
        return self._wall_us * 1000

    def monotonic(self) -> float:
        """Return the seconds of the monotonic clock."""
        return self._monotonic_us / _MICROSECONDS

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by the same time.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        self.advance_monotonic(seconds)
        self.advance_wall(seconds)

    def advance_wall(self, seconds: float) -> None:
        """Move only the wall clock. It may go backwards, as when somebody sets it."""
        self._wall_us += round(seconds * _MICROSECONDS)

    def advance_monotonic(self, seconds: float) -> None:
        """Move only the monotonic clock.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError("a monotonic clock never runs backwards; see advance_wall")
        self._monotonic_us += round(seconds * _MICROSECONDS)
