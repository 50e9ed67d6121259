"""One call among processes and loops: leases on a shared disk cache, and what ends them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading

import pytest

from asynccache import Cache
from tests.helpers.swarm import Swarm


@pytest.fixture(scope="module")
def anyio_backend():
    """Only the workers' loops matter here, and they are asyncio's."""
    return "asyncio"


def local_cache(kind, folder, **options):
    """Return a cache of this process, or one of this machine."""
    if kind == "memory":
        return Cache.memory(**options)
    return Cache.disk(cache_path_root=folder / "cache", **options)


async def test_four_processes_pay_once(tmp_path):
    """Four processes with fifty tasks each and one key make one call."""
    swarm = Swarm(f"disk:{tmp_path / 'cache'}", tmp_path)
    await swarm.start(4)
    swarm.go()
    reports = await swarm.reports()
    assert len(reports) == 4
    assert len(swarm.paid) == 1
    for report in reports.values():
        assert report["answers"] == [{"paid_by": swarm.paid[0]}]
        assert report["flaws"] == {}


async def test_killed_leader_costs_one_more_call(tmp_path):
    """When the caller's process is killed in the middle, exactly one other calls in its place."""
    swarm = Swarm(f"disk:{tmp_path / 'cache'}", tmp_path, "--lease-ttl", "0.6", "--seconds", "1.0")
    await swarm.start(4)
    swarm.go()
    leader = await swarm.paid_by(1)
    os.kill(leader, signal.SIGKILL)
    reports = await swarm.reports()
    assert len(reports) == 3
    assert len(swarm.paid) == 2
    assert {json.dumps(r["answers"]) for r in reports.values()} == {
        json.dumps([{"paid_by": swarm.paid[1]}])
    }


async def test_frozen_leader_breaks_nothing(tmp_path):
    """A leader frozen past its lease costs one call at most, and the stored answer stands."""
    swarm = Swarm(f"disk:{tmp_path / 'cache'}", tmp_path, "--lease-ttl", "0.6", "--seconds", "0.8")
    await swarm.start(4)
    swarm.go()
    leader = await swarm.paid_by(1)
    os.kill(leader, signal.SIGSTOP)
    others = [worker for worker in swarm.workers if worker.pid != leader]
    await asyncio.gather(*(worker.wait() for worker in others))
    os.kill(leader, signal.SIGCONT)
    reports = await swarm.reports()
    assert len(reports) == 4
    assert len(swarm.paid) == 2
    assert reports[leader]["answers"] == [{"paid_by": swarm.paid[1]}]  # as all who still waited
    assert reports[leader]["not_stored"] == {"conflict": 1}
    async with Cache.disk(cache_path_root=tmp_path / "cache", mode="replay") as cache:
        stored = await cache.get("question")
    assert stored == {"paid_by": swarm.paid[1]}


async def test_calls_that_hold_their_loops_have_one_answer(tmp_path):
    """Processes whose calls hold the loop for longer than a lease lives all get what came first."""
    options = ("--lease-ttl", "0.5", "--seconds", "1.6", "--tasks", "5", "--blocking")
    swarm = Swarm(f"disk:{tmp_path / 'cache'}", tmp_path, *options)
    await swarm.start(3)
    swarm.go()
    reports = await swarm.reports()
    assert len(reports) == 3
    assert {json.dumps(report["answers"]) for report in reports.values()} == {
        json.dumps([{"paid_by": swarm.paid[0]}])
    }


@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_who_took_a_lease_over_gives_what_was_stored_meanwhile(tmp_path, kind):
    """A call that took over from one that held its loop ends with the other's answer."""
    cache = local_cache(kind, tmp_path, lease_ttl=0.3)
    began, taken_over, answered = threading.Event(), threading.Event(), threading.Event()

    async def hold_the_loop():
        began.set()
        assert taken_over.wait(30)
        return "first"

    async def call_after_that():
        taken_over.set()
        assert await asyncio.to_thread(answered.wait, 30)
        return "second"

    def first():
        answer = asyncio.run(ask(hold_the_loop))
        answered.set()
        return answer

    async def ask(call):
        return await cache.get_or_create("question", call)

    async with cache:
        held = asyncio.create_task(asyncio.to_thread(first))
        assert await asyncio.to_thread(began.wait, 30)
        assert await ask(call_after_that) == "first"
        assert await held == "first"
        assert await cache.get_or_create("question", call_after_that) == "first"


@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_two_loops_in_two_threads_pay_once(tmp_path, kind):
    """One cache object used from two event loops in two threads makes one call."""
    cache = local_cache(kind, tmp_path)
    both_ask = threading.Barrier(2)
    calls = []

    async def pay():
        calls.append(threading.get_ident())
        await asyncio.sleep(0.1)
        return {"answer": 42}

    async def ask():
        both_ask.wait()
        return await asyncio.gather(*(cache.get_or_create("question", pay) for _ in range(50)))

    async with cache:
        answers = await asyncio.gather(
            *(asyncio.to_thread(lambda: asyncio.run(ask())) for _ in range(2))
        )
        assert answers == [[{"answer": 42}] * 50] * 2
        assert len(calls) == 1


async def test_one_cache_serves_one_loop_after_another(tmp_path):
    """A cache object is opened in one event loop, closed, and used again in the next."""
    cache = Cache.disk(cache_path_root=tmp_path / "cache")
    calls = []

    async def pay():
        calls.append(1)
        return "answer"

    async def one_run():
        async with cache:
            return await cache.get_or_create("question", pay)

    for _ in range(2):
        assert await asyncio.to_thread(lambda: asyncio.run(one_run())) == "answer"
    assert len(calls) == 1
    assert cache.stats().hits == 1


@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_loop_that_ends_with_an_error_leaves_no_lease(tmp_path, kind):
    """A loop that ends as soon as its call has failed keeps no other from calling."""
    cache = local_cache(kind, tmp_path, lease_ttl=1000.0)

    async def fail():
        await asyncio.sleep(0)
        raise LookupError

    async def pay():
        return "answer"

    async with cache:
        with pytest.raises(LookupError):
            await asyncio.to_thread(lambda: asyncio.run(cache.get_or_create("question", fail)))
        async with asyncio.timeout(30):
            assert await cache.get_or_create("question", pay) == "answer"


@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_loop_that_ends_at_once_stores_what_it_paid(tmp_path, kind):
    """A loop that ends as soon as it has its answer, without closing the cache, has stored it."""
    cache = local_cache(kind, tmp_path)

    async def pay():
        await asyncio.sleep(0)
        return "paid"

    async with cache:
        for number in range(20):
            ask = cache.get_or_create(number, pay)
            assert await asyncio.to_thread(asyncio.run, ask) == "paid"
            assert await cache.get(number) == "paid"


@pytest.mark.parametrize("what", ["delete", "clear", "set"])
async def test_deleted_in_one_loop_stays_deleted_by_another(tmp_path, what):
    """What a loop deletes, clears or sets while another loop's answer is being written, stands."""
    cache = Cache.disk(cache_path_root=tmp_path / "cache")
    answered, done = threading.Event(), threading.Event()

    async def pay():
        return "old"

    async def other_loop():
        await cache.get_or_create("key", pay)  # its write is under way from here on
        answered.set()
        await asyncio.to_thread(done.wait)

    async with cache:
        for _ in range(10):
            other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(other_loop())))
            await asyncio.to_thread(answered.wait)
            if what == "set":
                await cache.set("key", "new")
            else:
                await (cache.clear() if what == "clear" else cache.delete("key"))
            done.set()
            await other
            assert await cache.get("key") == ("new" if what == "set" else None)
            await cache.clear()
            answered.clear()
            done.clear()
