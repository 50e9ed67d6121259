"""Under eager tasks a task may run to its end in the call that makes it: nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from tests.helpers.eager import EAGER
from tests.helpers.scenes import Scene, settled


@pytest.fixture(scope="module")
def anyio_backend():
    """Run these under eager tasks, whatever else the run is for."""
    return EAGER


async def test_tasks_are_eager():
    """A task that awaits nothing is done when the call that makes it returns."""
    took = []

    async def work():
        took.append(asyncio.current_task())
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        return asyncio.current_task()

    before = asyncio.current_task()
    task = asyncio.create_task(work())
    assert took == [task]
    assert asyncio.current_task() is before
    assert await task is task


async def test_all_ways_to_the_store_come_back():
    """Lookups, claims, calls, writes, deletes end, of one key and of many, and are paid once."""
    scene = Scene()
    async with scene.cache as cache:
        assert await asyncio.gather(*(scene.ask() for _ in range(5))) == [{"answer": 1}] * 5
        assert await scene.ask_streamed("streamed") == await scene.ask_streamed("streamed")
        await settled(scene)
        assert await scene.ask() == {"answer": 1}
        assert await cache.set("key", "value")
        assert await cache.get("key") == "value"
        assert await cache.set_many([(n, n) for n in range(300)]) == [True] * 300
        assert await cache.get_many(range(300)) == list(range(300))
        assert await cache.delete("key")
        assert await cache.clear() == 302
        assert scene.upstream.calls == 2
        assert not scene.leases


async def test_an_answer_that_is_there_at_once_is_shared():
    """A call that awaits nothing is over before anybody could join it, and is stored."""
    scene = Scene(hide_inline=False)

    async def at_once():
        scene.upstream.calls += 1
        return "answer"

    async with scene.cache as cache:
        asks = [cache.get_or_create("key", at_once) for _ in range(5)]
        assert await asyncio.gather(*asks) == ["answer"] * 5
        await settled(scene)
        assert await cache.get_or_create("key", at_once) == "answer"
        assert scene.upstream.calls == 1
        assert cache.stats().stored == 1
