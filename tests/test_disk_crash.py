"""The disk store under violence: kill -9, file-size limits, forks, many processes at once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from asynccache._key import Namespace
from asynccache.stores._base import Claim, Lease
from asynccache.stores.disk import DiskStore
from asynccache.testing._contract_parts import body_of, key_of

NS = Namespace("42")
KILLS = 50
TOGETHER = 5  # processes that write at the same time
LARGE = 300_000  # bytes: a file of its own

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill, fork and limits are POSIX's")

HEAD = """
import asyncio, os, sys
from asynccache._errors import *
from asynccache._key import Namespace
from asynccache.stores._base import *
from asynccache.stores._disk_folder import LEAKED
from asynccache.stores.disk import DiskStore
from asynccache.testing._contract_parts import body_of, key_of, record_of
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
        # Closing what came over the fork would break the parent's locks: it is kept.
        assert len(LEAKED) == 4  # a worker's, this thread's, the writer's, the lease thread's
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


def test_a_fork_leaks_and_may_open_again(tmp_path):
    """In a forked child all calls are refused until it opens the store; the parent goes on."""
    finish(start(FORKING, tmp_path / "cache"))
