"""What works without any extra: stores, values, functions, and errors that name the extra."""

from __future__ import annotations

import asyncio

import pytest

import asynccache
from asynccache import Cache
from asynccache.testing import FaultyStore


async def made():
    """Return a value."""
    return {"a": 1}


@pytest.mark.parametrize("kind", ["memory", "disk", "store"])
def test_stores_of_ones_own(kind, tmp_path):
    """Memory, disk, and a store of one's own keep values, for both kinds of callers."""

    async def use(cache):
        async with cache:
            assert await cache.get_or_create("key", made) == {"a": 1}
            assert await asynccache.memoize()(made)() == {"a": 1}
            assert await cache.get("key") == {"a": 1}

    from asynccache.stores.memory import MemoryStore

    cache = {
        "memory": Cache.memory,
        "disk": lambda: Cache.disk(cache_path_root=tmp_path),
        "store": lambda: Cache.from_store(FaultyStore(MemoryStore())),
    }[kind]()
    asyncio.run(use(cache))
    with cache as view:
        assert view.set("key", 1)
        assert view.get("key") == 1
