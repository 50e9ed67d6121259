"""The aiocache store through the public contract, over aiocache's caches and a user's own."""

from __future__ import annotations

import pytest
from aiocache import RedisCache, SimpleMemoryCache
from aiocache.base import BaseCache
from aiocache.serializers import PickleSerializer

from asynccache.stores.aiocache import AiocacheStore
from asynccache.stores.base import Capabilities
from asynccache.testing import ManualClock, StoreContract
from tests.helpers import memcached_servers
from tests.helpers.remote_stores import opened


class PlainCache(BaseCache):  # type: ignore[misc] # aiocache has no types
    """A cache of a user's own: the least that keeps entries, and nothing to compare by."""

    def __init__(self, **options):
        super().__init__(**options)
        self.kept = {}

    async def _get(self, key, encoding="utf-8", _conn=None):
        return self.kept.get(key)

    async def _multi_get(self, keys, encoding="utf-8", _conn=None):
        return [self.kept.get(key) for key in keys]

    async def _set(self, key, value, ttl=None, _cas_token=None, _conn=None):
        assert _cas_token is None
        self.kept[key] = value
        return True

    async def _add(self, key, value, ttl=None, _conn=None):
        if key in self.kept:
            raise ValueError(key)
        self.kept[key] = value
        return True

    async def _delete(self, key, _conn=None):
        return int(self.kept.pop(key, None) is not None)


@pytest.fixture(scope="module")
def memcached_server():
    """One memcached that takes values as large as the contract's."""
    with memcached_servers.running("-I", "8m") as server:
        yield server


class OverAiocache(StoreContract):
    """What the contracts below share: a cache each, and no other difference."""

    capabilities = Capabilities()

    @pytest.fixture
    def clock(self):
        return ManualClock()

    @pytest.fixture
    async def store(self, clock, backing):
        async with opened(AiocacheStore(backing, clock=clock)) as store:
            yield store


class TestOverMemory(OverAiocache):
    """Its serializer would unpickle; it isn't asked."""

    capabilities = Capabilities(leases=True)

    @pytest.fixture
    def backing(self):
        return SimpleMemoryCache(serializer=PickleSerializer())


class TestOverAPlainCache(OverAiocache):
    capabilities = Capabilities(remote=True)

    @pytest.fixture
    def backing(self):
        return PlainCache(namespace="mine:")


class TestOverRedis(OverAiocache):
    capabilities = Capabilities(leases=True, durable=True, remote=True)

    @pytest.fixture
    async def backing(self, valkey):
        valkey.empty()
        # Its client refuses more than 100 commands at once unless told otherwise.
        cache = RedisCache(port=valkey.port, pool_max_size=1000)
        yield cache
        await cache.client.aclose()


class TestOverMemcached(OverAiocache):
    capabilities = Capabilities(leases=True, durable=True, remote=True)

    @pytest.fixture
    async def backing(self, memcached_server):
        from aiocache import MemcachedCache

        memcached_server.empty()
        cache = MemcachedCache(port=memcached_server.port, namespace="app")
        yield cache
        await cache.close()
