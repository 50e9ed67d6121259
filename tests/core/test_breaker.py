"""The circuit breaker by itself: when it opens, who probes, and how each probe ends."""

from __future__ import annotations

import asyncio

import pytest

from asynccache.core.breaker import CircuitBreaker
from asynccache.core.counters import Counters
from asynccache.errors import (
    StoreDeniedError,
    StoreFullError,
    StoreReadOnlyError,
    StoreRefusedError,
    StoreTimeoutError,
    StoreUnavailableError,
)
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


@pytest.mark.parametrize(
    "error", [StoreDeniedError, StoreFullError, StoreReadOnlyError, StoreRefusedError]
)
async def test_a_store_that_refuses_is_there_again(opened, clock, error):
    """A probe that is refused has met a store that answers, so the breaker closes."""

    async def refuse():
        raise error("no")

    clock.advance(1)
    assert await run(opened, refuse) == "default"
    assert opened.state == "closed"
    assert await run(opened, answer) == "answer"


@pytest.mark.parametrize("error", [OSError, TimeoutError, StoreUnavailableError, StoreTimeoutError])
@pytest.mark.parametrize("timeout", [1, None], ids=["bounded", "unbounded"])
async def test_a_probe_that_fails_makes_the_pause_longer(opened, clock, error, timeout):
    """Whatever the failure, the store is asked again, after twice the pause."""

    async def fail():
        raise error("gone")

    clock.advance(1)
    with pytest.raises((StoreUnavailableError, StoreTimeoutError)):
        await opened.insist(fail, timeout=timeout, counters=Counters())
    assert opened.state == "open"
    clock.advance(1.9)
    assert await run(opened, answer) == "default"
    clock.advance(0.1)
    assert await run(opened, answer) == "answer"


async def test_what_keeps_a_store_from_being_opened_is_a_failure(clock):
    """A store that refuses to be opened isn't there yet, so it isn't opened at each call."""
    breaker, tries = CircuitBreaker("store", clock, strict=False), []

    async def refuse():
        tries.append(1)
        raise StoreRefusedError("no")

    breaker.prepare = refuse
    for _ in range(8):
        assert await run(breaker, answer) == "default"
    assert len(tries) == 5
    assert breaker.state == "open"


@pytest.mark.parametrize("how", ["closed", "interrupted"])
async def test_a_probe_that_just_ends_lets_the_next_call_probe(opened, clock, how):
    """A probe may end by neither an answer nor an error, as where its loop is torn down."""

    class Pause:
        def __await__(self):
            yield

    async def end():
        if how == "interrupted":
            raise KeyboardInterrupt
        await Pause()

    clock.advance(1)
    probe = run(opened, end)
    if how == "closed":
        probe.send(None)
        assert opened.state == "probing"
        probe.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            probe.send(None)
    assert opened.state == "open"
    assert await run(opened, answer) == "answer"


async def test_a_probe_that_is_never_heard_of_again_is_not_the_last(opened, clock):
    """A loop may stop in the middle of its probe; others probe a second later."""
    clock.advance(1)
    loop = asyncio.new_event_loop()

    async def probe():
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().stop)
        await run(opened, asyncio.Event().wait)

    stopped = loop.create_task(probe())
    await asyncio.to_thread(loop.run_forever)
    assert opened.state == "probing"
    assert await run(opened, answer) == "default"
    clock.advance(1)
    assert await run(opened, answer) == "answer"
    stopped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.to_thread(loop.run_until_complete, stopped)
    assert opened.state == "closed"
    loop.close()


async def test_a_long_probe_turns_nobody_away(opened, clock):
    """While a call without a deadline, such as `clear`, is under way, others probe the store."""
    clock.advance(1)
    go = asyncio.Event()
    clearing = asyncio.create_task(opened.insist(go.wait, timeout=None, counters=Counters()))
    await asyncio.sleep(0)
    assert await run(opened, answer) == "answer"
    go.set()
    assert await clearing
    assert opened.state == "closed"


async def test_another_number_of_results_is_a_failure():
    """A store that answers more or less than it was asked for breaks its contract."""
    breaker, counters = CircuitBreaker("store", ManualClock(), strict=False), Counters()

    async def short():
        return [1]

    found = await breaker.run(short, [None, None], timeout=1, counters=counters, count=2)
    assert found == [None, None]
    assert counters.store_errors == {"unavailable": 1}
