"""`asynccache[redis]` alone: the driver loads, and a server that isn't there takes no call down."""

from __future__ import annotations

import asyncio

from asynccache import Cache


async def made():
    """Return a value."""
    return 1


def test_each_address_is_understood():
    """One server, a cluster and sentinels: calls go on without them."""

    async def use(url):
        async with Cache.redis(redis_url=url, store_timeout=0.2) as cache:
            assert await cache.get_or_create("key", made) == 1
            assert cache.stats().store_errors

    for url in (
        "redis://127.0.0.1:1/0", "rediss://127.0.0.1:1/0", "unix:///nowhere",
        "redis+cluster://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/primary",
    ):  # fmt: skip
        asyncio.run(use(url))
