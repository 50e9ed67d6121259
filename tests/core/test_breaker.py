"""The circuit breaker by itself: when it opens, who probes, and how each probe ends."""

from __future__ import annotations

import asyncio

import pytest

from asynccache.core.breaker import CircuitBreaker
from asynccache.core.counters import Counters
from asynccache.errors import StoreUnavailableError
from asynccache.testing import ManualClock


@pytest.fixture
def clock():
    """Return a clock that stands still."""
    return ManualClock()


@pytest.fixture
async def opened(clock):
    """Return a breaker that has just opened."""
    breaker = CircuitBreaker("store", clock, strict=False)

    async def gone():
        raise StoreUnavailableError("gone")

    for _ in range(5):
        assert await run(breaker, gone) == "default"
    assert breaker.state == "open"
    return breaker


async def run(breaker, call):
    """Make a call through a breaker."""
    return await breaker.run(call, "default", timeout=1, counters=Counters())


async def answer():
    """Answer as a sound store does."""
    return "answer"


async def test_it_asks_nobody_until_its_pause_is_over(opened, clock):
    """An open breaker answers by itself; after the pause one call probes the store."""
    assert await run(opened, answer) == "default"
    clock.advance(1)
    assert await run(opened, answer) == "answer"
    assert opened.state == "closed"


async def test_one_probe_at_a_time(opened, clock):
    """While a probe is under way, nobody else asks the store."""
    clock.advance(1)
    go = asyncio.Event()

    async def slow():
        await go.wait()
        return "answer"

    probe = asyncio.create_task(run(opened, slow))
    await asyncio.sleep(0)
    assert opened.state == "probing"
    assert await run(opened, answer) == "default"
    go.set()
    assert await probe == "answer"


async def test_a_cancelled_probe_lets_the_next_call_probe(opened, clock):
    """A probe whose caller goes away says nothing of the store, and isn't the last one."""
    clock.advance(1)
    probe = asyncio.create_task(run(opened, asyncio.Event().wait))
    await asyncio.sleep(0)
    assert opened.state == "probing"
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert opened.state == "open"
    assert await run(opened, answer) == "answer"
    assert opened.state == "closed"


async def test_another_number_of_results_is_a_failure():
    """A store that answers more or less than it was asked for breaks its contract."""
    breaker, counters = CircuitBreaker("store", ManualClock(), strict=False), Counters()

    async def short():
        return [1]

    found = await breaker.run(short, [None, None], timeout=1, counters=counters, count=2)
    assert found == [None, None]
    assert counters.store_errors == {"unavailable": 1}
