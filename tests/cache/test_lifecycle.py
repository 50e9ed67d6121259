"""Opening and closing, in many tasks, loops and processes: cancelled, stuck, or too late."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from contextlib import contextmanager, nullcontext, suppress

import anyio
import pytest

from asynccache import Cache, StoreError, StoreTimeoutError, StoreUnavailableError
from asynccache.cache.lifecycle import behind
from asynccache.core import engine
from asynccache.stores.memory import MemoryStore
from asynccache.testing import FaultyStore, ManualClock
from tests.helpers.scenes import Scene
from tests.helpers.script import run_script

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork on this platform")


class Counted(MemoryStore):
    """A store that notes whether it is open, and takes a moment over it."""

    is_open = False
    opening = 0
    most = 0

    async def open(self, *, read_only=False):
        self.opening += 1
        self.most = max(self.most, self.opening)
        try:
            await asyncio.sleep(0)
            self.is_open = True
            await asyncio.sleep(0)
        finally:
            self.opening -= 1

    async def aclose(self):
        await asyncio.sleep(0)
        self.is_open = False
        await asyncio.sleep(0)


async def pay():
    """Pay for an answer."""
    return "paid"


# -- cancelled -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
async def test_whoever_is_cancelled_leaves_a_closed_cache(seed):
    """Blocks that are cancelled anywhere leave the cache open for the others alone."""
    store, choose = Counted(), random.Random(seed)
    cache = Cache.from_store(store)

    async def use():
        for _ in range(choose.randrange(5)):
            await asyncio.sleep(0)
        async with cache:
            assert cache.is_open
            assert store.is_open
            for _ in range(choose.randrange(5)):
                await asyncio.sleep(0)
            assert cache.is_open
            assert store.is_open

    users = [asyncio.create_task(use()) for _ in range(10)]
    for _ in range(20):
        for _ in range(choose.randrange(3)):
            choose.choice(users).cancel()
        await asyncio.sleep(0)
    for done in await asyncio.gather(*users, return_exceptions=True):
        assert done is None or isinstance(done, asyncio.CancelledError)
    assert not cache.is_open
    assert not store.is_open
    assert store.most == 1


@pytest.mark.parametrize("how", ["cancelled", "in a cancelled scope", "out of time"])
async def test_closing_that_is_cut_off_loses_no_answer(how, caplog):
    """What was paid for is stored, however often its closing is cancelled, and nothing is told."""
    scene = Scene()
    gate = scene.store.stall("set_many")
    cache = await scene.cache.open()

    async def close():
        if how == "cancelled":
            await cache.aclose()
        elif how == "out of time":
            async with asyncio.timeout(0.01):
                await cache.aclose()
        else:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await cache.aclose()

    assert await scene.ask() == {"answer": 1}
    closing = asyncio.create_task(close())
    for _ in range(3):
        await asyncio.sleep(0.01)
        if how == "cancelled":
            closing.cancel()
    assert not closing.done()
    gate.release()
    with suppress(asyncio.CancelledError, TimeoutError):
        await closing
    assert closing.cancelled() == (how == "cancelled")
    assert not cache.is_open
    assert cache.stats().stored == 1
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []


async def test_opening_that_is_cancelled_leaves_a_closed_store():
    """Who is cancelled in the middle of opening leaves nothing open, and others open anew."""
    store = FaultyStore(inner := Counted())
    gate = store.stall("open", after=True, times=1)
    cache = Cache.from_store(store)
    opening = asyncio.create_task(cache.open())
    await gate.arrived()
    other = asyncio.create_task(cache.open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await other
    assert inner.is_open
    assert store.calls["aclose"] == 1
    await cache.aclose()
    assert not inner.is_open


# -- too late ------------------------------------------------------------------------------------


async def test_opening_has_a_deadline():
    """A store that never opens costs a bounded delay; it is opened once it can be."""
    store = FaultyStore(MemoryStore(), hide_inline=True)
    store.stall("open")
    async with Cache.from_store(store, store_timeout=0.02) as cache:
        assert await cache.get_or_create("key", pay) == "paid"
        assert cache.stats().store_errors["timeout"] >= 1
        store.heal()
        while not await cache.set("key", "value"):
            await asyncio.sleep(0.02)
    store.stall("open")
    with pytest.raises(StoreTimeoutError, match="to open"):
        await Cache.from_store(store, store_timeout=0.02, on_store_error="raise").open()


async def test_closing_has_a_deadline():
    """A store that never closes holds nobody up for ever."""
    store = FaultyStore(MemoryStore())
    store.stall("aclose")
    async with Cache.from_store(store, store_timeout=0.02) as cache:
        pass
    assert not cache.is_open
    assert cache.stats().store_errors == {"timeout": 1}
    strict = await Cache.from_store(store, store_timeout=0.02, on_store_error="raise").open()
    with pytest.raises(StoreTimeoutError, match="to close"):
        await strict.aclose()
    assert not strict.is_open


async def test_closing_does_not_wait_for_a_call_that_does_not_end(monkeypatch, caplog):
    """A call that takes no notice of its cancellation is told of, and left behind."""
    monkeypatch.setattr(engine, "_LAST_WORDS", 0.02)
    go, called = asyncio.Event(), asyncio.Event()

    async def deaf():
        called.set()
        while not go.is_set():
            with suppress(asyncio.CancelledError):
                await go.wait()
        return "late"

    async with Cache.memory() as cache:
        asking = asyncio.create_task(cache.get_or_create("key", deaf))
        await called.wait()
    assert "1 cancelled call" in caplog.text
    go.set()
    assert await asking == "late"


async def test_a_store_that_is_down_is_opened_once():
    """Those who find the store closed at the same time share one attempt to open it."""

    class Down(MemoryStore):
        opened = 0

        async def open(self, *, read_only=False):
            self.opened += 1
            await asyncio.sleep(0.01)
            if self.opened < 3:
                raise StoreUnavailableError("down")

    store, clock = Down(), ManualClock()
    async with Cache.from_store(store, clock=clock) as cache:
        results = await asyncio.gather(*map(cache.delete, range(7)), return_exceptions=True)
        assert all(isinstance(result, StoreError) for result in results)
        assert store.opened == 2
        clock.advance(1)
        assert not await cache.delete("key")
        assert await asyncio.gather(*map(cache.delete, range(7))) == [False] * 7
        assert store.opened == 3


@pytest.mark.parametrize("when", ["while it opens", "while it closes"])
async def test_clearing_does_not_open_the_store_behind_a_closed_cache(when):
    """A `clear` that has still to open the store leaves it closed where the cache is closed."""
    store = FaultyStore(inner := Counted())
    store.fail("open", times=1)
    cache = await Cache.from_store(store).open()
    gate = store.stall("open")
    with behind(cache).setting() if when == "while it closes" else nullcontext():
        if when == "while it opens":
            clearing = asyncio.create_task(cache.clear())
            await gate.arrived()
        closing = asyncio.create_task(cache.aclose())
        await asyncio.sleep(0.01)
        if when == "while it closes":
            clearing = asyncio.create_task(cache.clear())
            await asyncio.sleep(0.01)
    gate.release()
    await closing
    with suppress(StoreError):
        await clearing
    assert not cache.is_open
    assert not inner.is_open


# -- loops that stop -----------------------------------------------------------------------------


@contextmanager
def stopped_at(gate, work):
    """A loop, in a thread, that was stopped while its work waits at a gate; can be made go on."""
    loop = asyncio.new_event_loop()

    async def stop():
        await gate.arrived()
        loop.stop()

    stopping = loop.create_task(stop())
    task = loop.create_task(work())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    thread.join()
    assert stopping.done()
    assert not task.done()
    try:
        yield lambda: loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    finally:
        loop.close()


async def test_a_loop_that_stopped_while_opening_keeps_nobody_from_opening():
    """Another loop opens the cache in its place; when it goes on, all still add up."""
    store = FaultyStore(inner := Counted())
    gate = store.stall("open", times=1)
    cache = Cache.from_store(store)
    with stopped_at(gate, cache.open) as go_on:
        async with cache:
            assert await cache.set("key", "value")
            gate.release()
            await asyncio.to_thread(go_on)
        assert cache.is_open
        await cache.aclose()
    assert not cache.is_open
    assert not inner.is_open


async def test_a_loop_that_stopped_while_closing_closes_nothing_of_others():
    """Another loop opens the cache anew, and the one that stopped leaves it open."""
    store = FaultyStore(inner := Counted())
    gate = store.stall("set_many", times=1)
    cache = Cache.from_store(store)

    async def use():
        async with cache:
            await cache.get_or_create("paid", pay)

    with stopped_at(gate, use) as go_on:
        async with cache:
            gate.release()
            await asyncio.to_thread(go_on)
            assert inner.is_open
            assert await cache.set("key", "value")
    assert not cache.is_open
    assert not inner.is_open


# -- forks ---------------------------------------------------------------------------------------


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("how", ["async with", "with"])
@pytest.mark.parametrize("what", ["open", "aclose"])
def test_a_fork_while_another_thread_opens_or_closes(how, what):
    """The child opens the cache, whatever a thread of its parent is in the middle of."""
    store = FaultyStore(MemoryStore())
    cache = Cache.from_store(store)

    async def use_async():
        async with cache:
            return await cache.set("key", 1) and await cache.get("key")

    def use():
        if how == "async with":
            return asyncio.run(use_async())
        with cache as sync:
            return sync.set("key", 1) and sync.get("key")

    assert use() == 1
    gate = store.stall(what, times=1)
    thread = threading.Thread(target=use)
    thread.start()
    asyncio.run(gate.arrived())
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os._exit(0 if use() == 1 else 3)
        os._exit(4)
    try:
        assert exit_code(child) == 0
    finally:
        gate.release()
        thread.join()


def exit_code(child):
    """Wait a while for a child, and return what it ended with; None if it hangs."""
    for _ in range(3000):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        threading.Event().wait(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return None


@forks
@pytest.mark.parametrize("how", ["async with", "with"])
def test_children_of_a_parent_that_opens_and_closes_a_disk(tmp_path, how):
    """Each of many children opens the folder that a thread of its parent opens and closes."""
    ended = run_script(
        """
        import asyncio, os, sys, threading, time
        from asynccache import Cache
        how, folder = sys.argv[1:]
        cache, stop = Cache.disk(cache_path_root=folder), threading.Event()

        async def use_async():
            async with cache:
                return await cache.set("key", 1) and await cache.get("key")

        def use():
            if how == "async with":
                return asyncio.run(use_async())
            with cache as sync:
                return sync.set("key", 1) and sync.get("key")

        def churn():
            while not stop.is_set():
                use()

        use()
        thread = threading.Thread(target=churn)
        thread.start()
        codes = []
        for number in range(12):
            time.sleep(0.003 * number)
            child = os.fork()
            if child == 0:
                os._exit(0 if use() == 1 else 3)
            for _ in range(2000):
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    codes.append(os.waitstatus_to_exitcode(status))
                    break
                time.sleep(0.01)
            else:
                os.kill(child, 9)
                os.waitpid(child, 0)
                codes.append("hangs")
        stop.set()
        thread.join()
        print(codes)
        """,
        how,
        str(tmp_path / "cache"),
    )
    assert ended.stdout == f"{[0] * 12}\n", ended.stdout + ended.stderr
