"""500 distinct hits at once from Cosmos DB, against azure-cosmos called bare, and what calls cost.

The server is the one of the tests (`tests/helpers/cosmos_server/README.md` says what it is): on the
same machine, without latency, so that what is measured is the work of the SDK, of the cache and of
the server. Hits of 1 kB are compared with the same items read by the SDK alone: one by one, all in
one gather, and by `read_items`. Requests are counted by the server; request units follow what
Microsoft publishes, and are no measurement of Azure. At last, 500 calls are made while the server
misbehaves: the longest any of them took beyond its upstream call, in units of `store_timeout`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from _harness import Report, at_once, in_turn, run
from azure.cosmos.aio import CosmosClient

from asynccache import AsyncCache, Cache
from asynccache.keys.key import value_key

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.helpers.cosmos_servers import CosmosServer

HITS, ROUNDS, TIMEOUT = 500, 15, 0.5
AGES = 600_000  # milliseconds
FAULTS = {
    "none": None,
    "429, retry after 10 ms": {"status": 429, "retryAfter": 10},
    "429, retry after 10 min": {"status": 429, "retryAfter": AGES},
    "449": {"status": 449},
    "408": {"status": 408},
    "503": {"status": 503},
    "403/3": {"status": 403, "substatus": 3},
    "dropped connections": {"drop": "before"},
    "silence": {"delay": AGES},
}


def open_cache(server: CosmosServer, **options: Any) -> AsyncCache:
    return Cache.cosmos_db(
        server.connection_string,
        server.container,
        database_id=server.database,
        **{"store_timeout": 10, **options},
    )


async def main(report: Report) -> None:
    rounds = 3 if report.small else ROUNDS
    with CosmosServer() as server:
        await hits(report, server, rounds)
        await together(report, server, rounds)
        await costs(report, server)
        await faults(report, server)


async def hits(report: Report, server: CosmosServer, rounds: int) -> None:
    values = [random.Random(n).randbytes(1000).hex()[:1000] for n in range(HITS)]
    client = CosmosClient(server.endpoint, server.key)
    async with open_cache(server) as cache, client:
        await cache.set_many(list(enumerate(values)))
        namespace = cache.settings.namespace
        keys = [value_key(namespace, "value", n) for n in range(HITS)]
        container = client.get_database_client(server.database).get_container_client(
            server.container
        )
        names = [f"{namespace.text}:{key.hex()}" for key in keys]

        async def one_by_one() -> float:
            began = perf_counter()
            for name in names:
                await container.read_item(name, name)
            return perf_counter() - began

        async def by_read_items() -> float:
            began = perf_counter()
            found = await container.read_items([(name, name) for name in names])
            assert len(found) == HITS
            return perf_counter() - began

        async def of_store() -> float:
            began = perf_counter()
            found = await cache._lifecycle.store.get_many(namespace, keys)
            assert None not in found
            return perf_counter() - began

        async def of_many() -> float:
            began = perf_counter()
            assert await cache.get_many(range(HITS)) == values
            return perf_counter() - began

        times = await in_turn(
            {
                "cache.get": at_once(lambda: [cache.get(n) for n in range(HITS)], per_call=False),
                "cache.get_many": of_many,
                "store.get_many": of_store,
                "one by one": one_by_one,
                "gather": at_once(
                    lambda: [container.read_item(name, name) for name in names], per_call=False
                ),
                "read_items": by_read_items,
            },
            rounds,
        )
    better = min(("gather", "read_items"), key=times.median)
    what = f"{HITS} distinct hits at once"
    report.versus(what, times, "cache.get", "one by one", target=1 / 3, unit="ms")
    report.versus(what, times, "cache.get", better, target=1.1, unit="ms",
                  note="cache.get in a gather: keys, checks, decoding")  # fmt: skip
    report.versus(what, times, "cache.get_many", better, unit="ms", note="cache.get_many")
    report.versus(what, times, "store.get_many", better, target=1.1, unit="ms",
                  note="the store alone")  # fmt: skip
    report.versus(what, times, "gather", "one by one", unit="ms", note="bare gather")
    report.versus(what, times, "read_items", "one by one", unit="ms", note="bare read_items")


async def together(report: Report, server: CosmosServer, rounds: int) -> None:
    """Point reads against read_items, by how many keys there are."""
    async with CosmosClient(server.endpoint, server.key) as client:
        container = client.get_database_client(server.database).get_container_client(
            server.container
        )
        names = [item["id"] for item in server.items()]
        for count in (2, 4, 8, 16, 64):
            some = names[:count]
            charges = {}

            async def by_read_items(some=some) -> None:
                await container.read_items([(name, name) for name in some])

            contestants = {
                "read_items": at_once(lambda work=by_read_items: [work()], per_call=False),
                "point reads": at_once(
                    lambda some=some: [container.read_item(name, name) for name in some],
                    per_call=False,
                ),
            }
            for name, work in contestants.items():
                server.control(reset=True)
                await work()
                charges[name] = round(server.control()["charge"], 1)
            times = await in_turn(contestants, rounds * 5)
            report.versus(
                f"{count} keys", times, "read_items", "point reads", unit="ms",
                note=f"{charges['read_items']} RU against {charges['point reads']}",
            )  # fmt: skip


async def costs(report: Report, server: CosmosServer) -> None:
    """What a hit, a miss and a wait of ten seconds ask the server for."""

    async def paid(seconds: float = 0.0) -> str:
        await asyncio.sleep(seconds)
        return "x" * 1000

    async with open_cache(server) as cache:
        for what, most in (("miss", 3), ("hit", 1)):
            server.control(reset=True)
            await cache.get_or_create("question", paid)
            if what == "miss":
                await asyncio.sleep(0.3)  # stored behind the caller's back
            said(report, server, what, most)
        holder = asyncio.create_task(cache.get_or_create("slow", lambda: paid(10)))
        await asyncio.sleep(0.2)
        async with open_cache(server) as waiter:
            before = waiter.stats().store
            assert await waiter.get_or_create("slow", paid) == await holder
            after = waiter.stats().store
        requests = after["requests"] - before["requests"]
        units = after["request_units"] - before["request_units"]
        report.fact(
            "a wait of ten seconds",
            f"{requests} requests (at most 15: {'met' if requests <= 15 else 'MISSED'}),"
            f" {units} RU",
        )


def said(report: Report, server: CosmosServer, what: str, most: int) -> None:
    counted = server.control()
    requests = sum(counted["counts"].values())
    held = "met" if requests <= most else "MISSED"
    report.fact(
        f"a {what} of 1 kB",
        f"{requests} requests {counted['counts']} (at most {most}: {held}),"
        f" {counted['charge']:.1f} RU",
    )


async def faults(report: Report, server: CosmosServer) -> None:
    """How long calls are held up at most, 500 at once, half of them stored before."""
    for fault, rule in FAULTS.items():
        server.empty()
        longest = 0.0

        async def answer() -> str:
            return "x" * 1000

        async def timed(cache, number: int) -> None:
            nonlocal longest
            began = perf_counter()
            await cache.get_or_create(number, answer)
            longest = max(longest, perf_counter() - began)

        async with open_cache(server) as cache:
            await cache.set_many([(n, "x" * 1000) for n in range(HITS // 2)])
        async with open_cache(server, store_timeout=TIMEOUT) as cache:
            if rule:
                server.faults({"times": -1, **rule})
            await asyncio.gather(*(timed(cache, n) for n in range(HITS)))
            server.faults()
        report.fact(
            f"longest delay of {HITS} calls, fault: {fault}",
            f"{longest / TIMEOUT:.2f} of store_timeout",
        )


if __name__ == "__main__":
    run(main, __doc__, "azure-cosmos", "aiohttp")
