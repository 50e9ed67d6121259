"""Databases of empty seeds are removed; who opens one in that moment gets a new one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from asynccache.keys.key import Namespace
from asynccache.stores.base import Claim, Lease
from asynccache.stores.disk import DiskStore, evict, leases, opening, writer
from asynccache.stores.disk.database import connect, connect_writer
from asynccache.testing.records import body_of, key_of, record_of

NS = Namespace("2")
CLAIM = Claim(key=key_of("a"), token=b"t" * 16)


@pytest.fixture
async def store(tmp_path):
    """An open store, whose seed 2 nobody has used yet."""
    store = DiskStore(tmp_path / "cache", "1")
    await store.open()
    yield store
    await store.aclose()


def removing(monkeypatch, home, name, *, first):
    """Let a function find the databases removed once, as it begins or as it is done."""
    original, calls = getattr(home, name), []

    def call(path, *args, **kwargs):
        made = None if first else original(path, *args, **kwargs)
        calls.append(path)
        if len(calls) == 1:
            for database in ("asynccache.db", "leases.db"):
                opening.remove(path.parent / database)
        return original(path, *args, **kwargs) if first else made

    monkeypatch.setattr(home, name, call)
    return calls


async def test_as_a_folder_is_opened(store, monkeypatch):
    """Between making the database and opening it."""
    calls = removing(monkeypatch, opening, "prepare", first=False)
    assert list(await store.get_many(NS, [key_of("a")])) == [None]
    assert len(calls) > 1
    await store.set_many(NS, [record_of("a")])
    assert list(await store.get_many(NS, [key_of("a")])) == [body_of("a")]


async def test_as_it_is_written_to(store, monkeypatch):
    """Between opening the folder and connecting to write."""
    calls = removing(monkeypatch, writer, "connect_writer", first=True)
    await store.set_many(NS, [record_of("a")])
    assert len(calls) > 1
    assert list(await store.get_many(NS, [key_of("a")])) == [body_of("a")]


@pytest.mark.parametrize("name", ["prepare", "connect_writer"])
async def test_as_a_lease_is_claimed(store, monkeypatch, name):
    """Before and after the leases' database is made."""
    calls = removing(monkeypatch, leases, name, first=name == "connect_writer")
    assert [one.granted for one in await store.claim(NS, [CLAIM], 5)] == [True]
    assert len(calls) > 1


async def test_a_database_goes_before_its_log(store, monkeypatch):
    """At each step it can be read, or isn't there: without its log it couldn't be."""
    await store.set_many(NS, [record_of("a")])
    await store.claim(NS, [CLAIM], 5)
    await store.release(NS, [Lease(CLAIM.key, CLAIM.token)])
    await store.delete_many(NS, [key_of("a")])
    folder = store._root / NS.seed
    unlink, gone = Path.unlink, []

    def watched(path, **kwargs):
        unlink(path, **kwargs)
        gone.append(path.name)
        for database, table in (("asynccache.db", "entries"), ("leases.db", "leases")):
            if (folder / database).exists():
                with closing(connect(folder / database, "ro")) as reading:
                    reading.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall()

    with closing(connect_writer(folder / "asynccache.db", durable=True)) as connection:
        monkeypatch.setattr(Path, "unlink", watched)
        assert evict._remove(folder, connection) > 0
    assert {"asynccache.db", "leases.db"} <= {*gone}
