"""The disk store with many seeds: what is open at once is bounded, however many there are."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from asynccache import Cache, options
from asynccache.keys.key import Namespace
from asynccache.stores.base import Claim
from asynccache.stores.disk import DiskStore, commit, session, writer
from asynccache.testing.records import PATIENCE, body_of, key_of, record_of
from tests.helpers.folders import taken

FILES = Path("/proc/self/fd")
SPARE = 12  # what the evictor and one that closes hold for a moment; five seeds hold more

pytestmark = pytest.mark.skipif(
    not FILES.is_dir(), reason="what is open is read from /proc/self/fd, which is Linux's"
)


def opened():
    """How many files this process has open."""
    return len(list(FILES.iterdir()))


async def use(store, seed):
    """Do with a seed all that takes a connection."""
    namespace = Namespace(str(seed))
    await store.set_many(namespace, [record_of(seed)])
    if seed % 20 == 0:
        await store.set_many(namespace, [record_of((seed, 1), size=300_000)])
    claim = Claim(key=key_of("call"), token=os.urandom(16))
    await store.claim(namespace, [claim], 1)
    await store.release(namespace, [])
    assert list(await store.get_many(namespace, [key_of(seed)])) == [body_of(seed)]
    assert store.peek(namespace, key_of(seed)) == body_of(seed)


async def test_eighty_seeds_cost_what_ten_do(tmp_path):
    """Files stay as few as with ten seeds; each seed answers again, and nothing is kept of one."""
    store = DiskStore(tmp_path / "cache", "0")
    await store.open()
    for seed in range(10):
        await use(store, seed)
    ten = opened()
    for seed in (*range(10, 80), *range(0, 80, 20)):
        await use(store, seed)
        assert opened() <= ten + SPARE
    with anyio.fail_after(PATIENCE):
        while opened() > ten:
            await anyio.sleep(0.01)
    opened_session: Any = store._session
    assert len(store._folders) <= session._FOLDERS
    assert len(opened_session.writer._connections) <= commit._CONNECTIONS
    assert len(opened_session.leaser._connections) <= commit._CONNECTIONS
    turns = itertools.count()  # what is opened lets go of what was noted
    with anyio.fail_after(PATIENCE):
        while len(opened_session.touched) > writer._SEEDS:
            await use(store, next(turns) % 80)
            await anyio.sleep(0.1)
    before = opened()
    await store.aclose()
    assert opened() < before


async def test_a_cache_serves_many_seeds(tmp_path):
    """Hits, joined calls and values work for more seeds than are open at once, in any order."""
    paid = []

    def creator(seed):
        async def create():
            paid.append(seed)
            return f"answer {seed}"

        return create

    async with Cache.disk(cache_path_root=tmp_path / "cache") as cache:
        for _ in range(3):
            async with anyio.create_task_group() as group:
                for seed in range(40):

                    async def ask(seed):
                        with options(cache_seed=seed):
                            got = await cache.get_or_create("key", creator(seed))
                        assert got == f"answer {seed}"

                    group.start_soon(ask, seed)
        assert sorted(paid) == list(range(40))
        assert cache.stats().store_errors == {}


async def test_many_siblings_are_evicted_from_with_few_files(tmp_path):
    """Folders that aren't in use are opened one at a time, and empty ones take no room."""
    root, siblings = tmp_path / "cache", 300
    store = DiskStore(root, "made")
    await store.open()
    await store.set_many(Namespace("made"), [record_of("a", size=20_000)])
    await store.aclose()
    for n in range(siblings):
        shutil.copytree(root / "made", root / f"sibling {n}")
    before = taken(root)
    limit = before // 4
    store = DiskStore(root, "made", max_bytes=limit)
    await store.open()
    fewest = most = opened()
    room = cast("Any", store._session).room
    with anyio.fail_after(PATIENCE):
        while room.look().size > limit:
            for _ in range(100):
                most = max(most, opened())
                await anyio.sleep(0.001)
    assert most - fewest <= 12
    await store.aclose()
    left = [path for path in root.glob("*/asynccache.db") if path.parent.name != "made"]
    assert 0 < len(left) < siblings // 3
