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

    async def end_in(turn):
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
    tasks: list[asyncio.Task[None]] = []  # or one that waits for nothing is collected
    turns = range(12)
    for turn in turns:
        run(end_in(turn), eager=eager)
        run(closed())
    assert ended == list(turns)
    assert run(found()) == ["paid"] * len(turns)
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.parametrize("eager", [False, True], ids=["usual", "eager"])
def test_callers_that_are_cut_off_may_ask_for_the_same_again(cache, eager, caplog):
    """Whenever the loop ends, each `finally` has its answer, though shared calls end as well."""

    async def use(turn):
        try:
            await cache.get_or_create(turn, slowly)
            await asyncio.Event().wait()
        finally:
            ended.append((turn, await cache.get_or_create(turn, pay)))

    async def slowly():
        for _ in range(5):
            await asyncio.sleep(0)
        return "paid"

    async def end_in(turn):
        await cache.open()
        tasks = [asyncio.create_task(use(turn)) for _ in range(3)]
        for _ in range(turn):
            await asyncio.sleep(0)
        del tasks

    async def closed():
        await cache.aclose()

    ended: list[tuple[int, str]] = []
    for turn in range(1, 20):
        run(end_in(turn), eager=eager)
        run(closed())
        assert ended[-3:] == [(turn, "paid")] * 3
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.parametrize("eager", [False, True], ids=["usual", "eager"])
def test_a_loop_that_ends_while_its_cache_closes_stores_the_answer(cache, eager, caplog):
    """Wherever closing is cut off by the end of the loop, it closes, and loses nothing."""

    async def end_in(turn):
        await cache.open()
        assert await cache.get_or_create(turn, pay) == "paid"
        closing = asyncio.create_task(cache.aclose())
        for _ in range(turn):
            await asyncio.sleep(0)
        del closing

    async def found():
        async with cache:
            return [await cache.get(turn) for turn in turns]

    turns = range(1, 20)
    for turn in turns:
        run(end_in(turn), eager=eager)
        assert not cache.is_open
    assert cache.stats().stored == len(turns)
    assert run(found()) == ["paid"] * len(turns)
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []
