"""The disk store under violence: kill -9, file-size limits, forks, many processes at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path

import anyio
import pytest

from asynccache import Cache
from asynccache.keys.key import Namespace
from asynccache.stores.base import Claim, Lease
from asynccache.stores.disk import DiskStore, forks, leases, opening, writer
from asynccache.stores.disk.database import connect_writer
from asynccache.testing.records import body_of, key_of
from tests.helpers.frozen import freeze

NS = Namespace("42")
KILLS = 50
TOGETHER = 5  # processes that write at the same time
LARGE = 300_000  # bytes: a file of its own

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill, fork and limits are POSIX's")

HEAD = """
import asyncio, os, sys
from asynccache.errors import *
from asynccache.keys.key import Namespace
from asynccache.stores.base import *
from asynccache.stores.disk.forks import LEAKED
from asynccache.stores.disk import DiskStore
from asynccache.testing.records import body_of, key_of, record_of
NS = Namespace("42")
root = sys.argv[1]
"""


def start(script, root, *args):
    """Start a process that runs a script on a root."""
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(script), str(root), *map(str, args)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def finish(process, sent=None):
    """Wait for a process to end well and return what it printed."""
    out, _ = process.communicate(sent, timeout=60)
    assert process.returncode == 0, out
    return out.split()


WRITER = """
    async def work(store, worker):
        n = 0
        while True:
            name, size = f"{sys.argv[2]}.{worker}.{n}", 300_000 if n % 4 == 3 else 3000
            await store.set_many(NS, [record_of(name, size=size)])
            os.write(1, f"{name} {size}\\n".encode())
            if n % 3 == 2:  # replaces, so that files go
                await store.set_many(NS, [record_of(f"again.{worker}", size=300_000)])
            n += 1

    async def main():
        store = DiskStore(root)
        await store.open()
        await asyncio.gather(*(work(store, worker) for worker in range(4)))

    asyncio.run(main())
"""


async def check(root, acknowledged):
    """Open the store and look at all of it."""
    store = DiskStore(root)
    await store.open()
    names = list(acknowledged)
    found = await store.get_many(NS, [key_of(name) for name in names])
    for name, entry in zip(names, found, strict=True):
        assert entry == body_of(name, acknowledged[name]), name
    again = await store.get_many(NS, [key_of(f"again.{worker}") for worker in range(4)])
    for worker, entry in enumerate(again):
        assert entry in (None, body_of(f"again.{worker}", LARGE))
    with store._folders["42"].reader() as connection:
        rows = connection.execute("SELECT file FROM entries WHERE file IS NOT NULL").fetchall()
    assert {path.name for path in (root / "42" / "bodies").iterdir()} == {f for (f,) in rows}
    await store.clear(NS)
    await store.aclose()


def test_kill_9_loses_nothing_acknowledged(tmp_path):
    """Killed fifty times in mid-writing: the acknowledged is whole, no orphan outlives an open."""
    root = tmp_path / "cache"
    acknowledged: dict[str, int] = {}

    def acknowledge(line):
        if line.endswith("\n"):  # else it was cut off
            name, size = line.split()
            acknowledged[name] = int(size)

    for first in range(0, KILLS, TOGETHER):
        processes = [start(WRITER, root, first + n) for n in range(TOGETHER)]
        for number, process in enumerate(processes):
            for line in process.stdout:
                acknowledge(line)
                if line.startswith(f"{first + number}.0.{number}"):
                    break
            process.send_signal(signal.SIGKILL)
            for line in process.communicate()[0].splitlines(keepends=True):
                acknowledge(line)
        asyncio.run(check(root, acknowledged))
        acknowledged.clear()


LIMITED = """
    import resource

    async def main():
        store = DiskStore(root)
        await store.open()
        await store.set_many(NS, [record_of("a")])
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        errors = set()
        for n in range(20):
            for size in (50_000, 400_000):
                try:
                    await store.set_many(NS, [record_of((n, size), size=size)])
                except StoreError as exc:
                    errors.add(type(exc).__name__)
        assert list(await store.get_many(NS, [key_of("a")])) == [body_of("a")]
        print(*errors)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await store.set_many(NS, [record_of("b"), record_of("c", size=400_000)])
        found = await store.get_many(NS, [key_of("b"), key_of("c")])
        assert list(found) == [body_of("b"), body_of("c", 400_000)]
        with store._folders["42"].reader() as connection:
            rows = connection.execute("SELECT file FROM entries WHERE file IS NOT NULL").fetchall()
        await store.aclose()
        assert set(os.listdir(f"{root}/42/bodies")) == {file for (file,) in rows}

    asyncio.run(main())
"""


def test_a_file_size_limit_is_a_full_disk(tmp_path):
    """Beyond RLIMIT_FSIZE sets raise StoreFullError and leave nothing; lifted, they work again."""
    assert finish(start(LIMITED, tmp_path / "cache")) == ["StoreFullError"]


OPENER = """
    async def main():
        store = DiskStore(root)
        sys.stdin.readline()
        await store.open()
        await store.set_many(NS, [record_of(int(sys.argv[2]))])
        await store.claim(NS, [Claim(key=key_of(int(sys.argv[2])), token=bytes(16))], 1)
        await store.aclose()

    asyncio.run(main())
"""


async def test_many_processes_open_a_new_store_at_once(tmp_path):
    """Eight processes that open a store nobody made yet all succeed, and see each other's sets."""
    processes = [start(OPENER, tmp_path / "cache", n) for n in range(8)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        finish(process)
    store = DiskStore(tmp_path / "cache")
    await store.open()
    found = await store.get_many(NS, [key_of(n) for n in range(8)])
    assert list(found) == [body_of(n) for n in range(8)]
    await store.aclose()


async def test_who_has_the_leases_for_a_moment_is_waited_for(tmp_path, monkeypatch):
    """Who opens or closes a database has it alone meanwhile, and a claim comes after."""

    def prepare_and_hold(path, schema):
        opening.prepare(path, schema)
        holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN IMMEDIATE")
        threading.Timer(0.2, holder.close).start()

    monkeypatch.setattr(leases, "prepare", prepare_and_hold)
    store = DiskStore(tmp_path / "cache")
    await store.open()
    (answer,) = await store.claim(NS, [Claim(key=key_of("a"), token=bytes(16))], 1)
    assert answer.granted
    await store.aclose()


HOLDER = """
    async def main():
        store = DiskStore(root)
        await store.open()
        token = os.urandom(16)
        assert (await store.claim(NS, [Claim(key=key_of("a"), token=token)], 1))[0].granted
        assert await store.renew(NS, [Lease(key_of("a"), token)], 1) == [True]
        print(token.hex(), flush=True)
        sys.stdin.readline()
        assert await store.renew(NS, [Lease(key_of("a"), token)], 1) == [False]
        await store.release(NS, [Lease(key_of("a"), token)])
        await store.aclose()

    asyncio.run(main())
"""


async def test_leases_hold_across_processes(tmp_path):
    """A lease held elsewhere is refused and shown, and is taken over by compare-and-set."""
    process = start(HOLDER, tmp_path / "cache")
    token = bytes.fromhex(await asyncio.to_thread(process.stdout.readline))
    store = DiskStore(tmp_path / "cache")
    await store.open()
    mine = os.urandom(16)
    held = Lease(key_of("a"), token, 1)
    for expect in (None, Lease(key_of("a"), token, 0), Lease(key_of("a"), mine, 1)):
        (answer,) = await store.claim(NS, [Claim(key=held.key, token=mine, expect=expect)], 1)
        assert (answer.granted, answer.holder) == (False, held)
    (answer,) = await store.claim(NS, [Claim(key=held.key, token=mine, expect=held)], 1)
    assert answer.granted
    await asyncio.to_thread(finish, process, "\n")
    # What the loser released was not ours.
    assert list(await store.renew(NS, [Lease(held.key, mine)], 1)) == [True]
    await store.aclose()


async def test_a_killed_holders_lease_stays(tmp_path):
    """Killing leaves a lease in place, for others to take over when it stops being renewed."""
    process = start(HOLDER, tmp_path / "cache")
    token = bytes.fromhex(await asyncio.to_thread(process.stdout.readline))
    process.kill()
    process.communicate()
    store = DiskStore(tmp_path / "cache")
    await store.open()
    (answer,) = await store.claim(NS, [Claim(key=key_of("a"), token=os.urandom(16))], 1)
    assert answer.holder == Lease(key_of("a"), token, 1)
    await store.aclose()


FROZEN = """
    import sqlite3

    async def main():
        store = DiskStore(root)
        await store.open()
        await store.set_many(NS, [record_of("a")])
        await store.claim(NS, [Claim(key=key_of("b"), token=os.urandom(16))], 1)
        held = [sqlite3.connect(f"{root}/42/{name}") for name in sys.argv[2].split()]
        for connection in held:
            connection.execute("BEGIN IMMEDIATE")
        print("holding", flush=True)
        sys.stdin.readline()

    asyncio.run(main())
"""


@pytest.mark.parametrize("held", ["asynccache.db", "leases.db", "asynccache.db leases.db"])
async def test_a_process_frozen_while_it_writes_keeps_nobody_from_reading(
    tmp_path, held, monkeypatch
):
    """While it holds the locks, others open and read, and their calls are made."""
    process = start(FROZEN, tmp_path / "cache", held)
    assert await asyncio.to_thread(process.stdout.readline) == "holding\n"
    freeze(process)
    calls = []

    async def create():
        calls.append(1)
        return 7

    try:
        store = DiskStore(tmp_path / "cache")
        with anyio.fail_after(4):  # less than a writer waits for another
            await store.open()
            for _ in range(3):
                assert list(await store.get_many(NS, [key_of("a"), key_of("b")])) == [
                    body_of("a"), None
                ]  # fmt: skip
                assert store.peek(NS, key_of("a")) == body_of("a")
        await store.aclose()
        monkeypatch.setattr(writer, "connect_writer", partial(connect_writer, timeout=0.5))
        cache = Cache.disk(cache_path_root=tmp_path / "cache", store_timeout=2)
        with anyio.fail_after(20):
            async with cache:
                for n in range(8):
                    assert await cache.get_or_create(n, create) == 7
                    assert await cache.get("none") is None
        assert len(calls) == 8
        stats = cache.stats()
        assert set(stats.store_errors) <= {"busy"}
        assert stats.breaker == "closed"
    finally:
        process.kill()
        process.communicate()


FORKING = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # forking a process with threads

    store = DiskStore(root)

    async def call(work):
        return await work

    async def refused():
        assert store.peek(NS, key_of("a")) is UNKNOWN
        for work in (store.get_many(NS, [key_of("a")]), store.set_many(NS, [record_of("c")])):
            try:
                await work
            except StoreUnavailableError:
                continue
            raise AssertionError("the parent's connection was used")

    async def use(name):
        await store.set_many(NS, [record_of(name), record_of((name, 1), size=300_000)])
        found = await store.get_many(NS, [key_of("a"), key_of(name), key_of((name, 1))])
        assert list(found) == [body_of("a"), body_of(name), body_of((name, 1), 300_000)]

    async def first():
        await store.open()
        await store.set_many(NS, [record_of("a")])
        await store.get_many(NS, [key_of("a")])
        await store.claim(NS, [Claim(key=key_of("a"), token=bytes(16))], 1)
        assert store.peek(NS, key_of("a")) == body_of("a")

    async def child():
        assert LEAKED == []
        await refused()
        await store.open()
        await use("child")
        await store.aclose()

    async def last():
        await use("parent")
        assert (await store.get_many(NS, [key_of("child")]))[0] == body_of("child")
        await store.aclose()

    with asyncio.Runner() as runner:
        runner.run(first())
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with asyncio.Runner() as mine:
                    mine.run(child())
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        runner.run(last())
"""


def test_a_fork_may_open_again(tmp_path):
    """In a forked child all calls are refused until it opens the store; the parent goes on."""
    finish(start(FORKING, tmp_path / "cache"))


FORKED = """
    import signal, threading, warnings
    from asynccache.stores.disk import forks
    from asynccache.stores.disk.writer import Transaction
    warnings.simplefilter("ignore", DeprecationWarning)  # forking a process with threads

    store = DiskStore(root)
    begun, go = threading.Event(), threading.Event()
    run = Transaction.run

    def do(*works):
        async def all_of_them():
            return [await work() for work in works]
        return asyncio.run(all_of_them())

    def put(name):
        return lambda: store.set_many(NS, [record_of(name)])

    def look(*names):
        async def found():
            found = await store.get_many(NS, [key_of(name) for name in names])
            assert list(found) == [body_of(name) for name in names]
        return found

    async def refused():
        try:
            await store.open()
        except StoreUnavailableError as exc:
            assert "was forked while" in str(exc)
        else:
            raise AssertionError("a database was opened")

    def in_child(work):
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)  # no waiting for ever
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)
        return pid

    def ended_well(pid):
        assert os.waitpid(pid, 0)[1] == 0

    def held(transaction, works):
        results = run(transaction, works)
        begun.set()
        assert go.wait(30)
        return results

    def begin(work):
        Transaction.run = held
        writing = threading.Thread(target=do, args=(work,))
        writing.start()
        begun.wait()
        Transaction.run = run
        return writing
"""


def test_a_fork_waits_for_a_transaction(tmp_path):
    """A fork comes after what the writer has begun, and the child waits for no lock of its own."""
    script = """
    do(store.open)
    writing = begin(put("parent"))
    os.register_at_fork(before=go.set)  # comes before the store's, which was registered earlier
    pid = in_child(lambda: do(store.open, put("child"), look("parent", "child"), store.aclose))
    writing.join()
    ended_well(pid)
    do(put("after"), look("parent", "child", "after"), store.aclose)
    """
    finish(start(FORKED + script, tmp_path / "cache"))


def test_a_child_may_outlive_its_parents_store(tmp_path):
    """What a child writes after its parent has closed the store is there for everybody."""
    script = """
    do(store.open, put("parent"), look("parent"))
    opened, tell_opened = os.pipe()
    closed, tell_closed = os.pipe()

    def child():
        do(store.open, put("child"))
        os.write(tell_opened, b"x")
        os.read(closed, 1)
        do(put("late"), look("parent", "child", "late"))
        os.kill(os.getpid(), signal.SIGKILL)  # which leaves the log as it is

    pid = in_child(child)
    os.read(opened, 1)
    do(store.aclose)
    os.write(tell_closed, b"x")
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    do(store.open, look("parent", "child", "late"), store.aclose)
    """
    finish(start(FORKED + script, tmp_path / "cache"))


def test_a_fork_that_waits_in_vain_says_so(tmp_path):
    """A fork waits for a stuck writer no longer than it may; its child opens no database."""
    script = """
    forks._PATIENCE = 0.05
    do(store.open)
    writing = begin(put("parent"))
    ended_well(in_child(lambda: do(refused)))
    go.set()
    writing.join()
    forks._PATIENCE = 30
    ended_well(in_child(lambda: do(store.open, put("child"), store.aclose)))
    do(look("parent", "child"), store.aclose)
    """
    finish(start(FORKED + script, tmp_path / "cache"))


def test_a_fork_from_within_waits_for_nothing(tmp_path):
    """A fork in the thread that writes doesn't wait for itself; its child opens no database."""
    script = """
    def forking(transaction, works):
        pids.append(in_child(lambda: do(refused)))
        return run(transaction, works)

    pids = []
    forks._PATIENCE = 1000
    do(store.open)
    Transaction.run = forking
    do(put("parent"), look("parent"), store.aclose)
    ended_well(*pids)
    """
    finish(start(FORKED + script, tmp_path / "cache"))


@pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(),
    reason="what is open is read from /proc/self/fd, which is Linux's",
)
def test_no_connection_crosses_a_fork(tmp_path):
    """A child has no database of its parent's open, whatever the parent had been doing with it."""
    script = """
    def held_open():
        paths = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
        return {os.path.basename(os.readlink(path)) for path in paths if os.path.exists(path)}

    def child():
        assert not held_open() & databases

    async def claim():
        await store.claim(NS, [Claim(key=key_of("a"), token=bytes(16))], 1)

    databases = {"asynccache.db", "leases.db"}
    do(store.open, put("a"), look("a"), claim)
    assert held_open() >= databases
    ended_well(in_child(child))
    do(look("a"), claim, store.aclose)
    """
    finish(start(FORKED + script, tmp_path / "cache"))


async def test_a_fork_in_the_middle_of_ones_own_read_waits_for_nothing(tmp_path):
    """A signal may come in a read, which doesn't go on before its handler's fork is over."""
    store = DiskStore(tmp_path, "first")
    await store.open()
    try:
        await store.get_many(NS, [key_of("a")])
        folder = store._folders["first"]
        (reader,) = folder.inline.values()
        reader._busy = True
        try:
            assert not folder.disconnect(time.monotonic() + 3600)
        finally:
            reader._busy = False
        assert reader.close()
    finally:
        await store.aclose()


def test_a_fork_in_the_middle_of_another_leaves_the_outer_child_torn():
    """What the inner fork found closed says nothing of what the outer one couldn't close."""
    closing = []

    class Busy:
        def disconnect(self, until):
            closing.append(until)
            if len(closing) == 1:  # a signal comes while the outer fork waits
                forks._before()
                assert not any(forks._here.forks[threading.get_ident()][1:])
                forks._after_in_parent()
                return False
            return True

    busy = Busy()
    forks.add(busy)
    forks._before()
    try:
        (left,) = forks._here.forks[threading.get_ident()]
        assert busy in left
    finally:
        forks._after_in_parent()
    assert len(closing) == 2
