"""The end of a loop: `asyncio.run` cancels every task once, and each may still use the cache."""

from __future__ import annotations

import asyncio
import logging

import pytest

from asynccache import Cache
from asynccache.stores.memory import MemoryStore
from asynccache.testing import FaultyStore
from tests.helpers.eager import eager_loop
from tests.helpers.redis_servers import Valkey


@pytest.fixture(scope="module")
def server():
    """A Redis for all."""
    with Valkey() as running:
        yield running


@pytest.fixture(params=["memory", "disk", "redis"])
def cache(request, tmp_path):
    """Return a cache, not opened, whose lookups all wait."""
    if request.param == "memory":
        return Cache.from_store(FaultyStore(MemoryStore(), hide_inline=True))
    if request.param == "disk":
        return Cache.disk(cache_path_root=tmp_path / "cache")
    server = request.getfixturevalue("server")
    server.empty()
    return Cache.redis(redis_url=server.url)


async def pay():
    """Pay for an answer."""
    await asyncio.sleep(0)
    return "paid"


USES = {
    "get": lambda cache, key: cache.get(key),
    "set": lambda cache, key: cache.set(key, "set"),
    "delete": lambda cache, key: cache.delete(key),
    "get_or_create": lambda cache, key: cache.get_or_create(key, pay),
}


def run(main, *, eager=False):
    """Do as `asyncio.run`, also under eager tasks."""
    with asyncio.Runner(loop_factory=eager_loop if eager else None) as runner:
        return runner.run(main)


@pytest.mark.parametrize("eager", [False, True], ids=["usual", "eager"])
@pytest.mark.parametrize("cut", USES)
def test_a_task_that_is_cut_off_still_uses_the_cache(cache, cut, eager, caplog):
    """Whenever the loop ends, what a task's `finally` asks of the cache comes back, and is done."""

    async def use(turn):
        try:
            await USES[cut](cache, ("cut", turn))
            await asyncio.Event().wait()
        finally:
            assert await cache.set(("set", turn), "set")
            assert await cache.get(("set", turn)) == "set"
            assert await cache.get_or_create(("paid", turn), pay) == "paid"
            ended.append(turn)

    async def end_in(turn, tasks):
        await cache.open()
        tasks.append(asyncio.create_task(use(turn)))
        for _ in range(turn):
            await asyncio.sleep(0)

    async def closed():
        await cache.aclose()

    async def found():
        async with cache:
            return [await cache.get(("paid", turn)) for turn in turns]

    ended: list[int] = []
    turns = range(12)
    for turn in turns:
        run(end_in(turn, []), eager=eager)
        run(closed())
    assert ended == list(turns)
    assert run(found()) == ["paid"] * len(turns)
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []
