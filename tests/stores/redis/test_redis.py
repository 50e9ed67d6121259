"""The cache on Redis: connections, clients of the user's own, namespaces, loops, forks, rights."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis_asyncio

from asynccache import Cache, StoreUnavailableError, options
from asynccache.cache import settings
from asynccache.keys.key import Namespace, value_key
from asynccache.stores import links
from asynccache.stores.base import UNKNOWN, Record
from asynccache.stores.memory import MemoryStore
from asynccache.stores.near import NearCache
from asynccache.stores.redis import RedisStore
from asynccache.stores.redis.address import RedisAddress
from asynccache.stores.redis.keys import names_of
from asynccache.testing import FaultyStore, ManualClock
from tests.helpers.changes import CHANGES, old_answer_stays_out
from tests.helpers.inside import engine_of
from tests.helpers.redis_servers import Sentinel, Valkey
from tests.helpers.remote_stores import Upstream, settled, used
from tests.helpers.scenes import Scene

DOCS = Path(__file__).parents[3] / "docs" / "stores" / "redis.md"


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Wait long where a test does not say how long: a busy server is not a dead one."""
    monkeypatch.setattr(settings, "_REMOTE_TIMEOUT", 20.0)


@pytest.fixture
async def stack():
    """What is to be closed even if the test fails: over an open client uvloop never ends."""
    async with contextlib.AsyncExitStack() as stack:
        yield stack


def connections(server):
    """How many connections a server has taken so far, but for those that asked this."""
    with server.client() as client:
        asked = server.asked = getattr(server, "asked", 0) + 1
        return client.info("stats")["total_connections_received"] - asked


# -- how it is reached -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["url", "unix_url"])
async def test_tcp_and_unix_sockets(server, where):
    """One server is reached over TCP and over a unix socket."""
    await used(Cache.redis(redis_url=getattr(server, where)), 300)
    await used(Cache.from_url(getattr(server, where)), 300)


async def test_users_and_databases(server):
    """User and password, and another database than the first, come with the URL."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "ag@nt", "on", ">p/w:d", "~*", "&*", "+@all")
    url = f"redis://ag%40nt:p%2Fw%3Ad@127.0.0.1:{server.port}/3"
    cache = Cache.from_url(f"{url}?ttl=60&cache_seed=9")
    async with cache:
        await cache.set("key", "value")
    with server.client(db=3) as client:
        (name,) = client.keys("*")
        assert name.startswith(b"asynccache:9:{")
        assert 0 < client.ttl(name) <= 60
    await used(Cache.redis(redis_url=url), 300)


async def test_cluster(cluster):
    """A cluster is found by any of its nodes, and holds a namespace on all of them."""
    await used(Cache.redis(redis_url=cluster.url), 300)
    node = cluster.nodes[1]
    async with Cache.from_url(f"redis+cluster://127.0.0.1:{node.port}?ttl=3600") as cache:
        await cache.set_many([(n, n) for n in range(600)])
        sizes = []
        for each in cluster.nodes:
            with each.client() as client:
                sizes.append(client.dbsize())
        assert sum(sizes) == 600
        assert min(sizes) > 100
        assert await cache.clear() == 600


async def test_cluster_slots_that_move(cluster):
    """When a slot moves to another node, its keys are found where they are now."""
    async with Cache.redis(redis_url=cluster.url) as cache:
        await cache.set_many([(n, n) for n in range(300)])
        assert await cache.get_many(range(300)) == list(range(300))
        digest = value_key(Namespace.of(42), "value", 7)
        name = names_of(Namespace.of(42)).entry(digest)
        with cluster.nodes[0].client() as client:
            slot = client.execute_command("CLUSTER KEYSLOT", name)
        owner = next(n for n in range(3) if slot < (n + 1) * 16384 // 3)
        source, target = cluster.nodes[owner], cluster.nodes[(owner + 1) % 3]
        with cluster.moving(slot, source, target) as move:
            assert await cache.get(7) == 7  # by ASK, while it is under way
            move()
            assert await cache.get(7) == 7  # by MOVED
            assert await cache.set(7, "seven")
            assert await cache.get_many(range(300)) == [*range(7), "seven", *range(8, 300)]
            assert cache.stats().store_errors == {}
            await cache.clear()


async def test_sentinel(server):
    """The primary is found by asking sentinels, under its name."""
    with Sentinel(server, "prime") as sentinel:
        await used(
            Cache.redis(redis_url=f"redis+sentinel://127.0.0.1:{sentinel.port}/prime/0"), 300
        )
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/another"
        async with Cache.redis(redis_url=url) as cache:
            assert await cache.get_or_create("key", Upstream()) == {"call": 1}
        assert cache.stats().store_errors.keys() == {"failover"}


async def test_sentinel_failover():
    """When the sentinels name another primary, the cache goes there without a restart."""
    with (
        Valkey() as first,
        Valkey("--replicaof", "127.0.0.1", str(first.port)) as second,
        Sentinel(first, "prime") as sentinel,
    ):
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/prime"
        async with Cache.redis(redis_url=url, store_timeout=0.5) as cache:
            assert await cache.set("before", 1)
            first.stop()
            with second.client() as client:
                client.execute_command("REPLICAOF", "NO", "ONE")
            sentinel.watch(second)
            for attempt in range(500):
                if await cache.set("after", attempt):
                    break
                await asyncio.sleep(0.02)
            assert await cache.get("after") == attempt
            with second.client() as client:
                assert client.keys("asynccache:42:*") != []


# -- the user's own client -------------------------------------------------------------------------


@pytest.mark.parametrize("decoding", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_client_of_ones_own(server, decoding, protocol, stack):
    """A client is used as it is, and works on when the cache is closed."""
    client = redis_asyncio.Redis.from_url(
        server.url, decode_responses=decoding, protocol=protocol, max_connections=3
    )
    stack.push_async_callback(client.aclose)
    await client.set("mine", "1")
    await used(Cache.redis(client=client), 300)
    assert await client.get("mine") == ("1" if decoding else b"1")


async def test_cluster_client_of_ones_own(cluster, stack):
    """A cluster's client is used as it is, too."""
    host, port = "127.0.0.1", cluster.nodes[0].port
    client = redis_asyncio.RedisCluster(host=host, port=port, decode_responses=True)
    stack.push_async_callback(client.aclose)
    await used(Cache.redis(client=client), 300)
    assert await client.set("mine", "1")
    assert await client.delete("mine") == 1


@pytest.mark.parametrize("size", [1, 2, 10])
async def test_small_pools_of_ones_own(server, size, stack):
    """A client whose pool raises when it is empty is never asked for more than it has."""
    client = redis_asyncio.Redis.from_url(server.url, max_connections=size)
    stack.push_async_callback(client.aclose)
    upstream = Upstream()
    async with Cache.redis(client=client) as cache:
        await asyncio.gather(*(cache.get_or_create(n, upstream) for n in range(3000)))
        assert cache.stats().store_errors == {}


async def test_client_belongs_to_one_loop(server, stack):
    """A client isn't used in a second loop, where it would hand out other loops' answers."""
    client = redis_asyncio.Redis.from_url(server.url)
    stack.push_async_callback(client.aclose)
    upstream = Upstream()
    async with Cache.redis(client=client) as cache:
        assert await cache.set("key", "mine")
        elsewhere = await asyncio.to_thread(
            lambda: asyncio.run(cache.get_or_create("key", upstream))
        )
        assert elsewhere == {"call": 1}
        assert cache.stats().store_errors.keys() == {"unavailable"}
        assert await cache.get("key") == "mine"


# -- calm ------------------------------------------------------------------------------------------


async def test_three_hundred_callers_and_ten_connections(server):
    """With few connections nobody fails: who needs one waits."""
    upstream = Upstream()
    before = connections(server)
    async with Cache.redis(redis_url=server.url, max_connections=10) as cache:
        for _ in range(2):
            asked = [asyncio.create_task(cache.get_or_create(n, upstream)) for n in range(300)]
            assert len(await asyncio.gather(*asked)) == 300
        stats = cache.stats()
    assert upstream.calls == 300
    assert stats.store_errors == {}
    assert connections(server) - before <= 11  # one is for being woken


@pytest.mark.parametrize("method", ["get", "set", "get_or_create", "delete", "clear"])
async def test_cancelled_callers_cost_no_connections(server, method):
    """Fifty callers who stop waiting, at whatever point, cause fewer than three reconnections."""
    async with Cache.redis(redis_url=server.url, max_connections=1) as cache:
        await cache.set_many([(n, n) for n in range(50)])
        before = connections(server)
        arguments = {"set": ("value",), "get_or_create": (Upstream(),)}.get(method, ())
        for turns in range(50):
            keys = () if method == "clear" else (turns,)
            task = asyncio.create_task(getattr(cache, method)(*keys, *arguments))
            for _ in range(turns % 10):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert await cache.set("after", "all")
        assert await cache.get("after") == "all"
        assert connections(server) - before < 3


async def test_replies_stay_in_step_when_commands_are_cancelled(server):
    """A command that is cancelled on the wire leaves a connection that answers the next rightly."""
    store = RedisStore(server.url, max_connections=1)
    async with Cache.from_store(store) as cache:
        await cache.set_many([(n, f"value {n}") for n in range(100)])
        before = connections(server)
        namespace = Namespace.of(42)
        for number in range(100):
            key = value_key(namespace, "value", number)
            task = asyncio.create_task(store.get_many(namespace, [key]))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            task.cancel()
            other = (number + 1) % 100
            assert await cache.get(other) == f"value {other}"
        assert connections(server) == before


async def test_equal_lookups_of_a_turn_travel_once(server):
    """Five hundred lookups of ten keys in one turn are one command with ten keys."""
    async with Cache.redis(redis_url=server.url) as cache:
        await cache.set_many([(n, n) for n in range(10)])
        with server.client() as client:
            client.config_resetstat()
            found = await cache.get_many([n % 10 for n in range(500)])
            stats = client.info("commandstats")
        assert found == [n % 10 for n in range(500)]
        assert stats["cmdstat_mget"]["calls"] == 1


async def test_round_trips(server):
    """A hit is one command; a miss is three, and its caller waits for two of them."""
    async with Cache.redis(redis_url=server.url) as cache:
        await cache.get_or_create("warm", Upstream())
        await settled(cache)

        def commands():
            with server.client() as client:
                stats = client.info("commandstats")
            return sum(stats[f"cmdstat_{name}"]["calls"] for name in ("evalsha", "mget", "eval"))

        with server.client() as client:
            client.config_resetstat()
            await cache.get_or_create("warm", Upstream())
            stats = client.info("commandstats")
            assert {k: v["calls"] for k, v in stats.items() if "info" not in k and "config" not in k} == {"cmdstat_mget": 1}  # fmt: skip  # noqa: E501
            client.config_resetstat()

            async def upstream():
                stats = client.info("commandstats")
                # Of the script's own calls, those that it makes inside are counted too.
                assert stats["cmdstat_evalsha"]["calls"] == 1
                assert stats["cmdstat_mget"]["calls"] == 1 + 2
                return "made"

            await cache.get_or_create("cold", upstream)
            await settled(cache)
            stats = client.info("commandstats")
            assert stats["cmdstat_evalsha"]["calls"] == 2
            assert stats["cmdstat_mget"]["calls"] == 1 + 2 + 1
            assert client.keys("*:lease") == []


async def test_large_values_travel_in_small_batches(server):
    """Once entries are known to be large, one lookup asks for few of them at once."""
    store = RedisStore(server.url)
    async with Cache.from_store(store) as cache:
        assert store.batch == 256
        await cache.set_many([(n, os.urandom(300_000)) for n in range(40)])
        for _ in range(5):
            await cache.get_many(range(40))
        assert store.batch < 10


async def test_scripts_come_back_after_a_flush(server):
    """A server that has forgotten the scripts is told them again, unseen."""
    async with Cache.redis(redis_url=server.url) as cache:
        await cache.set("a", 1)
        with server.client() as client:
            client.script_flush()
        assert await cache.set("a", 2)
        assert await cache.get("a") == 2
        assert cache.stats().store_errors == {}


# -- clocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [0, 2**20])
@pytest.mark.parametrize("seconds", [-86_400, 86_400])
async def test_wrong_clocks_change_no_expiry(server, seconds, local):
    """What a machine writes whose clock is wrong is a hit for all, until Redis ends it."""
    right = time.time()

    def cache(clock):
        store = RedisStore(server.url, clock=clock)
        return Cache.from_store(
            NearCache(store, max_bytes=local, ttl=0.01) if local else store, clock=clock, ttl=600
        )

    wrong = cache(ManualClock(right + seconds))
    async with wrong, cache(ManualClock(right)) as other:
        upstream = Upstream()
        assert await wrong.get_or_create("call", upstream) == {"call": 1}
        await settled(wrong)
        assert await wrong.set("value", 1)
        for each in (other, wrong, other):
            assert await each.get_or_create("call", upstream) == {"call": 1}
            assert await each.get("value") == 1
            assert each.stats().flaws == {}
        assert await other.set("value", 2)
        assert await wrong.get("value") == 2
        with server.client() as client:
            names = client.keys(
                "*:????????????????????????????????????????????????????????????????"
            )
            assert len(names) == 2
            for name in names:
                assert 500 < client.ttl(name) <= 600
                client.pexpire(name, 1)
        await asyncio.sleep(0.05)
        for each in (other, wrong):
            assert await each.get("value") is None
        assert await other.get_or_create("call", upstream) == {"call": 2}


# -- whose keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["server", "cluster"])
async def test_clear_removes_its_own_alone(server, cluster, kind, stack):
    """Of two namespaces and a stranger's keys in one database, clearing removes one namespace."""
    where = server if kind == "server" else cluster
    nodes = [server] if kind == "server" else cluster.nodes
    strange = [
        "stranger", "asynccache", "asynccache:41", "asynccache:41:{zz}:note",
        "asynccache:411:{ab}:x",
        "asynccache:41:{ab}:" + "a" * 63, "asynccache:41:{ab}:" + "cd" * 32,
        "asynccache:41:{cd}:" + "cd" * 32 + ":lease", "ASYNCCACHE:41:{cd}:" + "cd" * 32,
    ]  # fmt: skip
    if kind == "server":
        client: Any = redis_asyncio.Redis.from_url(where.url)
    else:
        client = redis_asyncio.RedisCluster(host="127.0.0.1", port=nodes[0].port)
    stack.push_async_callback(client.aclose)
    for node in nodes:
        with node.client() as sync:
            sync.config_resetstat()
    for name in strange:
        await client.set(name, "mine")
    async with (
        Cache.redis(41, where.url) as mine,
        Cache.redis(411, where.url) as other,
        Cache.redis(41, where.url, tenant="acme") as tenant,
    ):
        for cache, count in ((mine, 2500), (other, 30), (tenant, 20)):
            await cache.set_many([(n, n) for n in range(count)])
        assert await mine.clear() == 2500
        assert await mine.get_many(range(2500)) == [None] * 2500
        assert await other.get_many(range(30)) == list(range(30))
        assert await tenant.get_many(range(20)) == list(range(20))
        for name in strange:
            assert await client.get(name) == b"mine", name
        assert await other.clear() == 30
        assert await tenant.clear() == 20
    for name in strange:
        assert await client.delete(name) == 1
    for node in nodes:
        with node.client() as sync:
            assert sync.dbsize() == 0
            stats = sync.info("commandstats")
            assert not {"cmdstat_keys", "cmdstat_flushdb"} & stats.keys()


async def test_foreign_values_are_misses(server):
    """What another program has put under one of our names is no answer, and is written over."""
    names = names_of(Namespace.of(42))
    digest = value_key(Namespace.of(42), "value", "key")
    upstream = Upstream()
    with server.client() as client:
        client.rpush(names.entry(digest), "a", "list")
        client.rpush(names.lease(digest), "another", "list")
        async with Cache.redis(redis_url=server.url) as cache:
            assert await cache.get_or_create("key", upstream) == {"call": 1}
            await settled(cache)
            assert await cache.get("key") == {"call": 1}
            client.set(names.entry(digest), b"no entry")
            assert await cache.get_or_create("key", upstream) == {"call": 2}
            assert cache.stats().flaws == {"corrupt": 2}  # seen by the lookup, and by the claim
            assert cache.stats().store_errors == {}


async def test_damaged_bytes_keep_no_answer_out(server):
    """An answer whose lease was lost meanwhile is stored over bytes that are none."""
    upstream = Upstream()
    names, digest = names_of(Namespace.of(42)), value_key(Namespace.of(42), "value", "key")
    async with Cache.redis(redis_url=server.url, lease_ttl=0.2) as cache:

        async def slow():
            with server.client() as client:
                client.set(names.entry(digest), b"no entry")
                client.delete(names.lease(digest))
            while engine_of(cache)._leases._held:  # until a renewal has found the lease lost
                await asyncio.sleep(0.01)
            return await upstream()

        assert await cache.get_or_create("key", slow) == {"call": 1}
        await settled(cache)
        assert await cache.get("key") == {"call": 1}
        assert cache.stats().not_stored == {}


# -- rights ----------------------------------------------------------------------------------------


async def test_documented_rights_are_enough(server):
    """A user with exactly the rights that the docs list can do everything."""
    (rule,) = re.findall(r"^ACL SETUSER agent (.*)$", DOCS.read_text("utf-8"), re.MULTILINE)
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "agent", *rule.split())
        client.execute_command("ACL", "LOG", "RESET")
        url = f"redis://agent:secret@127.0.0.1:{server.port}/0"
        await used(Cache.redis(redis_url=url), 300)
        await many_changed(RedisStore(url))
        async with Cache.redis(redis_url=url) as cache:
            await waited_for(cache)
        denied = [entry["object"] for entry in client.acl_log()]
    assert denied == []


RIGHTS = ["+mget", "+evalsha", "+eval", "+set", "+unlink", "+scan", "+subscribe", "+publish",
          "+hmget", "+hset", "+hincrby", "+hlen", "+hgetall", "+hdel", "+expire",
          "~asynccache:*", "&asynccache:woken"]  # fmt: skip


@pytest.mark.parametrize("word", RIGHTS)
async def test_every_documented_right_is_needed(server, word):
    """Without any one of the rights that the docs list, Redis forbids something."""
    (rule,) = re.findall(r"^ACL SETUSER agent (.*)$", DOCS.read_text("utf-8"), re.MULTILINE)
    words = rule.split()
    assert word in words
    words.remove(word)
    with server.client() as client:
        client.execute_command("ACL", "DELUSER", "agent")
        client.execute_command("ACL", "SETUSER", "agent", *words)
        client.execute_command("ACL", "LOG", "RESET")
        client.script_flush()
        url = f"redis://agent:secret@127.0.0.1:{server.port}/0"
        async with Cache.redis(redis_url=url) as cache:
            assert await cache.get_or_create("key", Upstream()) == {"call": 1}
            await settled(cache)
            await waited_for(cache)
            for call in (cache.delete("key"), cache.clear(), many_changed(RedisStore(url))):
                await asyncio.gather(call, return_exceptions=True)
        assert client.acl_log() != []


async def test_documented_rights_are_enough_in_a_cluster(cluster):
    """In a cluster the few rights that the docs add are enough."""
    (rule,) = re.findall(r"^ACL SETUSER agent (.*)$", DOCS.read_text("utf-8"), re.MULTILINE)
    (more,) = re.findall(r"^In a cluster also (.*?);", DOCS.read_text("utf-8"), re.MULTILINE)
    words = [*rule.split(), *re.findall(r"`(\+[^`]*)`", more)]
    for node in cluster.nodes:
        with node.client() as client:
            client.execute_command("ACL", "SETUSER", "agent", *words)
            client.execute_command("ACL", "LOG", "RESET")
    url = cluster.url.replace("://", "://agent:secret@")
    await used(Cache.redis(redis_url=url), 300)
    async with Cache.redis(redis_url=url) as cache:
        await waited_for(cache)
        await cache.clear()
    for node in cluster.nodes:
        with node.client() as client:
            assert [entry["object"] for entry in client.acl_log()] == []


async def test_reading_needs_one_right(server):
    """In the modes "replay" and "read_only" the right to read is enough."""
    async with Cache.redis(redis_url=server.url) as cache:
        await cache.set("key", "value")
    with server.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "reader", "on", ">pw", "~asynccache:*", "-@all", "+mget"
        )
    url = f"redis://reader:pw@127.0.0.1:{server.port}/0"
    async with Cache.redis(redis_url=url, mode="replay") as cache:
        assert await cache.get("key") == "value"
    async with Cache.redis(redis_url=url, mode="read_only") as cache:
        assert await cache.get_or_create("other", Upstream()) == {"call": 1}
        assert cache.stats().store_errors == {}
        assert cache.stats().store_errors == {}


async def test_memory_is_what_the_docs_say(server):
    """An answer of 850 bytes takes about as much of Redis' memory as the docs tell."""
    (told,) = re.findall(r"850 bytes takes about ([\d.]+) kB", DOCS.read_text("utf-8"))
    with server.client() as client:
        async with Cache.redis(redis_url=server.url) as cache:
            before = client.info("memory")["used_memory"]
            await cache.set_many([(n, os.urandom(425).hex()) for n in range(4000)])
            each = (client.info("memory")["used_memory"] - before) / 4000
    assert 0.8 < each / 1000 / float(told) < 1.2


async def waited_for(cache):
    """Let one loop wait for what another one makes; both have the answer."""
    upstream = Upstream()
    begun, go = threading.Event(), threading.Event()

    async def slow():
        begun.set()
        await asyncio.to_thread(go.wait, 20)
        return await upstream()

    async def other():
        return await cache.get_or_create("waited for", slow)

    async def release_soon():
        await asyncio.sleep(0.3)  # for the waiter to subscribe: sooner is right too, and tests less
        go.set()

    first = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(other())))
    await asyncio.to_thread(begun.wait, 20)
    releasing = asyncio.create_task(release_soon())
    assert await cache.get_or_create("waited for", upstream) == {"call": 1}
    assert await first == {"call": 1} or cache.stats().store_errors
    await releasing


# -- loops, threads, forks -------------------------------------------------------------------------


async def test_loops_and_threads_never_mix_answers(server):
    """One cache in six loops at once: everybody gets their own answers."""
    cache = Cache.redis(redis_url=server.url)

    async def work(worker):
        for number in range(60):
            keys = [(worker, number, n) for n in range(10)]
            await cache.set_many([(key, list(key)) for key in keys])
            assert await cache.get_many(keys) == [list(key) for key in keys]
            shared = ("shared", number)
            assert await cache.get_or_create(shared, answer_to(shared)) == list(shared)

    def answer_to(key):
        async def answer():
            return list(key)

        return answer

    async with cache:
        threads = [asyncio.to_thread(lambda n: asyncio.run(work(n)), n) for n in range(5)]
        await asyncio.gather(work("main"), *threads)
        assert cache.stats().store_errors == {}


async def test_loop_that_ends_gives_its_connections_back(server):
    """A loop that ends without closing the cache has stored what it paid, and leaves no socket."""

    def clients():
        with server.client() as client:
            return int(client.info("clients")["connected_clients"])

    async with Cache.redis(redis_url=server.url) as cache:
        await cache.get("warm")
        before = clients()
        for number in range(5):
            ask = cache.get_or_create(number, Upstream())
            assert await asyncio.to_thread(asyncio.run, ask) == {"call": 1}
            assert await cache.get(number) == {"call": 1}
        for _ in range(100):
            if clients() <= before:
                break
            await asyncio.sleep(0.02)
        assert clients() <= before


async def test_thread_of_a_loop_may_wait(server, monkeypatch):
    """Calls that don't await have connections of their own, also while they hold their loop up."""
    monkeypatch.setattr(links, "_FOREIGN_CLOSE", 1000)
    cache = Cache.redis(redis_url=server.url)
    await cache.open()
    await cache.set("a", 1)
    with cache as face:
        assert face.get("a") == 1
        assert face.set("a", 2)
        assert face.get_or_create("b", lambda: 3) == 3
        await cache.aclose()
    assert not cache.is_open
    async with cache:
        assert await cache.get_many(["a", "b"]) == [2, 3]
    assert cache.stats().store_errors == {}


FORKER = """
import asyncio, json, os, sys
from asynccache import Cache
from tests.helpers.inside import store_of

async def main():
    cache = Cache.redis(redis_url=sys.argv[1])
    async with cache:
        await cache.set("key", "parent's")
        pid = os.fork()
        if pid == 0:
            os._exit(child(cache))
        for _ in range(50):
            assert await cache.get("key") == "parent's"
        _, status = os.waitpid(pid, 0)
        assert await cache.get("from the child") == "child's"
    print(json.dumps({"status": status, "errors": cache.stats().store_errors}))

def child(cache):
    async def work():
        assert not cache.is_open
        assert not store_of(cache)._links._links  # the parent's, which isn't even to be closed here
        async with cache:
            for _ in range(50):
                assert await cache.get("key") == "parent's"
            await cache.set("from the child", "child's")
    import threading
    done = []
    # The parent's loop counts as running in this thread: the child's is in another.
    thread = threading.Thread(target=lambda: done.append(asyncio.run(work())))
    thread.start()
    thread.join()
    return 0 if done else 1

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork on this platform")
async def test_fork(server):
    """After a fork the child uses connections of its own, and the parent's stay as they were."""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", FORKER, server.url],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == '{"status": 0, "errors": {}}\n', done.stderr


# -- copies in the process -------------------------------------------------------------------------


async def test_copies_are_served_without_asking(server):
    """With room for copies, what was read once is read again without Redis, for its time."""
    cache = Cache.redis(redis_url=server.url, local_max_bytes=2**20, local_ttl=3600)
    async with cache, Cache.redis(redis_url=server.url) as other:
        await other.set("key", "old")
        assert await cache.get("key") == "old"
        with server.client() as client:
            client.config_resetstat()
            for _ in range(100):
                assert await cache.get("key") == "old"
            assert "cmdstat_mget" not in client.info("commandstats")
        await cache.set("key", "new")  # its own changes show at once
        assert await cache.get("key") == "new"
        assert await other.get("key") == "new"
        await cache.delete("key")
        assert await cache.get("key") is None
        await cache.set("key", "again")
        assert await cache.clear() == 1
        assert await cache.get("key") is None


async def test_copies_are_coherent_within_their_time(server):
    """What another process deletes is gone here when the copy's time is over."""
    cache = Cache.redis(redis_url=server.url, local_max_bytes=2**20, local_ttl=0.05)
    async with cache:
        await cache.set("key", "value")
        server.empty()
        await asyncio.sleep(0.06)
        assert await cache.get("key") is None


@pytest.mark.parametrize("copies", [None, 2**20])
@pytest.mark.parametrize("how", ["delete", "set", "clear", "set_many"])
async def test_changes_by_another_cache_object_show_at_once(server, how, copies):
    """Whatever another cache object of this process changes is seen, though copies last an hour."""
    first = Cache.redis(redis_url=server.url, local_max_bytes=2**20, local_ttl=3600)
    second = Cache.redis(redis_url=server.url, local_max_bytes=copies)
    async with first, second:
        await first.set("key", "old")
        assert await first.get("key") == await second.get("key") == "old"
        if how == "delete":
            await second.delete("key")
        elif how == "clear":
            await second.clear()
        elif how == "set":
            await second.set("key", "new")
        else:
            await second.set_many([("key", "new")])
        assert await first.get("key") == ("new" if "set" in how else None)


@pytest.mark.parametrize("how", ["delete", "set", "clear"])
async def test_lookups_that_are_overtaken_leave_no_copy(how):
    """What a lookup brings that began before a deletion or a set is served to nobody after it."""
    behind = FaultyStore(MemoryStore(), hide_inline=True)
    store = NearCache(behind, max_bytes=2**20, ttl=3600)
    namespace, key = Namespace.of(1), bytes(32)
    await behind.set_many(namespace, [Record(key=key, body=b"old")])
    gate = behind.stall("get_many", times=1, after=True)
    looking = asyncio.create_task(store.get_many(namespace, [key]))
    await gate.arrived()
    if how == "delete":
        await store.delete_many(namespace, [key])
    elif how == "clear":
        await store.clear(namespace)
    else:
        await store.set_many(namespace, [Record(key=key, body=b"new")])
    gate.release()
    assert list(await looking) == [b"old"]  # it was there when it was asked for
    expected = b"new" if how == "set" else None
    assert list(await store.get_many(namespace, [key])) == [expected]
    assert store.peek(namespace, key) == (expected or UNKNOWN)


# -- what was changed meanwhile --------------------------------------------------------------------


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("where", ["server", "cluster", "lent", "lent cluster"])
async def test_old_answers_stay_out(server, cluster, stack, where, change):
    """What is changed by another cache object while a call is made stays changed after it."""

    def cache():
        if where in ("server", "cluster"):
            return Cache.redis(redis_url=(server if where == "server" else cluster).url)
        client: Any = redis_asyncio.Redis.from_url(server.url)
        if where == "lent cluster":
            client = redis_asyncio.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port)
        stack.push_async_callback(client.aclose)
        return Cache.redis(client=client)

    await old_answer_stays_out(cache(), cache(), change)


async def many_changed(store, count=260):
    """Delete many keys with one tag; return what was refused of records from before and between."""
    namespace = Namespace.of(42)
    keys = [bytes([7]) + number.to_bytes(31, "little") for number in range(count)]
    read = []
    await store.open()
    try:
        for start in range(0, count, 65):
            read += await store.generations(namespace, [keys[start]])
            await store.delete_many(namespace, keys[start : start + 65])
        later = bytes([7]) + b"x" * 31
        records = [Record(key=later, body=b"", generation=generation) for generation in read]
        written = await store.set_many(namespace, records)
        # Of the last 128 changes each key's own is known.
        changed = [Record(key=key, body=b"", generation=read[-1]) for key in keys[-67:-63]]
        return [not done for done in written], await store.set_many(namespace, changed)
    finally:
        await store.aclose()


async def test_of_many_changes_the_last_are_known(server):
    """Of many changes the older ones are forgotten: who began before those is refused."""
    before, written = await many_changed(RedisStore(server.url))
    assert before == [True, True, False, False]
    assert written == [True, True, False, False]
    with server.client() as client:
        name = names_of(Namespace.of(42)).generations[7]
        assert client.hlen(name) <= 128 + 16
        assert client.object("encoding", name) == b"listpack"
        assert 86_000 < client.ttl(name) <= 86_400


@pytest.mark.parametrize("how", ["evicted", "flushed", "foreign"])
async def test_generations_that_are_lost(server, how):
    """Where nobody knows what became of a key meanwhile, its answer isn't stored."""
    store, namespace, key = RedisStore(server.url), Namespace.of(42), bytes(32)
    name = names_of(namespace).generations[0]
    await store.open()
    try:
        (old,) = await store.generations(namespace, [key])
        with server.client() as client:
            if how == "evicted":
                client.delete(name)
            elif how == "flushed":
                client.flushall()
            else:
                client.set(name, b"not a hash")
                await store.delete_many(namespace, [key])
                client.set(name, b"not a hash")
        for _ in range(2):
            assert await store.set_many(namespace, [Record(key=key, body=b"", generation=old)]) == [
                False
            ]
            (new,) = await store.generations(namespace, [key])
        assert await store.set_many(namespace, [Record(key=key, body=b"", generation=new)]) == [
            True
        ]
    finally:
        await store.aclose()


async def test_a_full_redis_deletes(server):
    """A key is deleted of a Redis that is full, and stays so: nothing from before is stored."""
    async with (
        Cache.redis(redis_url=server.url) as cache,
        Cache.redis(redis_url=server.url) as other,
    ):

        async def slow():
            with server.client() as client:
                client.config_set("maxmemory", 1)
                try:
                    assert await other.delete("key") is False
                finally:
                    client.config_set("maxmemory", 0)
            return "old"

        assert await cache.get_or_create("key", slow) == "old"
        await settled(cache)
        assert cache.stats().not_stored == {"deleted": 1}
        assert other.stats().store_errors == {}


# -- waiting ---------------------------------------------------------------------------------------


async def test_waiters_hear_again_after_a_reconnect(server):
    """A subscription that was cut is made anew, and who waits meanwhile isn't forgotten."""
    cache = Cache.redis(redis_url=server.url, lease_ttl=1000)
    async with cache, Cache.redis(redis_url=server.url, lease_ttl=1000) as other:
        for attempt in range(3):
            gate, upstream = asyncio.Event(), Upstream()

            async def slow(gate=gate, upstream=upstream):
                await gate.wait()
                return await upstream()

            first = asyncio.create_task(other.get_or_create(attempt, slow))
            await asyncio.sleep(0.05)
            waiting = asyncio.create_task(cache.get_or_create(attempt, upstream))
            with server.client() as client:
                while client.pubsub_numsub("asynccache:woken")[0][1] < 1:
                    await asyncio.sleep(0.01)
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                while client.pubsub_numsub("asynccache:woken")[0][1] < 1:
                    await asyncio.sleep(0.01)
            gate.set()
            # The next poll is four minutes away: only a message can end this.
            assert await asyncio.wait_for(waiting, 20) == await first == {"call": 1}


async def test_stream_is_replayed_to_who_waits_elsewhere(server):
    """A streamed call is paid once by two loops; who waits has its events when it is whole."""
    scenes = [Scene(), Scene()]
    for scene in scenes:
        scene.cache = Cache.redis(redis_url=server.url)
    first, second = scenes
    gate = first.upstream.hold()
    async with first.cache, second.cache:
        leading = asyncio.create_task(first.ask_streamed())
        await gate.arrived()
        waiting = asyncio.create_task(second.ask_streamed())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        gate.release()
        assert await waiting == await leading
    assert first.upstream.calls + second.upstream.calls == 1
    assert second.cache.stats().joined == 1


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://host", "must begin with one of redis://"),
        ("localhost:6379", "must begin with one of"),
        ("redis://host:notaport", "no host and port"),
        ("redis://host:99999", "no host and port"),
        ("redis://host/nodb", "a database's number"),
        ("redis://host/0/1", "a database's number"),
        ("redis://host?timeout=3", "no option 'timeout'"),
        ("redis://host?db=x", "can't be 'x'"),
        ("redis://a,b", r"redis\+cluster"),
        ("redis://host#x", "%23"),
        ("redis://host?ssl_ca_certs=/ca.pem", "need rediss://"),
        ("redis://host?sentinel_password=x", "sentinel"),
        ("rediss://host?ssl_cert_reqs=maybe", "can't be 'maybe'"),
        ("unix://host/path", "absolute path"),
        ("unix://", "absolute path"),
        ("redis+sentinel://host", "primary's name"),
        ("redis+cluster://host/3", "database 0"),
    ],
)
def test_bad_urls_are_refused(url, message):
    """A URL that can't be right is refused when the cache is made, with what is wrong in it."""
    with pytest.raises(ValueError, match=message):
        Cache.redis(redis_url=url)


@pytest.mark.parametrize("url", ["redis://user:hush@host:x", "redis://user:hush@host/x",
                                 "redis://user:hush@host?nope=1", "htp://user:hush@host",
                                 "redis://user:hush@host#hash", "user:hush@host"])  # fmt: skip
def test_passwords_are_not_repeated(url):
    """No error about a URL repeats its password; nor does the repr of what it says."""
    for make in (lambda: Cache.redis(redis_url=url), lambda: Cache.from_url(url)):
        with pytest.raises(ValueError, match=r".") as caught:
            make()
        assert "hush" not in str(caught.value)
    assert "hush" not in repr(RedisAddress.of("redis://user:hush@host"))


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"client": object()}, TypeError),
        ({"client": "redis://localhost"}, TypeError),
        ({"redis_url": 6379}, TypeError),
        ({"max_connections": 0}, ValueError),
        ({"local_max_bytes": -1}, ValueError),
        ({"local_ttl": 1}, ValueError),
        ({"local_ttl": 0, "local_max_bytes": 100}, ValueError),
        ({"store_timeout": 0}, ValueError),
    ],
)
def test_bad_options_are_refused(how, error):
    """An option that can't be right is refused before anything is opened."""
    with pytest.raises(error):
        Cache.redis(**how)


async def test_client_and_url_are_one_too_many(server, stack):
    """Who gives both a client and a URL is asked which one is meant."""
    client = redis_asyncio.Redis.from_url(server.url)
    stack.push_async_callback(client.aclose)
    with pytest.raises(ValueError, match="not both"):
        Cache.redis(redis_url=server.url, client=client)


async def test_store_that_is_not_open_says_so(server):
    """Using a store before opening it, or after closing it, is a clear error."""
    store = RedisStore(server.url)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="open it first"):
            await store.get_many(Namespace.of(1), [bytes(32)])
        await store.open()
        await store.aclose()


async def test_read_only_cache_writes_nothing(server):
    """A cache in mode "replay" or "read_only" leaves the server as it was."""
    for mode in ("replay", "read_only"):
        async with Cache.redis(redis_url=server.url, mode=mode) as cache:
            assert not await cache.set("key", "value")
            if mode == "read_only":
                await cache.get_or_create("key", Upstream())
        with server.client() as client:
            assert client.dbsize() == 0


async def test_seeds_and_samples_are_kept_apart(server):
    """Another seed or sample of the same key is another entry in the same database."""
    upstream = Upstream()
    async with Cache.redis(redis_url=server.url) as cache:
        for seed in (42, 43):
            for sample in (0, 1):
                with options(cache_seed=seed, sample=sample):
                    await cache.get_or_create("key", upstream)
        assert upstream.calls == 4
