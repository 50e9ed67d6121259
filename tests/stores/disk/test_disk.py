"""The disk store beyond the contract: its files, its groups, its inline reads, its leases."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time

import pytest

from asynccache import Cache
from asynccache.errors import StoreFullError, StoreUnavailableError
from asynccache.keys.key import Namespace
from asynccache.stores.base import UNKNOWN, Claim, Lease, Record
from asynccache.stores.disk import (
    DiskStore,
    commit,
    inline,
    opening,
)
from asynccache.stores.disk.database import connect
from asynccache.stores.disk.folder import Folder
from asynccache.testing import ManualClock
from asynccache.testing.records import body_of, key_of, record_of

NS = Namespace("42")
LARGE = 400_000  # bytes: a file of its own


@pytest.fixture
def clock():
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
async def store(tmp_path, clock):
    """An open store in a folder that nobody made yet."""
    store = DiskStore(tmp_path / "cache", clock=clock)
    await store.open()
    yield store
    await store.aclose()


def bodies(store):
    """The files that large bodies lie in."""
    return sorted(path.name for path in (store._root / "42" / "bodies").iterdir())


async def look(store, *names):
    """What is there for each name."""
    return list(await store.get_many(NS, [key_of(name) for name in names]))


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
async def test_all_is_private_whatever_the_umask(tmp_path, umask):
    """Folders are 0700 and files 0600, whatever the process' umask."""
    before = os.umask(umask)
    try:
        store = DiskStore(tmp_path / "made" / "cache")
        await store.open()
        await store.set_many(NS, [record_of("a"), record_of("b", size=LARGE)])
        await store.claim(NS, [Claim(key=key_of("a"), token=bytes(16))], 1)
        found = [tmp_path / "made", *(tmp_path / "made").rglob("*")]
        modes = {str(path): stat.S_IMODE(path.stat().st_mode) for path in found}
    finally:
        os.umask(before)
        await store.aclose()
    assert {path.name for path in found} >= {"asynccache.db", "asynccache.db-wal", "leases.db-shm"}
    assert len(list((tmp_path / "made/cache/42/bodies").iterdir())) == 1
    for path in found:
        assert modes[str(path)] == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("there", ["nothing", "root", "seed"])
@pytest.mark.parametrize("gitignore", [True, False])
async def test_what_was_made_is_kept_out_of_git(tmp_path, there, gitignore):
    """A .gitignore holding * goes into the topmost folder that was made, and into no other."""
    root = tmp_path / "cache"
    if there != "nothing":
        (root / "42" if there == "seed" else root).mkdir(0o700, parents=True)
        root.chmod(0o700)
        (root / "mine.py").write_text("mine")
    async with opened(DiskStore(root, gitignore=gitignore)) as store:
        await store.set_many(NS, [record_of("a")])
    found = {path.parent.name: path.read_text() for path in root.rglob(".gitignore")}
    assert found.pop(".asynccache") == "*\n"  # nothing there is anybody's answer
    where = {"nothing": {"cache": "*\n"}, "root": {"42": "*\n"}, "seed": {}}
    assert found == (where[there] if gitignore else {})


async def test_sets_of_a_turn_are_one_transaction(store):
    """A thousand concurrent sets are committed as one or two transactions, from two loops too."""
    before = store._session.writer.transactions

    async def work(name):
        await asyncio.gather(*(store.set_many(NS, [record_of((name, n))]) for n in range(500)))

    thread = threading.Thread(target=asyncio.run, args=(work("there"),))
    thread.start()
    await work("here")
    await asyncio.to_thread(thread.join)
    assert store._session.writer.transactions - before <= 3
    names = [(name, n) for name in ("here", "there") for n in range(500)]
    assert await look(store, *names) == [body_of(name) for name in names]


async def test_a_bad_row_fails_alone(store):
    """What can't be written fails its own set; the others of its group are written."""
    bad = Record(key=key_of("bad"), body=b"x", expires=2**70)
    results = await asyncio.gather(
        store.set_many(NS, [record_of("a")]),
        store.set_many(NS, [bad]),
        store.set_many(NS, [record_of("b")]),
        return_exceptions=True,
    )
    assert results[0] == results[2] == [True]
    assert isinstance(results[1], StoreUnavailableError)
    assert await look(store, "a", "bad", "b") == [body_of("a"), None, body_of("b")]


async def test_a_full_queue_drops_and_counts(store, monkeypatch):
    """More bytes than the queue takes are refused at once, and counted."""
    monkeypatch.setattr(commit, "_QUEUE_BYTES", 1000)
    results = await asyncio.gather(
        *(store.set_many(NS, [record_of(n, size=600)]) for n in range(3)), return_exceptions=True
    )
    assert results[0] == [True]
    assert [type(result) for result in results[1:]] == [StoreFullError] * 2
    assert store.counters()["dropped"] == 2


async def test_peek_says_unknown_for_what_a_worker_must_read(store):
    """Inline reads serve up to 64 KiB; larger rows and files are left to a worker."""
    sizes = {"small": 60_000, "row": 100_000, "file": LARGE}
    await store.set_many(NS, [record_of(name, size=size) for name, size in sizes.items()])
    await look(store, "small")
    peeked = {name: store.peek(NS, key_of(name)) for name in (*sizes, "none")}
    assert peeked == {
        "small": body_of("small", 60_000), "row": UNKNOWN, "file": UNKNOWN, "none": None
    }  # fmt: skip
    assert await asyncio.to_thread(store.peek, NS, key_of("small")) is UNKNOWN


async def test_a_slow_read_sends_the_next_to_a_worker(store, monkeypatch):
    """After a read that waited for the disk, workers read for a while; then peek answers again."""
    await store.set_many(NS, [record_of("a")])
    await look(store, "a")
    now = 0.0
    monkeypatch.setattr(inline, "_SLOW_SECONDS", -1.0)
    monkeypatch.setattr(inline, "blocks_read", object)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert store.peek(NS, key_of("a")) == body_of("a")
    monkeypatch.undo()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    await look(store, "a")
    assert store.peek(NS, key_of("a")) is UNKNOWN
    now = 1.5
    await look(store, "a")
    assert store.peek(NS, key_of("a")) == body_of("a")


async def test_peek_pins_no_snapshot(store):
    """An inline read leaves no cursor half-read: the log can be folded in completely after it."""
    await store.set_many(NS, [record_of(n) for n in range(100)])
    await look(store, 0)
    assert store.peek(NS, key_of(1)) == body_of(1)
    connection = sqlite3.connect(store._root / "42" / "asynccache.db", timeout=0)
    busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()
    assert busy == 0


async def test_keys_that_share_64_bits_are_told_apart(store):
    """A row whose digest differs is absent to the other key, which may take its place."""
    one = bytes(8) + bytes(24)
    other = bytes(8) + bytes([1]) * 24
    await store.set_many(NS, [Record(key=one, body=b"one")])
    assert list(await store.get_many(NS, [other, one])) == [None, b"one"]
    assert store.peek(NS, other) is None
    assert await store.delete_many(NS, [other]) == 0
    assert list(await store.set_many(NS, [Record(key=other, body=b"2", if_absent=True)])) == [True]
    assert list(await store.get_many(NS, [other, one])) == [b"2", None]


async def test_large_bodies_have_files_that_go_with_their_rows(store):
    """Replaced, deleted, cleared and refused large bodies leave no file."""
    await store.set_many(NS, [record_of(name, size=LARGE) for name in "abc"])
    assert len(bodies(store)) == 3
    record = Record(key=key_of("a"), body=bytes(LARGE), if_absent=True)
    assert list(await store.set_many(NS, [record])) == [False]
    await store.set_many(NS, [record_of("a"), record_of("b", size=LARGE + 1)])
    assert len(bodies(store)) == 2
    assert await look(store, "a", "b") == [body_of("a"), body_of("b", LARGE + 1)]
    assert await store.delete_many(NS, [key_of("b")]) == 1
    assert await store.clear(NS) == 2
    assert bodies(store) == []


@pytest.mark.parametrize("damage", ["gone", "short"])
async def test_a_damaged_body_is_absence(store, damage):
    """A missing or short file is absence, for heads too."""
    await store.set_many(NS, [record_of("a", size=LARGE)])
    path = store._root / "42" / "bodies" / bodies(store)[0]
    if damage == "gone":
        path.unlink()
    else:
        os.truncate(path, LARGE // 2)
    assert await look(store, "a") == [None]
    assert list(await store.head_many(NS, [key_of("a")])) == [None]


@pytest.mark.parametrize("what", ["database", "folder", "replaced"])
async def test_a_deleted_database_is_made_anew(store, what):
    """After a deletion, reads miss instead of raising, and what is set then survives."""
    await store.set_many(NS, [record_of("a"), record_of("b", size=LARGE)])
    await look(store, "a")
    folder = store._root / "42"
    if what == "folder":
        for path in [*(folder / "bodies").iterdir(), *folder.glob("*.db*")]:
            path.unlink()
        (folder / "bodies").rmdir()
        folder.rmdir()
    else:
        (folder / "asynccache.db").unlink()
    if what == "replaced":
        opening.prepare(folder / "asynccache.db", opening.ENTRIES)
    assert store.peek(NS, key_of("a")) in (body_of("a"), None, UNKNOWN)
    await store.set_many(NS, [record_of("c")])
    await store.set_many(NS, [record_of("d", size=LARGE)])
    assert await look(store, "a", "c", "d") == [None, body_of("c"), body_of("d", LARGE)]
    assert store.peek(NS, key_of("c")) == body_of("c")
    assert (await store.claim(NS, [Claim(key=key_of("a"), token=bytes(16))], 1))[0].granted
    await store.aclose()
    await store.open()
    assert await look(store, "c", "d") == [body_of("c"), body_of("d", LARGE)]


async def test_a_lost_database_is_noticed_by_reads(store):
    """Reads alone notice too that the database is another one."""
    await store.set_many(NS, [record_of("a")])
    (store._root / "42" / "asynccache.db").unlink()
    assert await look(store, "a") == [None]


async def test_a_lost_database_is_noticed_by_inline_reads(tmp_path, monkeypatch):
    """Inline reads ask now and then whether the database is still the folder's."""
    assert inline._LOOK_SECONDS <= 0.5
    monkeypatch.setattr(inline, "_LOOK_SECONDS", 0)
    async with Cache.disk(cache_path_root=tmp_path) as cache:
        await cache.set("a", 1)
        for _ in range(3):
            assert await cache.get("a") == 1
        shutil.rmtree(tmp_path / "42")
        async with Cache.disk(cache_path_root=tmp_path) as other:
            assert await cache.get("a") is None
            await other.set("a", 2)
            assert await cache.get("a") == 2
            await other.clear()
            assert await cache.get("a") is None


async def test_claims_look_for_entries_of_all_kinds(store):
    """Who is granted a lease gets the entry in the same step, out of a row or a file."""
    sizes = {"row": 100, "file": LARGE, "none": None}
    await store.set_many(NS, [record_of(n, size=s) for n, s in sizes.items() if s is not None])
    claims = [Claim(key=key_of(name), token=os.urandom(16)) for name in sizes]
    claimed = await store.claim(NS, claims, 1)
    assert [answer.granted for answer in claimed] == [True] * 3
    assert [answer.entry for answer in claimed] == [body_of("row"), body_of("file", LARGE), None]
    again = await store.claim(NS, [Claim(key=key_of("row"), token=os.urandom(16))], 1)
    assert again[0].holder == Lease(key_of("row"), claims[0].token, 0)
    assert again[0].entry is None


async def test_claims_of_a_turn_see_each_other(store):
    """Of a hundred claims of one key in one turn, one is granted; they are one transaction."""
    claims = [Claim(key=key_of("a"), token=os.urandom(16)) for _ in range(100)]
    answers = await asyncio.gather(*(store.claim(NS, [claim], 1) for claim in claims))
    granted = [claim for claim, (answer,) in zip(claims, answers, strict=True) if answer.granted]
    assert len(granted) == 1
    assert {answer.holder.token for (answer,) in answers if not answer.granted} == {
        granted[0].token
    }


async def test_leases_nobody_remembers_are_purged(store, clock):
    """Leases untouched for more than a day are gone after the next opening."""
    token = bytes(16)
    await store.claim(NS, [Claim(key=key_of("old"), token=token)], 1)
    clock.advance(24 * 3600)
    await store.claim(NS, [Claim(key=key_of("new"), token=token)], 1)
    clock.advance(10)
    await store.aclose()
    await store.open()
    leases = [Lease(key_of("old"), token), Lease(key_of("new"), token)]
    assert list(await store.renew(NS, leases, 1)) == [False, True]


async def test_without_wal_the_store_works_through_workers(tmp_path, monkeypatch, caplog):
    """On a network file system a rollback journal does, said once, with no inline reads."""
    monkeypatch.setattr(opening, "on_network", lambda _: True)
    async with opened(DiskStore(tmp_path / "cache")) as store:
        await store.set_many(NS, [record_of("a"), record_of("b", size=LARGE)])
        assert await look(store, "a", "b") == [body_of("a"), body_of("b", LARGE)]
        assert store.peek(NS, key_of("a")) is UNKNOWN
        assert (await store.claim(NS, [Claim(key=key_of("a"), token=bytes(16))], 1))[0].granted
        assert not list((tmp_path / "cache" / "42").glob("*-wal"))
    assert len([r for r in caplog.records if "write-ahead log" in r.getMessage()]) == 1


async def test_the_last_to_close_leaves_a_folded_database(store):
    """Closing folds the log into the database: a store at rest is one file and its leases."""
    await store.set_many(NS, [record_of("a")])
    await look(store, "a")
    store.peek(NS, key_of("a"))
    await store.aclose()
    left = {path.name for path in (store._root / "42").iterdir()}
    assert left == {"asynccache.db", "bodies"}


async def test_closed_stores_say_so(store):
    """Calls on a closed store raise one error; peek only doesn't know."""
    await store.aclose()
    assert store.peek(NS, key_of("a")) is UNKNOWN
    for call in (
        store.get_many(NS, [key_of("a")]),
        store.set_many(NS, [record_of("a")]),
        store.clear(NS),
        store.scan(NS),
        store.claim(NS, [Claim(key=key_of("a"), token=bytes(16))], 1),
    ):
        with pytest.raises(StoreUnavailableError, match="open it first"):
            await call


async def test_closing_writes_what_is_queued(store):
    """What was queued when the store is closed is written before it is."""
    task = asyncio.ensure_future(store.set_many(NS, [record_of("a")]))
    await asyncio.sleep(0)
    await store.aclose()
    assert await task == [True]
    await store.open()
    assert await look(store, "a") == [body_of("a")]


async def test_large_scans_and_clears_go_in_pages(store):
    """Scanning and clearing more than a page sees each entry once."""
    other = Namespace("42", "acme")
    await store.set_many(NS, [record_of(n) for n in range(2500)])
    await store.set_many(other, [record_of(n) for n in range(10)])
    seen, cursor = [], None
    while True:
        page = await store.scan(NS, cursor)
        seen += page.envelopes
        if (cursor := page.cursor) is None:
            break
    assert len(seen) == len(set(seen)) == 2500
    assert await store.clear(NS) == 2500
    assert len((await store.scan(other)).envelopes) == 10


class opened:  # noqa: N801 - reads like contextlib's
    """Open a store for a block."""

    def __init__(self, store, **how):
        self.store, self.how = store, how

    async def __aenter__(self):
        await self.store.open(**self.how)
        return self.store

    async def __aexit__(self, *_):
        await self.store.aclose()


async def test_a_tilde_is_the_users_home(tmp_path, monkeypatch):
    """A root below "~" lies in the home, also in a URL; one of nobody's home is refused."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    async with Cache.disk(cache_path_root="~/cache"), Cache.from_url("disk:~/other"):
        pass
    assert (tmp_path / "home" / "cache" / "42").is_dir()
    assert (tmp_path / "home" / "other" / "42").is_dir()
    assert not (tmp_path / "~").exists()
    with pytest.raises(ValueError, match=r"\./~nobody-there/cache"):
        Cache.disk(cache_path_root="~nobody-there/cache")


async def test_a_root_is_where_it_was_when_the_store_was_made(tmp_path, monkeypatch):
    """A relative root is that of the working directory of then; an absolute one needs none."""
    for name in ("then", "now"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "then")
    relative = DiskStore("cache/../cache")
    monkeypatch.chdir(tmp_path / "now")
    (tmp_path / "now").rmdir()
    absolute = DiskStore(tmp_path / "absolute")
    for store in (relative, absolute):
        await store.open()
        await store.aclose()
    assert (tmp_path / "then/cache/42/asynccache.db").exists()
    assert (tmp_path / "absolute/42/asynccache.db").exists()


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 2),
    reason="Python 3.12.0 and 3.12.1 start no thread any more once `atexit` has its turn",
)
def test_a_cache_that_is_opened_when_python_ends_is_passed_by(tmp_path):
    """Python starts no workers any more then; the call is made, and nothing is raised."""
    script = """
import atexit, sys
from asynccache import Cache

with Cache.disk(cache_path_root=sys.argv[1]) as cache:
    cache.get("key")  # as programs do that have begun before

def late():
    with Cache.disk(cache_path_root=sys.argv[1]) as cache:
        print(cache.get_or_create("key", lambda: 7))

atexit.register(late)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("7\n", 0), done.stderr


def test_a_database_that_another_is_making_is_nobodys_yet(tmp_path, monkeypatch):
    """All that tells whose a database is, is read of one state of it."""
    path = tmp_path / "asynccache.db"
    with contextlib.closing(sqlite3.connect(path)) as maker:
        maker.executescript("PRAGMA auto_vacuum=FULL; PRAGMA journal_mode=wal;")  # as it begins
    path.chmod(0o600)

    def watched(*args):
        connection = connect(*args)
        connection.set_trace_callback(make)
        return connection

    def make(statement):
        if "user_version" in statement:
            monkeypatch.setattr(opening, "connect", connect)
            opening._prepare(path, opening.ENTRIES, journal=False)

    monkeypatch.setattr(opening, "connect", watched)
    assert opening.inspect(path, opening.ENTRIES) is None
    assert opening.inspect(path, opening.ENTRIES) is True


def test_only_a_damaged_database_is_removed(tmp_path):
    """One that another process has made anew meanwhile stays."""
    path = tmp_path / "leases.db"
    path.touch(0o600)
    path.write_bytes(b"noise" * 1000)
    assert opening.remove_damaged(path, opening.LEASES)
    assert not path.exists()
    opening.prepare(path, opening.LEASES)
    made = path.stat().st_ino
    assert opening.remove_damaged(path, opening.LEASES)
    assert path.stat().st_ino == made


async def test_a_database_that_is_removed_while_it_is_read_is_made_anew(store, monkeypatch):
    """As the evictor does with one that is empty: the reader looks into the one that follows."""
    await store.set_many(NS, [record_of("a")])
    page = Folder.page

    def removed(folder, *args):
        monkeypatch.undo()
        folder.disconnect()
        for path in folder.database.parent.glob("*.db*"):
            path.unlink()
        return page(folder, *args)

    monkeypatch.setattr(Folder, "page", removed)
    assert list((await store.scan(NS)).envelopes) == []
