"""The cache against a plain model, whatever is done to it in whatever order, on memory and disk."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import UNSET

from asynccache import MISSING, Cache, CacheClosedError, ReplayMiss, options
from asynccache.keys.key import Namespace, value_key
from asynccache.stores.base import Claim, Lease, Record
from asynccache.stores.disk import DiskStore
from asynccache.stores.memory import ENTRY_OVERHEAD, MemoryStore
from asynccache.testing import Gate, ManualClock
from tests.helpers.model import Model, Place, Slot
from tests.helpers.scenes import settled

# Three that are equal to a dict, one that looks like a sample of another.
KEYS = ("a", 1, True, ("a", 1))
PADS = {
    "none": b"",
    "raw": random.Random(1).randbytes(3_000),  # below what is compressed
    "compressed": b"x" * 6_000,
    "file": random.Random(2).randbytes(300_000),  # above what the disk store keeps in a row
}
STORES_NOTHING = ("off", "read_only", "replay")
ROOM = {"memory": 9_000, "disk": 64 * 1024}  # bytes: three answers of 3,000 each

keys = st.sampled_from(KEYS)
numbers = st.integers(0, 2**16)
modes = st.sampled_from(["read_write"] * 4 + ["read_only", "refresh", "replay", "off"])
ttls = st.sampled_from([None, None, 5, 10])
ttl_options = st.sampled_from([UNSET, None, 7])
pads = st.sampled_from(["none"] * 4 + ["raw"] * 4 + ["compressed"] * 2 + ["file"])


class Door:
    """A way into a namespace: one of the caches, and perhaps another seed."""

    def __init__(self, cache, seed):
        self.cache, self.seed = cache, seed

    def __repr__(self):
        return f"Door({self.cache!r}, {self.seed!r})"

    @property
    def namespace(self):
        """The namespace it leads to."""
        return Namespace("1" if self.seed is UNSET else str(self.seed), TENANTS[self.cache])


TENANTS = {"plain": None, "tenant": "acme"}
TTLS = {"plain": None, "tenant": 20}  # seconds: the caches' own
DOORS = [Door(cache, seed) for cache in ("plain", "tenant") for seed in (UNSET, 2)]
doors = st.sampled_from([
    Door("plain", UNSET), Door("plain", UNSET), Door("tenant", UNSET), Door("plain", 2),
    Door("tenant", 1), Door("tenant", 2),
])  # fmt: skip


class BoomError(Exception):
    """What a failing upstream raises."""


class Upstream:
    """Makes a new value at each call, counts, fails or waits on command."""

    def __init__(self):
        self.calls = self.made = self.cancelled = 0
        self.pad = b""
        self.fails = False
        self.gate: Gate | None = None  # for one call

    async def __call__(self):
        self.calls += 1
        gate, self.gate = self.gate, None
        if gate is not None:
            try:
                await gate.pass_through()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if self.fails:
            raise BoomError
        self.made += 1
        return self.value(self.made)

    def value(self, number):
        """What the call of a number made."""
        return ["made", number, self.pad]


class CacheMachine(RuleBasedStateMachine):
    """Does to caches over one store what it does to a model. Flights settle after each rule."""

    kind = "memory"

    @initialize(lossy=st.sampled_from([False, False, True]))
    def start(self, lossy):
        self.lossy = lossy
        self.clock = ManualClock()
        self.root = Path(tempfile.mkdtemp())
        self.store = self.new_store()
        self.model = Model(lossy=lossy)
        self.upstream = Upstream()
        self.caches = {name: self.new_cache(name) for name in TENANTS}
        self.runner = asyncio.Runner()
        self.serial = 0
        self.expected = {"served": 0, "misses": 0, "bypassed": 0, "upstream_errors": 0,
                         "replay_misses": 0, "stored": 0, "abandoned": 0}  # fmt: skip
        self.run(self.open())

    def new_store(self):
        room = ROOM[self.kind] if self.lossy else 2**30
        if self.kind == "memory":
            return MemoryStore(room, clock=self.clock)
        return DiskStore(self.root / "cache", "1", max_bytes=room, clock=self.clock)

    def new_cache(self, name, **how):
        return Cache.from_store(
            self.store, 1, clock=self.clock, tenant=TENANTS[name], ttl=TTLS[name], **how
        )

    def teardown(self):
        if hasattr(self, "runner"):
            self.run(self.close())
            self.runner.close()
            shutil.rmtree(self.root)

    # -- how things are done -----------------------------------------------------------------

    def run(self, work):
        """Run something in the machine's loop until all flights have settled."""

        async def whole():
            result = await work
            for cache in self.caches.values():
                if cache.is_open:
                    await settled(SimpleNamespace(cache=cache))
            return result

        return self.runner.run(asyncio.wait_for(whole(), 20))

    async def open(self):
        for cache in self.caches.values():
            await cache.open()

    async def close(self, first="plain"):
        # The first to close closes the store that they share.
        for _, cache in sorted(self.caches.items(), key=lambda item: item[0] != first):
            await cache.aclose()

    def at(self, door):
        return self.caches[door.cache]

    @staticmethod
    def place(door, key, sample=0):
        return Place(door.namespace, repr(key), sample)

    @staticmethod
    def digest(door, key):
        return value_key(door.namespace, "value", key)

    def fresh(self, pad):
        """A value never used before; None now and then."""
        self.serial += 1
        return None if self.serial % 7 == 0 else ["set", self.serial, PADS[pad]]

    def ttl_of(self, door, ttl, option):
        """Seconds that something is kept: as asked, else as the block says, else the cache's."""
        if ttl is not None:
            return ttl
        return TTLS[door.cache] if option is UNSET else option

    def recorded(self, door, value, ttl, option=UNSET):
        """What a value is once it is stored now."""
        expires = self.model.expiry(self.ttl_of(door, ttl, option))
        return Slot(value, expires, expires)

    def total(self, name):
        return sum(getattr(cache.stats(), name) for cache in self.caches.values())

    def flaws(self):
        return sum(sum(cache.stats().flaws.values()) for cache in self.caches.values())

    @contextmanager
    def counting_flaws(self, *places):
        """Damage that is looked at is counted, and nothing else is."""
        flawed = any(self.model.flawed(place) for place in places)
        before = self.flaws()
        yield
        if not flawed:
            assert self.flaws() == before
        elif not self.lossy:
            assert self.flaws() > before

    def count(self, **more):
        for name, number in more.items():
            self.expected[name] += number

    # -- values ------------------------------------------------------------------------------

    @rule(door=doors, key=keys, pad=pads, ttl=ttls, option=ttl_options, mode=modes)
    def set(self, *, door, key, pad, ttl, option, mode):
        value = self.fresh(pad)

        async def work():
            with options(cache_seed=door.seed, mode=mode, ttl=option):
                return await self.at(door).set(key, value, ttl=ttl)

        stored = self.run(work())
        if mode in STORES_NOTHING:
            assert not stored
            return
        assert stored or self.lossy
        self.count(stored=stored)
        self.model.put(
            self.place(door, key), self.recorded(door, value, ttl, option), surely=stored
        )

    @rule(door=doors, items=st.lists(st.tuples(keys, pads), max_size=6), ttl=ttls)
    def set_many(self, door, items, ttl):
        pairs = [(key, self.fresh(pad)) for key, pad in items]

        async def work():
            with options(cache_seed=door.seed):
                return await self.at(door).set_many(pairs, ttl=ttl)

        stored = self.run(work())
        assert len(stored) == len(pairs)
        for (key, value), each in zip(pairs, stored, strict=True):
            assert each or self.lossy
            self.count(stored=each)
            self.model.put(self.place(door, key), self.recorded(door, value, ttl), surely=each)

    @rule(door=doors, key=keys, mode=modes)
    def get(self, door, key, mode):
        if mode not in {"off", "refresh"}:
            self.look(door, key, mode)
            return

        async def work():
            with options(cache_seed=door.seed, mode=mode):
                return await self.at(door).get(key, MISSING)

        with self.counting_flaws():
            assert self.run(work()) is MISSING

    @rule(door=doors, asked=st.lists(keys, max_size=8))
    def get_many(self, door, asked):
        async def work():
            with options(cache_seed=door.seed):
                return await self.at(door).get_many(asked, MISSING)

        with self.counting_flaws(*(self.place(door, key) for key in asked)):
            found = self.run(work())
        assert len(found) == len(asked)
        for key, value in zip(asked, found, strict=True):
            self.model.saw(self.place(door, key), value)

    @rule(door=doors, key=keys)
    def contains(self, door, key):
        place = self.place(door, key)

        async def work():
            with options(cache_seed=door.seed):
                return await self.at(door).contains(key)

        if self.run(work()):
            assert not self.model.surely_missing(place)
        else:
            self.model.saw(place, MISSING)

    @rule(door=doors, key=keys)
    def delete(self, door, key):
        place = self.place(door, key)

        async def work():
            with options(cache_seed=door.seed):
                return await self.at(door).delete(key)

        removed = self.run(work())
        if self.lossy:
            assert self.model.kept(place) or not removed
        else:
            assert removed == bool(self.model.kept(place))
        self.model.remove(place)

    @rule(door=doors)
    def clear(self, door):
        async def work():
            with options(cache_seed=door.seed):
                return await self.at(door).clear()

        there = len(self.model.places(door.namespace))
        removed = self.run(work())
        assert removed <= there if self.lossy else removed == there
        self.model.clear(door.namespace)

    @rule(seconds=st.sampled_from([1, 2, 5, 20]), number=numbers)
    def time(self, seconds, number):
        found = self.known(number)
        self.time_passes(seconds)
        if found is not None:
            self.look(*found[:2])

    def time_passes(self, seconds):
        """Let both clocks go on."""
        self.clock.advance(seconds)
        self.model.now += seconds

    # -- calls -------------------------------------------------------------------------------

    @rule(
        door=doors, key=keys, mode=modes, ttl=ttls, option=ttl_options,
        sample=st.sampled_from([0, 0, 0, 1, 2]), fails=st.sampled_from([False] * 4 + [True]),
        pad=pads, callers=st.sampled_from([1, 1, 3]),
    )  # fmt: skip
    def get_or_create(self, *, door, key, mode, ttl, option, sample, fails, pad, callers):
        place = self.place(door, key, sample)
        model, upstream = self.model, self.upstream
        upstream.fails, upstream.pad = fails, PADS[pad]

        async def work():
            with options(cache_seed=door.seed, mode=mode, ttl=option, sample=sample):
                ask = self.at(door).get_or_create
                return await asyncio.gather(
                    *(ask(key, upstream, ttl=ttl) for _ in range(callers)), return_exceptions=True
                )

        calls, made = upstream.calls, upstream.made
        looks = [] if mode in {"off", "refresh"} else [place]
        with self.counting_flaws(*looks):
            answers = self.run(work())
        called = upstream.calls - calls

        if mode == "off":
            assert called == callers
            self.count(bypassed=callers)
            self.check_made(answers, made, fails, callers)
        elif called:
            assert mode != "replay"
            # A caller that the pacer held back comes to what was stored, or, if nothing was, last.
            assert called == 1 or (
                called <= callers and (fails or self.lossy or mode != "read_write")
            )
            if mode != "refresh":
                assert not model.surely_there(place), "paid for what was there"
                model.saw(place, MISSING)
            self.check_made(answers, made, fails, called)
            if fails:
                self.count(upstream_errors=called)
                return
            self.count(misses=called, served=callers - called)
            if mode in {"read_write", "refresh"}:
                newest = upstream.value(made + called)
                self.was_stored(place, self.recorded(door, newest, ttl, option))
        elif mode == "replay" and not model.surely_there(place) and is_miss(answers[0]):
            assert all(map(is_miss, answers))
            missed = self.total("replay_misses") - self.expected["replay_misses"]
            assert 1 <= missed <= callers  # one for each flight
            self.count(replay_misses=missed)
            model.saw(place, MISSING)
        else:
            assert mode != "refresh", "a refresh that made no call"
            for answer in answers:
                model.saw(place, answer)
            self.count(served=callers)

    @staticmethod
    def check_made(answers, made, fails, called):
        """Answers are those of so many calls, or their errors, and nobody shares an object."""
        assert len({id(answer) for answer in answers}) == len(answers)
        if fails:
            assert all(isinstance(answer, BoomError) for answer in answers)
        else:
            numbers = {answer[1] for answer in answers}
            assert numbers == set(range(made + 1, made + called + 1))

    def was_stored(self, place, slot):
        """An answer of a flight was stored, unless it had no room."""
        stored = self.total("stored") - self.expected["stored"]
        assert stored or self.lossy
        self.count(stored=stored)
        self.model.put(place, slot, surely=bool(stored))

    @rule(door=doors, key=keys, callers=st.integers(1, 4))
    def sample_each(self, door, key, callers):
        """Callers of one block that asks for a sample each get one each, and each only once."""
        self.upstream.fails, self.upstream.pad = False, b""

        async def work():
            with options(cache_seed=door.seed, sample="each"):
                ask = self.at(door).get_or_create
                return await asyncio.gather(*(ask(key, self.upstream) for _ in range(callers)))

        places = [self.place(door, key, sample) for sample in range(callers)]
        made, stored = self.upstream.made, self.total("stored")
        answers = self.run(work())
        missed = 0
        for place, answer in zip(places, answers, strict=True):
            if isinstance(answer, list) and answer[0] == "made" and answer[1] > made:
                assert not self.model.surely_there(place)
                missed += 1
                self.model.put(place, self.recorded(door, answer, None), surely=not self.lossy)
            else:
                self.model.saw(place, answer)
        self.count(misses=missed, served=callers - missed, stored=self.total("stored") - stored)
        assert self.upstream.made - made == missed
        assert self.lossy or self.total("stored") - stored == missed

    @rule(
        door=doors, key=keys, refresh=st.booleans(),
        what=st.sampled_from(["delete", "clear", "set", "ask", "time", "leave", "close"]),
    )  # fmt: skip
    def meanwhile(self, door, key, refresh, what):  # noqa: C901 - one scene, seven ends
        """Something happens while a call is under way upstream."""
        place = self.place(door, key)
        model, upstream, cache = self.model, self.upstream, self.at(door)
        if not refresh and not model.surely_missing(place):
            return
        upstream.fails, upstream.pad, gate = False, b"", Gate()
        upstream.gate, made = gate, upstream.made
        value = self.fresh("none")

        async def ask():
            with options(mode="refresh" if refresh else "read_write"):
                return await cache.get_or_create(key, upstream)

        async def work():
            with options(cache_seed=door.seed):
                asking = asyncio.create_task(ask())
                await gate.arrived()
                said = await self.happen(what, door, key, value, asking=asking)
                gate.release()
                await asyncio.wait([asking])
                if what == "close":
                    await self.open()
                return said, asking

        kept, there = bool(model.kept(place)), len(model.places(door.namespace))
        said, asking = self.run(work())
        if what in {"leave", "close"}:
            with pytest.raises(asyncio.CancelledError if what == "leave" else CacheClosedError):
                asking.result()
            self.count(abandoned=what == "leave")
            return
        given = asking.result()
        assert given == upstream.value(made + (2 if what == "ask" else 1))
        self.count(misses=1)
        if what == "time":
            model.now += 5
            self.was_stored(place, self.recorded(door, given, None))
            return
        if what in {"delete", "clear"} and not self.lossy:
            assert said == (kept if what == "delete" else there)
        if what == "clear":
            model.clear(door.namespace)
        model.remove(place)
        if what == "set":
            assert said or self.lossy
            self.count(stored=said)
            model.put(place, self.recorded(door, value, None), surely=said)
        elif what == "ask":
            assert said == upstream.value(made + 1)
            self.count(misses=1)
            self.was_stored(place, self.recorded(door, said, None))

    async def happen(self, what, door, key, value, *, asking):
        """Do what happens while a call is under way; return what it said."""
        cache = self.at(door)
        if what in {"delete", "ask"}:
            said = await cache.delete(key)
            # Who comes after a deletion gets nothing from before it.
            return said if what == "delete" else await cache.get_or_create(key, self.upstream)
        if what == "clear":
            return await cache.clear()
        if what == "set":
            return await cache.set(key, value)
        if what == "time":
            self.clock.advance(5)
        elif what == "leave":
            asking.cancel()
        else:
            await self.close(door.cache)
        return None

    @rule(door=doors, key=keys, pad=pads, what=st.sampled_from(["delete", "clear", "set"]))
    def right_after(self, door, key, pad, what):
        """Whatever is done as soon as an answer is there comes after its being stored."""
        place, value, cache = self.place(door, key), self.fresh("none"), self.at(door)
        self.upstream.fails, self.upstream.pad = False, PADS[pad]

        async def work():
            with options(cache_seed=door.seed, mode="refresh"):
                await cache.get_or_create(key, self.upstream)
                if what == "delete":
                    return await cache.delete(key)
                return await (cache.clear() if what == "clear" else cache.set(key, value))

        said = self.run(work())
        self.count(misses=1, stored=self.total("stored") - self.expected["stored"])
        if what == "clear":
            self.model.clear(door.namespace)
        self.model.remove(place)
        if what == "set":
            self.model.put(place, self.recorded(door, value, None), surely=said)

    # -- what befalls a store ----------------------------------------------------------------

    def stored_bytes(self, door, key):
        (body,) = self.run(self.store.get_many(door.namespace, [self.digest(door, key)]))
        return body

    def put_bytes(self, door, key, body, expires):
        us = self.clock.time_us() + int((expires - self.model.now) * 1e6) if expires else 0
        record = Record(key=self.digest(door, key), body=body, expires=us)
        self.run(self.store.set_many(door.namespace, [record]))

    def known(self, number):
        """One of the places that surely hold an answer, what it is, and its bytes."""
        there = [
            (door, key, kept[0])
            for door in DOORS
            for key in KEYS
            if len(kept := self.model.kept(self.place(door, key))) == 1 and kept[0].sound
        ]
        if not there:
            return None
        door, key, slot = there[number % len(there)]
        body = self.stored_bytes(door, key)
        return None if body is None else (door, key, slot, body)

    def look(self, door, key, mode="read_write"):
        """Look at a place and check it."""
        place = self.place(door, key)

        async def work():
            with options(cache_seed=door.seed, mode=mode):
                return await self.at(door).get(key, MISSING)

        with self.counting_flaws(place):
            found = self.run(work())
        self.model.saw(place, found)

    @rule(number=numbers, at=numbers, bits=st.integers(1, 255), look=st.booleans())
    def a_byte_rots(self, number, at, bits, look):
        found = self.known(number)
        if found is not None:
            door, key, slot, body = found
            rotten = bytearray(body)
            rotten[at % len(body)] ^= bits
            self.damage(door, key, bytes(rotten), slot, look)

    @rule(number=numbers, at=numbers, look=st.booleans())
    def the_end_is_lost(self, number, at, look):
        found = self.known(number)
        if found is not None:
            door, key, slot, body = found
            self.damage(door, key, body[: at % len(body)], slot, look)

    @rule(number=numbers, door=doors, key=keys, look=st.booleans())
    def a_value_moves(self, number, door, key, look):
        """Bytes of one key lie under another, or in another namespace."""
        found = self.known(number)
        if found is not None:
            source, source_key, slot, body = found
            if self.place(source, source_key) != self.place(door, key):
                self.damage(door, key, body, slot, look)

    def damage(self, door, key, body, slot, look):
        """Put bytes at a place that are no answer there."""
        self.put_bytes(door, key, body, slot.kept_until)
        self.model.put(self.place(door, key), slot._replace(sound=False))
        if look:
            self.look(door, key)

    @rule(number=numbers, seconds=st.sampled_from([0, 0, 5, 10, 20]))
    def the_store_forgets_to_expire(self, number, seconds):
        """The entry's own expiry still counts when the store's is gone, if there is no other."""
        found = self.known(number)
        if found is not None and not self.store.capabilities.expires:
            door, key, slot, body = found
            self.put_bytes(door, key, body, 0)
            self.model.put(self.place(door, key), slot._replace(kept_until=0))
            self.time_passes(seconds)
            self.look(door, key)

    @rule()
    def reopen(self):
        async def work():
            await self.close()
            await self.open()

        self.run(work())

    @rule(door=doors, mode=st.sampled_from(["replay", "read_only"]))
    def a_reader_looks(self, door, mode):
        """Another cache, opened to read only, finds the same and changes nothing."""
        store = self.store if self.kind == "memory" else self.new_store()
        own = TENANTS[door.cache]
        reader = Cache.from_store(store, 1, clock=self.clock, tenant=own, mode=mode)

        async def work():
            async with reader:
                with options(cache_seed=door.seed):
                    found = await reader.get_many(KEYS, MISSING)
                    assert not await reader.set(KEYS[0], "by a reader")
            return found

        for key, value in zip(KEYS, self.run(work()), strict=True):
            self.model.saw(self.place(door, key), value)

    @rule(door=doors)
    def audit(self, door):
        """The store holds what the model holds and no more, and nobody holds a lease."""
        namespace = door.namespace

        async def work():
            found, cursor = 0, None
            while True:
                page = await self.store.scan(namespace, cursor)
                found += len(page.envelopes)
                if (cursor := page.cursor) is None:
                    break
            token = os.urandom(16)
            claims = [Claim(key=self.digest(door, key), token=token) for key in KEYS]
            claimed = await self.store.claim(namespace, claims, 5)
            leases = [Lease(claim.key, token) for claim in claims]
            await self.store.release(namespace, leases)
            return found, [each.granted for each in claimed]

        there = len(self.model.places(namespace))
        found, granted = self.run(work())
        assert found <= there if self.lossy else found == there
        assert all(granted)

    # -- what always holds -------------------------------------------------------------------

    @precondition(lambda self: hasattr(self, "runner"))
    @invariant()
    def figures_add_up(self):
        figures = [cache.stats() for cache in self.caches.values()]
        found = {
            name: sum(
                each.hits + each.joined if name == "served" else getattr(each, name)
                for each in figures
            )
            for name in self.expected
        }
        paid = sum(each.upstream_calls for each in figures)
        assert paid == self.upstream.calls - found["bypassed"]
        if not self.lossy:
            assert found == self.expected
            assert not any(each.store_errors for each in figures)
        if self.kind == "memory":
            kept = self.store._entries.values()
            assert self.store._bytes == sum(len(body) + ENTRY_OVERHEAD for body, *_ in kept)
            assert self.store._bytes <= self.store._max_bytes


def is_miss(answer):
    """Whether a replay found nothing."""
    return isinstance(answer, ReplayMiss)


class DiskMachine(CacheMachine):
    """The same on disk."""

    kind = "disk"


@pytest.mark.parametrize(("machine", "examples"), [(CacheMachine, 300), (DiskMachine, 80)])
def test_the_cache_does_as_a_plain_model(machine, examples):
    """In whatever order things happen, the cache answers as a dict with expiries would."""
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=40)
    )


# -- what the machine found first, said in one scene each --------------------------------------


async def answer():
    """Make an answer that the disk store keeps in a file, so that storing it takes its time."""
    return bytes(range(256)) * 2_000


@pytest.mark.parametrize("what", ["delete", "clear", "set"])
@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_what_is_done_right_after_an_answer_comes_after_its_storing(tmp_path, kind, what):
    """Deleting, clearing or setting once an answer is there isn't undone by its being stored."""
    made = Cache.memory() if kind == "memory" else Cache.disk(cache_path_root=tmp_path / "cache")
    async with made as cache:
        assert await cache.get_or_create("key", answer) == await answer()
        if what == "delete":
            await cache.delete("key")
        elif what == "clear":
            await cache.clear()
        else:
            assert await cache.set("key", "mine")
    async with made as cache:  # closing waited for all that was being stored
        assert await cache.get("key") == ("mine" if what == "set" else None)


async def test_no_key_is_another_ones_sample():
    """The first sample of "a" and the value of ("a", 1) are two entries."""
    async with Cache.memory() as cache:
        with options(sample=1):
            await cache.get_or_create("a", answer)
        assert not await cache.contains(("a", 1))
