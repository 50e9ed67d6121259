"""What a swarm notices when its folder fails: nothing but the price. Figures tell what happened."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing, contextmanager

import pytest

from asynccache import MISSING, Cache, ReplayMiss, StoreRefusedError
from asynccache.core.engine import Engine
from asynccache.stores.disk import opening
from tests.helpers import mounts
from tests.helpers.inside import callers_of, engine_of
from tests.helpers.mounts import ROOT, mount, unmount

CALLERS = 50  # at once, on
QUESTIONS = 5
SIZES = {"row": 20_000, "file": 400_000}  # bytes of an answer; the larger has a file of its own

pytestmark = pytest.mark.skipif(
    os.name != "posix", reason="it is about folders, permissions and mounts of POSIX"
)


class Upstream:
    """Answers questions at a price, once all callers have come. Answers don't compress."""

    def __init__(self, size="row"):
        self.size = SIZES[size]
        self.calls = 0
        self.engine: Engine
        self.crowded = False

    def answer(self, question):
        """What the answer to a question is."""
        return hashlib.shake_128(str(question).encode()).digest(self.size)

    def creator(self, question):
        """A call for one question."""

        async def create():
            self.calls += 1
            # What isn't stored is only there for those who came before the flight's end.
            while not self.crowded:
                callers = callers_of(self.engine)
                self.crowded = callers == CALLERS
                await asyncio.sleep(0)
            return self.answer(question)

        return create


async def swarm(cache, upstream, name="first"):
    """Ask questions from many callers at once, check every answer, and return what was paid."""
    before = upstream.calls
    upstream.engine, upstream.crowded = engine_of(cache), False
    asked = [(name, n % QUESTIONS) for n in range(CALLERS)]
    answers = await asyncio.gather(
        *(cache.get_or_create(question, upstream.creator(question)) for question in asked)
    )
    assert answers == [upstream.answer(question) for question in asked]
    return upstream.calls - before


async def stored(cache):
    """Wait until all answers are stored, or were not."""
    engine = engine_of(cache)
    while under_way := list(engine._flying):
        await asyncio.wait(under_way)


async def works(cache, upstream, name):
    """Check that what is asked for anew is paid once and then stored."""
    assert await swarm(cache, upstream, name) == QUESTIONS
    await stored(cache)
    assert await swarm(cache, upstream, name) == 0


def contents(folder):
    """All that lies in a folder, with its bytes and modes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.is_file() and path.read_bytes())
        for path in folder.rglob("*")
    }


@pytest.fixture
def island(tmp_path):
    """A file system of one megabyte."""
    with mounts.island(tmp_path / "island", size="1m") as place:
        yield place


@contextmanager
def unwritable(folder):
    """Make a folder read-only, also for root, and also while files in it are open."""
    if ROOT:
        # A read-only view on top of it: remounting fails while a file is open for writing.
        if wrong := mount("--bind", folder, folder):
            pytest.skip(
                "only a mount makes a folder read-only for root, in a container one with"
                f" CAP_SYS_ADMIN: {wrong}"
            )
        try:
            assert not mount("-o", "remount,bind,ro", folder)
            yield
        finally:
            unmount(folder)
        return
    modes = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
    for path in modes:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


LIMITED = """
    import asyncio, resource, sys
    from asynccache import Cache
    from tests.stores.disk.test_failures import QUESTIONS, Upstream, stored, swarm, works

    async def main():
        async with Cache.disk(cache_path_root=sys.argv[1]) as cache:
            row, file = Upstream("row"), Upstream("file")
            await works(cache, row, "before")
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
            for n in range(4):
                for upstream in (row, file):
                    assert await swarm(cache, upstream, f"full{n} {upstream.size}") == QUESTIONS
                    await stored(cache)
            assert await swarm(cache, row, "before") == 0
            stats = cache.stats()
            assert set(stats.store_errors) == {"full"}, stats
            assert stats.not_stored["store"] >= 4 * QUESTIONS, stats
            assert set(stats.not_stored) == {"store"} and stats.breaker == "closed", stats
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            await works(cache, row, "after")
            await works(cache, file, "after, in files")
            assert cache.stats().store_errors == stats.store_errors
        async with cache:
            assert await swarm(cache, row, "before") == await swarm(cache, row, "after") == 0

    asyncio.run(main())
"""


def test_a_file_size_limit_costs_only_what_is_not_stored(tmp_path):
    """Beyond RLIMIT_FSIZE each answer comes and is paid once; lifted, answers are stored again."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), str(tmp_path / "cache")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("size", SIZES)
async def test_a_tiny_disk_costs_only_what_is_not_stored(island, size):
    """On a tiny disk answers come and are paid once; with more room, all is stored."""
    upstream = Upstream(size)
    async with Cache.disk(cache_path_root=island / "cache") as cache:
        for n in range(20):  # 2 MB in rows, 40 in files: one at a time fits, if at all
            assert await swarm(cache, upstream, n) == QUESTIONS
            await stored(cache)
        stats = cache.stats()
        assert stats.stored + stats.not_stored.get("store", 0) == 20 * QUESTIONS
        assert stats.breaker == "closed"
        if size == "row":
            assert stats.store["evicted"] > 0
            assert stats.store_errors == {}
            assert await swarm(cache, upstream, 19) == 0
        else:
            assert set(stats.store_errors) <= {"full"}
        assert not mount("-o", "remount,size=40m", island)
        await works(cache, upstream, "after")
        assert cache.stats().store_errors == stats.store_errors
    async with cache:
        assert await swarm(cache, upstream, "after") == 0


@pytest.mark.parametrize("size", SIZES)
async def test_a_folder_made_read_only_while_open_goes_on(tmp_path, size):
    """Made read-only under open files, a folder still takes rows; new files are only counted."""
    upstream = Upstream(size)
    folder = tmp_path / "cache" / "42"
    async with Cache.disk(cache_path_root=tmp_path / "cache") as cache:
        await works(cache, upstream, "before")
        with unwritable(folder):
            assert await swarm(cache, upstream, "before") == 0
            assert await swarm(cache, upstream, "meanwhile") == QUESTIONS
            await stored(cache)
            stats = cache.stats()
            if size == "file":
                assert stats.not_stored == {"store": QUESTIONS}
                assert set(stats.store_errors) == {"readonly"}
            else:
                assert (stats.not_stored, stats.store_errors) == ({}, {})
        await works(cache, upstream, "after")
        assert cache.stats().store_errors == stats.store_errors
        assert await swarm(cache, upstream, "before") == 0


@pytest.mark.parametrize("size", SIZES)
async def test_a_folder_found_read_only_is_read(tmp_path, size):
    """Opened where nothing can be written, a cache reads; writable and reopened, it writes."""
    upstream = Upstream(size)
    cache = Cache.disk(cache_path_root=tmp_path / "cache")
    async with cache:
        await works(cache, upstream, "before")
    with unwritable(tmp_path / "cache"):
        before = contents(tmp_path)
        async with cache:
            assert await swarm(cache, upstream, "before") == 0
            assert await swarm(cache, upstream, "meanwhile") == QUESTIONS
            await stored(cache)
            stats = cache.stats()
            assert stats.not_stored == {"store": QUESTIONS}
            assert set(stats.store_errors) == {"readonly"}
            assert not await cache.set("key", 1)
        assert contents(tmp_path) == before
    async with cache:
        await works(cache, upstream, "after")
        assert await swarm(cache, upstream, "before") == 0


@pytest.mark.parametrize("mode", ["replay", "read_only"])
async def test_a_read_only_folder_serves_readers_without_a_trace(tmp_path, mode):
    """In replay and read_only hits are served from a folder that can't be written, and none is."""
    upstream = Upstream()
    async with Cache.disk(cache_path_root=tmp_path / "cache") as cache:
        await works(cache, upstream, "before")
    with unwritable(tmp_path / "cache"):
        before = contents(tmp_path)
        async with Cache.disk(cache_path_root=tmp_path / "cache", mode=mode) as cache:
            assert await swarm(cache, upstream, "before") == 0
            if mode == "replay":
                with pytest.raises(ReplayMiss):
                    await swarm(cache, upstream, "new")
            else:
                assert await swarm(cache, upstream, "new") == QUESTIONS
            assert not await cache.set("key", 1)
            assert cache.stats().store_errors == {}
        assert contents(tmp_path) == before


async def test_a_folder_that_another_process_prepares_for_ever_is_passed_by(tmp_path, monkeypatch):
    """A process that stands still in the middle of opening keeps no other from working."""
    import fcntl  # which Windows, where this file is only collected, doesn't have

    async def seven():
        return 7

    monkeypatch.setattr(opening, "_PREPARING_SECONDS", 0.1)
    (tmp_path / "42").mkdir(0o700)
    other = os.open(tmp_path / "42", os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        async with Cache.disk(cache_path_root=tmp_path) as cache:
            assert await cache.get_or_create("key", seven) == 7
            assert cache.stats().store_errors.keys() == {"unavailable"}
    finally:
        os.close(other)
    async with Cache.disk(cache_path_root=tmp_path) as cache:
        assert await cache.set("key", 7)


@pytest.mark.parametrize("mode", ["replay", "read_only"])
async def test_readers_make_no_folder(tmp_path, mode):
    """In replay and read_only a folder that isn't there is an empty cache, and isn't made."""
    upstream = Upstream()
    async with Cache.disk(cache_path_root=tmp_path / "cache", mode=mode) as cache:
        if mode == "replay":
            with pytest.raises(ReplayMiss):
                await swarm(cache, upstream)
        else:
            assert await swarm(cache, upstream) == QUESTIONS
        assert await cache.get("key", MISSING) is MISSING
        assert cache.stats().store_errors == {}
    assert list(tmp_path.iterdir()) == []


def remove(folder, what):
    """Remove a part of a cache, as a careless hand would."""
    if what == "root":
        shutil.rmtree(folder.parent)
    elif what == "folder":
        shutil.rmtree(folder)
    elif what == "bodies":
        shutil.rmtree(folder / "bodies")
    elif what == "database and its log":
        for path in folder.glob("asynccache.db*"):
            path.unlink()
    else:
        (folder / what).unlink()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "what",
    ["asynccache.db", "database and its log", "leases.db", "bodies", "folder", "root"],
)
async def test_what_is_deleted_while_open_is_made_anew(tmp_path, what, size):
    """Whatever is deleted under an open cache, calls go on, and what they bring is stored."""
    upstream = Upstream(size)
    folder = tmp_path / "cache" / "42"
    # Nobody may have to wait for a lease to run out: this one never would.
    async with Cache.disk(cache_path_root=tmp_path / "cache", lease_ttl=3600) as cache:
        await works(cache, upstream, "before")
        remove(folder, what)
        assert await swarm(cache, upstream, "meanwhile") == QUESTIONS
        await stored(cache)
        await works(cache, upstream, "after")
        lost = what not in {"leases.db", *(["bodies"] if size == "row" else [])}
        assert await swarm(cache, upstream, "before") == (QUESTIONS if lost else 0)
        stats = cache.stats()
        assert set(stats.store_errors) <= {"unavailable"}
        assert stats.not_stored.get("store", 0) <= QUESTIONS  # those that were on their way
        assert stats.breaker == "closed"
    async with cache:
        assert await swarm(cache, upstream, "after") == 0


@pytest.mark.parametrize("size", SIZES)
async def test_something_in_the_folders_place_is_left_alone(tmp_path, size):
    """With a file where the folder was, calls go on uncached; once it is gone, all works again."""
    upstream = Upstream(size)
    folder = tmp_path / "cache" / "42"
    async with Cache.disk(cache_path_root=tmp_path / "cache") as cache:
        await works(cache, upstream, "before")
        shutil.rmtree(folder)
        folder.write_text("mine")
        assert await swarm(cache, upstream, "meanwhile") == QUESTIONS
        await stored(cache)
        stats = cache.stats()
        assert stats.not_stored == {"store": QUESTIONS}
        assert set(stats.store_errors) == {"refused"}
        assert folder.read_text() == "mine"
        folder.unlink()
        await works(cache, upstream, "after")


GARBAGE = {
    "noise": lambda found: hashlib.shake_128(b"noise").digest(len(found)),
    "text": lambda found: b"not a database\n" * 1000,
    "a word": lambda found: b"mine",
    "zeros": lambda found: bytes(len(found)),
    "a torn header": lambda found: found[:50] + bytes(50) + found[100:],
    "half a page": lambda found: found[:2000],
}


@pytest.mark.parametrize("when", ["open", "closed"])
@pytest.mark.parametrize("garbage", GARBAGE)
async def test_damaged_leases_are_made_anew(tmp_path, garbage, when):
    """Leases, which a power cut may damage, are made anew: calls are made once, and stored."""
    path = tmp_path / "cache" / "42" / "leases.db"
    cache = Cache.disk(cache_path_root=tmp_path / "cache", lease_ttl=3600)
    await cache.open()
    await works(cache, Upstream(), "before")
    if when == "closed":
        await cache.aclose()
    path.write_bytes(GARBAGE[garbage](path.read_bytes()))
    if when == "closed":
        await cache.open()
    upstream = Upstream()
    assert await swarm(cache, upstream, "before") == 0
    await works(cache, upstream, "after")
    assert cache.stats().store_errors == {}
    await cache.aclose()
    if when == "closed":
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM leases").fetchall() == [(0,)]


@pytest.mark.parametrize("mode", ["read_write", "replay"])
@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_is_refused_and_left_as_it_is(tmp_path, garbage, mode):
    """A database overwritten between two runs is refused with what to do, and left as it is."""
    name = "asynccache.db"
    path = tmp_path / "cache" / "42" / name
    async with Cache.disk(cache_path_root=tmp_path / "cache") as cache:
        await works(cache, Upstream(), "before")
    written = GARBAGE[garbage](path.read_bytes())
    path.write_bytes(written)
    cache = Cache.disk(cache_path_root=tmp_path / "cache", mode=mode)
    with pytest.raises(StoreRefusedError, match=f"{name} .*: move it away"):
        await cache.open()
    assert not cache.is_open
    assert path.read_bytes() == written
    path.unlink()  # as it said
    async with Cache.disk(cache_path_root=tmp_path / "cache") as cache:
        await works(cache, Upstream(), "after")


@pytest.mark.parametrize("when", ["open", "closed"])
async def test_damage_inside_the_database_costs_calls_only(tmp_path, when):
    """Pages overwritten behind a sound header are refused at open; while open, calls go on."""
    upstream = Upstream()
    path = tmp_path / "cache" / "42" / "asynccache.db"
    cache = Cache.disk(cache_path_root=tmp_path / "cache")
    async with cache:
        await works(cache, upstream, "before")
    if when == "open":
        await cache.open()
    noise = hashlib.shake_128(b"noise").digest(path.stat().st_size - 4096)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(noise)
    if when == "closed":
        with pytest.raises(StoreRefusedError, match=r"damaged.*: move it away"):
            await cache.open()
    else:
        assert await swarm(cache, upstream, "meanwhile") == QUESTIONS
        await stored(cache)
        assert set(cache.stats().store_errors) == {"refused"}
        assert cache.stats().not_stored == {"store": QUESTIONS}
        await cache.aclose()
    for each in path.parent.glob("asynccache.db*"):
        each.unlink()
    async with cache:
        await works(cache, upstream, "after")


@pytest.mark.parametrize("when", ["open", "closed"])
@pytest.mark.parametrize("damage", ["gone", "short", "flipped", "a folder", "unreadable"])
async def test_damaged_body_files_are_misses(tmp_path, damage, when):
    """A body's file that is gone, cut, changed or no file is a miss, paid once and stored anew."""
    upstream = Upstream("file")
    cache = Cache.disk(cache_path_root=tmp_path / "cache")
    await cache.open()
    await works(cache, upstream, "before")
    if when == "closed":
        await cache.aclose()
    paths = list((tmp_path / "cache" / "42" / "bodies").iterdir())
    assert len(paths) == QUESTIONS
    for path in paths:
        if damage == "short":
            os.truncate(path, SIZES["file"] // 2)
        elif damage == "flipped":
            with path.open("r+b") as file:
                file.seek(1000)
                file.write(b"flip")
        elif damage == "unreadable":
            path.chmod(0)
        else:
            path.unlink()
            if damage == "a folder":
                path.mkdir()
    if when == "closed":
        await cache.open()
    paid = await swarm(cache, upstream, "before")
    assert paid == (0 if damage == "unreadable" and ROOT else QUESTIONS)
    await stored(cache)
    assert await swarm(cache, upstream, "before") == 0
    stats = cache.stats()
    assert stats.not_stored == {}
    assert set(stats.flaws) <= {"corrupt"}
    assert bool(stats.flaws) == (damage == "flipped")
    await cache.aclose()
    async with cache:
        assert await swarm(cache, upstream, "before") == 0
