"""Work for other loops, which may end while it is handed to them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from asynccache import Cache
from asynccache.runtime.loops import LoopEnd, LoopEndedError, begin, done_in, result_in
from tests.helpers.inside import engines_of


@contextlib.contextmanager
def elsewhere():
    """A loop that runs in another thread until the block ends."""
    loop = asyncio.new_event_loop()
    running = threading.Event()
    loop.call_soon(running.set)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running.wait()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def ending(monkeypatch):
    """A loop that says it runs, as one does that ends right after it was asked."""
    loop = asyncio.new_event_loop()
    loop.close()
    monkeypatch.setattr(loop, "is_running", lambda: True)
    return loop


async def number():
    """Some work."""
    return 7


async def test_work_is_done_in_the_other_loop():
    """The other loop does the work, and errors are its own."""
    seen = []

    async def work():
        seen.append(asyncio.get_running_loop())

    async def failing():
        raise LookupError

    with elsewhere() as loop:
        assert await done_in(loop, work, patience=30)
        assert not await done_in(loop, failing, patience=30)
        assert await asyncio.wrap_future(begin(loop, number)) == 7
        with pytest.raises(LookupError):
            await asyncio.wrap_future(begin(loop, failing))
    assert seen == [loop]
    assert not await done_in(loop, work, patience=30)


async def test_cancelling_cancels_the_work():
    """Who waits and is cancelled takes the work along."""
    ended = threading.Event()

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with elsewhere() as loop:
        waiting = asyncio.create_task(result_in(loop, work))
        assert await result_in(loop, number) == 7
        waiting.cancel()
        assert await asyncio.to_thread(ended.wait, 30)
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_work_that_ends_with_its_loop_says_so():
    """Nobody is cancelled who waits in another loop than the one that ended."""

    async def cancelled():
        raise asyncio.CancelledError

    async def failing():
        raise LookupError

    begun = threading.Event()

    async def endless():
        begun.set()
        await asyncio.get_running_loop().create_future()

    with elsewhere() as loop:
        with pytest.raises(LoopEndedError):
            await result_in(loop, cancelled)
        with pytest.raises(LookupError):
            await result_in(loop, failing)
        waiting = asyncio.create_task(result_in(loop, endless))
        assert await asyncio.to_thread(begun.wait, 30)
    with pytest.raises(LoopEndedError):
        await waiting
    with pytest.raises(LoopEndedError):
        await result_in(loop, number)


async def test_loop_that_is_closed_at_that_moment(ending):
    """No coroutine is made for a loop that is gone, and nobody waits for it."""
    assert not await done_in(ending, number, patience=30)
    with pytest.raises(RuntimeError):
        begin(ending, number)


async def test_loop_that_ends_with_the_work_undone(monkeypatch):
    """What a loop took and never did holds nobody up for long."""
    loop = asyncio.new_event_loop()
    try:
        monkeypatch.setattr(
            loop, "is_running", itertools.chain([True] * 3, itertools.repeat(False)).__next__
        )
        async with asyncio.timeout(30):
            assert not await done_in(loop, number, patience=1000)
    finally:
        loop.close()


@pytest.mark.parametrize("turns", range(1, 8))
def test_work_that_comes_as_a_loop_ends_is_begun_and_ended_or_not_begun(turns, caplog):
    """However late it comes, no task is left that never took a step."""
    works = []

    async def endless():
        await asyncio.get_running_loop().create_future()

    async def last():
        loop = asyncio.get_running_loop()

        def come(later):
            if later:
                loop.call_soon(come, later - 1)
            else:
                works.append(begin(loop, endless))

        for later in range(turns):
            come(later)

    async def main():
        end = LoopEnd.here()
        end.add("somebody", last)
        return end

    end = asyncio.run(main())
    gc.collect()
    assert end.over
    assert all(work.cancelled() for work in works)
    assert not caplog.records


def test_work_that_comes_after_a_loops_last_is_not_begun(caplog):
    """The threads of a loop end after that, for which it runs once more."""
    works: list[Any] = []

    class Late(ThreadPoolExecutor):
        def shutdown(self, *args, **options):
            if not works:  # the loop asks for it again as it is closed
                works.append(begin(end.loop, number))
            super().shutdown(*args, **options)

    async def main():
        asyncio.get_running_loop().set_default_executor(Late())
        return LoopEnd.here()

    with asyncio.Runner() as runner:
        end = runner.run(main())
    gc.collect()
    assert [work.cancelled() for work in works] == [True]
    assert not caplog.records


@pytest.mark.parametrize("what", ["set", "delete", "clear", "aclose"])
async def test_cache_of_a_loop_that_ends_meanwhile(what, monkeypatch):
    """A loop that ends just now fails no call in the others."""
    cache = Cache.memory()
    async with cache:
        await cache.set("key", 1)
        await asyncio.to_thread(lambda: asyncio.run(cache.get("key")))
        (gone,) = [engine.loop for engine in engines_of(cache) if engine.loop.is_closed()]
        monkeypatch.setattr(gone, "is_running", lambda: True)
        if what == "set":
            assert await cache.set("key", 2)
            assert await cache.get("key") == 2
        elif what == "delete":
            assert await cache.delete("key")
        elif what == "clear":
            assert await cache.clear() == 1
    assert not cache.is_open
