"""Which cache is in force where: blocks, tasks, threads, web servers, workers, fixtures."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

import asynccache
from asynccache import Cache, current_cache, memoize, options, set_default_cache
from tests.helpers.scenes import Upstream


@pytest.fixture(autouse=True)
def _no_default():
    """Leave no process-wide default behind."""
    yield
    set_default_cache(None)


@pytest.fixture
async def ambient():
    """Open a cache in a fixture, that is in another task than the test, and yield it."""
    async with Cache.memory() as cache:
        set_default_cache(cache)
        yield cache


async def test_innermost_block_wins_and_leaving_restores():
    """Nested blocks each see their own cache; leaving one, by an exception too, shows the outer."""
    assert current_cache() is None
    async with Cache.memory() as outer:
        assert current_cache() is outer
        with pytest.raises(ZeroDivisionError):
            async with Cache.memory() as inner:
                assert current_cache() is inner
                async with Cache.memory() as innermost:
                    assert current_cache() is innermost
                assert current_cache() is inner
                raise ZeroDivisionError
        assert current_cache() is outer
        assert not inner.is_open
    assert current_cache() is None


async def test_tasks_started_inside_see_the_block_until_it_is_left():
    """A task started in a block has its cache, and none once the block is left."""
    seen = []
    left = asyncio.Event()

    async def worker():
        seen.append(current_cache())
        await left.wait()
        seen.append(current_cache())

    async with Cache.memory() as cache:
        task = asyncio.create_task(worker())
        await asyncio.sleep(0)
    left.set()
    await task
    assert seen == [cache, None]


async def test_worker_started_before_the_block_finds_the_default():
    """A worker that was there before the block sees only the process-wide default."""
    begin, seen = asyncio.Event(), []

    async def worker():
        await begin.wait()
        seen.append(current_cache())

    for use_default in (False, True):
        begin.clear()
        task = asyncio.create_task(worker())
        await asyncio.sleep(0)
        async with Cache.memory() as cache:
            if use_default:
                set_default_cache(cache)
            begin.set()
            await task
        assert seen.pop() is (cache if use_default else None)


async def test_web_server_lifespan():
    """A cache opened in a server's lifespan task serves handlers in other tasks by default."""
    upstream = Upstream()

    @memoize()
    async def answer(question: str) -> dict[str, int]:
        return await upstream()

    @asynccontextmanager
    async def lifespan():
        async with Cache.memory() as cache:
            set_default_cache(cache)
            try:
                yield
            finally:
                set_default_cache(None)

    started, stop = asyncio.Event(), asyncio.Event()

    async def serve():
        async with lifespan():
            started.set()
            await stop.wait()

    server = asyncio.create_task(serve())
    await started.wait()
    handlers = [asyncio.create_task(answer("why")) for _ in range(20)]
    assert await asyncio.gather(*handlers) == [{"answer": 1}] * 20
    stop.set()
    await server
    assert current_cache() is None


async def test_plain_threads_see_nothing_unless_bound():
    """A thread and an executor inherit no cache; `bind` carries it over, for that call alone."""
    async with Cache.memory() as cache:
        seen = []
        thread = threading.Thread(target=lambda: seen.append(current_cache()))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(current_cache).result())
            seen.append(pool.submit(cache.bind(current_cache)).result())
            seen.append(pool.submit(current_cache).result())
        assert seen == [None, None, cache, None]


async def test_bind_takes_async_functions():
    """A bound coroutine function stays one, and runs with the cache in force."""
    async with Cache.memory() as cache, Cache.memory():

        @cache.bind
        async def inside():
            await asyncio.sleep(0)
            return current_cache()

        assert asyncio.iscoroutinefunction(inside)
        assert await inside() is cache


async def test_fixture_serves_a_test(ambient):
    """A cache opened by a fixture, in another task than the test's, is found by default."""
    assert await ambient.set("key", 1)
    assert current_cache() is ambient


async def test_option_goes_before_block_and_default():
    """`options(cache=…)` wins over the block, the block over the default; None means none."""
    async with Cache.memory() as default, Cache.memory() as block:
        set_default_cache(default)
        assert current_cache() is block
        with options(cache=default):
            assert current_cache() is default
            with options(cache=None):
                assert current_cache() is None
            with options(ttl=5):
                assert current_cache() is default
        assert current_cache() is block


async def test_tasks_keep_the_options_they_were_started_under():
    """A task that outlives the block it was started in goes on under the block's options."""
    upstream = Upstream()
    async with Cache.memory() as cache:

        async def ask(turns=2):
            for _ in range(turns):  # the block is left meanwhile
                await asyncio.sleep(0)
            return await cache.get_or_create("question", upstream)

        assert await ask() == {"answer": 1}
        with options(cache_seed="customer"):
            elsewhere = asyncio.create_task(ask())
        with options(mode="off"):
            past = asyncio.create_task(ask())
        with options(sample="each"):
            votes = [asyncio.create_task(ask()) for _ in range(3)]
        answers = [answer["answer"] for answer in await asyncio.gather(elsewhere, past, *votes)]
        assert answers[0] != 1
        assert len(set(answers)) == 5
        assert 1 in answers[2:]
        assert await ask() == {"answer": 1}
        assert cache.stats().bypassed == 1


async def test_a_block_left_in_another_context_ends_for_all():
    """Fixtures and generators may leave a block where they didn't enter it."""
    block = options(cache_seed="customer")
    block.__enter__()
    started = contextvars.copy_context()
    with options(ttl=1):
        contextvars.Context().run(block.__exit__, None, None, None)
        assert asynccache.cache.in_force.current_options().ttl == 1
    for context in (started, contextvars.copy_context()):
        assert (
            context.run(asynccache.cache.in_force.current_options)
            == asynccache.cache.in_force.NO_OPTIONS
        )


async def test_a_block_ends_with_the_generator_it_is_in():
    """A generator that is left in the middle takes its block along, though a task closes it."""

    async def generated():
        with options(mode="refresh"):
            yield 1
            yield 2

    async for _ in generated():
        break
    gc.collect()
    while asynccache.cache.in_force.current_options() != asynccache.cache.in_force.NO_OPTIONS:
        await asyncio.sleep(0)  # the loop closes it soon
    stack = contextlib.ExitStack()
    stack.enter_context(options(mode="off"))
    await asyncio.create_task(asyncio.to_thread(stack.close))
    assert asynccache.cache.in_force.current_options() == asynccache.cache.in_force.NO_OPTIONS


async def test_opening_twice_counts():
    """A cache opened twice closes when it was closed twice."""
    cache = Cache.memory()
    async with cache:
        async with cache:
            pass
        assert cache.is_open
        await cache.open()
        await cache.aclose()
        assert cache.is_open
        assert current_cache() is cache
    assert not cache.is_open
    await cache.aclose()  # harmless


async def test_closed_in_another_task_than_opened():
    """Opening in one task and closing in another works, with calls under way in between."""
    upstream = Upstream()
    cache = Cache.memory()
    await asyncio.create_task(cache.open())
    gate = upstream.hold()
    waiting = asyncio.create_task(cache.get_or_create("question", upstream))
    await gate.arrived()
    await asyncio.create_task(cache.aclose())
    with pytest.raises(asynccache.CacheClosedError):
        await waiting


async def test_blocks_in_a_loop_leave_no_chain():
    """Entering and leaving ten thousand blocks in one task doesn't lengthen what readers walk."""
    for _ in range(10_000):
        with options(ttl=1):
            pass
    assert asynccache.cache.in_force._options._variable.get() is None
    other = contextvars.copy_context()
    for _ in range(10_000):
        block = options(ttl=1)
        block.__enter__()
        other.run(block.__exit__, None, None, None)
    frame = asynccache.cache.in_force._options._variable.get()
    assert frame is not None
    assert frame.below is None


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"mode": "sometimes"}, ValueError),
        ({"ttl": 0}, ValueError),
        ({"ttl": -1}, ValueError),
        ({"ttl": "1"}, TypeError),
        ({"ttl": True}, TypeError),
        ({"sample": -1}, ValueError),
        ({"sample": "every"}, ValueError),
        ({"cache_seed": "../up"}, ValueError),
        ({"cache_seed": None}, TypeError),
        ({"cache": "disk"}, TypeError),
        ({"cache": Cache}, TypeError),
    ],
)
def test_wrong_options_are_refused(wrong, error):
    """An option that has no such value is refused before the block begins."""
    with pytest.raises(error), options(**wrong):
        pytest.fail("the block was entered")


def test_a_default_that_is_no_cache_is_refused():
    """What is no cache is refused where it is named, with what to pass; the old default stays."""
    made = Cache.memory()
    set_default_cache(made)
    for wrong in ("disk", Cache, Cache.disk):
        with pytest.raises(TypeError, match=r"AsyncCache, a SyncCache or None.*Cache\.disk\(\)"):
            set_default_cache(wrong)  # type: ignore[arg-type]
    assert current_cache() is made


async def test_overlapping_blocks_of_one_cache_in_two_tasks():
    """A task that leaves its block of a cache ends its own, not the other task's."""
    cache, left, seen = Cache.memory(), asyncio.Event(), []

    async def first():
        async with cache:
            await asyncio.sleep(0)
        left.set()
        seen.append(current_cache())

    async def second():
        async with cache:
            await left.wait()
            seen.append(current_cache())

    await asyncio.gather(first(), second())
    assert seen in ([None, cache], [cache, None])
    assert not cache.is_open


async def test_opening_while_closing_waits_for_it(tmp_path):
    """Who opens a cache that another is just closing gets an open store."""
    cache = Cache.disk(cache_path_root=tmp_path)

    async def use(number):
        async with cache:
            return await cache.set(number, number)

    for _ in range(5):
        assert await asyncio.gather(*(use(number) for number in range(10))) == [True] * 10
    assert cache.stats().store_errors == {}
    assert not cache.is_open


async def test_closing_that_is_cancelled_leaves_nothing_open(tmp_path):
    """A timeout around closing still closes the store; the next opening works."""
    cache = await Cache.disk(cache_path_root=tmp_path).open()
    waiting = asyncio.create_task(cache.get_or_create("k", asyncio.Event().wait))
    await asyncio.sleep(0)
    closing = asyncio.create_task(cache.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, waiting, return_exceptions=True)
    async with cache:
        assert await cache.set("key", 1)
