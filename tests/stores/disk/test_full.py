"""The disk store on a volume that is full: it reads, makes room, clears, and goes on."""

from __future__ import annotations

import logging
import os
import time

import anyio
import pytest

from asynccache import MISSING, Cache
from asynccache.stores.disk.bodies import BodyFile
from asynccache.stores.disk.room import Room
from asynccache.testing.records import PATIENCE
from tests.helpers import mounts
from tests.helpers.folders import taken

VOLUME = 60 * 2**20
SIZES = [5000, 100_000, 400_000]  # bytes of a value; the largest has a file of its own
TOGETHER = 2 * 10**6  # bytes of values that are set at once


@pytest.fixture
def volume(tmp_path):
    """A file system of sixty megabytes."""
    with mounts.island(tmp_path / "volume", size=VOLUME) as place:
        yield place


@pytest.fixture(params=SIZES)
def size(request):
    """How large a value is."""
    return request.param


def value_of(name, size):
    """A value that doesn't compress."""
    return name.to_bytes(8, "big") * 8 + os.urandom(size - 64)


async def put(cache, names, size):
    """Set values, and check that each was stored."""
    step = max(1, TOGETHER // size)
    for start in range(names.start, names.stop, step):
        some = names[start - names.start : start - names.start + step]
        done = await cache.set_many({name: value_of(name, size) for name in some})
        assert all(done), (done, cache.stats().store)


async def there(cache, names):
    """Which names have a value, each its own. What was read is in use."""
    found = []
    for start in range(names.start, names.stop, 100):
        some = range(start, min(start + 100, names.stop))
        for name, value in zip(some, await cache.get_many(some, default=MISSING), strict=True):
            if value is not MISSING:
                assert value[:64] == name.to_bytes(8, "big") * 8
                found.append(name)
    return found


def free(volume):
    """Bytes that are left."""
    found = os.statvfs(volume)
    return found.f_bavail * found.f_frsize


def use_up(volume, name):
    """Fill a volume to its last byte with a file that isn't the cache's."""
    with (volume / name).open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    assert free(volume) == 0


async def test_a_small_volume_is_filled_read_cleared_and_used_again(volume, size, caplog):
    """With the default limit all is stored, the latest half of the volume stays; clear frees."""
    names = range(90 * 2**20 // size)
    root = volume / "cache"
    caplog.set_level(logging.INFO, "asynccache")
    async with Cache.disk(cache_path_root=root) as cache:
        await put(cache, names, size)
        with anyio.fail_after(PATIENCE):
            while free(volume) < 0.4 * VOLUME:  # eviction catches up
                await anyio.sleep(0.01)
        left = await there(cache, names)
        assert left[-10:] == list(names[-10:])
        assert len(left) * size > 0.25 * VOLUME
        assert cache.stats().store_errors == {}
    async with Cache.disk(cache_path_root=root) as cache:
        again = await there(cache, names)
        assert set(again) <= set(left)
        assert len(again) > 0.8 * len(left)
        assert await cache.clear() > 0.8 * len(again)
        assert taken(root) < 0.05 * VOLUME
        await put(cache, range(50), size)
        assert await there(cache, range(50)) == list(range(50))
    told = [one.message for one in caplog.records if "reached its limit" in one.message]
    assert len(told) == 1
    assert "half of its volume" in told[0]


async def test_a_volume_that_others_fill_is_evicted_from(volume, size, caplog):
    """Without a byte left, all is read; sets, deletes and clear work, said once."""
    names = range(22 * 2**20 // size)
    more, last = range(names.stop, names.stop + 40), range(names.stop + 40, names.stop + 80)
    root = volume / "cache"
    async with Cache.disk(cache_path_root=root) as cache:
        await put(cache, names, size)
        before = await there(cache, names)
        use_up(volume, "others")
        assert await there(cache, names) == before
        await put(cache, more, size)
        assert await cache.delete(more[-1])
        left = await there(cache, range(more.stop))
        assert set(left) > set(more[:-1])
        assert len(left) > 0.7 * len(before)
        assert cache.stats().store_errors == {}
    use_up(volume, "more of others")
    for mode in ("replay", "read_write"):
        async with Cache.disk(cache_path_root=root, mode=mode) as cache:
            assert await there(cache, range(more.stop)) == left
            assert cache.stats().store_errors == {}
    async with Cache.disk(cache_path_root=root) as cache:
        await put(cache, last, size)
        assert await there(cache, last) == list(last)
    use_up(volume, "yet more of others")
    async with Cache.disk(cache_path_root=root) as cache:
        assert await cache.clear() > len(last)
        assert taken(root) < 0.05 * VOLUME
        await put(cache, names[:50], size)
        assert await there(cache, names[:50]) == list(names[:50])
        assert cache.stats().store_errors == {}
    told = [one.message for one in caplog.records if "is full" in one.message]
    assert 2 <= len(told) <= 3  # by each cache that met it
    assert not any(one.exc_info for one in caplog.records)


async def test_what_is_half_written_is_gone_before_room_is_made(volume, monkeypatch):
    """The last bytes went into a file that could not be finished: evicting needs them."""
    discard = BodyFile.discard

    def discard_late(body):
        time.sleep(0.3)
        discard(body)

    monkeypatch.setattr(BodyFile, "discard", discard_late)
    monkeypatch.setattr(Room, "keep_spare", lambda _: None)
    async with Cache.disk(cache_path_root=volume / "cache") as cache:
        await put(cache, range(20), 400_000)
    use_up(volume, "others")
    os.truncate(volume / "others", (volume / "others").stat().st_size - 200_000)
    async with Cache.disk(cache_path_root=volume / "cache") as cache:
        await put(cache, range(20, 25), 400_000)
        assert await there(cache, range(20, 25)) == list(range(20, 25))
        assert cache.stats().store_errors == {}


async def test_leases_on_a_full_volume(volume):
    """Calls are made, delivered and stored on a volume that is full before the first of them."""

    async def seven():
        return 7

    async with Cache.disk(cache_path_root=volume / "cache") as cache:
        await put(cache, range(10), 100_000)
    use_up(volume, "others")
    async with Cache.disk(cache_path_root=volume / "cache") as cache:
        for _ in range(2):
            assert await cache.get_or_create("key", seven) == 7
        stats = cache.stats()
    assert (stats.misses, stats.hits, stats.store_errors) == (1, 1, {})


async def test_what_nothing_helps_against_costs_only_what_is_not_stored(volume):
    """Where others keep the volume full, sets fail and are counted; what is there is read."""
    root = volume / "cache"
    async with Cache.disk(cache_path_root=root) as cache:
        await put(cache, range(10), 100_000)
        use_up(volume, "others")
        for name in range(10, 40):
            await cache.set(name, value_of(name, 100_000))
            use_up(volume, f"others {name}")
        left = await there(cache, range(40))
        assert set(cache.stats().store_errors) <= {"full"}
        assert cache.stats().breaker == "closed"
        (volume / "others").unlink()
    async with Cache.disk(cache_path_root=root) as cache:
        assert await there(cache, range(40)) == left
        await put(cache, range(40), 100_000)
        assert await there(cache, range(40)) == list(range(40))


@pytest.mark.parametrize("when", ["open", "closed"])
async def test_what_leaves_no_room_to_delete_in_is_cleared(volume, size, when):
    """Without a byte left and without a spare, a cache's own entries can still be cleared."""
    cache = Cache.disk(cache_path_root=volume / "cache")
    await cache.open()
    names = range(6_000_000 // size)
    await put(cache, names, size)
    if when == "closed":
        await cache.aclose()
    use_up(volume, "others")
    (volume / "cache" / ".asynccache" / "spare").unlink(missing_ok=True)
    use_up(volume, "more")
    if when == "closed":
        await cache.open()
    assert len(await there(cache, names)) == len(names)
    assert await cache.clear() == len(names)
    assert await there(cache, names) == []
    await put(cache, range(3), size)
    assert await there(cache, names) == [0, 1, 2]
    await cache.aclose()


def test_a_pipe_in_place_of_the_order_holds_nobody_up(tmp_path):
    """What is no plain file says nothing, and is written by nobody."""
    room = Room(tmp_path, 2**20)
    room.prepare()
    room.move(7)
    order = tmp_path / ".asynccache" / "order"
    order.unlink()
    os.mkfifo(order)
    room.move(8)
    assert room.place() == 8
