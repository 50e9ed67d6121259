"""A clock that stands still until a test moves it."""

from __future__ import annotations

from typing import Final

from asynccache.runtime.clock import Clock

_MICROSECONDS: Final = 1_000_000
_START: Final = 1_700_000_000.0  # seconds since the epoch: November 2023, as good as any


class ManualClock(Clock):
    """Stands in for the machine's clocks, so that expiry is tested without waiting for it.

    Args:
        start: Seconds since the Unix epoch at which the wall clock begins.
        monotonic: Seconds at which the monotonic clock begins.

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
        """Return seconds that never run backwards."""
        return self._monotonic_us / _MICROSECONDS

    def advance(self, seconds: float) -> None:
        """Move both clocks forward, as passing time does.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        self.advance_monotonic(seconds)
        self.advance_wall(seconds)

    def advance_wall(self, seconds: float) -> None:
        """Move the wall clock alone, also backwards: somebody set it."""
        self._wall_us += round(seconds * _MICROSECONDS)

    def advance_monotonic(self, seconds: float) -> None:
        """Move the monotonic clock alone.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError("a monotonic clock never runs backwards; see advance_wall")
        self._monotonic_us += round(seconds * _MICROSECONDS)
