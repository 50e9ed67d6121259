"""The disk store within its limit: what goes, in which order, over all seeds of a root."""

from __future__ import annotations

import logging

import anyio
import pytest

from asynccache.keys.key import Namespace
from asynccache.stores.base import Record
from asynccache.stores.disk import DiskStore, evict, writer
from asynccache.testing import ManualClock
from asynccache.testing.records import PATIENCE, body_of, key_of, record_of

LIMIT = 2**20
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


def used(store):
    """Bytes that all databases open in a store take."""
    total = 0
    for folder in list(store._folders.values()):
        with folder.reader() as connection:
            total += evict._used_bytes(connection)
    return total


async def fill(store, clock, names, namespace=FIRST, size=4000):
    """Set entries, each a second after the one before."""
    for name in names:
        clock.advance(1)
        await store.set_many(namespace, [record_of(name, size=size)])


async def within(store, limit=LIMIT):
    """Wait until eviction has caught up."""
    with anyio.fail_after(PATIENCE):
        while used(store) > limit or store._session.evictor._evicting:
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
    assert 50 < len(left) < 300
    assert store.counters()["evicted"] == 600 - len(left)
    assert len([r for r in caplog.records if "reached its limit" in r.getMessage()]) == 1


async def test_of_more_rows_than_a_batch_the_oldest_go_first(tmp_path, clock):
    """With more rows than one transaction looks at, those used last are still the last to go."""
    names = range(2 * evict._BATCH)
    store = DiskStore(tmp_path / "cache", "first", clock=clock)
    await store.open()
    await fill(store, clock, names, size=1000)
    await store.aclose()
    limit = (tmp_path / "cache" / "first" / "asynccache.db").stat().st_size
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
    monkeypatch.setattr(evict, "_CHECK_ROWS", 10**6)
    monkeypatch.setattr(evict, "_CHECK_PART", 0)
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
    await fill(store, clock, range(100, 260))
    await within(store)
    assert await there(store, range(10)) == [5, 7]


async def test_uses_are_noted_while_open(store, clock, monkeypatch):
    """The writer notes uses by itself, with nothing written."""
    monkeypatch.setattr(writer, "_IDLE_SECONDS", 0.0)
    await fill(store, clock, [0, 1])
    clock.advance(3600)
    await there(store, [0])
    with anyio.fail_after(PATIENCE):
        while store._folders["first"].touched:
            await anyio.sleep(0.001)
    await store.aclose()
    await store.open(read_only=True)
    with store._folders["first"].reader() as connection:
        (late,) = connection.execute(
            "SELECT count(*) FROM entries WHERE used >= ?", (clock.time_us() - 10**6,)
        ).fetchone()
    assert late == 1


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
    await fill(other, clock, range(150, 250), SECOND)
    await within(other)
    assert await there(other, range(100), FIRST) == []
    await other.aclose()


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


async def test_a_limit_smaller_than_an_entry_ends(store, clock, tmp_path):
    """A limit that nothing fits into evicts all and comes to rest."""
    await store.aclose()
    tiny = DiskStore(tmp_path / "cache", "first", max_bytes=1, clock=clock)
    await tiny.open()
    await fill(tiny, clock, range(3))
    with anyio.fail_after(PATIENCE):
        while await there(tiny, range(3)):
            await anyio.sleep(0.001)
    await within(tiny, limit=float("inf"))
    await tiny.aclose()
