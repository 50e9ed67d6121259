"""The two clocks of a cache: wall time for expiry, monotonic time for leases and durations."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING


class Clock:
    """The machine's own clocks. `asynccache.testing.ManualClock` stands in for it in tests."""

    __slots__ = ()

    def time_us(self) -> int:
        """Return microseconds since the Unix epoch, as entries record them."""
        return time.time_ns() // 1000

    if TYPE_CHECKING:

        def monotonic(self) -> float:
            """Return seconds that never run backwards."""
            ...

    else:
        monotonic = staticmethod(time.monotonic)  # as it is: read several times a miss


SYSTEM_CLOCK = Clock()
