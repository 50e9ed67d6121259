"""The cache over a Cosmos DB that throttles, fails over, drops connections, is slow, or is gone."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from asynccache import Cache, StoreThrottledError
from asynccache.stores.base import Claim, Lease, Record
from asynccache.testing.records import HOME, key_of
from tests.helpers.cosmos_servers import store_in
from tests.helpers.remote_stores import back, opened, settled

CALLS = 500
TIMEOUT = 0.5  # seconds: the caches' store_timeout here
AGES = 600_000  # milliseconds: whoever waits so long hangs, and fails its test

# What is injected, and whether every request meets it or every second one.
FAULTS: dict[str, dict[str, Any]] = {
    "429 for a moment": {"status": 429, "retryAfter": 10},
    "429 for ages": {"status": 429, "retryAfter": AGES},
    "429 that doesn't say how long": {"status": 429},
    "449": {"status": 449},
    "408": {"status": 408},
    "410": {"status": 410, "substatus": 1002},
    "500": {"status": 500},
    "503": {"status": 503},
    "403/3": {"status": 403, "substatus": 3},
    "dropped before": {"drop": "before"},
    "dropped after": {"drop": "after"},
    "slow": {"delay": 100},
    "silent": {"delay": AGES},
}


@pytest.fixture
def server(running):
    """The server, empty, and without faults afterwards."""
    running.empty()
    yield running
    running.faults()


def open_cache(server, **options):
    """A cache in the server's container."""
    return server.cache(**{"store_timeout": TIMEOUT, **options})


class Questions:
    """Answers questions, and counts."""

    def __init__(self):
        self.calls = 0

    def answer_to(self, number):
        async def answer():
            self.calls += 1
            return f"answer {number}"

        return answer


async def storm(cache, upstream, first=0):
    """Make 500 calls at once: none may fail, no answer may be wrong."""
    numbers = range(first, first + CALLS)
    asked = [cache.get_or_create(number, upstream.answer_to(number)) for number in numbers]
    assert await asyncio.gather(*asked) == [f"answer {number}" for number in numbers]


@pytest.mark.parametrize(
    ("fault", "often"),
    [
        *((fault, "every") for fault in FAULTS),
        *((fault, "every second") for fault in ("429 for ages", "503", "dropped after")),
    ],
)
async def test_faults_while_500_calls_run(server, fault, often):
    """Whatever Cosmos DB does to requests, no call fails and no answer is wrong.

    None waits as long as it is told to, and when it is over what was stored serves again.
    """
    upstream = Questions()
    async with open_cache(server, store_timeout=10) as cache:
        await cache.set_many([(number, f"answer {number}") for number in range(CALLS // 2)])
    every = 2 if often == "every second" else 1
    async with open_cache(server) as cache:
        server.faults({"times": -1, "every": every, **FAULTS[fault]})
        await storm(cache, upstream)
        assert upstream.calls >= CALLS // 2
        server.faults()
        assert cache.stats().upstream_errors == 0
        assert cache.stats().flaws == {}
        assert set(cache.stats().store_errors) <= {
            "throttled", "unavailable", "timeout", "failover", "breaker_open",
        }  # fmt: skip
        await back(cache)
        await settled(cache)
        paid = upstream.calls
        await cache.get_or_create(0, upstream.answer_to(0))
        assert upstream.calls == paid


@pytest.mark.parametrize("status", [429, 449, 408, 410, 503])
async def test_passing_refusals_are_retried(server, status):
    """What passes within the deadline is asked again, and nobody notices."""
    upstream = Questions()
    async with open_cache(server, store_timeout=10) as cache:
        server.faults({"status": status, "retryAfter": 20, "times": 3})
        await cache.get_or_create(1, upstream.answer_to(1))
        await settled(cache)
        server.faults({"status": status, "retryAfter": 20, "times": 2})
        await cache.get_or_create(1, upstream.answer_to(1))
        assert upstream.calls == 1
        assert cache.stats().store_errors == {}


async def test_retry_after_beyond_the_deadline_is_a_miss_at_once(server):
    """Told to come back after the deadline, nobody waits for it: one request, then a miss."""
    upstream = Questions()
    async with open_cache(server) as cache:
        server.faults({"status": 429, "retryAfter": AGES, "times": -1})
        before = sum(server.counts().values())
        await cache.get_or_create(1, upstream.answer_to(1))
        assert sum(server.counts().values()) - before <= 2  # a lookup, and storing
        assert cache.stats().store_errors["throttled"] >= 1
        assert upstream.calls == 1


async def test_throttling_is_raised_where_asked_for(server):
    """With ``on_store_error="raise"`` throttling is an error that says what to do."""
    async with open_cache(server, on_store_error="raise") as cache:
        server.faults({"status": 429, "retryAfter": AGES, "times": -1})
        with pytest.raises(StoreThrottledError, match="raise the container's throughput") as caught:
            await cache.get("key")
        assert caught.value.__cause__ is not None


async def test_lost_answers_are_made_good(server):
    """A claim, a store, a renewal or a release whose answer is lost is taken for what it was."""
    lost = {"drop": "after", "times": 1}
    lease = Lease(key_of("a"), b"t" * 16)
    claim = Claim(key=lease.key, token=lease.token)
    async with opened(store_in(server)) as store:
        server.faults({**lost, "methods": ["POST"]})
        (claimed,) = await store.claim(HOME, [claim], 5)
        assert claimed.granted
        for count in (1, 2):
            server.faults({**lost, "methods": ["PUT"]})
            assert list(await store.renew(HOME, [lease], 5)) == [True]
            (other,) = await store.claim(HOME, [Claim(key=lease.key, token=b"o" * 16)], 5)
            assert other.holder is not None
            assert other.holder.token == lease.token
            assert other.holder.renewals >= count
        server.faults({**lost, "methods": ["DELETE"]})
        await store.release(HOME, [lease])
        (claimed,) = await store.claim(HOME, [claim], 5)
        assert claimed.granted


@pytest.mark.parametrize("size", [10, 2_000_000])
async def test_lost_answers_to_writes(server, size):
    """An answer is stored once, whole, when what Cosmos DB says about it is lost on the way."""
    value = "x" * 10 if size == 10 else random.Random(1).randbytes(size)
    async with open_cache(server, store_timeout=10) as cache:
        server.faults({"drop": "after", "times": 2, "methods": ["POST"]})
        assert await cache.set("key", value)
        assert await cache.get("key") == value
        server.faults({"drop": "after", "times": 1, "methods": ["DELETE"]})
        await cache.delete("key")
        assert await cache.get("key") is None
    assert cache.stats().store_errors == {}


async def test_a_split_write_that_fails_leaves_nothing(server):
    """Where a part can't be written the store says why, and takes the other parts away."""
    record = Record(key=key_of("a"), body=random.Random(1).randbytes(2_000_000))
    async with opened(store_in(server, timeout=0.2)) as store:
        server.faults({"methods": ["POST"], "after": 1, "status": 429, "retryAfter": AGES,
                       "times": -1})  # fmt: skip
        with pytest.raises(StoreThrottledError):
            await store.set_many(HOME, [record])
    assert server.items() == []


async def test_server_that_is_gone(server):
    """Without a server a cache opens all the same, and calls go past it."""
    upstream = Questions()
    gone = server.connection_string.replace(str(server.port), "9")
    async with Cache.cosmos_db(gone, store_timeout=TIMEOUT) as cache:
        await storm(cache, upstream)
        stats = cache.stats()
    assert upstream.calls == CALLS
    assert set(stats.store_errors) <= {"unavailable", "timeout", "breaker_open"}


async def test_server_that_goes_and_returns(server):
    """A server that stops and starts elsewhere in time is used again without reopening."""
    upstream = Questions()
    async with open_cache(server) as cache:
        server.faults({"drop": "before", "times": -1, "all": True})
        await storm(cache, upstream)
        for number in range(20):
            await cache.get_or_create(("opening", number), upstream.answer_to(number))
        assert cache.stats().breaker == "open"
        server.faults()
        await back(cache)


async def test_container_that_is_deleted(server):
    """When the container is deleted, calls go past it; opened again, the cache has a new one."""
    upstream = Questions()
    cache = open_cache(server)
    async with cache:
        await cache.set("key", "value")
        server.control(wipe=True)
        server.control(reset=True)
        for number in range(20):
            answer = await cache.get_or_create(number, upstream.answer_to(number))
            assert answer == f"answer {number}"
        assert cache.stats().store_errors.keys() == {"unavailable", "breaker_open"}
        assert sum(server.counts().values()) < 20
    async with cache:
        assert await cache.get_or_create(1, upstream.answer_to(1)) == "answer 1"
        await settled(cache)
        assert await cache.contains(1)


async def test_cancelled_calls_leave_no_lease(server):
    """Callers that give up in any phase leave no lease behind, and a store that works."""
    async with open_cache(server, store_timeout=10) as cache:
        for turn in range(12):

            async def slow():
                await asyncio.sleep(0.01)
                return "paid"

            asked = [asyncio.create_task(cache.get_or_create(("c", n), slow)) for n in range(20)]
            await asyncio.sleep(0.002 * turn)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        await settled(cache)
        assert [item for item in server.items() if "lease" in item] == []
        assert await cache.get_or_create("key", Questions().answer_to(1)) == "answer 1"
        assert cache.stats().store_errors == {}
