"""The Redis store, run through the public contract: on one server, and on a cluster of three."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from asynccache.stores.near import NearCache
from asynccache.stores.redis import RedisStore
from asynccache.testing import StoreContract
from tests.helpers.redis_servers import Valkey
from tests.helpers.remote_stores import opened

REDIS = shutil.which("redis-server")


@pytest.fixture(scope="module")
def debian():
    """One Redis of Debian's."""
    if REDIS is None:
        pytest.skip("Debian's redis-server isn't on PATH")
    with Valkey(binary=REDIS) as running:
        yield running


class TestRedisStore(StoreContract):
    capabilities = RedisStore.capabilities

    @pytest.fixture
    async def store(self, server):
        async with opened(RedisStore(server.unix_url, timeout=10)) as store:
            yield store


class TestRedisStoreOnDebiansRedis(StoreContract):
    """On an older Redis, not Valkey: the package of Debian, where it is installed."""

    capabilities = RedisStore.capabilities

    @pytest.fixture
    async def store(self, debian):
        debian.empty()
        async with opened(RedisStore(debian.url, timeout=10)) as store:
            yield store


class TestRedisStoreOnACluster(StoreContract):
    capabilities = RedisStore.capabilities

    @pytest.fixture
    async def store(self, cluster):
        async with opened(RedisStore(cluster.url, timeout=10)) as store:
            yield store


class TestRedisStoreBehindMemory(TestRedisStore):
    """With copies in the process that are believed for an hour: nothing is served that isn't so."""

    capabilities = msgspec.structs.replace(RedisStore.capabilities, inline=True, stable=True)

    @pytest.fixture
    async def store(self, server):
        redis = RedisStore(server.unix_url, timeout=10)
        async with opened(NearCache(redis, max_bytes=2**24, ttl=3600)) as store:
            yield store
