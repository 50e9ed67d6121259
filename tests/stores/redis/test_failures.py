"""The cache over a Redis that is stopped, frozen, cut off, full, loading, or forbids things."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from asynccache import Cache, StoreFullError
from asynccache.stores.redis import RedisStore
from tests.helpers.cutting_proxy import CuttingProxy
from tests.helpers.redis_servers import Valkey
from tests.helpers.remote_stores import Upstream, back, settled

STORM = 2_000
TIMEOUT = 0.3  # seconds: the caches' store_timeout here
PATIENT = 20  # seconds: the same where no test waits for its end, as machines may be busy


@pytest.fixture
def server():
    """A server of the test's own, which it may maltreat; `valkey` is only looked at."""
    with Valkey() as running:
        yield running


def open_cache(server, **options):
    """A cache on a server, over TCP."""
    return Cache.redis(redis_url=server.url, store_timeout=TIMEOUT, **options)


def patient(**options):
    """A cache whose deadline no test is about."""
    return Cache.redis(store_timeout=PATIENT, **options)


async def storm(cache, upstream, first=0):
    """Make 2,000 calls at once; none may fail."""
    asked = [cache.get_or_create(number, upstream) for number in range(first, first + STORM)]
    answers = await asyncio.gather(*asked)
    assert len(answers) == STORM


@pytest.mark.parametrize("how", ["stopped", "frozen"])
@pytest.mark.parametrize("when", ["before", "during", "after"])
async def test_redis_goes_and_returns(server, how, when):
    """Redis is gone before, during or after a storm of 2,000 calls, and returns: none fails.

    Once it has failed often enough it isn't asked; when it is back it is used again.
    """
    upstream = Upstream()
    end = server.stop if how == "stopped" else server.freeze
    resume = server.start if how == "stopped" else server.thaw

    async def slowly():
        await asyncio.sleep(0.02)
        return await upstream()

    if when == "before" and how == "stopped":
        end()
    async with open_cache(server) as cache:
        if when == "during":
            storming = asyncio.create_task(storm(cache, slowly))
            await asyncio.sleep(0)  # all have asked, none has an answer
            end()
            await storming
        elif when == "after":
            await storm(cache, upstream)
            end()
        elif how == "frozen":
            end()
        await storm(cache, upstream, first=10_000)  # finds nothing, and calls
        for number in range(20):  # whatever the storm met, these find the breaker open in the end
            await cache.get_or_create(("opening", number), upstream)
        assert cache.stats().breaker in {"open", "probing"}
        paid = upstream.calls
        met = cache.stats().store_errors["breaker_open"]
        await storm(cache, upstream, first=20_000)  # asks nobody
        assert upstream.calls == paid + STORM
        stats = cache.stats()
        assert stats.store_errors["breaker_open"] > met
        assert set(stats.store_errors) <= {"unavailable", "timeout", "breaker_open", "loading"}
        assert stats.upstream_errors == 0
        resume()
        await back(cache)
        await cache.get_or_create("kept", upstream)
        assert await cache.get("kept") is not None


async def test_delay_is_one_deadline(server):
    """A call meets its deadline once: a lookup that timed out isn't followed by a claim."""
    upstream = Upstream()
    async with open_cache(server) as cache:
        await cache.get_or_create("before", upstream)
        await settled(cache)
        server.freeze()
        await cache.get_or_create("during", upstream)
        # One timeout for the lookup, and none for a claim; storing is nobody's delay.
        assert cache.stats().store_errors == {"timeout": 1}
        server.thaw()


async def test_connections_survive_a_pause(server):
    """A server that answers late loses no connection, and nobody gets another's late answer."""
    async with open_cache(server, max_connections=2) as cache:
        assert await cache.set_many([(n, f"value {n}") for n in range(10)])
        with server.client() as client:
            before = client.info("stats")["total_connections_received"]
            server.freeze()
            asked = [asyncio.create_task(cache.get(n)) for n in range(10)]
            assert await asyncio.gather(*asked) == [None] * 10  # too late
            server.thaw()
            for _ in range(3):
                found = await cache.get_many(range(10))
                assert all(value in (None, f"value {n}") for n, value in enumerate(found))
            await back(cache)
            assert await cache.get_many(range(10)) == [f"value {n}" for n in range(10)]
            assert client.info("stats")["total_connections_received"] - before <= 1


async def test_connections_that_were_closed_meanwhile_are_made_anew(server):
    """A server that has closed what nobody used costs no error, however late that is noticed."""
    async with patient(redis_url=server.url) as cache, asyncio.timeout(20):
        await cache.set("key", "value")
        for _ in range(5):
            with server.client() as client:  # in one turn, so that the loop hasn't heard of it
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert await cache.get("key") == "value"
        assert cache.stats().store_errors == {}


async def test_replies_cut_at_every_byte(valkey):
    """However much of a reply arrives before the connection is cut: the answer is right or none."""
    valkey.empty()
    async with CuttingProxy(valkey.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        async with Cache.redis(redis_url=url, store_timeout=5) as cache:
            pairs = [(n, f"value {n}") for n in range(3)]
            await cache.set_many(pairs)
            proxy.cut_after(None)
            await cache.get_many(range(3))
            whole = proxy.passed  # bytes of the reply
        assert whole > 300
        outcomes = set()
        for limit in range(whole + 1):
            store = RedisStore(url, timeout=5)
            async with Cache.from_store(store) as cache:
                proxy.cut_after(limit)
                found = await cache.get_many(range(3))
                proxy.cut_after(None)
            assert found in ([None] * 3, [value for _, value in pairs])
            outcomes.add(found[0])
        assert outcomes == {None, "value 0"}


async def test_claims_and_stores_cut_at_every_byte(valkey):
    """Cut in the middle of a claim or a store, a call has its own answer, and never another's."""
    async with CuttingProxy(valkey.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        for limit in range(60):
            valkey.empty()

            async def pay(limit=limit):
                return f"answer {limit}"

            async with Cache.redis(redis_url=url, store_timeout=5) as cache:
                proxy.cut_after(limit)
                answers = await asyncio.gather(*(cache.get_or_create(n, pay) for n in range(3)))
                proxy.cut_after(None)
            assert answers == [f"answer {limit}"] * 3
            async with Cache.redis(redis_url=url, mode="replay") as cache:
                assert set(await cache.get_many(range(3))) <= {None, f"answer {limit}"}


POLICIES = ["noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru",
            "volatile-lfu", "volatile-random", "volatile-ttl"]  # fmt: skip


@pytest.mark.parametrize("ttl", [None, 3600], ids=["for-ever", "with-ttl"])
@pytest.mark.parametrize("policy", POLICIES)
async def test_maxmemory(valkey, policy, ttl):
    """A full Redis costs no call: it evicts, or refuses, which is counted under its own name."""
    upstream = Upstream()

    async def pay():
        await upstream()
        return os.urandom(40_000)  # nothing that compresses: 16 MB for 4 MiB of room

    with valkey.client() as client:
        client.execute_command("FLUSHALL", "SYNC")
        while client.info("memory")["lazyfree_pending_objects"]:
            await asyncio.sleep(0.01)
        client.config_resetstat()
        used = client.info("memory")["used_memory"]
        client.config_set("maxmemory-policy", policy)
        client.config_set("maxmemory", used + 4 * 2**20)
        try:
            async with patient(redis_url=valkey.unix_url, ttl=ttl) as cache:
                for first in range(0, 400, 100):
                    asked = [cache.get_or_create(first + n, pay) for n in range(100)]
                    await asyncio.gather(*asked)
                assert upstream.calls == 400
            stats = cache.stats()
            evicts = policy.startswith("allkeys") or (policy.startswith("volatile") and ttl)
            if evicts:
                assert client.info("stats")["evicted_keys"] > 0
            elif policy.startswith("volatile"):  # leases and generations are all that may go
                assert stats.not_stored.keys() <= {"store", "deleted"}
                assert sum(stats.not_stored.values()) > 0
            else:
                assert stats.store_errors["full"] > 0
                assert stats.not_stored["store"] > 0
            assert stats.breaker == "closed"  # a full Redis still answers
            assert set(stats.store_errors) <= {"full"}
        finally:
            client.config_set("maxmemory", 0)
            client.config_set("maxmemory-policy", "noeviction")


async def test_full_is_raised_where_asked_for(valkey):
    """With ``on_store_error="raise"`` a full Redis is an error, which names its cause."""
    with valkey.client() as client:
        client.config_set("maxmemory", 1)
        try:
            async with patient(redis_url=valkey.unix_url, on_store_error="raise") as cache:
                with pytest.raises(StoreFullError, match="maxmemory") as caught:
                    await cache.set("key", "value")
                assert caught.value.__cause__ is not None
        finally:
            client.config_set("maxmemory", 0)


async def test_full_when_it_is_back(server):
    """A Redis that is out of memory as it comes back is used again once it has room."""
    async with open_cache(server) as cache:
        server.stop()
        while cache.stats().breaker != "open":
            await cache.set("key", "value")
        server.start()
        with server.client() as client:
            client.config_set("maxmemory", 1)
            while "full" not in cache.stats().store_errors:
                assert not await cache.set("key", "value")
                await asyncio.sleep(0.02)
            client.config_set("maxmemory", 0)
        assert await cache.set("key", "value")


async def test_replica(server):
    """A replica serves what it has, and takes nothing: counted as read-only, calls go on."""
    upstream = Upstream()
    async with patient(redis_url=server.url) as cache:
        await cache.get_or_create("there", upstream)
    with server.client() as client:
        client.config_set("repl-diskless-sync-delay", 0)
    with Valkey("--replicaof", "127.0.0.1", str(server.port)) as replica:
        with replica.client() as client:
            while client.dbsize() == 0:
                await asyncio.sleep(0.01)
        async with patient(redis_url=replica.url) as cache:
            assert await cache.get_or_create("there", upstream) == {"call": 1}
            for number in range(20):
                await cache.get_or_create(number, upstream)
            stats = cache.stats()
            assert stats.hits == 1
            assert stats.breaker == "closed"
            assert stats.store_errors.keys() == {"readonly"}
    assert upstream.calls == 21


async def test_loading(server):
    """While Redis loads its data calls go on, counted as loading."""
    upstream = Upstream()
    with server.client() as client:
        client.mset({f"stranger:{number}": "x" for number in range(3000)})
        client.save()
    server.stop()
    options = server.options
    server.options = (
        "--key-load-delay", "2000",  # microseconds
        "--loading-process-events-interval-bytes", "1024", *options,
    )  # fmt: skip
    server.start()
    server.options = options
    async with patient(redis_url=server.url) as cache:
        await cache.get_or_create("key", upstream)
        assert cache.stats().store_errors["loading"] >= 1
        with server.client() as client:
            client.config_set("key-load-delay", 0)
        await back(cache)


async def test_wrong_password(server):
    """Who isn't let in goes past Redis, counted as auth; the log says what to check."""
    upstream = Upstream()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "agent", "on", ">right", "~*", "&*", "+@all")
    url = f"redis://agent:wrong@127.0.0.1:{server.port}/0"
    async with patient(redis_url=url) as cache:
        for number in range(20):
            await cache.get_or_create(number, upstream)
        stats = cache.stats()
    assert upstream.calls == 20
    assert stats.store_errors.keys() == {"auth", "breaker_open"}
    async with patient(redis_url=url.replace("wrong", "right")) as cache:
        await cache.get_or_create("key", upstream)
    assert cache.stats().store_errors == {}


async def test_forbidden_commands(server, caplog):
    """What an ACL forbids is counted as denied, said once, and keeps no call from its answer."""
    upstream = Upstream()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "&*", "+mget")
    url = f"redis://reader:pw@127.0.0.1:{server.port}/0"
    async with patient(redis_url=url) as cache:
        for number in range(20):
            await cache.get_or_create(number, upstream)
        stats = cache.stats()
    assert upstream.calls == 20
    assert stats.store_errors.keys() == {"denied"}
    assert stats.breaker == "closed"
    said = [record for record in caplog.records if "may not do that" in record.getMessage()]
    assert len(said) == 1


async def test_every_change_is_logged_once(server, caplog):
    """A server that goes and comes back leaves a line for each, however many calls notice."""
    caplog.set_level("INFO", "asynccache")
    async with open_cache(server) as cache:
        server.stop()
        for number in range(50):
            await cache.get_or_create(number, Upstream())
        server.start()
        await back(cache)
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "failed 5 times in a row" in line]) == 1
    assert len([line for line in lines if "answers again" in line]) == 1
    assert len([line for line in lines if "further ones are only counted" in line]) == 1


async def test_open_breaker_answers_at_once(server):
    """Past an open breaker a call asks nothing of the network, and isn't delayed by it."""
    upstream = Upstream()
    async with open_cache(server) as cache:
        server.freeze()
        await asyncio.gather(*(cache.get_or_create(n, upstream) for n in range(5)))
        for number in range(10):
            await cache.get_or_create(("more", number), upstream)
        assert cache.stats().breaker in {"open", "probing"}
        timeouts = cache.stats().store_errors["timeout"]
        began = time.monotonic()
        for number in range(500):
            await cache.get_or_create(("past", number), upstream)
        if time.monotonic() - began < 1:  # else a probe was due, which may time out
            assert cache.stats().store_errors["timeout"] == timeouts
        server.thaw()
