"""Changes of keys while calls for them are under way, by several cache objects and processes.

Run as ``python -m tests.helpers.changes URL FOLDER``, it is another process' cache object: it takes
commands as lines of JSON, and answers each when it is done.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asynccache
from asynccache import Cache
from tests.helpers.scenes import settled
from tests.helpers.swarm import HERE

CHANGES = ["set", "delete", "clear", "refresh"]
KEYS = range(3)


# -- two cache objects ------------------------------------------------------------------------


async def old_answer_stays_out(first, second, change):
    """A call that was begun before another cache object changes its key isn't stored after it."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow():
        begun.set()
        await go.wait()
        return "old"

    async def fresh():
        return "new"

    async with first, second:
        call = asyncio.create_task(first.get_or_create("key", slow))
        await begun.wait()
        if change == "set":
            assert await second.set("key", "new")
        elif change == "refresh":
            with asynccache.options(mode="refresh"):
                assert await second.get_or_create("key", fresh) == "new"
            while not second.stats().stored:
                await asyncio.sleep(0.01)
        else:
            await (second.delete("key") if change == "delete" else second.clear())
        go.set()
        assert await call == "old"
        while not first.stats().not_stored:
            assert not first.stats().stored
            await asyncio.sleep(0.01)
        assert first.stats().not_stored == {"deleted": 1}
        for cache in (first, second):
            assert await cache.get("key") == (None if change in ("delete", "clear") else "new")
            assert cache.stats().store_errors == {}
        # What is begun after the change is stored, by either.
        await second.delete("key")
        assert await first.get_or_create("key", fresh) == "new"
        while not first.stats().stored:
            await asyncio.sleep(0.01)
        assert await second.get_or_create("key", slow) == "new"


# -- three cache objects in two processes -------------------------------------------------------


class Player:
    """One cache object: changes keys, and begins calls that end some time later.

    Args:
        cache: The cache, open.
        now: File with the number of changes begun so far, by anybody. Each answer of a call is that
            number when it was begun.
    """

    def __init__(self, cache, now):
        """Prepare."""
        self.cache, self.now = cache, now
        self.calls = set()

    async def do(self, what, key, number):
        """Do one thing; for a refresh return whether it began a call of its own."""
        if what == "set":
            assert await self.cache.set(key, number)
        elif what == "delete":
            await self.cache.delete(key)
        elif what == "clear":
            await self.cache.clear()
        elif what == "end":
            await asyncio.gather(*self.calls)
            await settled(SimpleNamespace(cache=self.cache))
        else:
            begun = asyncio.Event()
            call = asyncio.create_task(self._call(what, key, begun))
            self.calls.add(call)
            if what == "refresh":
                wait = asyncio.create_task(begun.wait())
                await asyncio.wait([wait, call], return_when=asyncio.FIRST_COMPLETED)
                wait.cancel()
                return begun.is_set()
        return True

    async def _call(self, what, key, begun):
        async def create():
            number = int(self.now.read_text())
            begun.set()
            await asyncio.sleep(random.uniform(0, 0.02))
            return number

        with asynccache.options(mode="refresh" if what == "refresh" else "read_write"):
            return await self.cache.get_or_create(key, create)


class RemotePlayer:
    """A player in a process of its own."""

    async def start(self, url, now):
        """Start the process; the cache is open when this returns."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, url, str(now),
            cwd=HERE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self.process = cast("Any", process)
        assert await self.process.stdout.readline() == b"true\n"
        return self

    async def do(self, *what):
        """Do as `Player.do`."""
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        return json.loads(await self.process.stdout.readline())

    async def aclose(self):
        """End the process."""
        self.process.stdin.close()
        assert await self.process.wait() == 0


async def nothing_comes_back(url, folder, seeds):
    """Run random sequences; after each, no key holds what was begun before its last change."""
    now = folder / "now"
    async with AsyncExitStack() as stack:
        now.write_text("0")
        caches = [await stack.enter_async_context(Cache.from_url(url)) for _ in range(2)]
        other = await RemotePlayer().start(url, now)
        stack.push_async_callback(other.aclose)
        players = [*(Player(cache, now) for cache in caches), other]
        number = 0
        for seed in seeds:
            chance = random.Random(seed)
            changed = {}
            for _ in range(chance.randint(5, 20)):
                key = chance.choice(KEYS)
                what = chance.choice([*CHANGES, "call", "call", "call", "pause"])
                if what == "pause":
                    await asyncio.sleep(chance.uniform(0, 0.02))
                    continue
                if what != "call":
                    number += 1
                    replaced = now.with_name("next")
                    replaced.write_text(str(number))
                    replaced.replace(now)
                if await chance.choice(players).do(what, key, number) and what != "call":
                    changed.update(
                        dict.fromkeys(KEYS if what == "clear" else [key], (number, what))
                    )
            for player in players:
                await player.do("end", 0, 0)
            async with Cache.from_url(url) as fresh:
                for key, (change, what) in changed.items():
                    found = await fresh.get(key)
                    assert (found is None and what != "set") or found >= change, (
                        f"seed {seed}: key {key} holds {found}, {what} was {change}"
                    )
                await fresh.clear()
            number += 1
            now.write_text(str(number))


async def main():
    """Play what is written to the standard input."""
    async with Cache.from_url(sys.argv[1]) as cache:
        player = Player(cache, Path(sys.argv[2]))
        print("true", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await player.do(*json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
