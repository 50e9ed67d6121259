"""The stores that need no server, run through the public contract."""

from __future__ import annotations

import pytest

from asynccache.stores.base import Capabilities
from asynccache.stores.memory import MemoryStore
from asynccache.testing import FaultyStore, ManualClock, StoreContract


class TestMemoryStore(StoreContract):
    capabilities = MemoryStore.capabilities

    @pytest.fixture
    def clock(self):
        return ManualClock()

    @pytest.fixture
    async def store(self, clock):
        store = MemoryStore(clock=clock)
        await store.open()
        yield store
        await store.aclose()


class TestFaultyStore(StoreContract):
    """A faulty store without a fault is as good as the store within."""

    capabilities = Capabilities(leases=True, messages=True, generations=True)

    @pytest.fixture
    def store(self):
        return FaultyStore(MemoryStore(), hide_inline=True)


class TestPlainStore(StoreContract):
    """A store may claim less than it can do, and is then asked for less."""

    capabilities = Capabilities()

    @pytest.fixture
    def store(self):
        return FaultyStore(MemoryStore(), capabilities=Capabilities())


def test_only_what_a_store_can_do_is_collected():
    """Tests of capabilities that aren't stated, or of a clock that isn't given, aren't there."""
    assert callable(TestMemoryStore.test_entries_expire_by_the_clock)
    assert callable(TestMemoryStore.test_a_lease_is_granted_once)
    assert not callable(TestFaultyStore.test_entries_expire_by_the_clock)
    assert callable(TestFaultyStore.test_setting_and_deleting_wake)
    assert not callable(TestPlainStore.test_peek_answers)
    assert not callable(TestPlainStore.test_a_lease_is_granted_once)
    assert callable(TestPlainStore.test_absence_is_none)


def test_what_a_subclass_can_do_is_collected():
    """A subclass of a contract has the tests of its own capabilities, and none replaced there."""

    class Narrow(StoreContract):
        test_absence_is_none = None  # type: ignore[assignment] # pytest passes over it

    class Wide(Narrow):
        capabilities = Capabilities(leases=True)

    assert not callable(Narrow.test_a_lease_is_granted_once)
    assert callable(Wide.test_a_lease_is_granted_once)
    assert not callable(Wide.test_setting_and_deleting_wake)
    assert Wide.test_absence_is_none is None
