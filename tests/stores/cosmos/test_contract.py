"""The Cosmos DB store, run through the public contract.

``nox -s cosmos-live`` runs it against a real account: in a database of its own, which it deletes.
"""

from __future__ import annotations

import importlib.util
import os
import secrets

import pytest
from azure.cosmos import CosmosClient

from asynccache.stores.cosmos import CosmosStore
from asynccache.testing import ManualClock, StoreContract
from tests.helpers.cosmos_servers import CosmosServer, store_in
from tests.helpers.eager import EAGER, WANTED
from tests.helpers.remote_stores import opened

LIVE = os.environ.get("ASYNCCACHE_COSMOS") == "live"


class Account:
    """A real account, and a database in it that is ours."""

    def __init__(self):
        self.connection_string = os.environ["COSMOS_CONNECTION_STRING"]
        self.database = f"asynccache-tests-{secrets.token_hex(6)}"
        self.container = ""

    def empty(self):
        """Go on in a new container; the old one goes with its leases."""
        with CosmosClient.from_connection_string(self.connection_string) as client:
            if self.container:
                client.get_database_client(self.database).delete_container(self.container)
        self.container = f"answers-{secrets.token_hex(6)}"

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with CosmosClient.from_connection_string(self.connection_string) as client:
            client.delete_database(self.database)


@pytest.fixture(scope="module")
def anyio_backend():
    """Run on uvloop where it is; the other tests of this store run on asyncio's own loop."""
    if WANTED:
        return EAGER
    return ("asyncio", {"use_uvloop": importlib.util.find_spec("uvloop") is not None})


@pytest.fixture(scope="module")
def running():
    """One server, or a real account."""
    with Account() if LIVE else CosmosServer() as server:
        yield server


class TestCosmosStore(StoreContract):
    capabilities = CosmosStore.capabilities

    @pytest.fixture
    def clock(self):
        return ManualClock()

    @pytest.fixture
    async def store(self, server, clock):
        async with opened(store_in(server, timeout=60, clock=clock)) as store:
            yield store
