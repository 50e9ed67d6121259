"""The cache's own interface: values, get_or_create, memoize, modes, options, statistics."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import datetime as dt
import enum
import functools
import json
import pickle
from types import SimpleNamespace

import msgspec
import pytest

import asynccache
from asynccache import (
    MISSING,
    Cache,
    CacheClosedError,
    NotCanonicalError,
    ReplayMiss,
    StoreError,
    memoize,
    options,
)
from asynccache.cache import cache as cache_module, values
from asynccache.entries.entry import encode_entry
from asynccache.entries.values import decode_value
from asynccache.keys.key import value_key
from asynccache.stores.disk import DiskStore
from asynccache.stores.memory import MemoryStore
from asynccache.testing import FaultyStore, Gate, ManualClock
from tests.helpers.changes import CHANGES, old_answer_stays_out
from tests.helpers.inside import engine_of
from tests.helpers.openai_server import stored
from tests.helpers.scenes import Scene, Upstream, settled
from tests.helpers.turns import IN_A_TURN, largest_step, sampled, spend_turns


class Answer(msgspec.Struct):
    """A type to build results as."""

    text: str
    at: dt.datetime


@pytest.fixture(params=["memory", "disk"])
async def cache(request, tmp_path):
    """An open cache on each store."""
    made = Cache.memory() if request.param == "memory" else Cache.disk(cache_path_root=tmp_path)
    async with made as opened:
        yield opened


async def test_values_come_back(cache):
    """What was set is found under its key, None included; what wasn't is missing."""
    assert await cache.get("key") is None
    assert await cache.get("key", MISSING) is MISSING
    assert await cache.set("key", None)
    assert await cache.get("key", MISSING) is None
    assert await cache.contains("key")
    assert (
        await cache.set_many([("a", 1), (("b", 2), [2]), ({"c": {3}}, {"x": b"y"})]) == [True] * 3
    )
    assert await cache.get_many(["a", ("b", 2), {"c": {3}}, "d"], 0) == [1, [2], {"x": b"y"}, 0]
    assert await cache.delete("a")
    assert not await cache.delete("a")
    assert await cache.clear() == 3
    assert not await cache.contains("key")


async def test_keys_of_different_types_never_meet(cache):
    """1, True, 1.0 and "1", and a tuple and a list, are different keys."""
    keys = [1, True, 1.0, "1", b"1", (1,), [1], {1}, None, "None"]
    await cache.set_many([(key, repr(key)) for key in keys])
    assert await cache.get_many(keys) == [repr(key) for key in keys]


async def test_values_are_built_as_the_type_asked_for(cache):
    """`type=` builds structs, and refuses what isn't one."""
    value = Answer("hello", dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
    await cache.set("key", value, type=Answer)
    assert await cache.get("key", type=Answer) == value
    assert await cache.get("key") == {"text": "hello", "at": value.at}
    with pytest.raises(msgspec.ValidationError):
        await cache.get("key", type=int)


async def test_miss_and_hit_give_the_same(cache):
    """get_or_create returns what a later hit will: built from bytes, as the type asked for."""

    async def create():
        return (1, {"a": (2,)})

    first = await cache.get_or_create("k", create, type=tuple[int, dict[str, tuple[int]]])
    second = await cache.get_or_create("k", create, type=tuple[int, dict[str, tuple[int]]])
    assert first == second == (1, {"a": (2,)})
    assert first is not second


async def test_none_is_a_value_and_paid_once(cache):
    """An answer of None is stored like any other."""
    calls = 0

    async def create():
        nonlocal calls
        calls += 1

    assert [await cache.get_or_create("k", create) for _ in range(3)] == [None] * 3
    assert calls == 1


async def test_what_cannot_be_encoded_is_said(cache):
    """Setting a value that msgspec can't encode raises TypeError, and nothing is stored."""
    with pytest.raises(TypeError, match="can't be cached"):
        await cache.set("k", object())
    with pytest.raises(NotCanonicalError):
        await cache.get(object())
    assert not await cache.contains("k")


async def test_key_without_canonical_form_is_neither_cached_nor_shared(cache):
    """What can't be made a key of goes upstream each time, is counted, and has no replay."""
    upstream = Upstream()
    key = object()
    assert [await cache.get_or_create(key, upstream) for _ in range(2)] == [
        {"answer": 1},
        {"answer": 2},
    ]
    assert cache.stats().bypassed == 2
    with options(mode="replay"), pytest.raises(ReplayMiss):
        await cache.get_or_create(key, upstream)


async def test_modes(cache):
    """Each mode does what its name says, in a block."""
    upstream = Upstream()

    async def ask():
        return (await cache.get_or_create("k", upstream))["answer"]

    with options(mode="replay"), pytest.raises(ReplayMiss):
        await ask()
    with options(mode="read_only"):
        assert [await ask(), await ask()] == [1, 2]
        assert not await cache.set("x", 1)
    with options(mode="off"):
        assert [await ask(), await ask()] == [3, 4]
        assert await cache.get("x", 5) == 5
    assert [await ask(), await ask()] == [5, 5]
    with options(mode="refresh"):
        assert [await ask(), await ask()] == [6, 7]
        assert await cache.get("x", 5) == 5
    with options(mode="replay"):
        assert await ask() == 7
    assert cache.stats().bypassed == 2
    assert cache.stats().replay_misses == 1


@pytest.mark.parametrize("kind", ["memory", "disk", "awaited"])
async def test_many_keys_are_served_in_slices(kind, tmp_path, monkeypatch):
    """However many keys are written and read at once, other tasks run in between."""
    spend_turns(monkeypatch)
    count = 3000
    made = keyed = 0

    if kind == "disk":
        cache = Cache.disk(cache_path_root=tmp_path)
    elif kind == "memory":
        cache = Cache.memory()
    else:
        cache = Cache.from_store(FaultyStore(MemoryStore(), hide_inline=True))

    def digest(*args):
        nonlocal keyed
        keyed += 1
        return value_key(*args)

    def encode(entry):
        nonlocal made
        made += 1
        return encode_entry(entry)

    def decode(body, type):
        nonlocal made
        made += 1
        return decode_value(body, type)

    monkeypatch.setattr(values, "value_key", digest)
    monkeypatch.setattr(values, "encode_entry", encode)
    monkeypatch.setattr(cache_module, "decode_value", decode)
    async with cache:
        items = {f"key {number}": number for number in range(count)}
        async with sampled(lambda: keyed) as digests, sampled(lambda: made) as bodies:
            assert all(await cache.set_many(items))
            assert await cache.get_many(list(items)) == list(items.values())
            assert await cache.get_many([f"no {key}" for key in items], 0) == [0] * count
        assert (keyed, made) == (3 * count, 2 * count)
        assert max(largest_step(digests), largest_step(bodies)) <= IN_A_TURN


async def test_nothing_of_many_is_stored_if_one_cannot_be():
    """All are made ready before the first is written."""
    async with Cache.memory() as cache:
        items = {f"key {number}": number for number in range(2000)}
        with pytest.raises(TypeError):
            await cache.set_many({**items, "last": object()})
        assert cache.stats().stored == 0
        assert await cache.get("key 0") is None


async def test_closing_waits_for_what_is_being_set(monkeypatch):
    """A value that a task of the block's last turn sets is stored, whoever else has the loop."""
    async with Cache.memory() as cache:
        monkeypatch.setattr(type(engine_of(cache).pacer), "spent", lambda _: True)
        setting = asyncio.create_task(cache.set("key", "value"))
    assert await setting
    assert cache.stats().stored == 1


async def test_closing_that_is_cancelled_closes():
    """Whoever is cancelled while a set keeps the cache from closing leaves a closed cache."""
    store = FaultyStore(MemoryStore())
    gate = store.stall("set_many")
    cache = await Cache.from_store(store).open()
    setting = asyncio.create_task(cache.set("key", "value"))
    await gate.arrived()
    closing = asyncio.create_task(cache.aclose())
    await asyncio.sleep(0.01)
    assert cache.is_open
    closing.cancel()
    await asyncio.sleep(0)
    gate.release()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not cache.is_open
    await setting


async def test_closed_cache_bypasses_calls_and_refuses_values(caplog):
    """Not open: get_or_create goes past with one warning, get says what to do, replay raises."""
    upstream, cache = Upstream(), Cache.memory()
    for _ in range(3):
        await cache.get_or_create("k", upstream)
    assert upstream.calls == 3
    assert cache.stats().bypassed == 3
    assert len(caplog.records) == 1
    with pytest.raises(CacheClosedError, match="async with"):
        await cache.get("k")
    with options(mode="replay"), pytest.raises(CacheClosedError):
        await cache.get_or_create("k", upstream)


async def test_ttl_and_its_precedence():
    """The call's ttl wins over the block's, the block's over the cache's; jitter only shortens."""
    clock = ManualClock()
    cache = Cache.from_store(MemoryStore(clock=clock), clock=clock, ttl=100)
    async with cache:
        await cache.set("cache", 1)
        with options(ttl=dt.timedelta(seconds=50)):
            await cache.set("block", 1)
            await cache.set("call", 1, ttl=10)
        with options(ttl=None):
            await cache.set("ever", 1)
        for seconds, gone in ((10, "call"), (40, "block"), (50, "cache")):
            clock.advance(seconds - 0.001)
            assert await cache.contains(gone)
            clock.advance(0.001)
            assert not await cache.contains(gone)
        clock.advance(10**9)
        assert await cache.contains("ever")
    jittery = Cache.from_store(MemoryStore(clock=clock), clock=clock, ttl=100, ttl_jitter=0.5)
    async with jittery:
        await jittery.set_many([(number, 1) for number in range(10)])
        for _ in range(3):
            await jittery.set("again", 1)
        clock.advance(100)
        assert not any([await jittery.contains(number) for number in range(10)])


async def test_seeds_and_tenants_are_kept_apart(tmp_path):
    """Another cache_seed or tenant is another cache, on one store; clear empties its own alone."""
    made = {
        (seed, tenant): Cache.disk(seed, tmp_path, tenant=tenant)
        for seed in (1, 2)
        for tenant in (None, "a", "b")
    }
    for name, cache in made.items():
        async with cache:
            await cache.set("key", list(name))
    for name, cache in made.items():
        async with cache:
            assert await cache.get("key") == list(name)
    async with made[1, "a"] as cache:
        assert await cache.clear() == 1
        with options(cache_seed=2):
            assert await cache.get("key") == [2, "a"]
    for name, cache in made.items():
        async with cache:
            assert await cache.contains("key") == (name != (1, "a"))


async def test_samples(cache):
    """`sample=n` is the n-th independent answer; `"each"` numbers identical requests of a block."""
    upstream = Upstream()

    async def ask():
        return (await cache.get_or_create("k", upstream))["answer"]

    assert await ask() == 1
    with options(sample=1):
        assert await ask() == 2
    for _ in range(2):
        with options(sample="each"):
            assert await asyncio.gather(*(ask() for _ in range(5))) == [1, 2, 3, 4, 5]
    with options(sample=0):
        assert await ask() == 1
    assert upstream.calls == 5


async def test_store_if_decides(cache):
    """What store_if refuses is delivered, counted, not stored; one that fails stores nothing."""
    upstream = Upstream()
    scene = Scene(store_if=lambda answer: answer.json()["answer"] > 1)
    async with scene.cache:
        assert await scene.ask() == {"answer": 1}
        await settled(scene)
        assert await scene.ask() == {"answer": 2}
        await settled(scene)
        assert await scene.ask() == {"answer": 2}
        assert scene.cache.stats().not_stored == {"store_if": 1}
    failing = Scene(store_if=lambda _: 1 / 0)
    async with failing.cache:
        assert await failing.ask() == {"answer": 1}
    assert failing.cache.stats().not_stored == {"store_if": 1}
    assert not upstream.calls


# -- memoize -----------------------------------------------------------------------------------


class Colour(enum.Enum):
    """An argument with a canonical form."""

    RED = 1


@dataclasses.dataclass
class Tool:
    """A self with a canonical form."""

    name: str
    calls: list[str] = dataclasses.field(default_factory=list, compare=False)

    @memoize(ignore=["self"])
    async def ignoring(self, query: str) -> str:
        """Answer."""
        self.calls.append(query)
        return f"{self.name}: {query}"


class Opaque:
    """A self without a canonical form."""

    @memoize()
    async def method(self, query: str) -> str:
        """Answer."""
        return query


async def test_memoize_binds_arguments(cache):
    """However the arguments are passed, defaults included, one call is made; results are typed."""
    calls = []

    @cache.memoize()
    async def search(query: str, *more: int, top: int = 3, **rest: object) -> tuple[str, int]:
        calls.append(query)
        return query, top

    results = [
        await search("q"),
        await search(query="q"),
        await search("q", top=3),
        await search(top=3, query="q"),
    ]
    assert results == [("q", 3)] * 4
    assert all(isinstance(result, tuple) for result in results)
    assert len(calls) == 1
    await search("q", 1)
    await search("q", colour=Colour.RED)
    await search("q", a=1, b=2)
    await search("q", b=2, a=1)
    assert len(calls) == 4


async def test_memoize_uses_the_cache_in_force():
    """`@asynccache.memoize()` caches inside a block, and calls straight through outside."""
    tool = Tool("t")
    await tool.ignoring("q")
    await tool.ignoring("q")
    assert len(tool.calls) == 2
    async with Cache.memory():
        await tool.ignoring("q")
        assert await Tool("other").ignoring("q") == "t: q"  # self is ignored
    assert len(tool.calls) == 3


async def test_memoize_refuses_what_it_cannot_key(cache):
    """A self without canonical form is a TypeError; another argument without one is a bypass."""
    with pytest.raises(TypeError, match=r"ignore=\['self'\]"):
        await Opaque().method("q")
    calls = []

    @cache.memoize()
    async def fetch(session: object, url: str) -> str:
        calls.append(url)
        return url

    assert [await fetch(object(), "u") for _ in range(2)] == ["u", "u"]
    assert len(calls) == 2
    assert cache.stats().bypassed == 2
    with pytest.raises(TypeError, match="async"):
        cache.memoize()(len)
    with pytest.raises(TypeError, match="sesion"):

        @cache.memoize(ignore=["sesion"])
        async def typo(session: object) -> None: ...


async def test_memoize_version_makes_another_key(cache):
    """A new version doesn't see the old one's results."""
    calls = []

    def define(version):
        @cache.memoize(version=version)
        async def function() -> int:
            calls.append(version)
            return len(calls)

        return function

    assert [await define(v)() for v in (1, 1, 2, None, "1")] == [1, 1, 2, 3, 4]


class Point(msgspec.Struct):
    """One alternative of a return annotation."""

    x: int


class Size(msgspec.Struct):
    """Another that looks alike in bytes."""

    x: int


async def test_memoize_refuses_an_annotation_it_cannot_decode_before_paying(cache):
    """Alternatives that bytes can't tell apart are a TypeError, and nothing is called."""
    with pytest.raises(TypeError, match="annotate otherwise"):

        @cache.memoize()
        async def either() -> Point | Size:
            raise NotImplementedError

    upstream = Upstream()
    with pytest.raises(TypeError, match="annotate otherwise"):
        await cache.get_or_create("k", upstream, type=Point | Size)
    assert not upstream.calls


async def test_stored_value_of_another_type_is_made_anew(cache):
    """What was stored when the type was another is a flaw, not an error for ever."""

    async def create():
        return {"x": "1"}

    async def create_point():
        return Point(2)

    await cache.get_or_create("k", create)
    assert await cache.get_or_create("k", create_point, type=Point) == Point(2)
    assert await cache.get_or_create("k", create, type=Point) == Point(2)
    assert cache.stats().flaws == {"mistyped": 1}
    with options(mode="read_only"):
        assert await cache.get_or_create("k", create, type=dict[str, str]) == {"x": "1"}
    with options(mode="replay"), pytest.raises(msgspec.ValidationError):
        await cache.get_or_create("k", create, type=dict[str, str])


async def test_value_of_another_type_that_is_read_from_afar_is_made_anew():
    """It is a flaw also where no entry is at hand, and a caller has to wait for the store."""
    scene = Scene()
    async with scene.cache as cache:
        await cache.set("k", {"x": "1"})
        assert await cache.get_or_create("k", lambda: asyncio.sleep(0, 2), type=int) == 2
        await settled(scene)
        assert await cache.get("k") == 2
        assert cache.stats().flaws == {"mistyped": 1}


async def test_set_keeps_to_max_entry_bytes():
    """A value above the limit isn't stored, and the others of its turn are."""
    async with Cache.memory(max_entry_bytes=100) as cache:
        assert not await cache.set("large", "x" * 200)
        assert await cache.set_many([("a", 1), ("large", "x" * 200), ("b", 2)]) == [
            True,
            False,
            True,
        ]
        assert await cache.get_many(["a", "large", "b"]) == [1, None, 2]
        assert cache.stats().not_stored == {"oversized": 2}


async def test_instances_that_differ_beside_their_fields_differ(cache):
    """An attribute that isn't a field, of a dataclass's subclass, is part of the key."""

    class Warm(Tool):
        def __init__(self, name, temperature):
            super().__init__(name)
            self.temperature = temperature

    await cache.set(Warm("a", 0), "cold")
    assert await cache.get(Warm("a", 1)) is None
    assert await cache.get(Warm("a", 0)) == "cold"


async def test_large_values_come_back(cache):
    """A value that is packed off the loop is found whole."""
    value = ["x" * 1000] * 2000
    assert await cache.set("large", value)
    assert await cache.get("large") == value


@pytest.mark.parametrize("ttl", [1e13, dt.timedelta.max])
async def test_ttl_beyond_a_century_is_for_ever(cache, ttl):
    """An expiry that no clock could hold harms neither its entry nor others of its turn."""
    stored = await asyncio.gather(
        cache.set("odd", 1, ttl=ttl), *(cache.set(n, n) for n in range(5))
    )
    assert stored == [True] * 6
    assert await cache.get("odd") == 1


async def test_samples_are_values_of_their_own(cache):
    """get, set and delete see the sample that get_or_create does."""
    upstream = Upstream()
    with options(sample=1):
        await cache.get_or_create("k", upstream)
        assert await cache.get("k") == {"answer": 1}
        assert await cache.delete("k")
        assert await cache.get_or_create("k", upstream) == {"answer": 2}


# -- a failing store ---------------------------------------------------------------------------


async def test_failing_store_takes_no_call_down(caplog):
    """Whatever fails at the store, calls are answered; the breaker opens, and closes again."""
    clock = ManualClock()
    store = FaultyStore(MemoryStore(clock=clock), hide_inline=True)
    upstream = Upstream()
    cache = Cache.from_store(store, clock=clock)
    async with cache:
        store.fail()
        for number in range(10):
            assert await cache.get_or_create(number, upstream)
        stats = cache.stats()
        assert stats.breaker == "open"
        assert stats.store_errors["unavailable"] == 5
        assert stats.store_errors["breaker_open"] == 5
        assert upstream.calls == 10
        asked = [call for call in store.log if call.method != "peek"]
        await cache.get_or_create("more", upstream)
        assert [call for call in store.log if call.method != "peek"] == asked  # nothing more
        with pytest.raises(StoreError):
            await cache.delete("more")
        store.heal()
        clock.advance(1.1)
        await cache.get_or_create("back", upstream)
        assert cache.stats().breaker == "closed"
        assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1
        # Of twelve answers at most those of the probe's call and of the first, before it opened.
        assert len((await store.scan(cache.settings.namespace)).envelopes) <= 2


@pytest.mark.parametrize("error", [StoreError("gone"), ValueError("odd"), RuntimeError("no loop")])
async def test_whatever_an_inline_read_raises_is_a_counted_failure(error):
    """An inline read may raise anything: the caller is answered, and what can be read is read."""
    upstream = Upstream()
    store = FaultyStore(MemoryStore())
    async with Cache.from_store(store) as cache:
        await cache.set("key", 1)
        store.fail("peek", error=error)
        for _ in range(7):  # more than the circuit breaker bears of what never succeeds
            assert await cache.get("key") == 1
            assert await cache.get_many(["key"]) == [1]
            assert await cache.get_or_create("made", upstream) == {"answer": 1}
        assert upstream.calls == 1
        assert sum(cache.stats().store_errors.values()) >= 7 * 3
    async with Cache.from_store(store, on_store_error="raise") as strict:
        with pytest.raises(StoreError):
            await strict.get("key")


@pytest.mark.parametrize("method", ["get_many", "claim", "set_many", "release", "renew"])
async def test_stalled_store_costs_a_bounded_delay(method):
    """A store that never answers is given up on after its deadline, and the call goes on."""
    store = FaultyStore(MemoryStore(), hide_inline=True)
    gate = store.stall(method)
    upstream = Upstream()
    cache = Cache.from_store(store, store_timeout=0.05)
    async with cache:
        assert await cache.get_or_create("k", upstream) == {"answer": 1}
        gate_used = gate.arrivals
        closing = asyncio.create_task(cache.aclose())
        await closing
        assert gate_used or method in {"set_many", "release", "renew"}


@pytest.mark.parametrize(
    "damage",
    [
        {"flip": 0},
        {"flip": 20},
        {"flip": 90},
        {"flip": -1},
        {"cut": 50},
        {"cut": 100},
        {"swap": b"x"},
    ],
)
async def test_damaged_entries_are_misses(damage):
    """Bytes that are damaged on their way cost a call and a counter, never an answer."""
    scene = Scene()
    async with scene.cache:
        await scene.ask()
        await settled(scene)
        scene.store.corrupt_reads(**damage)
        assert await scene.ask() == {"answer": 2}
        assert sum(scene.cache.stats().flaws.values()) >= 1
        await settled(scene)
        scene.store.heal()
        assert await scene.ask() == {"answer": 2}


async def test_store_that_cannot_be_opened_is_tried_again_later():
    """A cache opens though its store is down; calls go past it until the store is up."""
    clock = ManualClock()
    store = FaultyStore(MemoryStore(clock=clock), hide_inline=True)
    store.fail("open", "get_many", "claim", "set_many")
    upstream = Upstream()
    async with Cache.from_store(store, clock=clock) as cache:
        for number in range(5):
            await cache.get_or_create(number, upstream)
        assert cache.stats().breaker == "open"
        opened = store.calls["open"]
        store.heal()
        clock.advance(1.1)
        last = await cache.get_or_create("k", upstream)
        assert store.calls["open"] == opened + 1
        assert await cache.get_or_create("k", upstream) == last
        assert cache.stats().breaker == "closed"
    with pytest.raises(StoreError):
        store.fail("open")
        await Cache.from_store(store, on_store_error="raise").open()


async def test_store_that_answers_too_little_takes_nothing_down():
    """A store that breaks its contract by short answers is a failing store."""

    class Short(MemoryStore):
        async def set_many(self, namespace, records):
            await super().set_many(namespace, records)
            return []

        async def claim(self, namespace, claims, ttl):
            return []

    upstream = Upstream()
    async with Cache.from_store(Short()) as cache:
        assert await cache.get_or_create("k", upstream) == {"answer": 1}
        assert not await cache.set("x", 1)
        assert cache.stats().store_errors["unavailable"] >= 2


async def test_store_errors_are_raised_where_asked_for():
    """With on_store_error="raise" a failing store raises, and a call isn't made behind its back."""
    store = FaultyStore(MemoryStore(), hide_inline=True)
    upstream = Upstream()
    async with Cache.from_store(store, on_store_error="raise") as cache:
        store.fail("get_many")
        with pytest.raises(StoreError):
            await cache.get_or_create("k", upstream)
        assert upstream.calls == 0
        store.heal()


class AsyncRule:
    """Can't be asked without awaiting."""

    async def __call__(self, _):
        return False


async def async_generator(_):
    """Can't be asked either."""
    yield False


async def lambda_async(answer):
    """Say yes, once somebody awaits it."""
    return bool(answer)


# -- factories ---------------------------------------------------------------------------------


def test_from_url(tmp_path):
    """A URL names the store, its place and its options."""
    cache = Cache.from_url(f"disk:{tmp_path}/c?cache_seed=7&ttl=60&max_bytes=1000&mode=read_only")
    assert cache.settings.namespace.seed == "7"
    assert cache.settings.ttl == 60
    assert cache.settings.mode == "read_only"
    assert Cache.from_url("memory:?tenant=acme", ttl=5).settings.namespace.text == "42@acme"
    for wrong, said in {
        "postgres://x": "no store",
        "memory:?color=red": "no option 'color'",
        "memory:?ttl=soon": "can't be 'soon'",
        "memory:/tmp": "no path",
        "memory:?mode=maybe": "mode must be",
        "memory:?gitignore=1": "gitignore",
    }.items():
        with pytest.raises(ValueError, match=said):
            Cache.from_url(wrong)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"cache_seed": None}, TypeError),
        ({"cache_seed": True}, TypeError),
        ({"cache_seed": "a/b"}, ValueError),
        ({"cache_seed": ""}, ValueError),
        ({"ttl": 0}, ValueError),
        ({"ttl_jitter": 2}, ValueError),
        ({"mode": "rw"}, ValueError),
        ({"tenant": ""}, ValueError),
        ({"max_entry_bytes": 0}, ValueError),
        ({"store_timeout": "1"}, TypeError),
        ({"on_store_error": "ignore"}, ValueError),
        ({"store_if": 1}, TypeError),
        ({"store_if": lambda_async}, TypeError),
        ({"store_if": AsyncRule()}, TypeError),
        ({"store_if": functools.partial(AsyncRule())}, TypeError),
        ({"store_if": async_generator}, TypeError),
        ({"observer": AsyncRule()}, TypeError),
        ({"ignore": ["*"]}, ValueError),
        ({"ignore": "metadata"}, TypeError),
        ({"ignore": ["a..b"]}, ValueError),
        ({"colour": 1}, TypeError),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_made(wrong, error, tmp_path):
    """Each wrong argument has its error, and no folder is made."""
    with pytest.raises(error):
        Cache.disk(cache_path_root=tmp_path / "c", **wrong)
    with pytest.raises(error):
        Cache.memory(**wrong)
    assert not (tmp_path / "c").exists()


async def test_status_is_none_for_strangers():
    """What didn't come from a cache has no status and can't be forgotten."""
    assert asynccache.status(object()) is None
    async with Cache.memory() as cache:
        with pytest.raises(ValueError, match="no entry"):
            await cache.forget(object())


def test_cache_knows_the_url_that_says_it_all():
    """A cache made from a URL alone can be made again from it; others say that they can't."""
    assert Cache.from_url("memory:?ttl=5").url == "memory:?ttl=5"
    assert Cache.from_url("memory:", ttl=5).url is None
    assert Cache.memory().url is None


async def test_missing_is_itself_wherever_it_goes(cache):
    """Copied or pickled it is the same object; it is false, and no value that can be stored."""
    assert copy.deepcopy([MISSING])[0] is MISSING
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(MISSING, protocol)) is MISSING
    assert (repr(MISSING), str(MISSING), bool(MISSING)) == ("MISSING", "MISSING", False)
    assert isinstance(MISSING, asynccache.Missing)
    with pytest.raises(TypeError, match="can't be cached"):
        await cache.set("key", [MISSING])


async def test_figures_are_plain_data_too(cache):
    """`as_dict` has every figure and both ratios, for json.dumps, and is the caller's own."""
    await cache.get_or_create("key", lambda: asyncio.sleep(0, 1))
    await cache.get_or_create("key", lambda: asyncio.sleep(0, 1))
    with options(mode="read_only"):
        await cache.get_or_create("other", lambda: asyncio.sleep(0, 1))
    stats = cache.stats()
    plain = stats.as_dict()
    assert plain.keys() == {*stats.__struct_fields__, "calls", "hit_rate"}
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["calls"], plain["hit_rate"], plain["not_stored"]) == (3, 1 / 3, {"mode": 1})
    plain["not_stored"].clear()
    assert stats.not_stored == {"mode": 1}


async def test_forget_takes_what_events_call_a_key(cache):
    """Memoized results, which have no status, go by the key that their events name."""

    @cache.memoize()
    async def ask():
        return 1

    with asynccache.record() as calls:
        await ask()
        await stored(cache)
        assert await cache.forget(key=calls[0].key)
        await ask()
        await stored(cache, 2)
        assert await cache.forget(key=bytes.fromhex(calls[0].key))
        assert not await cache.forget(key=calls[0].key)
    assert [call.outcome for call in calls] == ["miss", "miss"]


async def test_forget_looks_in_the_namespace_in_force(cache):
    """A bare key is of the namespace around the caller, and of no other."""
    with asynccache.record() as calls, options(cache_seed=7):
        await cache.get_or_create("key", lambda: asyncio.sleep(0, 1))
        await stored(cache)
    assert not await cache.forget(key=calls[0].key)
    with options(cache_seed=7):
        assert await cache.forget(key=calls[0].key)


@pytest.mark.parametrize("key", ["", "key", "ab" * 31, "zz" * 32, b"short"])
async def test_forget_refuses_what_is_no_key(cache, key):
    """A key of the user's own, or half of one, is said to be none."""
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        await cache.forget(key=key)
    with pytest.raises(TypeError, match="not both"):
        await cache.forget(object(), key="ab" * 32)


def test_the_factory_has_no_instances():
    """Who calls the factory itself is told what to call, and what to annotate with."""
    with pytest.raises(TypeError, match=r"Cache\.disk\(\).*annotate with AsyncCache"):
        Cache()


async def test_no_loop_of_asyncios_is_said_so():
    """Under another kind of loop, opening and cached calls say what is missing."""
    cache = Cache.memory()

    @memoize()
    async def ask():
        return 1

    def under_another_loop(work):
        with pytest.raises(RuntimeError, match="no event loop of asyncio's"):
            work.send(None)

    await asyncio.to_thread(lambda: under_another_loop(cache.open()))
    async with cache:
        asynccache.set_default_cache(cache)
        try:
            await asyncio.to_thread(lambda: under_another_loop(ask()))
            await asyncio.to_thread(lambda: under_another_loop(cache.get("key")))
        finally:
            asynccache.set_default_cache(None)


# -- other cache objects -----------------------------------------------------------------------


@pytest.mark.parametrize("change", CHANGES)
async def test_an_old_answer_stays_out_after_another_cache_object_s_change(change):
    """Deleted, overwritten, cleared or refreshed by another cache object: the old isn't stored."""
    store = MemoryStore()
    await old_answer_stays_out(Cache.from_store(store), Cache.from_store(store), change)


# -- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_a_clock_that_is_put_right_keeps_nothing_alive(tmp_path, kind):
    """What was stored with a ttl while the clock ran ahead is made anew when it is put right."""
    clock = ManualClock()
    store = MemoryStore(clock=clock) if kind == "memory" else DiskStore(tmp_path, clock=clock)
    calls = 0

    async def create():
        nonlocal calls
        calls += 1
        return calls

    async with Cache.from_store(store, clock=clock) as cache:
        clock.advance(86_400)
        await cache.get_or_create("call", create, ttl=60)
        await cache.set("value", "old", ttl=60)
        await cache.set("kept", "for ever")
        clock.advance_wall(-86_400)
        assert await cache.get("value") is None
        assert await cache.get("kept") == "for ever"
        for _ in range(2):
            assert await cache.get_or_create("call", create, ttl=60) == 2
            await settled(SimpleNamespace(cache=cache))
        clock.advance(61)
        assert await cache.get_or_create("call", create, ttl=60) == 3


@pytest.mark.parametrize("hide_inline", [False, True], ids=["inline", "awaited"])
@pytest.mark.parametrize("change", ["set", "delete", "clear", None])
@pytest.mark.parametrize("read", ["get", "get_many", "contains"])
async def test_reads_find_no_answer_that_another_cache_has_outdated(read, change, hide_inline):
    """Right after a call its answer is there, unless another cache object changed the key."""
    store = FaultyStore(MemoryStore(), hide_inline=hide_inline)
    gate = Gate()

    async def create():
        await gate.pass_through()
        return "old"

    async with Cache.from_store(store) as cache, Cache.from_store(store) as other:
        making = asyncio.create_task(cache.get_or_create("key", create))
        await gate.arrived()
        if change == "set":
            await other.set("key", "new")
        elif change is not None:
            await getattr(other, change)(*(["key"] if change == "delete" else []))
        gate.release()
        assert await making == "old"
        expected = {"set": "new", None: "old"}.get(change)
        if read == "contains":
            assert await cache.contains("key") is (expected is not None)
        elif read == "get_many":
            assert await cache.get_many(["key", "other"]) == [expected, None]
        else:
            assert await cache.get("key") == expected
