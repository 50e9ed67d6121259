"""The two clocks of a cache: wall time for expiry, monotonic time for leases and durations."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar


class Clock:
    """The machine's own clocks. `asynccache.testing.ManualClock` stands in for it in tests."""

    __slots__ = ()

    def time_us(self) -> int:
        """Return microseconds since the Unix epoch, as entries record them."""
        return time.time_ns() // 1000

    monotonic: ClassVar[Callable[[], float]] = staticmethod(time.monotonic)
    """Returns seconds that never run backwards."""


SYSTEM_CLOCK = Clock()
