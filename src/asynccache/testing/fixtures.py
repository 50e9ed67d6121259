"""Optional fixtures for pytest: ``pytest_plugins = ["asynccache.testing.fixtures"]``."""

from __future__ import annotations

import pytest

from asynccache.stores.memory import MemoryStore
from asynccache.testing.clock import ManualClock
from asynccache.testing.faulty import FaultyStore


@pytest.fixture
def manual_clock() -> ManualClock:
    """Return a clock that stands still until the test advances it."""
    return ManualClock()


@pytest.fixture
def faulty_store(manual_clock: ManualClock) -> FaultyStore:
    """Return a store in memory, on `manual_clock`, that fails, stalls and corrupts on command."""
    return FaultyStore(MemoryStore(clock=manual_clock))
