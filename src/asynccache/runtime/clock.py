"""The two clocks of a cache: wall time for expiry, monotonic time for leases and durations."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING


class Clock:
    """The machine's own clocks. `asynccache.testing.ManualClock` stands in for it in tests.

    `time_ns` and `monotonic` are the two that a subclass replaces.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def time_ns(self) -> int:
            """Return nanoseconds since the Unix epoch."""
            ...

        def monotonic(self) -> float:
            """Return seconds that never run backwards."""
            ...

    else:  # Python's own functions, as each call of a cache reads them
        time_ns = staticmethod(time.time_ns)
        monotonic = staticmethod(time.monotonic)

    def time_us(self) -> int:
        """Return microseconds since the Unix epoch, as entries record them."""
        return self.time_ns() // 1000


SYSTEM_CLOCK = Clock()
