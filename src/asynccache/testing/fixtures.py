"""Optional fixtures for pytest: ``pytest_plugins = ["asynccache.testing.fixtures"]``."""

from __future__ import annotations

import pytest

from asynccache.stores.memory import MemoryStore
from asynccache.testing.clock import ManualClock
from asynccache.testing.faulty import FaultyStore


@pytest.fixture
def manual_clock() -> ManualClock:
    """Return a `ManualClock`."""
    return ManualClock()


@pytest.fixture
def faulty_store(manual_clock: ManualClock) -> FaultyStore:
    """Return a `FaultyStore` around a `MemoryStore` that takes its time from `manual_clock`."""
    return FaultyStore(MemoryStore(clock=manual_clock))
