"""The disk store, run through the public contract; also over a rollback journal."""

from __future__ import annotations

import pytest

from asynccache.stores.disk import DiskStore, opening
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


class TestDiskStoreWithoutWal(TestDiskStore):
    """On a network file system: all but inline reads."""

    test_peek_answers = None  # type: ignore[assignment] # pytest passes over it

    @pytest.fixture(autouse=True)
    def network(self, monkeypatch):
        monkeypatch.setattr(opening, "on_network", lambda _: True)
