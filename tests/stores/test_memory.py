"""The memory store beyond the contract: its bound, its order, its waiters, its cost-free reads."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from hypothesis import given, strategies as st

from asynccache import StoreFullError
from asynccache.keys.key import Namespace
from asynccache.stores.base import Claim, Lease, Record
from asynccache.stores.memory import _SLICE, ENTRY_OVERHEAD, MemoryStore
from asynccache.testing import ManualClock
from asynccache.testing.records import HOME, key_of

ROOM = 1000 + ENTRY_OVERHEAD  # bytes that an entry of 1000 takes


def record(name, size=1000, **more):
    """Return what is written for a name: a body of ``size`` bytes that tells it."""
    return Record(key=key_of(name), body=repr(name).encode().ljust(size, b"."), **more)


def held(store, namespace=HOME, names=range(10)):
    """Which names are there, without using them."""
    return [n for n in names if (namespace, key_of(n)) in store._entries]


def consistent(store):
    """Whether the tables agree with one another."""
    listed = {
        (space, key)
        for (space, number), bucket in store._buckets.items()
        for key in bucket
        if key[0] == number
    }
    taken = sum(len(body) + ENTRY_OVERHEAD for body, *_ in store._entries.values())
    return listed == set(store._entries) and taken == store._bytes <= store._max_bytes


async def test_sets_of_other_keys_refuse_no_call():
    """However many other keys are set, or evicted while few are, a call's own key is as it was."""
    store = MemoryStore()
    (before,) = await store.generations(HOME, [key_of("slow")])
    (read,) = await store.generations(HOME, [key_of("set")])
    await store.set_many(HOME, [record("set", size=10)])
    for start in range(0, 20_000, 1000):
        await store.set_many(HOME, [record(n, size=10) for n in range(start, start + 1000)])
    slow, late = record("slow", generation=before), record("set", generation=read)
    assert await store.set_many(HOME, [slow, late]) == [True, False]


@pytest.mark.parametrize("change", ["drop", "expire", "evict", "clear", "replace"])
async def test_what_was_set_and_is_gone_is_still_a_change(change):
    """A key that was set during a call and then removed isn't written by that call."""
    clock = ManualClock()
    store = MemoryStore(max_bytes=2 * ROOM, clock=clock)
    (before,) = await store.generations(HOME, [key_of("a")])
    await store.set_many(HOME, [record("a", expires=clock.time_us() + 1_000_000)])
    if change == "drop":
        store.drop(HOME, [key_of("a")])
    elif change == "expire":
        clock.advance(2)
        assert store.peek(HOME, key_of("a")) is None
    elif change == "evict":
        await store.set_many(HOME, [record(n) for n in range(3)])
    elif change == "clear":
        await store.clear(HOME)
    else:  # by a call that began later, whose writing is no change
        (now,) = await store.generations(HOME, [key_of("a")])
        assert await store.set_many(HOME, [record("a", generation=now)]) == [True]
    assert await store.set_many(HOME, [record("a", generation=before)]) == [False]


def test_a_store_without_room_is_refused():
    """A bound that nothing fits in is a mistake, said at once."""
    with pytest.raises(ValueError, match="max_bytes"):
        MemoryStore(max_bytes=0)


async def test_the_least_recently_used_goes_first():
    """Room is made by what was used longest ago, and reading counts as using."""
    store = MemoryStore(max_bytes=4 * ROOM)
    await store.set_many(HOME, [record(n) for n in range(4)])
    store.peek(HOME, key_of(0))
    await store.get_many(HOME, [key_of(1)])
    await store.set_many(HOME, [record(2)])
    await store.head_many(HOME, [key_of(3)])  # looking at it isn't using it
    await store.set_many(HOME, [record(4)])
    assert held(store) == [0, 1, 2, 4]
    await store.set_many(HOME, [record(5)])
    assert held(store) == [1, 2, 4, 5]
    assert store.counters()["evicted"] == 2


async def test_the_bound_is_over_all_namespaces():
    """What one namespace writes may push out what another has not used."""
    store, other = MemoryStore(max_bytes=2 * ROOM), Namespace.of("other")
    await store.set_many(HOME, [record(1), record(2)])
    await store.set_many(other, [record(1)])
    assert held(store) == [2]
    assert held(store, other) == [1]
    assert consistent(store)


async def test_bytes_are_bounded():
    """Whatever is set, replaced and deleted, the sum of sizes stays below the bound."""
    store = MemoryStore(max_bytes=10 * ROOM)
    for n in range(200):
        await store.set_many(HOME, [record(n % 17, size=(n * 997) % 5000)])
        if n % 5 == 0:
            await store.delete_many(HOME, [key_of(n % 13)])
        assert consistent(store)
    await store.clear(HOME)
    assert (store._bytes, store._buckets) == (0, {})


async def test_an_entry_larger_than_the_store_is_refused():
    """What can never fit raises, takes nothing's place, and doesn't keep the rest from its own."""
    store = MemoryStore(max_bytes=3 * ROOM)
    await store.set_many(HOME, [record(1)])
    big = record("big", size=3 * ROOM - ENTRY_OVERHEAD + 1)
    with pytest.raises(StoreFullError, match="max_bytes"):
        await store.set_many(HOME, [big, record(2)])
    assert held(store) == [1, 2]
    assert store.counters()["evicted"] == 0
    await store.set_many(HOME, [record("big", size=3 * ROOM - ENTRY_OVERHEAD)])
    assert held(store) == []


async def test_much_is_evicted_in_slices():
    """Making room for one large entry gives way to the loop, and ends with room made."""
    count = 4 * _SLICE
    store = MemoryStore(max_bytes=count * (10 + ENTRY_OVERHEAD))
    await store.set_many(HOME, [record(n, size=10) for n in range(count)])
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(count_turns())
    await store.set_many(HOME, [record("big", size=store._max_bytes - ENTRY_OVERHEAD)])
    beside.cancel()
    assert turns >= 3
    assert store.counters()["evicted"] == count
    assert consistent(store)


async def test_if_absent_evicts_nothing_for_nothing():
    """A write that finds its entry there makes no room for itself."""
    store = MemoryStore(max_bytes=2 * ROOM)
    await store.set_many(HOME, [record(1), record(2)])
    await store.set_many(HOME, [record(1, size=2 * ROOM - ENTRY_OVERHEAD, if_absent=True)])
    assert held(store) == [1, 2]


async def test_the_expired_give_their_room_back():
    """An entry found past its time is dropped and counted, also by an inline read."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    soon = clock.time_us() + 1
    await store.set_many(HOME, [record(n, expires=soon) for n in range(3)])
    clock.advance(1)
    assert store.peek(HOME, key_of(0)) is None
    assert await store.get_many(HOME, [key_of(1)]) == [None]
    assert held(store) == [2]
    assert store.counters()["expired"] == 2
    assert await store.delete_many(HOME, [key_of(2)]) == 0
    assert store._bytes == 0


async def test_the_expired_make_room_before_any_live_entry_does():
    """A full store drops what nobody can find any more, whenever it was used, and nothing else."""
    clock = ManualClock()
    store = MemoryStore(max_bytes=6 * ROOM, clock=clock)
    soon, late = clock.time_us() + 1_000_000, clock.time_us() + 9_000_000
    await store.set_many(HOME, [record(n) for n in (0, 1)])
    await store.set_many(HOME, [record(n, expires=late) for n in (2,)])
    await store.set_many(HOME, [record(n, expires=soon) for n in (3, 4, 5)])
    clock.advance(1)  # to the very moment
    await store.set_many(HOME, [record(n) for n in (6, 7, 8)])
    assert held(store) == [0, 1, 2, 6, 7, 8]
    assert store.counters() == {"evicted": 0, "expired": 3}
    await store.set_many(HOME, [record(9)])
    assert held(store) == [1, 2, 6, 7, 8, 9]
    assert store.counters() == {"evicted": 1, "expired": 3}
    assert consistent(store)


async def test_what_was_renewed_does_not_make_room_at_its_old_time():
    """Replaced by one that lives longer, or for ever, or removed and set again, an entry stays."""
    clock = ManualClock()
    store = MemoryStore(max_bytes=4 * ROOM, clock=clock)
    soon, late = clock.time_us() + 1_000_000, clock.time_us() + 9_000_000
    await store.set_many(HOME, [record(n, expires=soon) for n in range(4)])
    await store.set_many(HOME, [record(0, expires=late), record(1)])
    await store.delete_many(HOME, [key_of(2)])
    await store.set_many(HOME, [record(2, expires=late)])
    clock.advance(2)
    await store.set_many(HOME, [record(4)])
    assert held(store) == [0, 1, 2, 4]
    assert store.counters() == {"evicted": 0, "expired": 1}


@given(st.lists(
    st.tuples(
        st.sampled_from(["set", "for a time", "delete", "wait", "read"]),
        st.integers(0, 9), st.integers(1, 9),
    ),
    min_size=20, max_size=60,
))  # fmt: skip
def test_nothing_live_goes_while_something_expired_is_there(steps):
    """Whatever was set, replaced, removed and read before, and however often."""
    clock = ManualClock()
    store = MemoryStore(max_bytes=4 * ROOM, clock=clock)

    async def play():
        for what, name, seconds in steps:
            evicted = store.counters()["evicted"]
            until = clock.time_us() + seconds * 1_000_000 if what == "for a time" else 0
            if what == "wait":
                clock.advance(seconds)
            elif what == "delete":
                await store.delete_many(HOME, [key_of(name)])
            elif what == "read":
                store.peek(HOME, key_of(name))
            else:
                await store.set_many(HOME, [record(name, expires=until)])
            over = [kept for kept in store._entries.values() if 0 < kept[1] <= clock.time_us()]
            assert store.counters()["evicted"] == evicted or not over

    asyncio.run(play())
    assert consistent(store)


async def test_expiries_do_not_pile_up():
    """However often entries are replaced, what is noted of them stays in proportion."""
    clock = ManualClock()
    store = MemoryStore(max_bytes=100 * ROOM, clock=clock)
    for n in range(20_000):
        until = clock.time_us() + 10**12 + n
        await store.set_many(HOME, [record(n % 150, size=10, expires=until)])
    noted = len(store._expiries._heap) + len(store._expiries._old)
    assert noted < 4 * len(store._entries) + 3 * _SLICE


def test_a_new_entry_is_not_dropped_for_an_expired_one():
    """What was written while a reader looked at the clock stays, though what it had read is old."""

    class Overtaken(ManualClock):
        def time_us(self):
            if not renewed:
                renewed.append(True)
                asyncio.run(store.set_many(HOME, [record(1)]))
            return super().time_us()

    renewed: list[bool] = []
    store = MemoryStore(clock=Overtaken())
    asyncio.run(store.set_many(HOME, [record(1, expires=1)]))
    assert store.peek(HOME, key_of(1)) is None
    assert renewed
    assert store.peek(HOME, key_of(1)) == record(1).body


async def test_a_reader_never_waits_for_a_writer():
    """An inline read answers while the lock is held: the found, the missing and the expired."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    await store.set_many(HOME, [record(1), record(2, expires=clock.time_us())])
    with store._lock:
        assert store.peek(HOME, key_of(1)) == record(1).body
        assert store.peek(HOME, key_of(2)) is None
        assert store.peek(HOME, key_of(3)) is None
    assert held(store) == [1, 2]  # left for somebody who may drop it


def test_content_outlives_closing_and_the_loop():
    """A store that was closed has its content in the next loop."""
    store = MemoryStore()
    asyncio.run(store.set_many(HOME, [record(1)]))
    asyncio.run(store.aclose())
    asyncio.run(store.open())
    assert store.peek(HOME, key_of(1)) == record(1).body


def test_a_dropped_store_frees_its_content():
    """Nothing but the store holds what it kept."""
    store = MemoryStore()
    asyncio.run(store.set_many(HOME, [record(1)]))
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None


async def test_no_waiter_stays_behind():
    """Woken, timed out or cancelled, a waiter leaves no trace in the store."""
    store = MemoryStore()
    key = key_of(1)
    lease = Lease(key, bytes(16))
    await store.claim(HOME, [Claim(key=key, token=lease.token)], 1.0)
    await store.wait(HOME, key, 0.001)
    assert store._waiters == {}
    with anyio.move_on_after(0.001):
        await store.wait(HOME, key, 3600)
    assert store._waiters == {}
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(store.wait, HOME, key, 3600)
        await anyio.wait_all_tasks_blocked()
        assert len(store._waiters[HOME, key]) == 3
        await store.release(HOME, [lease])
    assert store._waiters == {}
    assert store._leases == {}


def test_a_cancelled_wait_leaves_no_timer():
    """The loop isn't left with a timer for an hour that nobody waits for."""
    store = MemoryStore()

    async def cancelled():
        await store.claim(HOME, [Claim(key=key_of(1), token=bytes(16))], 1.0)
        waiting = asyncio.create_task(store.wait(HOME, key_of(1), 3600))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        return [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]  # asyncio's own

    assert asyncio.run(cancelled()) == []


@pytest.mark.parametrize("change", ["set", "delete", "clear", "release"])
async def test_a_waiter_is_woken_by(change):
    """Setting, deleting, clearing and releasing each wake exactly who waits for that key."""
    store = MemoryStore()
    keys = [key_of(n) for n in range(2)]
    leases = [Lease(key, bytes(16)) for key in keys]
    await store.claim(HOME, [Claim(key=k, token=bytes(16)) for k in keys], 1.0)
    await store.set_many(HOME, [record(0)])
    async with anyio.create_task_group() as group:
        for key in keys:
            group.start_soon(store.wait, HOME, key, 3600)
        await anyio.wait_all_tasks_blocked()
        match change:
            case "set":
                await store.set_many(HOME, [record(0)])
            case "delete":
                await store.delete_many(HOME, [keys[0]])
            case "clear":
                await store.clear(HOME)
            case "release":
                await store.release(HOME, leases[:1])
        await anyio.wait_all_tasks_blocked()
        assert list(store._waiters) == [(HOME, keys[1])]
        group.cancel_scope.cancel()


async def test_a_waiter_of_a_dead_loop_disturbs_nobody():
    """Waking goes on past a waiter whose loop was closed while it waited."""
    store = MemoryStore()
    key = key_of(1)
    await store.claim(HOME, [Claim(key=key, token=bytes(16))], 1.0)

    def waits_and_dies():
        loop = asyncio.new_event_loop()
        store._waiters[HOME, key] = {loop.create_future()}
        loop.close()

    await anyio.to_thread.run_sync(waits_and_dies)
    async with anyio.create_task_group() as group:
        group.start_soon(store.wait, HOME, key, 3600)
        await anyio.wait_all_tasks_blocked()
        await store.release(HOME, [Lease(key, bytes(16))])


def test_threads_keep_the_tables_together():
    """Readers without a lock and writers with one, in many threads: all tables agree at the end."""
    store = MemoryStore(max_bytes=30 * (100 + ENTRY_OVERHEAD))
    start = threading.Barrier(6)

    async def write(worker):
        for n in range(400):
            name = (n * 7 + worker) % 60
            await store.set_many(HOME, [record(name, size=100)])
            if n % 9 == 0:
                await store.delete_many(HOME, [key_of(name)])
            if n % 100 == 0:
                await store.clear(HOME)

    def writer(worker):
        start.wait()
        asyncio.run(write(worker))

    def reader():
        start.wait()
        for n in range(20_000):
            assert store.peek(HOME, key_of(n % 60)) in (None, record(n % 60, size=100).body)

    with ThreadPoolExecutor(6) as pool:
        done = [pool.submit(writer, n) for n in range(3)] + [pool.submit(reader) for _ in range(3)]
        for one in done:
            one.result()
    assert consistent(store)
