"""The promises of `asynccache.stores.Store`, as tests that any store can be run through."""
# ruff: noqa: S101, PLR2004 - tests: assertions, and numbers that are clearest as numbers

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, ClassVar, Final, Literal, TypeAlias, TypeVar, get_args

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from asynccache.entries.entry import ENVELOPE_BYTES, decode_head
from asynccache.keys.key import Namespace
from asynccache.stores.base import (
    UNKNOWN,
    Capabilities,
    Claim,
    Claimed,
    Counted,
    Lease,
    Record,
    Store,
)
from asynccache.testing.clock import ManualClock
from asynccache.testing.records import AWAY, HOME, PATIENCE, TENANT, body_of, get, key_of, record_of

_TTL: Final = 120.0  # seconds: no lease of these tests runs out while they run
_LONG: Final = 3600.0  # seconds: a wait that nobody wakes lasts longer than `PATIENCE`

_LEFT_OUT: Final = object()
"""What stands in place of a test that isn't for a store: pytest passes over it."""
_Need: TypeAlias = Literal["inline", "messages", "releases", "glances", "generations", "durable"]
_Test = TypeVar("_Test", bound=Callable[..., object])
_Work: TypeAlias = Callable[[], Coroutine[Any, Any, object]]


def _needs(capability: _Need) -> Callable[[_Test], _Test]:
    """Mark a test that only stores with a capability have to pass."""

    def marked(test: _Test) -> _Test:
        test.__dict__["needs"] = (capability,)
        return test

    return marked


def _needed(test: Callable[..., object]) -> set[str]:
    """Return what a test needs: the capability it is marked with, leases to claim, a clock."""
    asked = inspect.signature(test).parameters
    fixtures = {"claimant": "leases", "clock": "clock"}
    return {*test.__dict__.get("needs", ()), *(fixtures[n] for n in fixtures if n in asked)}


async def _together(*works: _Work) -> None:
    """Run all of this at the same time, and fail if it doesn't end."""
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for work in works:
                group.start_soon(work)


async def _elsewhere(work: _Work) -> None:
    """Run work in another event loop of the same kind, in another thread."""
    options = {"loop_factory": type(asyncio.get_running_loop())}
    # With a deadline of its own, because nobody outside can cancel it.
    run = partial(anyio.run, partial(_together, work), backend_options=options)
    await anyio.to_thread.run_sync(run)


async def _assert_found(
    store: Store, name: object, body: bytes | None, namespace: Namespace = HOME
) -> None:
    """Check that each way to look a name up finds this body, or that none finds any."""
    key = key_of(name)
    assert list(await store.get_many(namespace, [key])) == [body]
    assert list(await store.head_many(namespace, [key])) == [body and body[:ENVELOPE_BYTES]]
    assert store.peek(namespace, key) in (body, UNKNOWN)


async def _pages(store: Store, namespace: Namespace = HOME) -> AsyncIterator[Sequence[bytes]]:
    """Yield the envelopes of a namespace, page by page."""
    page = await store.scan(namespace)
    yield page.envelopes
    while page.cursor is not None:
        page = await store.scan(namespace, page.cursor)
        yield page.envelopes


async def _scanned(store: Store, namespace: Namespace = HOME) -> list[bytes]:
    """Return the envelopes of all pages."""
    return [envelope async for page in _pages(store, namespace) for envelope in page]


async def _writes(store: Store, record: Record, generation: bytes | None) -> bool:
    """Write a record if its key has this generation; return whether it was written."""
    (written,) = await store.set_many(HOME, [replace(record, generation=generation)])
    return written


async def _change(store: Store, change: str, name: object) -> None:
    """Give a key a new generation, in one of the ways there are."""
    if change == "set":
        await store.set_many(HOME, [record_of(name, size=45)])
    elif change == "delete":
        await store.delete_many(HOME, [key_of(name)])
    elif change == "clear":
        await store.clear(HOME)
    else:
        await store.generations(HOME, [key_of(name)], renew=True)


class _Claimant:
    """Somebody who wants the lease of one key, with a token of their own."""

    def __init__(self, store: Store, name: object = "a", namespace: Namespace = HOME) -> None:
        self.store, self.namespace = store, namespace
        self.key, self.token = key_of(name), secrets.token_bytes(16)

    def lease(self, renewals: int = 0) -> Lease:
        """Return the lease as others see it while this claimant holds it."""
        return Lease(self.key, self.token, renewals)

    async def claim(self, *, expect: Lease | None = None, waiting: bool = False) -> Claimed:
        """Claim the lease and return the answer."""
        claim = Claim(key=self.key, token=self.token, expect=expect, waiting=waiting)
        (answer,) = await self.store.claim(self.namespace, [claim], _TTL)
        return answer

    async def takes(self, *, expect: Lease | None = None) -> bool:
        """Claim the lease and tell whether it was granted."""
        return (await self.claim(expect=expect)).granted

    async def is_refused(self, *, expect: Lease | None = None) -> Lease | None:
        """Claim a lease that can't be had, and return who holds it."""
        answer = await self.claim(expect=expect)
        assert not answer.granted
        return answer.holder

    async def renew(self, renewals: int = 0) -> list[bool]:
        """Renew the lease and return the store's answer."""
        return list(await self.store.renew(self.namespace, [self.lease(renewals)], _TTL))

    async def release(self, renewals: int = 0) -> None:
        """Give the lease back."""
        await self.store.release(self.namespace, [self.lease(renewals)])


Claimants: TypeAlias = Callable[..., _Claimant]


class StoreContract:
    """What every store promises, as tests for pytest with anyio's plugin.

    Subclass it, set ``capabilities``, and write a fixture ``store`` that yields an open, empty
    store and closes it. pytest doesn't collect the tests of capabilities that are not set, and one
    test checks that the store reports the same capabilities. If the store takes its time from a
    `asynccache.stores.Clock`, write a fixture ``clock`` that returns the `ManualClock` which the
    store was made with. pytest then collects the tests of expiry at an exact moment, too.

    Example::

        class TestMyStore(StoreContract):
            capabilities = MyStore.capabilities

            @pytest.fixture
            def clock(self):
                return ManualClock()

            @pytest.fixture
            async def store(self, clock):
                store = MyStore(clock=clock)
                await store.open()
                yield store
                await store.aclose()
    """

    capabilities: ClassVar[Capabilities] = Capabilities()
    """What the store can do. It decides which tests are collected, and must equal what the store
    itself reports in `Store.capabilities`."""
    pytestmark = pytest.mark.anyio

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        given = {name for name in Capabilities.__struct_fields__ if getattr(cls.capabilities, name)}
        if inspect.getattr_static(cls, "clock") is not StoreContract.__dict__["clock"]:
            given.add("clock")
        for name, test in inspect.getmembers(StoreContract, inspect.isfunction):
            if getattr(cls, name) in (test, _LEFT_OUT):  # not replaced by a subclass
                setattr(cls, name, test if _needed(test) <= given else _LEFT_OUT)

    @pytest.fixture
    def store(self) -> Store:
        """Return an open, empty store. Every subclass has its own fixture."""
        raise NotImplementedError("a subclass of StoreContract gives a fixture `store`")

    @pytest.fixture
    def clock(self) -> ManualClock:
        """Return the clock that the store was made with. A subclass may have this fixture."""
        raise NotImplementedError("tests that need a clock are collected only where there is one")

    @pytest.fixture
    def claimant(self, store: Store) -> Claimants:
        """Return a function that makes claimants of leases. Tests of leases ask for it."""
        return partial(_Claimant, store)

    async def test_capabilities_are_the_stated_ones(self, store: Store) -> None:
        """The tests that are collected are those for what the store says it can do."""
        assert store.capabilities == self.capabilities

    # Entries

    async def test_empty_batches_do_nothing(self, store: Store) -> None:
        """An empty batch is allowed everywhere and answered with nothing."""
        for lookup in (store.get_many, store.head_many, store.set_many):
            assert list(await lookup(HOME, [])) == []
        assert await store.delete_many(HOME, []) == 0

    async def test_absence_is_none(self, store: Store) -> None:
        """What was never set is None, never an error."""
        await _assert_found(store, "no", None)
        assert await store.delete_many(HOME, [key_of("no")]) == 0
        assert await store.clear(HOME) == 0
        assert await _scanned(store) == []

    async def test_batches_are_answered_in_their_order(self, store: Store) -> None:
        """Answers stand where their keys stand; a key given twice is answered twice."""
        assert list(await store.set_many(HOME, [record_of("a"), record_of("b")])) == [True, True]
        keys = [key_of(name) for name in ("b", "none", "a", "b")]
        bodies = [body_of("b"), None, body_of("a"), body_of("b")]
        assert list(await store.get_many(HOME, keys)) == bodies
        heads = [body and body[:ENVELOPE_BYTES] for body in bodies]
        assert list(await store.head_many(HOME, keys)) == heads

    async def test_a_thousand_keys_at_once(self, store: Store) -> None:
        """Large batches are served like small ones."""
        records = [record_of(n) for n in range(1000)]
        keys = [record.key for record in records]
        assert list(await store.set_many(HOME, records)) == [True] * 1000
        assert list(await store.get_many(HOME, keys)) == [record.body for record in records]
        heads = [record.body[:ENVELOPE_BYTES] for record in records]
        assert list(await store.head_many(HOME, keys)) == heads
        assert await store.delete_many(HOME, keys) == 1000
        assert list(await store.get_many(HOME, keys)) == [None] * 1000

    async def test_peek_is_right_or_unknown(self, store: Store) -> None:
        """An inline read never says anything else than a lookup would."""
        await store.set_many(HOME, [record_of("a")])
        await get(store, "a")
        assert store.peek(HOME, key_of("a")) in (body_of("a"), UNKNOWN)
        await store.delete_many(HOME, [key_of("a")])
        assert store.peek(HOME, key_of("a")) in (None, UNKNOWN)

    @_needs("inline")
    async def test_peek_answers(self, store: Store) -> None:
        """A store that says it reads inline does so for a small entry that was just read."""
        await store.set_many(HOME, [record_of("a")])
        await get(store, "a")
        assert store.peek(HOME, key_of("a")) == body_of("a")

    @pytest.mark.parametrize(
        "size", [0, 1, ENVELOPE_BYTES - 1, ENVELOPE_BYTES, 4096, 65_536, 65_537, 300_000, 3_000_000]
    )
    async def test_bytes_come_back_as_they_were(self, store: Store, size: int) -> None:
        """Bodies of any size, also too small to be one of ours, are returned byte for byte."""
        body = body_of("opaque", size)[-size:] if size else b""
        await store.set_many(HOME, [record_of("opaque", body)])
        await _assert_found(store, "opaque", body)

    async def test_namespaces_are_kept_apart(self, store: Store) -> None:
        """One key in two namespaces, or under two tenants, is two entries."""
        bodies = {space: body_of(space.text) for space in (HOME, TENANT, AWAY)}
        for space, body in bodies.items():
            await store.set_many(space, [record_of("same", body)])
        for space, body in bodies.items():
            await _assert_found(store, "same", body, space)
        assert await store.delete_many(TENANT, [key_of("same")]) == 1
        for space, body in bodies.items():
            await _assert_found(store, "same", None if space is TENANT else body, space)

    async def test_clear_is_exact(self, store: Store) -> None:
        """Clearing empties one namespace, counts it, and leaves every other as it was."""
        for space, count in ((HOME, 700), (TENANT, 3), (AWAY, 2)):
            await store.set_many(space, [record_of(n) for n in range(count)])
        assert await store.clear(HOME) == 700
        assert [len(await _scanned(store, s)) for s in (HOME, TENANT, AWAY)] == [0, 3, 2]
        for n in (0, 699):
            await _assert_found(store, n, None)
        await store.set_many(HOME, [record_of(0)])
        assert await get(store, 0) == body_of(0)
        assert await store.clear(TENANT) == 3
        assert len(await _scanned(store)) == 1

    async def test_deletes_are_counted(self, store: Store) -> None:
        """A delete counts what was there, once, and removes nothing else."""
        await store.set_many(HOME, [record_of(n) for n in range(3)])
        assert await store.delete_many(HOME, [key_of(n) for n in (0, 1, 1, 99)]) == 2
        assert [await get(store, n) for n in range(3)] == [None, None, body_of(2)]

    async def test_the_last_set_stands(self, store: Store) -> None:
        """Setting again replaces the whole entry, also within one batch, larger or smaller."""
        for size in (100, 400_000, 10):
            await store.set_many(HOME, [record_of("a", body_of(size, size))])
            await _assert_found(store, "a", body_of(size, size))
        twice = [record_of("a", body_of(n)) for n in (1, 2)]
        assert list(await store.set_many(HOME, twice)) == [True, True]
        assert await get(store, "a") == body_of(2)
        assert len(await _scanned(store)) == 1

    async def test_if_absent_never_replaces(self, store: Store) -> None:
        """With ``if_absent`` what is there stands, and the answer says so."""
        first, second = (record_of("a", body_of(n), if_absent=True) for n in (1, 2))
        assert list(await store.set_many(HOME, [first, second])) == [True, False]
        assert list(await store.set_many(HOME, [second, record_of("b")])) == [False, True]
        assert await get(store, "a") == body_of(1)
        await store.delete_many(HOME, [key_of("a")])
        assert list(await store.set_many(HOME, [second])) == [True]
        assert await get(store, "a") == body_of(2)

    async def test_one_of_many_writers_is_first(self, store: Store) -> None:
        """Of fifty writers that only write where nothing is, one writes."""
        winners: list[int] = []

        async def write(n: int) -> None:
            record = record_of("a", body_of(n), if_absent=True)
            if list(await store.set_many(HOME, [record])) == [True]:
                winners.append(n)

        await _together(*(partial(write, n) for n in range(50)))
        assert [body_of(n) for n in winners] == [await get(store, "a")]

    async def test_the_expired_is_never_returned(self, store: Store) -> None:
        """An entry past its time is nowhere to be seen, and counts as absent."""
        await store.set_many(HOME, [record_of("a", expires=1), record_of("b")])
        await _assert_found(store, "a", None)
        assert len(await _scanned(store)) == 1
        assert list(await store.set_many(HOME, [record_of("a", if_absent=True)])) == [True]
        assert await get(store, "a") == body_of("a")

    async def test_entries_expire_by_the_clock(self, store: Store, clock: ManualClock) -> None:
        """An entry is there until the microsecond it expires, and not from then on."""
        minute = clock.time_us() + 60_000_000
        mortal = [record_of(name, expires=minute) for name in ("a", "b")]
        await store.set_many(HOME, [*mortal, record_of("for ever")])
        clock.advance(59.999_999)
        assert await get(store, "a") == body_of("a")
        assert list(await store.set_many(HOME, [record_of("a", if_absent=True)])) == [False]
        clock.advance(0.000_001)
        # Before any lookup that might remove it.
        assert list(await store.head_many(HOME, [key_of("a")])) == [None]
        assert len(await _scanned(store)) == 1
        assert await store.delete_many(HOME, [key_of("b")]) == 0
        await _assert_found(store, "a", None)
        clock.advance(10 * 365 * 86400)
        assert await get(store, "for ever") == body_of("for ever")

    async def test_scan_shows_every_entry_once(self, store: Store) -> None:
        """All pages together are exactly the envelopes of a namespace."""
        await store.set_many(HOME, [record_of(n) for n in range(2500)])
        await store.set_many(AWAY, [record_of("away")])
        heads = [decode_head(envelope) for envelope in await _scanned(store)]
        assert len(heads) == 2500
        assert {head.key for head in heads if head} == {key_of(n) for n in range(2500)}

    async def test_scan_holds_while_entries_come_and_go(self, store: Store) -> None:
        """What stays during a scan is shown exactly once, whatever is set and deleted meanwhile."""
        await store.set_many(HOME, [record_of(n) for n in range(3000)])
        found: list[bytes] = []
        turn = 0
        async for page in _pages(store):
            found.extend(page)
            await store.delete_many(HOME, [key_of(n) for n in range(turn * 100, turn * 100 + 50)])
            await store.set_many(HOME, [record_of((turn, n)) for n in range(50)])
            await store.set_many(HOME, [record_of(n) for n in range(2000, 2200)])
            turn += 1
            assert turn < 1000
        assert len(found) == len(set(found))
        assert {body_of(n)[:ENVELOPE_BYTES] for n in range(2000, 3000)} <= set(found)

    # Cancellation, event loops, closing

    @pytest.mark.parametrize("size", [100, 3_000_000])
    async def test_a_cancelled_set_is_whole_or_absent(self, store: Store, size: int) -> None:
        """Cancelling a set, whenever, leaves the old entry or the new, and a store that works."""
        old, new = body_of("old", size), body_of("new", size)
        for turns in range(8):
            await store.set_many(HOME, [record_of("a", old)])
            async with anyio.create_task_group() as group:
                group.start_soon(store.set_many, HOME, [record_of("a", new)])
                group.start_soon(store.set_many, HOME, [record_of(turns, new)])
                for _ in range(turns):
                    await checkpoint()
                group.cancel_scope.cancel()
            assert await get(store, "a") in (old, new)
            assert await get(store, turns) in (None, new)
        await store.set_many(HOME, [record_of("a")])
        assert await get(store, "a") == body_of("a")

    async def test_readers_see_whole_entries(self, store: Store) -> None:
        """While a large entry is overwritten in another loop, readers see one or the other."""
        bodies = [body_of(n, 500_000) for n in range(2)]
        await store.set_many(HOME, [record_of("a", bodies[0])])
        done = anyio.Event()

        async def write() -> None:
            for n in range(20):
                await store.set_many(HOME, [record_of("a", bodies[n % 2])])

        async def read() -> None:
            while not done.is_set():
                assert await get(store, "a") in bodies
                assert store.peek(HOME, key_of("a")) in (*bodies, UNKNOWN)
                await checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await _elsewhere(write)
            done.set()

    async def test_several_loops_at_once(self, store: Store) -> None:
        """Event loops in several threads use one store at the same time, and see each other."""

        async def work(worker: int) -> None:
            for n in range(30):
                await store.set_many(HOME, [record_of((worker, n)), record_of("shared")])
                assert await get(store, (worker, n)) == body_of((worker, n))
                assert await get(store, "shared") == body_of("shared")
            assert await store.delete_many(HOME, [key_of((worker, n)) for n in range(20)]) == 20

        others = [partial(_elsewhere, partial(work, worker)) for worker in range(4)]
        await _together(*others, partial(work, 4))
        assert len(await _scanned(store)) == 5 * 10 + 1

    async def test_closing_twice_and_opening_again(self, store: Store) -> None:
        """A store may be closed twice, and opened and used again."""
        await store.set_many(HOME, [record_of("a")])
        await store.aclose()
        await store.aclose()
        await store.open()
        await store.set_many(HOME, [record_of("b")])
        assert await get(store, "b") == body_of("b")

    @_needs("durable")
    async def test_what_was_set_survives_closing(self, store: Store) -> None:
        """A durable store has after opening what it had before closing, also only for reading."""
        await store.set_many(HOME, [record_of("a"), record_of("b", size=1_000_000)])
        for read_only in (True, False):
            await store.aclose()
            await store.open(read_only=read_only)
            assert await get(store, "a") == body_of("a")
            assert await get(store, "b") == body_of("b", 1_000_000)
            assert len(await _scanned(store)) == 2

    async def test_counters_are_numbers(self, store: Store) -> None:
        """What a store did of its own accord is counted under the known names."""
        counters = store.counters()
        assert counters.keys() <= set(get_args(Counted))
        assert all(count >= 0 for count in counters.values())

    # Leases

    async def test_a_lease_is_granted_once(self, claimant: Claimants) -> None:
        """Who asks first holds the lease; who asks then learns who holds it."""
        mine = claimant()
        first = await mine.claim()
        assert first.granted
        assert first.entry is None
        assert await claimant().is_refused() == mine.lease()
        assert await claimant("b").takes()

    async def test_claims_come_in_batches(self, store: Store, claimant: Claimants) -> None:
        """A batch of claims is answered in its order; an empty one does nothing."""
        held = claimant(1)
        await held.claim()
        several = [claimant(n) for n in (0, 1, 2, 0)]
        claims = [Claim(key=one.key, token=one.token) for one in several]
        leases = [one.lease() for one in several]
        answers = await store.claim(HOME, claims, _TTL)
        assert [answer.granted for answer in answers] == [True, False, True, False]
        assert [answers[n].holder for n in (1, 3)] == [held.lease(), leases[0]]
        assert list(await store.renew(HOME, leases, _TTL)) == [True, False, True, False]
        await store.release(HOME, leases)
        again = await store.claim(HOME, claims[:3], _TTL)
        assert [answer.granted for answer in again] == [True, False, True]
        assert list(await store.claim(HOME, [], _TTL)) == []
        assert list(await store.renew(HOME, [], _TTL)) == []
        await store.release(HOME, [])

    async def test_a_thousand_claims_at_once(self, store: Store, claimant: Claimants) -> None:
        """A large batch of claims is served like a small one."""
        leases = [claimant(n).lease() for n in range(1000)]
        claims = [Claim(key=lease.key, token=lease.token) for lease in leases]
        assert all(answer.granted for answer in await store.claim(HOME, claims, _TTL))
        assert list(await store.renew(HOME, leases, _TTL)) == [True] * 1000
        await store.release(HOME, leases)
        assert all(answer.granted for answer in await store.claim(HOME, claims, _TTL))

    async def test_claiming_looks_for_the_entry(self, store: Store, claimant: Claimants) -> None:
        """A claim that is granted tells of an entry that is there, and of no expired one."""
        await store.set_many(HOME, [record_of("a"), record_of("big", size=1_000_000)])
        await store.set_many(HOME, [record_of("old", expires=1)])
        several = [claimant(name) for name in ("a", "big", "old", "none")]
        claims = [Claim(key=one.key, token=one.token) for one in several]
        answers = await store.claim(HOME, claims, _TTL)
        assert [answer.granted for answer in answers] == [True] * 4
        bodies = [body_of("a"), body_of("big", 1_000_000), None, None]
        assert [answer.entry for answer in answers] == bodies

    @_needs("glances")
    async def test_who_waits_finds_the_entry_alone(self, store: Store, claimant: Claimants) -> None:
        """A waiting claim takes no lease where an entry is, and one where there is neither."""
        mine, body = claimant(), body_of("a")
        await store.set_many(HOME, [record_of("a")])
        assert await claimant().claim(waiting=True) == Claimed(granted=False, entry=body)
        assert await mine.takes()
        held = Claimed(granted=False, entry=body, holder=mine.lease())
        assert await claimant().claim(waiting=True) == held
        await store.delete_many(HOME, [mine.key])
        held = Claimed(granted=False, holder=mine.lease())
        assert await claimant().claim(waiting=True) == held
        await mine.release()
        assert (await claimant().claim(waiting=True)).granted

    async def test_leases_keep_to_their_namespace(self, claimant: Claimants) -> None:
        """A lease says nothing about the same key elsewhere."""
        spaces = (HOME, TENANT, AWAY)
        holders = {space: claimant(namespace=space) for space in spaces}
        assert [await holders[space].takes() for space in spaces] == [True] * 3
        await holders[TENANT].release()
        again = [await claimant(namespace=space).takes() for space in spaces]
        assert again == [False, True, False]

    @pytest.mark.parametrize("expected", [False, True])
    async def test_a_released_lease_can_be_had(
        self, claimant: Claimants, *, expected: bool
    ) -> None:
        """After a release the next claim is granted, also one that expected the lease that is gone.

        Releasing again harms nobody.
        """
        mine, other = claimant(), claimant()
        await mine.claim()
        seen = await other.is_refused()
        await mine.release()
        assert await other.takes(expect=seen if expected else None)
        await mine.release()
        await claimant().is_refused()
        assert await other.renew() == [True]

    async def test_only_the_holder_renews_and_releases(self, claimant: Claimants) -> None:
        """Another token neither renews nor releases a lease."""
        mine, stranger = claimant(), claimant()
        await mine.claim()
        assert await stranger.renew() == [False]
        await stranger.release()
        assert await stranger.is_refused() == mine.lease()
        assert await claimant("none").renew() == [False]

    async def test_renewals_are_counted(self, claimant: Claimants) -> None:
        """Each renewal raises the count that others see, so that they know the holder is alive."""
        mine = claimant()
        await mine.claim()
        for count in (1, 2, 3):
            assert await mine.renew() == [True]
            assert await claimant().is_refused() == mine.lease(count)

    async def test_takeover_needs_an_unchanged_lease(self, claimant: Claimants) -> None:
        """A lease is taken over only from the state the claimant has seen."""
        mine, other = claimant(), claimant()
        await mine.claim()
        seen = await other.is_refused()
        await mine.renew()
        assert await other.is_refused(expect=seen) == mine.lease(1)
        await other.is_refused(expect=claimant().lease(1))
        assert await other.takes(expect=mine.lease(1))
        assert await mine.renew(1) == [False]
        await mine.release(1)
        assert await claimant().is_refused() == other.lease()

    @pytest.mark.parametrize("dead", [False, True])
    async def test_a_storm_of_claims_grants_one(self, claimant: Claimants, *, dead: bool) -> None:
        """Of two hundred claims for one key, from several loops at once, one is granted.

        So it is, too, where all of them take over the same dead lease.
        """
        seen = None
        if dead:
            await claimant().claim()
            seen = await claimant().is_refused()
        granted: list[Lease] = []

        async def one() -> None:
            mine = claimant()
            if await mine.takes(expect=seen):
                granted.append(mine.lease())

        many = partial(_together, *[one] * 50)
        await _together(*[partial(_elsewhere, many)] * 3, many)
        assert granted == [await claimant().is_refused()]

    async def test_entries_and_leases_are_two_things(
        self, store: Store, claimant: Claimants
    ) -> None:
        """Neither setting nor deleting an entry touches its lease, and the other way round."""
        mine = claimant()
        await mine.claim()
        await store.set_many(HOME, [record_of("a")])
        await claimant().is_refused()
        await store.delete_many(HOME, [key_of("a")])
        await claimant().is_refused()
        await store.set_many(HOME, [record_of("a")])
        await mine.release()
        assert (await claimant().claim()).entry == body_of("a")

    @_needs("releases")
    async def test_setting_gives_back_the_lease_it_names(
        self, store: Store, claimant: Claimants
    ) -> None:
        """A record's lease ends with its writing, if it is still held by that token."""
        mine = claimant()
        await mine.claim()
        for named, granted in ((claimant(), False), (mine, True)):
            record = record_of("a", lease=named.lease())
            assert list(await store.set_many(HOME, [record])) == [True]
            again = await claimant().claim()
            assert again.granted is granted
            assert again.entry == body_of("a")

    @_needs("generations")
    @pytest.mark.parametrize("change", ["set", "delete", "clear", "renew"])
    async def test_what_began_before_a_change_is_not_written(
        self, store: Store, claimant: Claimants, change: str
    ) -> None:
        """A record with the generation from before a change is refused, and one from after isn't.

        So in both ways to learn a generation, and whether there was an entry before or not.
        """
        for name, before in (("a", True), ("b", False)):
            key, mine, body = key_of(name), claimant(name), body_of(name, 50)
            if before:
                await store.set_many(HOME, [record_of(name, size=40)])
            old = (await mine.claim()).generation
            assert old is not None
            assert await _writes(store, record_of(name, size=50), old)
            (read,) = await store.generations(HOME, [key])
            await _change(store, change, name)
            there = list(await store.get_many(HOME, [key]))
            for generation in (old, read):
                for if_absent in (False, True):
                    record = record_of(name, size=60, if_absent=if_absent, generation=generation)
                    assert list(await store.set_many(HOME, [record])) == [False]
            assert list(await store.get_many(HOME, [key])) == there
            (new,) = await store.generations(HOME, [key])
            await mine.release()
            for current in (new, (await mine.claim()).generation, new):  # writing changes none
                assert await _writes(store, record_of(name, size=50), current)
            assert list(await store.get_many(HOME, [key])) == [body]

    @_needs("generations")
    async def test_generations_are_each_key_s_own(self, store: Store) -> None:
        """A change of one key or namespace leaves those of others as they are."""
        names = ["a", "b", "c"]
        keys = [key_of(name) for name in names]
        mine = list(await store.generations(HOME, keys))
        theirs = list(await store.generations(TENANT, keys))
        await store.delete_many(HOME, keys[:1])
        await store.clear(AWAY)
        await store.delete_many(TENANT, keys[1:2])
        for namespace, generations, refused in ((HOME, mine, "a"), (TENANT, theirs, "b")):
            records = [
                record_of(name, generation=generation)
                for name, generation in zip(names, generations, strict=True)
            ]
            written = list(await store.set_many(namespace, records))
            assert written == [name != refused for name in names]

    @_needs("generations")
    async def test_the_later_of_two_renewals_has_the_generation(self, store: Store) -> None:
        """Who renewed a key's generation first can't write; the entry was there meanwhile."""
        await store.set_many(HOME, [record_of("a", size=40)])
        (first,) = await store.generations(HOME, [key_of("a")], renew=True)
        (second,) = await store.generations(HOME, [key_of("a")], renew=True)
        await _assert_found(store, "a", body_of("a", 40))
        assert not await _writes(store, record_of("a", size=50), first)
        assert await _writes(store, record_of("a", size=60), second)
        await _assert_found(store, "a", body_of("a", 60))

    @_needs("generations")
    @pytest.mark.parametrize("tenant", ["acme", "acme" * 100, "sha256:acme"])
    async def test_a_tenant_s_generation_is_renewed(self, store: Store, tenant: str) -> None:
        """What was begun before a renewal is refused, however the store keeps the tenant's name."""
        namespace, key = Namespace.of("contract", tenant), key_of("a")
        (old,) = await store.generations(namespace, [key])
        (new,) = await store.generations(namespace, [key], renew=True)
        for generation, size in ((old, 50), (new, 60)):
            await store.set_many(namespace, [record_of("a", size=size, generation=generation)])
        assert list(await store.get_many(namespace, [key])) == [body_of("a", 60)]
        await store.set_many(namespace, [record_of("a", size=50, generation=old)])
        assert list(await store.get_many(namespace, [key])) == [body_of("a", 60)]

    @_needs("generations")
    async def test_generations_outlive_closing(self, store: Store) -> None:
        """What was begun before a store was closed and changed is refused after it is opened."""
        (old,) = await store.generations(HOME, [key_of("a")])
        await store.set_many(HOME, [record_of("a")])
        await store.aclose()
        await store.open()
        assert not await _writes(store, record_of("a", size=50), old)

    @_needs("messages")
    @pytest.mark.parametrize("deleted", [False, True])
    async def test_setting_and_deleting_wake(
        self, store: Store, claimant: Claimants, *, deleted: bool
    ) -> None:
        """Who waits for a key is woken when its entry is set, and when it is deleted."""
        await claimant().claim()
        put: _Work = partial(store.set_many, HOME, [record_of("a")])
        delete: _Work = partial(store.delete_many, HOME, [key_of("a")])
        before, change = (put, delete) if deleted else (delete, put)
        # A change may come before the waiter is known to the store: then again, more patiently.
        for attempt in range(1, 20):
            await before()
            async with anyio.create_task_group() as group:
                group.start_soon(store.wait, HOME, key_of("a"), _LONG)
                await anyio.sleep(0.001 * attempt**2)
                await change()
                group.cancel_scope.deadline = anyio.current_time() + 0.05 * attempt
            if not group.cancel_scope.cancelled_caught:
                return
        pytest.fail("nobody was woken")

    @_needs("messages")
    async def test_a_release_wakes_all(self, store: Store, claimant: Claimants) -> None:
        """A release in one loop wakes everybody who waits, in this loop and in others."""
        mine = claimant()
        await mine.claim()
        wait = partial(store.wait, HOME, key_of("a"), _LONG)

        async def release() -> None:
            for _ in range(10):
                await checkpoint()
            await _elsewhere(mine.release)

        await _together(*[wait] * 20, *[partial(_elsewhere, wait)] * 2, release)

    @_needs("messages")
    async def test_nothing_is_waited_for_without_a_lease(
        self, store: Store, claimant: Claimants
    ) -> None:
        """A release that came before the wait isn't slept through."""
        mine = claimant()
        await mine.claim()
        await mine.release()
        await _together(partial(store.wait, HOME, key_of("a"), _LONG))

    @_needs("messages")
    async def test_waiting_ends(self, store: Store, claimant: Claimants) -> None:
        """A wait ends at its timeout, or when it is cancelled, and the store goes on working."""
        await claimant().claim()
        await _together(partial(store.wait, HOME, key_of("a"), 0.01))
        with anyio.move_on_after(0.01) as scope:
            await store.wait(HOME, key_of("a"), _LONG)
        assert scope.cancelled_caught
        await claimant().is_refused()
