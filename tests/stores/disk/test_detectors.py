"""Detectors that refuse calls which block the loop: the disk store works beneath them."""

from __future__ import annotations

import asyncio
import logging
import os
import threading

import pytest

from asynccache import MISSING, Cache, SyncCache
from asynccache.stores.base import UNKNOWN
from asynccache.stores.disk import inline
from tests.helpers.detectors import ALLOWED, detecting
from tests.helpers.inside import store_of


@pytest.fixture(autouse=True)
def untold():
    """Have each test told anew."""
    inline.say_refused.cache_clear()


@pytest.fixture(params=ALLOWED)
def detector(request):
    """The name of a detector."""
    return request.param


async def made():
    """Make a value."""
    return {"answer": 1}


def told(caplog):
    """Return what was told of reads that were refused."""
    return [one.message for one in caplog.records if "refuses" in one.message]


async def test_a_cache_is_made_and_used_beneath_a_detector(detector, tmp_path, monkeypatch, caplog):
    """From making it to closing it, nothing is refused; a worker reads, and it is told once."""
    monkeypatch.chdir(tmp_path)
    large = os.urandom(400_000)
    with caplog.at_level(logging.WARNING, "asynccache"), detecting(detector):
        async with Cache.disk() as cache:
            for _ in range(4):
                assert await cache.get_or_create("made", made) == {"answer": 1}
            assert await cache.set("set", 1)
            assert await cache.set("large", large)
            for _ in range(3):
                assert await cache.get_many(["set", "large"]) == [1, large]
                assert await cache.get("set") == 1
            assert await cache.contains("set")
            assert await cache.delete("set")
            assert await cache.get("set", MISSING) is MISSING
            assert await cache.clear() == 2
            stats = cache.stats()
    assert (stats.misses, stats.hits, stats.store_errors) == (1, 3, {})
    assert len(told(caplog)) == 1
    assert (tmp_path / ".cache" / "42" / "asynccache.db").exists()


async def test_a_detector_that_is_switched_on_later(detector, tmp_path, caplog):
    """What was read inline before is read by a worker from then on, and refused once."""
    async with Cache.disk(cache_path_root=tmp_path) as cache:
        await cache.set("key", 1)
        await cache.get("key")
        store = store_of(cache)
        with detecting(detector):
            for _ in range(3):
                assert await cache.get("key") == 1
                assert await cache.get("none", MISSING) is MISSING
            reader = store._folders["42"].inline[threading.get_ident()]
            assert reader.peek(None, bytes(32)) is UNKNOWN  # without asking
    assert len(told(caplog)) == 1


def test_the_synchronous_view_beneath_a_detector(detector, tmp_path):
    """The background loop is a loop as well; its callers see nothing of a detector."""

    def use(cache: SyncCache):
        for _ in range(3):
            assert cache.get_or_create("key", lambda: 1) == 1
        return cache.stats()

    with detecting(detector), Cache.disk(cache_path_root=tmp_path) as cache:
        assert use(cache).hits == 2
        assert asyncio.run(asyncio.to_thread(use, cache)).store_errors == {}
