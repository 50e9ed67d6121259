"""What was deleted or overwritten while a call was under way stays so, whoever did it."""

from __future__ import annotations

import sqlite3

import pytest

from asynccache import Cache
from asynccache.stores.disk import DiskStore
from asynccache.testing import ManualClock
from asynccache.testing.records import HOME, key_of, record_of
from tests.helpers.changes import CHANGES, nothing_comes_back, old_answer_stays_out

DAY = 24 * 3600


@pytest.mark.parametrize("change", CHANGES)
async def test_an_old_answer_stays_out_after_another_cache_object_s_change(tmp_path, change):
    """Deleted, overwritten, cleared or refreshed by another cache object: the old isn't stored."""
    first, second = (Cache.disk(cache_path_root=tmp_path) for _ in range(2))
    await old_answer_stays_out(first, second, change)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nothing_comes_back(tmp_path):
    """In random sequences by three cache objects of two processes no old answer is stored."""
    await nothing_comes_back(f"disk:{tmp_path / 'root'}", tmp_path, range(100))


async def test_a_day_old_change_is_forgotten_and_all_before_it_refused(tmp_path):
    """Changes are kept for a day; afterwards a generation from before them can't be told."""
    clock = ManualClock()
    store = DiskStore(tmp_path, HOME.seed, clock=clock)
    await store.open()
    (old,) = await store.generations(HOME, [key_of("another")])
    await store.delete_many(HOME, [key_of(n) for n in range(100)])
    (current,) = await store.generations(HOME, [key_of("another")])
    clock.advance(DAY + 1)
    await store.aclose()
    await store.open()
    try:
        for generation, written in ((old, False), (current, True)):
            record = record_of("another", generation=generation)
            assert await store.set_many(HOME, [record]) == [written]
    finally:
        await store.aclose()
    with sqlite3.connect(tmp_path / HOME.seed / "asynccache.db") as connection:
        assert connection.execute("SELECT count(*) FROM generations").fetchone() == (2,)
    connection.close()


async def test_a_deleted_database_s_generations_mean_nothing_to_the_next(tmp_path):
    """What was begun before the database was deleted isn't stored in the one that follows."""
    store = DiskStore(tmp_path, HOME.seed)
    await store.open()
    (old,) = await store.generations(HOME, [key_of("a")])
    await store.aclose()
    (tmp_path / HOME.seed / "asynccache.db").unlink()
    await store.open()
    try:
        record = record_of("a", generation=old)
        assert await store.set_many(HOME, [record]) == [False]
    finally:
        await store.aclose()
