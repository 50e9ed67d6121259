"""`asynccache[langgraph]` alone: the cache by LangGraph's own interface."""

from __future__ import annotations

import asyncio

from asynccache import Cache
from asynccache.integrations.langgraph import LangGraphCache


def test_what_is_set_is_found():
    """Values come back, awaited or not."""

    async def use():
        async with Cache.memory() as cache:
            ours = LangGraphCache(cache, name="graph")
            key = (("__pregel_ns_writes", "graph", "node"), "digest")
            await ours.aget([key])
            await ours.aset({key: ({"a": [1, 2]}, None)})
            assert await ours.aget([key]) == {key: {"a": [1, 2]}}
            assert await asyncio.to_thread(ours.get, [key]) == {key: {"a": [1, 2]}}

    asyncio.run(use())
