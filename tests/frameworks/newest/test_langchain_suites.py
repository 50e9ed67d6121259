"""LangChain's own tests of a cache, on memory, disk and Redis."""

from __future__ import annotations

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite

from asynccache import Cache
from asynccache.integrations.langchain import LangChainCache
from tests.helpers.redis_servers import Valkey


@pytest.fixture(scope="module")
def valkey():
    """Run a real server for the module."""
    with Valkey() as server:
        yield server


@pytest.fixture(params=["memory", "disk", "redis"])
def unopened(request, tmp_path):
    """Make an empty cache on each store, not open yet."""
    if request.param == "memory":
        return Cache.memory()
    if request.param == "disk":
        return Cache.disk(cache_path_root=tmp_path)
    valkey = request.getfixturevalue("valkey")
    with valkey.client() as client:
        client.flushall()
    return Cache.redis(redis_url=valkey.url)


class TestSync(SyncCacheTestSuite):
    """The sync face, in a thread without a loop."""

    @pytest.fixture
    def cache(self, unopened):
        """Open the cache in a loop of another thread, as a host does."""
        with start_blocking_portal() as portal:
            portal.call(unopened.open)
            yield LangChainCache(unopened)
            portal.call(unopened.aclose)


class TestAsync(AsyncCacheTestSuite):
    """The async face."""

    @pytest.fixture
    async def cache(self, unopened):
        """Open the cache in the test's loop."""
        async with unopened as opened:
            await anyio.lowlevel.checkpoint()
            yield LangChainCache(opened)
