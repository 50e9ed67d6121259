"""`asynccache[cosmos]` alone: the driver loads, and an account that isn't there costs no call."""

from __future__ import annotations

import asyncio

from asynccache import Cache


async def made():
    """Return a value."""
    return 1


def test_an_account_that_isnt_there():
    """Calls go on without it."""

    async def use():
        where = "AccountEndpoint=http://127.0.0.1:1/;AccountKey=a2V5;"
        async with Cache.cosmos_db(connection_string=where, store_timeout=1) as cache:
            assert await cache.get_or_create("key", made) == 1
            assert cache.stats().store_errors

    asyncio.run(use())
