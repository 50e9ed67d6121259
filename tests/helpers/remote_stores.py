"""What the tests of stores on servers share: stores and caches on them, calls, storms, processes.

A server here is a `Valkey`, `Cluster`, `Memcached` or `CosmosServer`: each can `empty` itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from asynccache import Cache
from tests.core.test_state_machine import CacheMachine
from tests.helpers import scenes
from tests.helpers.swarm import Swarm


class Upstream:
    """Something to be paid: counts calls, and answers with their number."""

    def __init__(self, seconds=0.0):
        self.calls = 0
        self.seconds = seconds

    async def __call__(self):
        self.calls += 1
        number = self.calls
        await asyncio.sleep(self.seconds)
        return {"call": number}


@asynccontextmanager
async def opened(store):
    """Open a store, and close it after the test."""
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


async def settled(cache):
    """Wait until a cache has nothing under way in this loop."""
    await scenes.settled(SimpleNamespace(cache=cache))


async def used(cache, count=30):
    """Use a cache in all its ways; it must work, without an error of the store."""
    upstream = Upstream()
    async with cache:
        for _ in range(2):
            assert await cache.get_or_create("key", upstream) == {"call": 1}
            await settled(cache)
        assert await cache.set_many([(n, n) for n in range(count)]) == [True] * count
        assert await cache.get_many(range(count)) == list(range(count))
        assert await cache.delete(0)
        assert not await cache.contains(0)
        assert await cache.clear() == count
        assert cache.stats().store_errors == {}
        assert cache.stats().hits == 1


async def back(cache):
    """Wait until a cache uses its server again."""
    for attempt in range(1000):
        await cache.get_or_create(("back", attempt), Upstream())
        if cache.stats().breaker == "closed" and await cache.contains(("back", attempt)):
            return
        await asyncio.sleep(0.02)
    pytest.fail("the cache did not come back")


# -- processes -------------------------------------------------------------------------------------


async def pay_once(url, folder, *kind, tasks, keys):
    """Let four processes ask for the same at once, and check that each key is paid for once."""
    swarm = Swarm(url, folder, "--tasks", str(tasks), "--keys", str(keys), *kind)
    await swarm.start(4)
    swarm.go()
    reports = await swarm.reports()
    assert len(reports) == 4
    assert len(swarm.paid) == keys
    answers = [report["answers"] for report in reports.values()]
    assert len(answers[0]) == keys
    assert answers == [answers[0]] * 4
    for report in reports.values():
        assert report["flaws"] == report["store_errors"] == {}


async def kill_a_holder(url, folder, *options, tasks, keys):
    """Kill a process that holds a lease, and check that one call is made in its place."""
    swarm = Swarm(url, folder, "--tasks", str(tasks), "--keys", str(keys), *options)
    # One holds the lease of a single key; the others are held by whoever comes later.
    first = Swarm(url, folder, "--tasks", "1", *options)
    await swarm.start(4)
    await first.start(1)
    first.go()
    holder = await first.paid_by(1)
    swarm.go()
    await swarm.paid_by(keys)  # everybody waits for somebody
    os.kill(holder, signal.SIGKILL)
    reports = await swarm.reports()
    await first.reports()
    assert len(reports) == 4
    assert len(swarm.paid) == keys + 1
    answers = [report["answers"] for report in reports.values()]
    assert answers == [answers[0]] * 4
    assert holder not in {answer["paid_by"] for answer in answers[0]}


async def freeze_a_holder(url, folder, token, *, lease_ttl, seconds):
    """Freeze a holder past its lease: it costs one call, and takes nobody's lease afterwards.

    Args:
        url: The store's.
        folder: The test's own.
        token: Returns what the server knows of the one lease that is held.
        lease_ttl: Seconds that leases last.
        seconds: How long the call takes that is made in its place.
    """
    short = ("--lease-ttl", str(lease_ttl), "--seconds")
    first = Swarm(url, folder, "--tasks", "1", *short, "0.8")
    rest = Swarm(url, folder, *short, str(seconds))
    await first.start(1)
    await rest.start(3)
    first.go()
    holder = await first.paid_by(1)
    os.kill(holder, signal.SIGSTOP)
    rest.go()
    new = await rest.paid_by(2)  # one of the others calls in its place, and isn't done yet
    held = token()
    os.kill(holder, signal.SIGCONT)
    (report,) = (await first.reports()).values()  # it has ended, and released what it had
    assert token() == held  # the new holder's
    assert report["answers"] == [{"paid_by": holder}]  # what it paid for, it delivers
    reports = await rest.reports()
    assert len(reports) == 3
    assert rest.paid == [holder, new]
    # The frozen one's answer came first, and stands: who comes second finds a conflict or it.
    stored = None
    async with Cache.from_url(url, mode="replay") as cache:
        stored = await cache.get("question")
    given = [answer for each in reports.values() for answer in each["answers"]]
    assert all(answer in ({"paid_by": holder}, {"paid_by": new}) for answer in [stored, *given])


# -- machines --------------------------------------------------------------------------------------


class RemoteMachine(CacheMachine):
    """Does to caches over one server what it does to a model; the server's time goes along."""

    def time_passes(self, seconds):
        self.age(seconds)
        super().time_passes(seconds)

    async def happen(self, what, door, key, value, *, asking):
        if what == "time":
            self.age(5)
        return await super().happen(what, door, key, value, asking=asking)

    def age(self, seconds):
        """Let time pass at the server."""
        raise NotImplementedError


def run_machine(machine, examples):
    """Put stores through a state machine."""
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=40)
    )


def finds_fault(machine, method, answer):
    """Check that a machine notices when a method of its stores does nothing.

    Args:
        machine: The class.
        method: The name of a method of stores, which takes a namespace first.
        answer: What the method returns instead, given its arguments but the namespace.
    """

    class Blind(machine):  # type: ignore[valid-type, misc]  # whichever machine it is
        def new_store(self):
            store = super().new_store()

            async def nothing(namespace, *arguments):
                await asyncio.sleep(0)
                return answer(*arguments)

            setattr(store, method, nothing)
            return store

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Blind,
            settings=settings(
                max_examples=60,
                stateful_step_count=30,
                phases=[Phase.generate],  # found is enough
                report_multiple_bugs=False,
                print_blob=False,
                database=None,
            ),
        )
