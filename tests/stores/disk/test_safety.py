"""What the disk store refuses and leaves alone: foreign, newer, unsafe, read-only places."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sqlite3
import subprocess

import pytest

from asynccache import Cache
from asynccache.errors import StoreReadOnlyError, StoreRefusedError
from asynccache.keys.key import Namespace
from asynccache.stores.base import UNKNOWN, Claim
from asynccache.stores.disk import DiskStore, opening
from asynccache.testing.records import body_of, key_of, record_of
from tests.helpers import mounts
from tests.helpers.mounts import ROOT

NS = Namespace("42")


def state(folder):
    """All that lies in a folder, with its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


async def fill(root):
    """Make a store with an entry in a row and one in a file."""
    store = DiskStore(root)
    await store.open()
    await store.set_many(NS, [record_of("a"), record_of("b", size=400_000)])
    (claimed,) = await store.claim(NS, [Claim(key=key_of("a"), token=bytes(16))], 1)
    assert claimed.granted
    await store.aclose()


async def refused(root, words, **how):
    """Open a store that must be refused, with these words, in one sentence."""
    store = DiskStore(root)
    with pytest.raises(StoreRefusedError, match=words) as caught:
        await store.open(**how)
    await store.aclose()
    assert "\n" not in str(caught.value)


async def read_without_a_trace(root):
    """Read a folder that others may have written to, which leaves it as it is."""
    before = state(root)
    store = DiskStore(root)
    await store.open(read_only=True)
    for _ in range(2):
        found = await store.get_many(NS, [key_of("a"), key_of("b"), key_of("c")])
        assert list(found) == [body_of("a"), body_of("b", 400_000), None]
    assert store.peek(NS, key_of("a")) == body_of("a")
    for size in (100, 400_000):
        with pytest.raises(StoreReadOnlyError):
            await store.set_many(NS, [record_of("c", size=size)])
    with pytest.raises(StoreReadOnlyError):
        await store.delete_many(NS, [key_of("a")])
    await store.aclose()
    assert state(root) == before


FOREIGN = {
    "newer": ("PRAGMA user_version = 99", "newer version of asynccache .*: upgrade"),
    "another's": ("PRAGMA application_id = 1", "not made by asynccache"),
    "a trigger": (
        "CREATE TRIGGER spy AFTER INSERT ON entries BEGIN SELECT 1; END",
        "trigger 'spy'",
    ),
    "a view": ("CREATE VIEW spy AS SELECT * FROM entries", "view 'spy'"),
    "a table": ("CREATE TABLE mine (a)", "table 'mine'"),
    "a column": ("ALTER TABLE entries ADD COLUMN mine", "table 'entries'"),
    "an index less": ("DROP INDEX entries_used", "lacks 'entries_used'"),
}


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("what", FOREIGN)
async def test_foreign_databases_are_left_untouched(tmp_path, what, read_only):
    """A database that isn't exactly ours is refused, byte for byte as it was."""
    statement, words = FOREIGN[what]
    await fill(tmp_path / "cache")
    connection = sqlite3.connect(tmp_path / "cache" / "42" / "asynccache.db")
    connection.execute(statement)
    connection.commit()
    connection.close()
    before = state(tmp_path)
    await refused(tmp_path / "cache", words, read_only=read_only)
    after = state(tmp_path)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("version", [1, opening._VERSION - 1])
async def test_an_older_format_is_told_from_a_damaged_one(tmp_path, version):
    """A folder of an older format is refused with what to do, before its tables are looked at."""
    await fill(tmp_path / "cache")
    connection = sqlite3.connect(tmp_path / "cache" / "42" / "asynccache.db")
    connection.execute("CREATE TABLE past (a)")  # what an older version may have had
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    before = state(tmp_path)
    await refused(tmp_path / "cache", "42 was written by an older version of asynccache .*: delete")
    assert state(tmp_path) == before


async def test_another_programs_database_stays_in_its_journal_mode(tmp_path):
    """A rollback-journal database of somebody else isn't switched to WAL, nor added to."""
    folder = tmp_path / "cache" / "42"
    folder.mkdir(0o700, parents=True)
    (tmp_path / "cache").chmod(0o700)
    connection = sqlite3.connect(folder / "asynccache.db")
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = state(folder)
    await refused(tmp_path / "cache", "not made by asynccache")
    assert state(folder) == before


async def test_no_database_at_all_is_refused(tmp_path):
    """A file that isn't a database is refused and left as it is."""
    await fill(tmp_path / "cache")
    (tmp_path / "cache" / "42" / "asynccache.db").write_bytes(b"not a database" * 1000)
    await refused(tmp_path / "cache", "move it away")
    found = (tmp_path / "cache" / "42" / "asynccache.db").read_bytes()
    assert found == b"not a database" * 1000


@pytest.mark.parametrize("what", ["", "42", "42/asynccache.db", "42/leases.db", "42/bodies"])
async def test_symbolic_links_are_refused(tmp_path, what):
    """A link in place of the root, the seed's folder, a database or the bodies is refused."""
    await fill(tmp_path / "cache")
    place = tmp_path / "cache" / what
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    await refused(tmp_path / "cache", "symbolic link")


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
@pytest.mark.parametrize("what", ["", "42", "42/bodies"])
async def test_folders_that_others_may_write_to_are_refused(tmp_path, what, mode):
    """Whoever may write to a folder could answer our calls: it is refused, with what to run."""
    await fill(tmp_path / "cache")
    (tmp_path / "cache" / what).chmod(mode)
    await refused(tmp_path / "cache", "chmod -R go-w")
    await read_without_a_trace(tmp_path / "cache")


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
@pytest.mark.parametrize("what", ["", "42", "42/asynccache.db", "42/bodies"])
async def test_what_others_own_is_refused(tmp_path, what):
    """What belongs to another user is refused for writing, and read all the same."""
    await fill(tmp_path / "cache")
    os.chown(tmp_path / "cache" / what, 12345, 0)
    await refused(tmp_path / "cache", "another user")
    await read_without_a_trace(tmp_path / "cache")


@pytest.mark.parametrize("mode", ["replay", "read_only"])
async def test_a_checkout_with_another_umask_is_replayed(tmp_path, mode):
    """Recordings that a container or a runner has checked out are there, in no mode that writes."""
    async with Cache.disk(cache_path_root=tmp_path / "cache") as cache:
        assert await cache.set_many({"row": "text", "file": os.urandom(400_000)}) == [True, True]
    for path in (tmp_path / "cache", *(tmp_path / "cache").rglob("*")):
        path.chmod(path.stat().st_mode | 0o070)
    async with Cache.disk(cache_path_root=tmp_path / "cache", mode=mode) as cache:
        assert [type(value) for value in await cache.get_many(["row", "file"])] == [str, bytes]
        assert not await cache.set("row", 1)
        assert cache.stats().store_errors == {}


PLAIN = ["", "42", "42/asynccache.db", "42/bodies"]
BESIDE = ["42/asynccache.db-wal", "42/asynccache.db-shm", "42/asynccache.db-journal"]


def planted(cache, what, kind):
    """Put something that is no file, or no folder, in the place of a part of a cache."""
    place = cache / what
    if place.exists():
        place.rename(cache.parent / "elsewhere")
    else:
        (cache.parent / "elsewhere").write_bytes(b"x" * 100)
    if kind == "link":
        place.symlink_to(cache.parent / "elsewhere")
    elif kind == "dangling":
        place.symlink_to(cache.parent / "nowhere")
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(place.name)
    elif kind == "folder":
        place.mkdir()
    else:
        place.touch()


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "swapped"])
@pytest.mark.parametrize("what", [*PLAIN, *BESIDE])
async def test_what_is_read_of_others_is_a_plain_file(tmp_path, what, kind):
    """No link is followed and no pipe is waited for, wherever others may have put one."""
    await fill(tmp_path / "cache")
    swapped = "folder" if "db" in what else "file"
    planted(tmp_path / "cache", what, swapped if kind == "swapped" else kind)
    if kind == "pipe" or what not in PLAIN[:2]:  # where the mode of a link's target isn't changed
        (tmp_path / "cache").chmod(0o777)
    await refused(tmp_path / "cache", "symbolic link|not a", read_only=True)


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder", "socket"])
async def test_a_body_of_others_is_a_plain_file(tmp_path, kind, monkeypatch):
    """Where a body's file is a link, a pipe or the like, there is no entry; others are found."""
    await fill(tmp_path / "cache")
    (body,) = (tmp_path / "cache/42/bodies").iterdir()
    monkeypatch.chdir(body.parent)  # a socket's path is short
    planted(tmp_path / "cache", body.relative_to(tmp_path / "cache"), kind)
    (tmp_path / "cache").chmod(0o777)
    store = DiskStore(tmp_path / "cache")
    await store.open(read_only=True)
    found = await store.get_many(NS, [key_of("a"), key_of("b")])
    assert list(found) == [body_of("a"), None]
    await store.aclose()


async def test_a_log_of_others_is_left_alone(tmp_path, caplog):
    """What stands in the log alone isn't read, as that takes writing beside it; it is told."""
    writer = DiskStore(tmp_path / "cache")
    await fill(tmp_path / "cache")
    await writer.open()
    await writer.set_many(NS, [record_of("c")])
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")
    await writer.aclose()
    (tmp_path / "copy").chmod(0o777)
    assert (tmp_path / "copy/42/asynccache.db-wal").stat().st_size
    await read_without_a_trace(tmp_path / "copy")
    (told,) = [record.message for record in caplog.records]
    assert "asynccache.db-wal isn't read" in told


HOSTILE = {
    "a text for bytes": "value = 'text'",
    "a number for bytes": "value = 7",
    "nothing for bytes": "value = NULL",
    "a text for a time": "expires = 'never'",
    "a text for a size": "size = 'small'",
    "bytes for a name": "file = x'ff', value = NULL",
    "a number for a name": "file = 7, value = NULL",
    "a long value that says it is short": "value = zeroblob(100000000), size = 10",
    "an entry of another": "value = zeroblob(1000)",
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
async def test_rows_that_others_have_planted_are_misses(tmp_path, change):
    """Whatever stands in a row, no caller sees an error, or anything that was not made here."""
    async with Cache.disk(cache_path_root=tmp_path / "cache") as cache:
        await cache.set("key", "text")
    connection = sqlite3.connect(tmp_path / "cache" / "42" / "asynccache.db")
    with connection:
        connection.execute(f"UPDATE entries SET {change}")
    connection.close()
    (tmp_path / "cache").chmod(0o777)
    async with Cache.disk(cache_path_root=tmp_path / "cache", mode="read_only") as cache:
        for _ in range(3):
            assert await cache.get("key", "nothing") in {"nothing", "text"}
            assert await cache.get_or_create("key", made) in {"text", "made"}


async def made():
    """Make a value."""
    return "made"


async def test_a_body_that_says_it_is_huge_is_never_read(tmp_path):
    """Its size is looked at before there is room for it."""
    async with Cache.disk(cache_path_root=tmp_path / "cache") as cache:
        await cache.set("key", os.urandom(400_000))
    (body,) = (tmp_path / "cache/42/bodies").iterdir()
    os.truncate(body, 2**36)
    connection = sqlite3.connect(tmp_path / "cache" / "42" / "asynccache.db")
    with connection:
        connection.execute("UPDATE entries SET size = ?", [2**36])
    connection.close()
    (tmp_path / "cache").chmod(0o777)
    async with Cache.disk(cache_path_root=tmp_path / "cache", mode="read_only") as cache:
        assert await cache.get("key", "nothing") == "nothing"
        assert sum(cache.stats().flaws.values()) == 1


@pytest.mark.parametrize("seed", ["", ".", "..", "a/b", "../cache2"])
async def test_a_seed_never_leads_out_of_the_root(tmp_path, seed):
    """A seed that is no plain name makes nothing anywhere."""
    store = DiskStore(tmp_path / "cache", seed)
    with pytest.raises(StoreRefusedError, match="can't be a folder's name"):
        await store.open()
    assert not list(tmp_path.rglob("*.db"))


async def test_a_row_never_names_a_file_elsewhere(tmp_path):
    """A row whose file lies outside the bodies is absent, and that file is left alone."""
    await fill(tmp_path / "cache")
    secret = tmp_path / "cache" / "42" / "secret"
    secret.write_bytes(b"x")
    connection = sqlite3.connect(tmp_path / "cache" / "42" / "asynccache.db")
    connection.execute("UPDATE entries SET file = '../secret', size = 1 WHERE file IS NOT NULL")
    connection.commit()
    connection.close()
    store = DiskStore(tmp_path / "cache")
    await store.open()
    assert list(await store.get_many(NS, [key_of("b")])) == [None]
    assert await store.delete_many(NS, [key_of("b")]) == 1
    await store.aclose()
    assert secret.read_bytes() == b"x"


async def test_read_only_makes_nothing(tmp_path):
    """Opened for reading where nothing is, a store is empty and makes no file."""
    store = DiskStore(tmp_path / "cache")
    await store.open(read_only=True)
    assert list(await store.get_many(NS, [key_of("a")])) == [None]
    assert store.peek(NS, key_of("a")) is UNKNOWN
    assert (await store.scan(NS)).envelopes == ()
    for call in (
        store.set_many(NS, [record_of("a")]),
        store.set_many(NS, [record_of("a", size=400_000)]),
        store.delete_many(NS, [key_of("a")]),
        store.clear(NS),
        store.claim(NS, [Claim(key=key_of("a"), token=bytes(16))], 1),
    ):
        with pytest.raises(StoreReadOnlyError):
            await call
    assert list(tmp_path.iterdir()) == []
    # Somebody makes one meanwhile: it is found.
    await fill(tmp_path / "cache")
    assert list(await store.get_many(NS, [key_of("a")])) == [body_of("a")]
    await store.aclose()


async def test_read_only_reads_beside_a_writer(tmp_path):
    """A store opened for reading sees what another one writes meanwhile."""
    await fill(tmp_path / "cache")
    writer, reader = DiskStore(tmp_path / "cache"), DiskStore(tmp_path / "cache")
    await writer.open()
    await reader.open(read_only=True)
    await reader.get_many(NS, [key_of("a")])
    assert reader.peek(NS, key_of("c")) is None
    await writer.set_many(NS, [record_of("c")])
    assert reader.peek(NS, key_of("c")) == body_of("c")
    await reader.aclose()
    await writer.aclose()


@pytest.fixture
def island(tmp_path):
    """A small file system of its own."""
    with mounts.island(tmp_path / "island", size="2m") as place:
        yield place


async def test_a_read_only_folder_is_read_without_a_trace(island):
    """On a read-only file system everything is read, inline too; each write says so."""
    await fill(island / "cache")
    before = state(island)
    subprocess.run(["mount", "-o", "remount,ro", str(island)], check=True)
    for read_only in (True, False):
        store = DiskStore(island / "cache")
        await store.open(read_only=read_only)
        found = await store.get_many(NS, [key_of("a"), key_of("b")])
        assert list(found) == [body_of("a"), body_of("b", 400_000)]
        assert store.peek(NS, key_of("a")) == body_of("a")
        for size in (100, 400_000):
            with pytest.raises(StoreReadOnlyError):
                await store.set_many(NS, [record_of("c", size=size)])
        with pytest.raises(StoreReadOnlyError):
            await store.claim(NS, [Claim(key=key_of("a"), token=bytes(16))], 1)
        await store.aclose()
        assert state(island) == before
    with pytest.raises(StoreReadOnlyError):
        await DiskStore(island / "new").open()
