"""The public test doubles: do they do to a store what they say?"""

from __future__ import annotations

import asyncio
import subprocess
import sys

import anyio
import pytest

from asynccache import StoreFullError
from asynccache.errors import StoreUnavailableError
from asynccache.stores.base import UNKNOWN, Claim, Record
from asynccache.stores.memory import MemoryStore
from asynccache.testing import FaultyStore, Gate, ManualClock, StoreContract
from asynccache.testing.records import HOME, body_of, get, key_of, record_of

pytest_plugins = ["asynccache.testing.fixtures"]


def test_time_stands_still_until_it_is_moved():
    """A manual clock moves by what it is told, both clocks together or each alone."""
    clock = ManualClock(start=10.0, monotonic=5.0)
    clock.advance(1.5)
    assert (clock.time_us(), clock.monotonic()) == (11_500_000, 6.5)
    clock.advance_wall(-11.5)
    assert (clock.time_us(), clock.monotonic()) == (0, 6.5)
    clock.advance_monotonic(0.25)
    assert (clock.time_us(), clock.monotonic()) == (0, 6.75)
    for move in (clock.advance, clock.advance_monotonic):
        with pytest.raises(ValueError, match="backwards"):
            move(-1)
    for _ in range(1_000_000):
        clock.advance_wall(0.000_001)
    assert clock.time_us() == 1_000_000


async def test_without_faults_everything_is_passed_on(faulty_store, manual_clock):
    """A faulty store that was told nothing answers as the one within, and counts."""
    expires = manual_clock.time_us() + 1_000_000
    await faulty_store.set_many(HOME, [record_of("a", expires=expires), record_of("b")])
    assert faulty_store.peek(HOME, key_of("a")) == body_of("a")
    manual_clock.advance(2)
    assert list(await faulty_store.get_many(HOME, [key_of("a"), key_of("b")])) == [
        None, body_of("b"),
    ]  # fmt: skip
    assert await faulty_store.delete_many(keys=[key_of("b")], namespace=HOME) == 1
    assert faulty_store.calls == {"set_many": 1, "peek": 1, "get_many": 1, "delete_many": 1}
    assert [call.size for call in faulty_store.log] == [2, 1, 2, 1]
    assert faulty_store.counters()["expired"] == 1


async def test_failures_end_after_so_many_times():
    """Named methods fail as often as was said, each time with a new error; others don't."""
    store = FaultyStore(MemoryStore())
    error = StoreFullError("so")
    store.fail("get_many", "peek", error=error, times=2)
    await store.set_many(HOME, [record_of("a")])
    with pytest.raises(StoreFullError, match="so") as first:
        await get(store, "a")
    with pytest.raises(StoreFullError, match="so") as second:
        store.peek(HOME, key_of("a"))
    assert len({id(raised) for raised in (error, first.value, second.value)}) == 3
    assert await get(store, "a") == body_of("a")


async def test_a_store_can_be_dead_until_it_is_healed():
    """Without names and numbers everything fails, but opening, closing and inline reads."""
    store = FaultyStore(MemoryStore())
    store.fail()
    await store.open()
    assert store.peek(HOME, key_of("a")) is None
    for call in (
        store.get_many(HOME, []), store.set_many(HOME, []), store.claim(HOME, [], 1.0),
        store.wait(HOME, b"", 1.0), store.scan(HOME), store.clear(HOME),
    ):  # fmt: skip
        with pytest.raises(StoreUnavailableError):
            await call
    await store.aclose()
    store.heal()
    assert await get(store, "a") is None


async def test_a_call_can_happen_and_fail():
    """With ``after`` the work is done, and only the answer is lost."""
    store = FaultyStore(MemoryStore())
    store.fail("set_many", after=True)
    with pytest.raises(StoreUnavailableError):
        await store.set_many(HOME, [record_of("a")])
    assert await get(store, "a") == body_of("a")


async def test_a_stalled_call_waits_at_its_gate():
    """A stalled lookup is asked late: it sees what was written while it waited."""
    store = FaultyStore(MemoryStore(), hide_inline=True)
    assert store.peek(HOME, key_of("a")) is UNKNOWN
    assert not store.capabilities.inline
    gate = store.stall("get_many")
    lookups = [asyncio.create_task(get(store, "a")) for _ in range(3)]
    await gate.arrived(3)
    await store.set_many(HOME, [record_of("a")])
    assert not any(task.done() for task in lookups)
    gate.release()
    assert await asyncio.gather(*lookups) == [body_of("a")] * 3
    assert await get(store, "a") == body_of("a")  # the gate stays open


async def test_a_late_miss_can_be_forced():
    """A lookup held back after it was answered tells how things were before."""
    store = FaultyStore(MemoryStore(), hide_inline=True)
    gate = store.stall("get_many", times=1, after=True)
    late = asyncio.create_task(get(store, "a"))
    await gate.arrived()
    await store.set_many(HOME, [record_of("a")])
    assert await get(store, "a") == body_of("a")  # only the first was to be held
    gate.release()
    assert await late is None


async def test_a_cancelled_call_leaves_the_gate():
    """Who is cancelled at a gate is gone from it, and nobody else is let through."""
    gate = Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(gate.pass_through)
        await gate.arrived()
        group.cancel_scope.cancel()
    assert gate._waiting == set()
    assert gate.arrivals == 1


async def test_a_gate_works_across_loops():
    """A call that waits in another loop is seen, and released, from this one."""
    gate = Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, lambda: asyncio.run(gate.pass_through()))
        await gate.arrived()
        gate.release()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ({"flip": 0}, b"\x9ebc"),
        ({"flip": -1}, b"ab\x9c"),
        ({"cut": 1}, b"a"),
        ({"cut": 0}, b""),
        ({"swap": b"other"}, b"other"),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
async def test_bytes_are_damaged_as_told(damage, expected, stored):
    """Bytes are flipped, cut or swapped on their way in or out, as often as was said."""
    store = FaultyStore(MemoryStore())
    (store.corrupt_writes if stored else store.corrupt_reads)(**damage, times=1)
    await store.set_many(HOME, [Record(key=key_of("a"), body=b"abc")])
    assert await get(store, "a") == expected
    assert await get(store, "a") == (expected if stored else b"abc")


async def test_every_way_to_read_can_be_damaged():
    """Damage shows in lookups, inline reads, heads, scans and claims alike, unless one is named."""
    store = FaultyStore(MemoryStore())
    await store.set_many(HOME, [record_of("a")])
    store.corrupt_reads(swap=b"x")
    claim = Claim(key=key_of("a"), token=bytes(16))
    assert await get(store, "a") == b"x"
    assert store.peek(HOME, key_of("a")) == b"x"
    assert await store.head_many(HOME, [key_of("a")]) == [b"x"]
    assert (await store.scan(HOME)).envelopes == [b"x"]
    assert (await store.claim(HOME, [claim], 1.0))[0].entry == b"x"
    assert await get(store, "none") is None
    store.heal()
    store.corrupt_reads("head_many", swap=b"x")
    assert await get(store, "a") == body_of("a")
    with pytest.raises(ValueError, match="flip="):
        store.corrupt_reads()


def test_doubles_do_not_need_pytest():
    """Without pytest the doubles can be had, and the contract says what it needs."""
    script = """
import sys
sys.modules["pytest"] = None
import asynccache.testing as t
t.FaultyStore, t.ManualClock
try:
    t.StoreContract
except ImportError as exc:
    assert "install pytest" in str(exc)
else:
    raise SystemExit("no error")
try:
    t.nothing
except AttributeError:
    pass
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_contract_failures_show_values():
    """Assertions of the contract are rewritten by pytest, so that a failure shows what it saw."""
    assert StoreContract.__module__ == "asynccache.testing.contract"
    assert "@pytest_ar" in vars(sys.modules["asynccache.testing.contract"])
