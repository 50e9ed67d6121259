"""The Cosmos DB store, run through the public contract."""

from __future__ import annotations

import pytest

from asynccache.stores.cosmos import CosmosStore
from asynccache.testing import ManualClock, StoreContract
from tests.helpers.cosmos_servers import CosmosServer


@pytest.fixture(scope="module")
def server():
    """One server."""
    with CosmosServer() as running:
        yield running


class TestCosmosStore(StoreContract):
    capabilities = CosmosStore.capabilities

    @pytest.fixture
    def clock(self):
        return ManualClock()

    @pytest.fixture
    async def store(self, server, clock):
        server.empty()
        store = CosmosStore(server.connection_string, timeout=10, clock=clock)
        await store.open()
        yield store
        await store.aclose()
