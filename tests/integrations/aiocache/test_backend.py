"""Our caches as caches of aiocache's: its commands, its decorators, and ours, which shares."""

from __future__ import annotations

import asyncio
import enum

import aiocache
import pytest
from aiocache import (
    Cache as AiocachesCache,
    RedisCache,
    SimpleMemoryCache,
    cached_stampede,
    caches,
    multi_cached,
)
from aiocache.lock import OptimisticLock, OptimisticLockError
from aiocache.plugins import HitMissRatioPlugin, TimingPlugin
from aiocache.serializers import JsonSerializer, NullSerializer, PickleSerializer, StringSerializer

from asynccache import Cache, CacheClosedError, current_cache, options
from asynccache.integrations.aiocache import AsyncCacheBackend, cached
from asynccache.stores.memory import MemoryStore
from asynccache.testing import FaultyStore, ManualClock
from tests.helpers.cosmos_servers import CosmosServer
from tests.helpers.redis_servers import Valkey


@pytest.fixture(scope="module")
def valkey():
    """One Valkey."""
    with Valkey() as running:
        yield running


@pytest.fixture(scope="module")
def cosmos():
    """One server that stands in for Cosmos DB."""
    with CosmosServer() as running:
        yield running


@pytest.fixture(params=["memory", "disk", "redis"])
def made(request, tmp_path):
    """Each kind of cache, unopened."""
    if request.param == "memory":
        return Cache.memory()
    if request.param == "disk":
        return Cache.disk(cache_path_root=tmp_path / "cache")
    valkey = request.getfixturevalue("valkey")
    with valkey.client() as client:
        client.flushall()
    return Cache.redis(redis_url=valkey.url)


@pytest.fixture
async def cache(made):
    """A cache, open."""
    async with made:
        yield made


@pytest.fixture
def clock():
    """A clock that stands."""
    return ManualClock()


@pytest.fixture
async def timed(clock):
    """A backend over a cache that goes by the clock."""
    async with Cache.from_store(MemoryStore(clock=clock), clock=clock) as cache:
        yield AsyncCacheBackend(cache)


class Upstream:
    """Counts what is asked of it."""

    def __init__(self):
        self.asked = []

    async def one(self, name):
        """Answer one question."""
        self.asked.append(name)
        await asyncio.sleep(0.02)
        return {"name": name, "n": len(self.asked)}

    async def many(self, names):
        """Answer several."""
        self.asked.append(tuple(names))
        await asyncio.sleep(0.02)
        return {name: f"about {name}" for name in names}


# -- commands ----------------------------------------------------------------------------------


async def scene(backend):
    """Do what every cache of aiocache's can, and return what it said."""
    said = [
        await backend.get("a"),
        await backend.get("a", default="none"),
        await backend.set("a", "1", ttl=100),
        await backend.get("a"),
        await backend.exists("a"),
        await backend.exists("b"),
        await backend.add("b", "2"),
        await backend.multi_get(["a", "none", "b", "a"]),
        await backend.multi_set([("c", "3"), ("d", "4")], ttl=None),
        await backend.multi_get(["d", "c"]),
        await backend.delete("c"),
        await backend.delete("c"),
        await backend.increment("n"),
        await backend.increment("n", 4),
        await backend.increment("n", delta=-2),
        await backend.expire("a", 50),
        await backend.expire("none", 50),
        await backend.expire("a", 0),
        await backend.get("a"),
        await backend.set("a", "other", namespace="away"),
        await backend.get("a"),
        await backend.get("a", namespace="away"),
        await backend.multi_get(["a"], namespace="away"),
        await backend.exists("b", namespace="away"),
        await backend.delete("a", namespace="away"),
    ]
    for refused in (backend.add("b", "again"), backend.increment("a")):
        try:
            said.append(await refused)
        except (ValueError, TypeError) as exc:
            said.append(type(exc))
    return said


async def test_build_key_may_be_assigned(cache):
    """As on any aiocache cache; what is kept is found under the same key later, and cleared."""
    backend = AsyncCacheBackend(cache, namespace="n")
    backend.build_key = lambda key, namespace=None: f"mine:{namespace}:{key}"
    assert backend.build_key("a") == "mine:n:a"
    assert await backend.set("a", 1)
    assert await backend.multi_get(["a", "b"]) == [1, None]
    assert await backend.increment("a") == 2
    assert await AsyncCacheBackend(cache, namespace="n").get("a") is None
    assert await backend.clear()
    assert not await backend.exists("a")


async def test_it_says_what_aiocaches_own_say(cache):
    """Every command is answered as aiocache's own memory answers it."""
    ours = await scene(AsyncCacheBackend(cache))
    # Its increment adds up in the raw value; a text that is no number is refused by both.
    theirs = await scene(SimpleMemoryCache())
    assert ours == theirs


async def test_values_are_data(cache):
    """Anything that msgspec can encode comes back as plain data, a fresh object each time."""
    backend = AsyncCacheBackend(cache)
    value = {"list": [1, 2.5, None], "text": "é", "bytes": b"\x00", "yes": True}
    await backend.set("a", value)
    first, second = await backend.get("a"), await backend.get("a")
    assert first == second == value
    assert first is not second
    with pytest.raises(TypeError, match="can't be cached"):
        await backend.set("a", object())
    assert await backend.get("a") == value


async def test_none_is_kept_and_reads_as_nothing(cache):
    """As with aiocache's own, a None is there, and can't be told from nothing by reading."""
    backend = AsyncCacheBackend(cache)
    await backend.set("a", None)
    assert await backend.get("a", default="none") == "none"
    assert await backend.exists("a")
    with pytest.raises(ValueError, match="already exists"):
        await backend.add("a", 1)


async def test_what_changes_its_form_is_kept_by_every_command():
    """A tuple that no serializer has made anything of is kept as the list it comes back as."""
    async with Cache.memory() as cache:
        backend = AsyncCacheBackend(cache, serializer=NullSerializer())
        calls = []

        async def pair():
            calls.append(1)
            return (1, 2)

        await backend.set("set", (1, 2))
        await backend.add("added", (1, 2))
        for _ in range(2):
            assert await backend.get_or_create("made", pair) == [1, 2]
        assert await backend.multi_get(["set", "added", "made"]) == [[1, 2]] * 3
        with pytest.raises(ValueError, match="already exists"):
            await backend.add("added", (1, 2))
        assert len(calls) == 1
        assert cache.stats().not_stored == {}


@pytest.mark.parametrize("serializer", [JsonSerializer, NullSerializer, StringSerializer])
async def test_other_serializers_work(cache, serializer):
    """A serializer of aiocache's that holds data alone is honoured."""
    backend = AsyncCacheBackend(cache, serializer=serializer())
    await backend.set("a", "text")
    assert await backend.get("a") == "text"
    assert await backend.multi_get(["a"]) == ["text"]
    assert await backend.get("a", loads_fn=lambda kept: f"read {kept!r}") != "text"


def test_pickle_is_refused():
    """A serializer that runs what it reads is refused, at once or later."""
    with pytest.raises(TypeError, match="PickleSerializer runs what it reads"):
        AsyncCacheBackend(serializer=PickleSerializer())
    backend = AsyncCacheBackend()
    with pytest.raises(TypeError, match="PickleSerializer runs what it reads"):
        backend.serializer = PickleSerializer()


async def test_clear_empties_one_namespace(cache):
    """Clearing empties the namespace it is told, else the backend's own, and nothing else's."""
    backend = AsyncCacheBackend(cache, namespace="mine")
    await cache.set("a", "not aiocache's")
    for space in ("mine", "away", "mine-too"):
        await backend.set("a", space, namespace=space)
    assert await backend.clear(namespace="away") is True
    assert await backend.get("a", namespace="away") is None
    assert await backend.get("a") == "mine"
    assert await backend.clear() is True
    assert await backend.get("a") is None
    assert await backend.get("a", namespace="mine-too") == "mine-too"
    assert await cache.get("a") == "not aiocache's"


async def test_keys_are_built_as_aiocache_builds_them(cache):
    """Namespaces, key builders and enumerations name what they name in aiocache."""

    class Key(enum.Enum):
        A = "a"

    backend = AsyncCacheBackend(cache, namespace="mine:")
    assert backend.build_key("a") == "mine:a"
    await backend.set(Key.A, 1)
    assert await backend.get("a") == 1
    assert await AsyncCacheBackend(cache).get("mine:a") is None, "another namespace"
    built = AsyncCacheBackend(cache, key_builder=lambda key, namespace: f"{namespace}|{key}|!")
    assert built.build_key("a", namespace="n") == "n|a|!"


async def test_time_to_live(clock, timed):
    """A ttl ends; none, or 0, doesn't; ``expire`` and ``increment`` change or keep what is left."""
    await timed.set("short", 1, ttl=10)
    await timed.set("ever", 1, ttl=None)
    await timed.set("zero", 1, ttl=0)
    await timed.set("longer", 1, ttl=10)
    await timed.set("freed", 1, ttl=10)
    await timed.set("number", 1, ttl=10)
    clock.advance(5)
    await timed.expire("longer", 10)
    await timed.expire("freed", 0)
    assert await timed.increment("number") == 2
    clock.advance(6)
    names = ["short", "ever", "zero", "longer", "freed", "number"]
    assert await timed.multi_get(names) == [None, 1, 1, 1, 1, None]
    clock.advance(100_000)
    assert await timed.multi_get(names) == [None, 1, 1, None, 1, None]


async def test_whose_time_to_live_it_is(clock):
    """Where nothing is said it is the backend's, else the cache's; an explicit None is for ever."""
    async with Cache.from_store(MemoryStore(clock=clock), clock=clock, ttl=10) as cache:
        await AsyncCacheBackend(cache).set("caches", 1)
        await AsyncCacheBackend(cache, ttl=20).set("backends", 1)
        backend = AsyncCacheBackend(cache)
        await backend.set("ever", 1, ttl=None)
        await backend.increment("counted")
        clock.advance(11)
        names = ["caches", "backends", "ever", "counted"]
        assert await backend.multi_get(names) == [None, 1, 1, None]
        clock.advance(11)
        assert await backend.multi_get(names) == [None, None, 1, None]


async def test_one_of_many_adds(cache):
    """Of fifty who add the same key at once, one does."""
    backend = AsyncCacheBackend(cache)

    async def add(n):
        try:
            return await backend.add("a", n)
        except ValueError:
            return False

    assert sum(await asyncio.gather(*(add(n) for n in range(50)))) == 1


async def test_increments_in_one_loop_lose_nothing(cache):
    """A hundred increments at once add up."""
    backend = AsyncCacheBackend(cache)
    await asyncio.gather(*(backend.increment("n") for _ in range(100)))
    assert await backend.get("n") == 100


async def test_plugins_are_told(cache):
    """Aiocache's plugins see the commands."""
    backend = AsyncCacheBackend(cache, plugins=[HitMissRatioPlugin(), TimingPlugin()])
    await backend.set("a", 1)
    await backend.get("a")
    await backend.get("b")
    assert backend.hit_miss_ratio == {"total": 2, "hits": 1, "hit_ratio": 0.5}
    assert backend.profiling["get_total"] == 2


async def test_optimistic_locks_notice(cache):
    """Aiocache's optimistic lock refuses to overwrite what changed meanwhile."""
    backend = AsyncCacheBackend(cache)
    await backend.set("a", "old")
    async with OptimisticLock(backend, "a") as lock:
        await lock.cas("new")
    assert await backend.get("a") == "new"
    async with OptimisticLock(backend, "a") as lock:
        await backend.set("a", "other")
        with pytest.raises(OptimisticLockError):
            await lock.cas("mine")
    assert await backend.get("a") == "other"


async def test_raw_reaches_the_cache(cache):
    """A raw command is a method of the cache below."""
    backend = AsyncCacheBackend(cache)
    await backend.raw("set", "a", 1)
    assert await cache.get("a") == 1
    assert (await backend.raw("stats")).stored == 1


async def test_a_slow_store_meets_aiocaches_timeout():
    """Aiocache's own timeout bounds a command."""
    store = FaultyStore(MemoryStore(), hide_inline=True)
    async with Cache.from_store(store) as cache:
        backend = AsyncCacheBackend(cache, timeout=0.05)
        store.stall("get_many")
        with pytest.raises(asyncio.TimeoutError):
            await backend.get("a")
        store.heal()


# -- which cache -------------------------------------------------------------------------------


async def test_the_cache_in_force_is_taken():
    """Without a cache of its own, a backend uses that of the block, and says if there is none."""
    backend = AsyncCacheBackend()
    with pytest.raises(CacheClosedError, match="no cache is in force"):
        await backend.get("a")
    async with Cache.memory() as outer:
        await backend.set("a", "outer")
        async with Cache.memory():
            assert await backend.get("a") is None
        assert await backend.get("a") == "outer"
        assert await AsyncCacheBackend(outer).get("a") == "outer"
        with options(cache_seed=2):
            assert await backend.get("a") is None
    with pytest.raises(CacheClosedError, match="isn't open"):
        await AsyncCacheBackend(outer).get("a")
    with pytest.raises(TypeError, match="over must be"):
        AsyncCacheBackend({})  # type: ignore[arg-type] # the point


async def test_a_url_is_opened_and_closed(tmp_path):
    """A cache that is named by a URL is opened at its first use, closed with the backend."""
    url = f"disk:{tmp_path / 'cache'}"
    async with AsyncCacheBackend(url) as backend:
        await asyncio.gather(*(backend.set(n, n) for n in range(5)))
        assert await backend.get(3) == 3
    assert backend._over is not None
    assert not backend._over.is_open
    async with AsyncCacheBackend(url) as again:
        assert await again.multi_get(range(5)) == list(range(5))


async def test_aliases(tmp_path):
    """Aiocache's configuration names the backend as it names its own."""
    before = caches.get_config()
    try:
        caches.set_config(
            {
                "default": {
                    "cache": "asynccache.integrations.aiocache.AsyncCacheBackend",
                    "over": f"disk:{tmp_path / 'cache'}",
                    "plugins": [{"class": "aiocache.plugins.HitMissRatioPlugin"}],
                }
            }
        )
        backend = caches.get("default")
        assert isinstance(backend, AsyncCacheBackend)
        upstream = Upstream()
        asked = aiocache.cached(alias="default")(upstream.one)
        assert await asked("a") == await asked("a")
        assert upstream.asked == ["a"]
        assert backend.hit_miss_ratio["hits"] == 1
        await backend.close()
    finally:
        caches.set_config(before)


# -- aiocache's decorators ---------------------------------------------------------------------


async def test_cached(cache):
    """Aiocache's ``cached`` over our backend: the second call is answered by the cache."""
    upstream = Upstream()
    asked = aiocache.cached(cache=AsyncCacheBackend, over=cache, ttl=60)(upstream.one)
    assert await asked("a") == {"name": "a", "n": 1}
    assert await asked("a") == {"name": "a", "n": 1}
    assert await asked("b") == {"name": "b", "n": 2}
    assert await asked("a", cache_read=False) == {"name": "a", "n": 3}
    assert await asked("a") == {"name": "a", "n": 3}
    assert upstream.asked == ["a", "b", "a"]
    assert isinstance(AiocachesCache(AsyncCacheBackend, over=cache), AsyncCacheBackend)


async def test_cached_stampede(cache):
    """Aiocache's ``cached_stampede`` finds the lock it needs: within a loop one call is made."""
    upstream = Upstream()
    asked = cached_stampede(cache=AsyncCacheBackend, over=cache, lease=10)(upstream.one)
    assert await asyncio.gather(*(asked("a") for _ in range(20))) == [{"name": "a", "n": 1}] * 20
    assert upstream.asked == ["a"]


async def test_multi_cached(cache):
    """Aiocache's ``multi_cached`` asks only for what isn't kept."""
    upstream = Upstream()
    backend = {"cache": AsyncCacheBackend, "over": cache, "namespace": "many"}
    asked = multi_cached("names", **backend)(upstream.many)
    told = {name: f"about {name}" for name in "abc"}
    assert await asked(names=["a", "b"]) == {"a": "about a", "b": "about b"}
    assert await asked(names=["a", "b", "c"]) == told
    assert await asked(names=["c", "a", "b"]) == told
    assert upstream.asked == [("a", "b"), ("c",)]


async def test_the_second_process_pays_nothing(tmp_path):
    """What ``cached`` has kept on disk is there for the next cache object."""
    upstream = Upstream()
    for _ in range(2):
        async with Cache.disk(cache_path_root=tmp_path / "cache") as cache:
            asked = aiocache.cached(cache=AsyncCacheBackend, over=cache)(upstream.one)
            assert await asked("a") == {"name": "a", "n": 1}
    assert upstream.asked == ["a"]


async def test_cached_on_cosmos(cosmos):
    """``cached``, aiocache's and ours, works on Cosmos DB."""
    cosmos.empty()
    async with Cache.cosmos_db(cosmos.connection_string, store_timeout=10) as cache:
        upstream = Upstream()
        asked = cached(over=cache)(upstream.one)
        answers = await asyncio.gather(*(asked("a") for _ in range(10)))
        assert answers == [{"name": "a", "n": 1}] * 10
        theirs = aiocache.cached(cache=AsyncCacheBackend, over=cache)(upstream.one)
        assert await theirs("a") == {"name": "a", "n": 1}
        assert upstream.asked == ["a"]


# -- ours, which shares ------------------------------------------------------------------------


async def test_ours_shares_a_call(cache):
    """A thousand identical calls at once make one, and each has an object of its own."""
    upstream = Upstream()
    asked = cached(over=cache, ttl=60)(upstream.one)
    answers = await asyncio.gather(*(asked("a") for _ in range(1000)))
    assert all(answer == {"name": "a", "n": 1} for answer in answers)
    assert len({id(answer) for answer in answers}) == 1000
    assert upstream.asked == ["a"]
    theirs = aiocache.cached(cache=AsyncCacheBackend, over=cache)(upstream.one)
    assert await theirs("a") == {"name": "a", "n": 1}, "the two find each other's"
    assert asked.cache.build_key("a") == "a"


async def test_aiocaches_own_does_not(cache):
    """Aiocache's ``cached`` calls the function for each who asks before it has answered."""
    upstream = Upstream()
    asked = aiocache.cached(cache=AsyncCacheBackend, over=cache)(upstream.one)
    await asyncio.gather(*(asked("a") for _ in range(5)))
    assert len(upstream.asked) == 5


async def test_ours_shares_between_processes(valkey):
    """Two caches over one Redis make one call between them."""
    with valkey.client() as client:
        client.flushall()
    upstream = Upstream()
    async with Cache.redis(redis_url=valkey.url) as one, Cache.redis(redis_url=valkey.url) as two:
        asked = [cached(over=cache)(upstream.one) for cache in (one, two)]
        answers = await asyncio.gather(*(ask("a") for ask in asked for _ in range(10)))
    assert answers == [{"name": "a", "n": 1}] * 20
    assert upstream.asked == ["a"]


async def test_errors_are_shared_and_not_kept(cache):
    """An error goes to all who wait, and the next call tries again."""
    calls = 0

    @cached(over=cache)
    async def failing(name):
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.02)
        raise LookupError(name)

    errors = await asyncio.gather(*(failing("a") for _ in range(5)), return_exceptions=True)
    assert [type(error) for error in errors] == [LookupError] * 5
    assert calls == 1
    with pytest.raises(LookupError):
        await failing("a")
    assert calls == 2


@pytest.mark.parametrize("kind", ["ours", "theirs"])
async def test_none_and_what_is_skipped_is_asked_for_again(cache, kind):
    """As with aiocache's, a None isn't served, nor what ``skip_cache_func`` names."""
    decorator = cached if kind == "ours" else aiocache.cached
    calls = 0

    @decorator(cache=AsyncCacheBackend, over=cache, skip_cache_func=lambda made: made == [0])
    async def asked(value):
        nonlocal calls
        calls += 1
        return value

    for value, made in ((None, 2), ([0], 2), ([1], 1)):
        calls = 0
        assert [await asked(value), await asked(value)] == [value, value]
        assert calls == made


async def test_what_cannot_be_encoded_is_given_all_the_same(cache, caplog):
    """As with aiocache's, a value that can't be kept is returned, and that is logged."""
    thing = object()

    @cached(over=cache)
    async def asked():
        return thing

    assert await asked() is thing
    assert "can't be encoded" in caplog.text


async def test_the_function_runs_in_its_callers_context(cache):
    """What the function asks of the caches is its own business, not that of its own caching."""
    seen: list[object] = []

    @cached(over=cache, namespace="n")
    async def asked():
        assert [current_cache()] == [cache]
        seen.append(await cache.get("mine"))
        return 1

    await cache.set("mine", "there")
    assert await asked() == 1
    assert seen == ["there"]


async def test_ours_calls_straight_through_where_no_cache_is(caplog):
    """Without an open cache the function is called, as without the decorator."""
    upstream = Upstream()
    asked = cached()(upstream.one)
    assert [(await asked("a"))["n"], (await asked("a"))["n"]] == [1, 2]
    async with Cache.memory():
        assert [(await asked("a"))["n"], (await asked("a"))["n"]] == [3, 3]
    assert caplog.text == ""


async def test_ours_with_another_cache_is_aiocaches():
    """Given another cache, or told not to read or write, it does as aiocache's."""
    upstream = Upstream()
    asked = cached(cache=SimpleMemoryCache)(upstream.one)
    assert [(await asked("a"))["n"], (await asked("a"))["n"]] == [1, 1]
    async with Cache.memory() as cache:
        ours = cached(over=cache)(upstream.one)
        assert (await ours("b", cache_write=False))["n"] == 2
        assert (await ours("b"))["n"] == 3
        assert (await ours("b", cache_read=False))["n"] == 4
        assert (await ours("b"))["n"] == 4


async def test_a_cancelled_caller_disturbs_nobody(cache):
    """Cancelling the one whose call it is leaves the others their answer, and one call."""
    upstream = Upstream()
    asked = cached(over=cache)(upstream.one)
    first = asyncio.create_task(asked("a"))
    others = [asyncio.create_task(asked("a")) for _ in range(5)]
    await asyncio.sleep(0.005)
    first.cancel()
    assert await asyncio.gather(*others) == [{"name": "a", "n": 1}] * 5
    assert upstream.asked == ["a"]


async def test_keys_of_calls_are_aiocaches(cache):
    """``key``, ``key_builder`` and ``noself`` say what they say in aiocache."""
    upstream = Upstream()
    fixed = cached(over=cache, key="fixed")(upstream.one)
    assert (await fixed("a"))["name"] == (await fixed("b"))["name"] == "a"
    built = cached(over=cache, key_builder=lambda f, name: name.lower())(upstream.one)
    assert (await built("X"))["name"] == (await built("x"))["name"] == "X"
    assert await built.cache.get("x") == {"name": "X", "n": 2}


def test_redis_is_not_needed():
    """The backend is no subclass of a cache that needs a driver."""
    assert not issubclass(AsyncCacheBackend, RedisCache)
