"""`asynccache[aiocache]` alone: a store over its memory, and ours as its cache."""

from __future__ import annotations

import asyncio

from aiocache import SimpleMemoryCache

from asynccache import Cache
from asynccache.integrations.aiocache import AsyncCacheBackend, cached

count = 0


async def made():
    """Return how often it was called."""
    global count  # noqa: PLW0603 - that is what is counted
    count += 1
    return count


def test_both_ways():
    """Our cache over its, its over ours, and the decorator."""

    async def use():
        async with Cache.aiocache(SimpleMemoryCache()) as cache:
            assert [await cache.get_or_create("key", made) for _ in range(2)] == [1, 1]
            backend = AsyncCacheBackend(cache)
            assert await backend.set("key", 7)
            assert await backend.get("key") == 7
            decorated = cached(cache=AsyncCacheBackend, ttl=60)(made)
            assert [await decorated() for _ in range(2)] == [2, 2]

    asyncio.run(use())
