"""What is special about aiocache's caches as stores: their loop, limits and failures."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import socket
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager

import anyio
import pytest
from aiocache import RedisCache, SimpleMemoryCache
from aiocache.base import BaseCache
from aiocache.serializers import PickleSerializer

from asynccache import Cache, StoreUnavailableError, options
from asynccache.keys.key import Namespace, value_key
from asynccache.runtime import background
from asynccache.stores.aiocache import AiocacheStore
from asynccache.stores.aiocache.forms import names_of
from asynccache.stores.base import Record
from asynccache.testing import ManualClock
from tests.helpers.changes import old_answer_stays_out
from tests.stores.aiocache.test_contract import PlainCache

HOME = Namespace.of("home")
LONG = "x" * 200


class Upstream:
    """Makes numbered values."""

    def __init__(self, value=None):
        self.calls = 0
        self.value = value

    async def __call__(self):
        self.calls += 1
        await asyncio.sleep(0.05)
        return self.value or f"made {self.calls}"


@pytest.fixture
async def memcached(memcached_server):
    """A cache of aiocache's on it, empty."""
    from aiocache import MemcachedCache

    memcached_server.empty()
    cache = MemcachedCache(port=memcached_server.port)
    yield cache
    await cache.close()


@asynccontextmanager
async def redis_cache(valkey):
    """A cache of aiocache's on Redis."""
    cache = RedisCache(port=valkey.port)
    yield cache
    await cache.client.aclose()


# -- what may be a store -----------------------------------------------------------------------


def test_only_aiocache_caches_are_taken():
    """What isn't a cache of aiocache's, or can't keep entries, is refused by name."""
    with pytest.raises(TypeError, match=r"an aiocache cache, not of builtins\.dict"):
        Cache.aiocache({})

    class Half(BaseCache):  # type: ignore[misc] # aiocache has no types
        async def _get(self, key, encoding="utf-8", _conn=None):
            return None

    with pytest.raises(TypeError, match="lacks _add, _delete, _multi_get, _set"):
        Cache.aiocache(Half())


def test_options_are_checked():
    """Options are those of every factory."""
    with pytest.raises(TypeError, match="no option 'room'"):
        Cache.aiocache(SimpleMemoryCache(), room=1)  # type: ignore[call-arg] # the point


# -- what is kept ------------------------------------------------------------------------------


class Bomb:
    """Goes off when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


async def test_nothing_is_unpickled():
    """What lies under an entry's name is bytes of ours or nothing, whatever the serializer."""
    for planted in (pickle.dumps(Bomb()), b"", b"ayc1", "text", Bomb(), 7):
        backing = SimpleMemoryCache(serializer=PickleSerializer())
        async with Cache.aiocache(backing, 1) as cache:
            await cache.set("other", 1)
            namespace = cache.settings.namespace
            name = names_of(namespace).entry(value_key(namespace, "value", "key"))
            backing._cache[name] = planted
            upstream = Upstream()
            assert await cache.get("key") is None
            assert await cache.get_or_create("key", upstream) == "made 1"
        async with cache:
            assert await cache.get_or_create("key", upstream) == "made 1"


@pytest.mark.parametrize("planted", [b"", b"short", b"x" * 9, "text"])
async def test_a_strangers_generation_is_none(planted):
    """What isn't a generation in its place is replaced, and what is set from then on is found."""
    backing = SimpleMemoryCache()
    async with Cache.aiocache(backing) as cache:
        await cache.set("a", 1)
        name = names_of(cache.settings.namespace).generation
        backing._cache[name] = planted
        assert await cache.get("a") is None
        assert await cache.set("a", 2)
        assert await cache.get("a") == 2
        assert await cache.clear() == 1
        assert await cache.get("a") is None


async def test_what_was_cleared_stays_cleared_without_a_list():
    """Clearing reaches entries that the list of keys has lost, as memcached may drop any key."""
    backing = SimpleMemoryCache()
    async with Cache.aiocache(backing) as cache:
        await cache.set("a", 1)
        for name in [name for name in backing._cache if ":index:" in name]:
            del backing._cache[name]
        assert await cache.clear() == 0
        assert await cache.get("a") is None
        await cache.set("b", 2)
        assert await cache.clear() == 1


async def test_the_namespace_of_the_users_is_kept():
    """Names are built by the cache, so that its namespace or key builder is in force."""
    plain = SimpleMemoryCache(namespace="mine:")
    built = SimpleMemoryCache(key_builder=lambda key, namespace: f"built-{key}")
    for backing, head in ((plain, "mine:asynccache:"), (built, "built-asynccache:")):
        async with Cache.aiocache(backing) as cache:
            await cache.set("a", 1)
            assert await cache.get("a") == 1
        assert all(name.startswith(head) for name in backing._cache)


async def test_a_long_tenant_has_short_names():
    """Names stay within memcached's 250 bytes, and tenants apart, however long they are."""
    backing = SimpleMemoryCache()
    one = Cache.aiocache(backing, tenant="é" * 199 + "1")
    other = Cache.aiocache(backing, tenant="é" * 199 + "2")
    async with one, other:
        await one.set("a", 1)
        assert await other.get("a") is None
        assert await one.get("a") == 1
    assert max(map(len, backing._cache)) < 170


async def test_lists_of_keys_lose_the_dead():
    """A list of keys doesn't grow for ever: what has expired makes room in it."""
    clock = ManualClock()
    backing = SimpleMemoryCache()
    store = AiocacheStore(backing, clock=clock)
    await store.open()
    for turn in range(3):
        expires = clock.time_us() + 1_000_000
        keys = [bytes([7, turn]) + bytes([n // 256, n % 256]) * 15 for n in range(700)]
        records = [Record(key=key, body=b"body", expires=expires) for key in keys]
        await store.set_many(HOME, records)
        clock.advance(2)
    (listed,) = [kept for name, kept in backing._cache.items() if ":index:" in name]
    assert len(listed) <= 32 * 1400
    await store.aclose()


# -- loops and processes -----------------------------------------------------------------------


def test_memory_goes_from_one_loop_to_the_next():
    """A SimpleMemoryCache keeps what it has for the loops that come after."""
    cache = Cache.aiocache(SimpleMemoryCache())
    upstream = Upstream()

    async def ask():
        async with cache:
            return await cache.get_or_create("a", upstream)

    assert [asyncio.run(ask()) for _ in range(3)] == ["made 1"] * 3


def test_a_cache_with_connections_stays_in_its_loop(valkey):
    """While its loop rests, a loop elsewhere is told so, and its calls go past the cache."""
    upstream = Upstream()
    with asyncio.Runner() as first, asyncio.Runner() as second:
        cache = Cache.aiocache(made := RedisCache(port=valkey.port))
        first.run(cache.open())
        assert first.run(cache.get_or_create("resting", upstream)) == "made 1"
        assert second.run(cache.get_or_create("resting", upstream)) == "made 2"
        while not cache.stats().not_stored:  # until then its answer is on the way
            second.run(asyncio.sleep(0))
        assert second.run(cache.get_or_create("resting", upstream)) == "made 3"
        assert cache.stats().store_errors["unavailable"] > 0
        first.run(cache.aclose())
        first.run(made.client.aclose())


async def test_a_cache_with_connections_in_the_thread_of_its_loop(valkey):
    """Where its loop is held up by who asks, calls go past the cache at once, and it closes."""
    upstream = Upstream()
    async with redis_cache(valkey) as backing:
        cache = Cache.aiocache(backing, store_timeout=1000)
        await cache.open()
        assert await cache.set("a", 1)
        with cache as face:
            assert face.get("a") is None
            assert not face.set("a", 2)
            assert face.get_or_create("b", lambda: 3) == 3
            await cache.aclose()
        assert not cache.is_open
        assert set(cache.stats().store_errors) <= {"unavailable", "breaker_open"}
        async with cache:
            assert await cache.get_or_create("a", upstream) == 1


async def test_a_cache_with_connections_that_was_opened_by_with(valkey):
    """Opened by `with`, it belongs to the background loop, which nobody holds up."""
    backing = RedisCache(port=valkey.port)
    cache = Cache.aiocache(backing)
    with cache as face:
        async with cache:
            assert await cache.set("by with", 1)
            assert face.get("by with") == 1
            assert face.set("by with", 2)
            assert await cache.get("by with") == 2
        assert cache.stats().store_errors == {}
    background.call(backing.client.aclose)


async def test_memory_leaves_a_loop_that_is_held_up():
    """Who holds a memory cache's loop up is served all the same, and so is the loop afterwards."""
    upstream = Upstream()
    async with Cache.aiocache(SimpleMemoryCache(), store_timeout=1000) as cache:
        with cache as face:
            for turn in range(3):
                assert await cache.set("a", turn)
                assert face.get("a") == turn
                assert face.get_or_create(turn, int) == 0
                assert await cache.get_or_create(turn, upstream) == 0
        asked = [cache.get_or_create("b", upstream) for _ in range(10)]
        assert await asyncio.gather(*asked) == ["made 1"] * 10
        assert await cache.clear() == 5
        assert cache.stats().store_errors == {}


async def test_memory_that_waits_stays_in_its_loop():
    """A subclass with commands of its own isn't used in two threads at once."""

    class Waiting(SimpleMemoryCache):  # type: ignore[misc] # aiocache has no types
        async def _multi_get(self, keys, encoding="utf-8", _conn=None):
            await asyncio.sleep(0)
            return await super()._multi_get(keys, encoding=encoding)

    async with Cache.aiocache(Waiting(), store_timeout=1000) as cache:
        assert await cache.set("a", 1)
        with cache as face:
            assert face.get("a") is None
        assert cache.stats().store_errors == {"unavailable": 1}
        assert await cache.get("a") == 1
        assert await asyncio.to_thread(asyncio.run, cache.get("a")) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork on this platform")
def test_child_of_a_fork():
    """A child uses what memory it has inherited, and no loop or connection of its parent's."""
    script = textwrap.dedent("""
        import asyncio, os, sys
        from aiocache import SimpleMemoryCache
        from asynccache import Cache
        from tests.helpers.inside import store_of
        from tests.stores.aiocache.test_contract import PlainCache

        caches = [Cache.aiocache(SimpleMemoryCache()), Cache.aiocache(PlainCache())]

        async def ask(cache):
            async with cache:
                return await cache.get("a"), dict(cache.stats().store_errors)

        async def parent():
            for cache in caches:
                await cache.open()
                await cache.set("a", 1)
                store_of(cache)._driver.home._lock.acquire()  # as a thread might, at the moment
            child = os.fork()
            if child == 0:
                asyncio.events._set_running_loop(None)
                print([asyncio.run(ask(cache)) for cache in caches], flush=True)
                os._exit(0)
            os.waitpid(child, 0)

        asyncio.run(parent())
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout == "[(1, {}), (None, {'unavailable': 2})]\n", done.stderr


async def test_leases_hold_between_two_caches(valkey):
    """Two caches over one Redis, as in two processes, make one call between them."""
    valkey.empty()
    async with redis_cache(valkey) as left, redis_cache(valkey) as right:
        upstream = Upstream()
        async with Cache.aiocache(left) as one, Cache.aiocache(right) as two:
            asked = [cache.get_or_create("a", upstream) for cache in (one, two) for _ in range(20)]
            assert await asyncio.gather(*asked) == ["made 1"] * 40
        assert upstream.calls == 1


async def test_a_thousand_at_once_pay_once():
    """A thousand who ask for the same at once make one call."""
    upstream = Upstream()
    async with Cache.aiocache(SimpleMemoryCache()) as cache:
        asked = [cache.get_or_create("a", upstream) for _ in range(1000)]
        assert set(await asyncio.gather(*asked)) == {"made 1"}


# -- memcached ---------------------------------------------------------------------------------


async def test_memcached_refuses_what_is_too_large(memcached):
    """An answer beyond memcached's megabyte is given, counted, and not kept; others still are."""
    upstream = Upstream(os.urandom(1_100_000).hex())
    async with Cache.aiocache(memcached) as cache:
        assert await cache.get_or_create("large", upstream) == upstream.value
        assert await cache.set("small", 1)
        assert await cache.get("small") == 1
    assert cache.stats().store_errors == {"full": 1}
    async with cache:
        assert await cache.get("large") is None


async def test_memcached_keeps_for_longer_than_a_month(memcached):
    """A ttl that memcached would take for a date in the past keeps an answer all the same."""
    async with Cache.aiocache(memcached, ttl=90 * 86_400) as cache:
        await cache.set("a", 1)
    async with cache:
        assert await cache.get("a") == 1


async def test_cancelled_lookups_leave_no_answers_behind(memcached_server, memcached):
    """Who is cancelled while memcached is silent leaves no answer for the next to read."""
    store = AiocacheStore(memcached)
    await store.open()
    records = [Record(key=bytes([n]) * 32, body=b"value %d" % n) for n in range(10)]
    await store.set_many(HOME, records)
    memcached_server.freeze()
    try:
        async with anyio.create_task_group() as group:
            for record in records:
                group.start_soon(store.get_many, HOME, [record.key])
            await asyncio.sleep(0.05)
            group.cancel_scope.cancel()
    finally:
        memcached_server.thaw()
    for record in reversed(records):
        assert await store.get_many(HOME, [record.key]) == [record.body]
    await store.aclose()


async def test_nothing_overtakes_what_was_left_alone():
    """A set whose caller was cancelled ends before the next command begins: the last set stands."""
    first = asyncio.Event()

    class Slow(PlainCache):
        async def _set(self, key, value, ttl=None, _cas_token=None, _conn=None):
            if value.endswith(b"first"):
                await first.wait()
            return await super()._set(key, value, ttl=ttl, _cas_token=_cas_token)

    store = AiocacheStore(Slow())
    await store.open()
    key = bytes(32)
    with anyio.move_on_after(0.05):
        await store.set_many(HOME, [Record(key=key, body=b"first")])
    second = asyncio.create_task(store.set_many(HOME, [Record(key=key, body=b"second")]))
    await asyncio.sleep(0.05)
    assert not second.done()
    first.set()
    assert await second == [True]
    assert await store.get_many(HOME, [key]) == [b"second"]
    await store.aclose()


async def test_a_silent_memcached_costs_a_deadline(memcached_server, memcached):
    """Calls go upstream past a memcached that doesn't answer, and come back to it when it does."""
    upstream = Upstream()
    async with Cache.aiocache(memcached, store_timeout=1.0) as cache:
        assert await cache.set("before", 1)
        memcached_server.freeze()
        try:
            assert await cache.get_or_create("a", upstream) == "made 1"
            assert cache.stats().store_errors["timeout"] > 0
        finally:
            memcached_server.thaw()
        with anyio.fail_after(20):
            while await cache.get("before") != 1:
                await asyncio.sleep(0.05)


async def test_a_connection_that_ends_in_mid_command_is_an_error():
    """A server that hangs up instead of answering is absent; the loop isn't held for ever by it."""
    from aiocache import MemcachedCache

    async def hang_up(reader, writer):
        await reader.readline()
        writer.write_eof()
        writer.close()

    listening = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with listening:
        cache = MemcachedCache(port=listening.sockets[0].getsockname()[1])
        store = AiocacheStore(cache)
        with pytest.raises(StoreUnavailableError):
            await store.delete_many(HOME, [bytes(32)])
        with pytest.raises(StoreUnavailableError):
            await store._driver.delete("any")
        await cache.close()


async def test_nobody_there():
    """With no server at the address a cache opens, and calls go past it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    backing = RedisCache(port=port)
    upstream = Upstream()
    async with Cache.aiocache(backing) as cache:
        with options(ttl=5):
            assert await cache.get_or_create("a", upstream) == "made 1"
    assert cache.stats().store_errors
    await backing.client.aclose()
    gc.collect()


@pytest.mark.parametrize("change", ["set", "delete", "clear"])
async def test_an_old_answer_stays_out_after_another_cache_object_s_change(change):
    """Within the process, what another cache object deletes or overwrites stays so."""
    driver = SimpleMemoryCache()
    await old_answer_stays_out(Cache.aiocache(driver), Cache.aiocache(driver), change)
