"""The disk store within its limit: what goes, in which order, over all seeds of a root."""

from __future__ import annotations

import logging
import sqlite3
import time

import anyio
import pytest

from asynccache import Cache
from asynccache.keys.key import Namespace
from asynccache.stores.base import Record
from asynccache.stores.disk import DiskStore, evict, writer
from asynccache.stores.disk.database import entry_id
from asynccache.stores.disk.room import Room
from asynccache.testing import ManualClock
from asynccache.testing.records import PATIENCE, body_of, key_of, record_of
from tests.helpers.folders import taken

LIMIT = 2**20
TOGETHER = 5  # entries that are set at once
FIRST, SECOND = Namespace("first"), Namespace("second")


@pytest.fixture
def clock():
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
async def store(tmp_path, clock):
    """An open store that holds a megabyte."""
    store = DiskStore(tmp_path / "cache", "first", max_bytes=LIMIT, clock=clock)
    await store.open()
    yield store
    await store.aclose()


async def fill(store, clock, names, namespace=FIRST, size=4000):
    """Set entries in their order, a few at a time, each time a second later."""
    for start in range(0, len(names), TOGETHER):
        clock.advance(1)
        some = names[start : start + TOGETHER]
        await store.set_many(namespace, [record_of(name, size=size) for name in some])


async def within(store, limit=LIMIT):
    """Wait until eviction has caught up."""
    with anyio.fail_after(PATIENCE):
        while taken(store._root) > limit or store._session.writer.evictor._run:
            await anyio.sleep(0.001)


async def there(store, names, namespace=FIRST):
    """Which names are there."""
    names = list(names)
    found = await store.get_many(namespace, [key_of(name) for name in names])
    return [name for name, entry in zip(names, found, strict=True) if entry is not None]


async def test_the_oldest_go_first_and_are_counted(store, clock, caplog):
    """Beyond the limit the least recently used go, down to below it; said once, all counted."""
    caplog.set_level(logging.INFO, "asynccache")
    await fill(store, clock, range(600))
    await within(store)
    left = await there(store, range(600))
    assert left == list(range(600 - len(left), 600))
    assert 50 < len(left) < 250
    assert store.counters()["evicted"] == 600 - len(left)
    assert len([r for r in caplog.records if "reached its limit" in r.getMessage()]) == 1


async def test_of_more_rows_than_a_batch_the_oldest_go_first(tmp_path, clock):
    """With more rows than one transaction looks at, those used last are still the last to go."""
    names = range(2 * evict._BATCH)
    store = DiskStore(tmp_path / "cache", "first", clock=clock)
    await store.open()
    await fill(store, clock, names, size=1000)
    await store.aclose()
    limit = taken(tmp_path / "cache")
    store = DiskStore(tmp_path / "cache", "first", max_bytes=limit, clock=clock)
    await store.open()
    await fill(store, clock, range(names.stop, names.stop + 100), size=1000)
    await within(store, limit)
    left = await there(store, range(names.stop + 100))
    assert store.counters()["evicted"] > 0
    assert left == list(range(names.stop + 100 - len(left), names.stop + 100))
    await store.aclose()


async def test_the_limit_holds_at_rest(store, clock, monkeypatch):
    """What little was written since the last look is looked at, too, once nothing more comes."""
    wrote = evict.Evictor.wrote
    monkeypatch.setattr(evict.Evictor, "wrote", lambda self, rows, size: wrote(self, 1, 1))
    monkeypatch.setattr(evict, "_CHECK_SECONDS", 0.2)
    monkeypatch.setattr(writer, "_IDLE_SECONDS", 0.1)
    await fill(store, clock, range(300))
    await within(store)
    assert store.counters()["evicted"] > 0


async def test_reading_is_using(store, clock):
    """What was read inline or by a worker outlives what was not, once its use is noted."""
    await fill(store, clock, range(100))
    clock.advance(3600)
    assert await there(store, [5]) == [5]
    assert store.peek(FIRST, key_of(7)) == body_of(7, 4000)
    await store.aclose()  # notes uses
    await store.open()
    await fill(store, clock, range(100, 230))
    await within(store)
    assert await there(store, range(10)) == [5, 7]


async def test_uses_are_noted_while_open(store, clock, tmp_path):
    """What is read while others write is noted, so that other processes' evictions see it."""
    await fill(store, clock, range(100))
    await there(store, [0])
    other = DiskStore(tmp_path / "cache", "first", max_bytes=2 * LIMIT, clock=clock)
    await other.open()
    await fill(other, clock, range(100, 130))
    later = "SELECT count(*) FROM entries WHERE used > (SELECT used FROM entries WHERE id = ?)"
    with anyio.fail_after(PATIENCE), store._folders["first"].reader() as connection:
        ids = [entry_id(None, key_of(0))]
        while connection.execute(later, ids).fetchall()[0][0] > 30:
            await anyio.sleep(0.01)
    await other.aclose()


async def test_what_is_in_constant_use_outlives_the_limits_worth(store, clock):
    """What is read again and again stays, though the limit's worth is written within a moment."""
    await fill(store, clock, range(10))
    for start in range(10, 1010, 20):
        await store.set_many(FIRST, [record_of(n, size=4000) for n in range(start, start + 20)])
        assert await there(store, range(5)) == list(range(5)), start
    await within(store)
    assert await there(store, range(10)) == list(range(5))
    assert store.counters()["evicted"] > 500


@pytest.mark.parametrize("change", [-366, -1, 1, 366])
async def test_no_clock_turns_the_order_of_uses_round(store, clock, change):
    """After a clock was set, what was used last still goes last."""
    await fill(store, clock, range(100))
    clock._wall_us += change * 24 * 3600 * 10**6
    await fill(store, clock, range(100, 300))
    await within(store)
    left = await there(store, range(300))
    assert left == list(range(300 - len(left), 300))
    assert 50 < len(left) < 250


@pytest.mark.parametrize("ttl", [10, 3600, 10**6, None])
async def test_what_a_clock_wrote_that_ran_ahead_is_made_anew(tmp_path, clock, ttl):
    """After the clock was put right, what expires is a miss and stored anew; nothing is lost."""
    made = []

    async def create():
        made.append(1)
        return len(made)

    store = DiskStore(tmp_path, clock=clock)
    async with Cache.from_store(store, clock=clock, ttl=ttl) as cache:
        clock._wall_us += 10**6 * 10**6
        assert await cache.get_or_create("key", create) == 1
    async with cache:  # all is stored
        assert await cache.get_or_create("key", create) == 1
        clock._wall_us -= 10**6 * 10**6
        paid = 1 if ttl is None else 2
        assert await cache.get_or_create("key", create) == paid
    async with cache:
        assert await cache.get_or_create("key", create) == paid
        assert set(cache.stats().flaws) == (set() if ttl is None else {"expired"})
        if ttl is not None:
            clock.advance(ttl + 1)
            assert await cache.get_or_create("key", create) == 3
    async with Cache.from_store(store, clock=clock, ttl=3600) as cache:
        await cache.set("other", 1)
        clock._wall_us -= 30 * 10**6  # as clocks are set right in passing
        assert await cache.get("other") == 1
        clock._wall_us -= 10**6 * 10**6
        assert await cache.get("other") is None
        clock._wall_us += 10**6 * 10**6  # it was this clock that was wrong: nothing was deleted
        assert await cache.get("other") == 1


async def test_large_bodies_count_and_their_files_go(store, clock, tmp_path):
    """Files count against the limit, and go with their rows."""
    await fill(store, clock, range(10), size=300_000)
    await within(store)
    left = await there(store, range(10))
    assert 0 < len(left) <= 3
    assert left[-1] == 9
    assert len(list((tmp_path / "cache" / "first" / "bodies").iterdir())) == len(left)


async def test_one_limit_for_all_seeds(store, clock, tmp_path):
    """Another seed's older entries go first, whether its folder is open in this store or not."""
    await fill(store, clock, range(100), FIRST)
    await store.aclose()
    other = DiskStore(tmp_path / "cache", "second", max_bytes=LIMIT, clock=clock)
    await other.open()
    await fill(other, clock, range(150), SECOND)
    await within(other)
    assert other.counters()["evicted"] > 0
    assert await there(other, range(150), SECOND) == list(range(150))
    left = await there(other, range(100), FIRST)  # opens the first in the other
    assert left == list(range(100 - len(left), 100))
    await other.aclose()


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("size", [2000, 300_000])
async def test_the_sum_of_many_seeds_holds(tmp_path, clock, size, together):
    """However many seeds are used in turn, by one store or by one each, all files stay within."""
    root, limit = tmp_path / "cache", 5 * 2**20
    most = 0
    store = DiskStore(root, "0", max_bytes=limit, clock=clock)
    for seed in range(4):
        if not together or not seed:
            store = DiskStore(root, str(seed), max_bytes=limit, clock=clock)
            await store.open()
        some = 300_000 // size
        for start in range(0, 9 * 2**19 // size, some):
            records = [record_of(n, size=size) for n in range(start, start + some)]
            await store.set_many(Namespace(str(seed)), records)
            most = max(most, taken(root))
        if not together:
            await store.aclose()
            assert taken(root) < limit
    if together:
        await within(store, limit)
        await store.aclose()
        assert taken(root) < limit
    assert most < 2 * limit  # what is being written takes several times its size in the log


async def test_a_slow_disk_doesnt_lift_the_limit(tmp_path, clock, monkeypatch):
    """However long it takes to look at the size, what is written meanwhile stays bounded."""
    look = Room.look

    def slow(room):
        time.sleep(0.05)
        return look(room)

    monkeypatch.setattr(Room, "look", slow)
    root, limit = tmp_path / "cache", 5 * 2**20
    store = DiskStore(root, "first", max_bytes=limit, clock=clock)
    await store.open()
    most = 0
    for name in range(60):
        await store.set_many(FIRST, [record_of(name, size=300_000)])
        most = max(most, taken(root))
    await store.aclose()
    assert limit < most < 2 * limit


@pytest.mark.parametrize("size", [100, 4000, 300_000])
async def test_what_is_cleared_and_deleted_is_given_back(tmp_path, clock, size):
    """After a clear all room is free at once, also while the store is open; so after deletes."""
    root = tmp_path / "cache"
    store = DiskStore(root, "first", clock=clock)
    await store.open()
    names = range(min(6000, 6 * 2**20 // size))
    for _ in range(2):
        for start in range(0, len(names), 1000):
            some = names[start : start + 1000]
            await store.set_many(FIRST, [record_of(name, size=size) for name in some])
        full = taken(root)
        assert full > len(names) * size
        assert await store.clear(FIRST) == len(names)
        # Changes of keys are remembered for a day.
        assert taken(root) < len(names) * 100 + 200_000 < full
    await store.set_many(FIRST, [record_of(name, size=size) for name in names[:2000]])
    await store.delete_many(FIRST, [key_of(name) for name in names[:2000]])
    await store.aclose()
    assert taken(root) < len(names) * 100 + 200_000
    assert store.counters() == {"evicted": 0, "expired": 0, "dropped": 0}


async def test_a_limit_that_was_lowered_frees_at_open(store, clock, tmp_path):
    """Opening is enough: nothing has to be written for the new limit to hold, in all seeds."""
    for seed in ("first", "second", "third"):
        await fill(store, clock, range(60), Namespace(seed))
    await store.aclose()
    before = taken(tmp_path / "cache")
    lower = DiskStore(tmp_path / "cache", "third", max_bytes=LIMIT // 2, clock=clock)
    await lower.open()
    await within(lower, LIMIT // 2)
    assert before > 0.6 * LIMIT
    assert len(await there(lower, range(60), Namespace("third"))) > 50
    assert await there(lower, range(60), Namespace("first")) == []
    await lower.aclose()


async def test_changes_of_keys_dont_fill_the_limit(tmp_path, clock):
    """What is remembered of deleted keys goes, too, where there is no room for it."""
    root = tmp_path / "cache"
    store = DiskStore(root, "first", max_bytes=LIMIT, clock=clock)
    await store.open()
    for start in range(0, 60_000, 1000):
        await store.delete_many(FIRST, [key_of(name) for name in range(start, start + 1000)])
    await fill(store, clock, range(50))
    await within(store)
    assert len(await there(store, range(50))) == 50
    await store.aclose()


async def test_a_pinned_log_costs_no_entry(store, clock, tmp_path):
    """While somebody reads, the log can't be folded in: evicting all wouldn't free a byte."""
    await fill(store, clock, range(20))
    reader = sqlite3.connect(tmp_path / "cache" / "first" / "asynccache.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM entries").fetchall()
    for _ in range(10):  # the same entries again: a log of megabytes, few bytes of entries
        await fill(store, clock, range(100))
    await store.set_many(FIRST, [record_of("last")])
    assert await there(store, range(100)) == list(range(100))
    assert taken(tmp_path / "cache") > 2 * LIMIT
    reader.execute("COMMIT")
    reader.close()
    await fill(store, clock, range(150))
    await within(store)


async def test_expired_entries_are_purged_first(store, clock):
    """Expired rows go in the same step, counted as expired, before anything is evicted."""
    soon = clock.time_us() + 10**6
    records = [Record(key=key_of(n), body=bytes(4000), expires=soon) for n in range(100)]
    await store.set_many(FIRST, records)
    clock.advance(2)
    await fill(store, clock, range(100, 200))
    with anyio.fail_after(PATIENCE):
        while store.counters()["expired"] < 100:
            await anyio.sleep(0.001)
    assert store.counters() == {"evicted": 0, "expired": 100, "dropped": 0}
    assert len(await there(store, range(100, 200))) == 100


async def test_a_limit_smaller_than_an_entry_ends(store, clock, tmp_path, monkeypatch):
    """A limit that nothing fits into evicts all and comes to rest."""
    monkeypatch.setattr(evict, "_CHECK_SECONDS", 0.2)
    monkeypatch.setattr(writer, "_IDLE_SECONDS", 0.1)
    await store.aclose()
    tiny = DiskStore(tmp_path / "cache", "first", max_bytes=1, clock=clock)
    await tiny.open()
    await fill(tiny, clock, range(3))
    with anyio.fail_after(PATIENCE):
        while await there(tiny, range(3)):
            await anyio.sleep(0.001)
    await within(tiny, limit=float("inf"))
    await tiny.aclose()
