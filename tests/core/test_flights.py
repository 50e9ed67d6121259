"""Flights: paid once, one caller's fate is its own, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from typing import Any

import pytest
from msgspec.structs import replace

from asynccache import Cache, CacheClosedError, options
from asynccache.core import writer
from asynccache.core.bulk import BulkCall
from asynccache.core.calls import Answer
from asynccache.core.flight import Caller, WaitedTooLongError
from asynccache.entries.entry import Meta
from asynccache.testing import Gate
from tests.helpers.inside import (
    callers_of_refreshes,
    engine_of,
    fetch,
    put_store,
)
from tests.helpers.scenes import EVENTS, PHASES, Scene, settled

WAITERS = 4
SUBSETS = [
    chosen
    for count in range(1, WAITERS + 1)
    for chosen in itertools.combinations(range(WAITERS), count)
]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("phase", PHASES)
async def test_cancelling_some_disturbs_no_other(phase, streamed):
    """Whichever of the waiters are cancelled in whichever phase, the rest get the answer."""
    for chosen in SUBSETS:
        scene = Scene()
        ask = scene.ask_streamed if streamed else scene.ask
        async with scene.cache:
            gate = scene.hold(phase)
            tasks = [asyncio.create_task(ask()) for _ in range(WAITERS)]
            await gate.arrived()
            for index in chosen:
                tasks[index].cancel()
            await asyncio.sleep(0)
            gate.release()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            done_before = phase == "store"  # the callers had their answer before it was stored
            survivors = [r for i, r in enumerate(results) if i not in chosen or done_before]
            assert all(r == (EVENTS if streamed else {"answer": 1}) for r in survivors)
            if not done_before:
                assert all(isinstance(results[i], asyncio.CancelledError) for i in chosen)
            await settled(scene)
            if len(chosen) < WAITERS or done_before:
                assert scene.upstream.calls == 1
                assert scene.cache.stats().stored == 1
            else:
                assert scene.upstream.calls == (phase == "call")
                assert scene.upstream.cancelled == (phase == "call")
                assert scene.cache.stats().stored == 0
            assert not scene.leases


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("phase", ["lookup", "claim", "call"])
async def test_newcomer_after_all_left_starts_afresh(phase, streamed):
    """Who asks right after the last waiter left gets an answer of a call of its own."""
    scene = Scene()
    ask = scene.ask_streamed if streamed else scene.ask
    async with scene.cache:
        gate = scene.hold(phase)
        first = asyncio.create_task(ask())
        await gate.arrived()
        first.cancel()
        newcomer = asyncio.Task(ask())  # not eager, so that it comes after the first has left
        await asyncio.sleep(0)
        gate.release()
        expected = 2 if phase == "call" else 1
        assert await newcomer == (EVENTS if streamed else {"answer": expected})
        await settled(scene)
        assert scene.upstream.calls == expected
        assert scene.cache.stats().stored == 1
        assert not scene.leases


async def test_newcomer_is_not_held_up_by_a_call_that_is_slow_to_die():
    """A newcomer takes over the claim of an abandoned call and doesn't wait until that has died."""
    scene = Scene()
    dying = Gate()
    calls = 0

    async def stubborn():
        nonlocal calls
        calls += 1
        if calls == 1:
            try:
                await asyncio.Event().wait()
            finally:
                await dying.pass_through()
        return calls

    async with scene.cache:
        first = asyncio.create_task(scene.cache.get_or_create("question", stubborn))
        while not calls:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)  # it takes effect in the next turn
        assert await scene.cache.get_or_create("question", stubborn) == 2
        assert dying.arrivals == 1  # and is dying still
        dying.release()
        await settled(scene)
        assert await scene.cache.get("question", type=int) == 2
        assert scene.store.calls["claim"] == 1
        assert not scene.leases


async def test_call_that_ends_though_abandoned_stores_nothing():
    """A call that ignores its cancellation neither stores nor takes the newcomer's lease."""
    scene = Scene()
    gate = Gate()
    calls = 0

    async def deaf():
        nonlocal calls
        calls += 1
        if calls == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await gate.pass_through()
        return calls

    async with scene.cache:
        first = asyncio.create_task(scene.cache.get_or_create("question", deaf))
        while not calls:
            await asyncio.sleep(0)
        first.cancel()
        await gate.arrived()
        gate.release()
        await settled(scene)
        assert await scene.cache.get("question") is None
        assert not scene.leases


async def test_late_miss_makes_no_second_call():
    """A lookup that began before a flight ended, and comes back empty after it, pays nothing."""
    scene = Scene()
    async with scene.cache:
        held = scene.store.stall("get_many", after=True, times=1)
        early = asyncio.create_task(scene.ask())
        await held.arrived()  # its lookup has found nothing, and doesn't know yet
        # The entry is made and stored by another cache over the same store.
        other = Scene()
        put_store(other.cache, scene.store)
        async with other.cache:
            assert await other.ask() == {"answer": 1}
            await settled(other)
        held.release()
        assert await early == {"answer": 1}
        assert scene.upstream.calls == 0
        assert scene.cache.stats().hits == 1


async def test_lookup_is_a_phase_of_the_flight():
    """Who asks while a lookup is under way joins it, and makes neither lookup nor call."""
    scene = Scene()
    async with scene.cache:
        gate = scene.hold("lookup")
        tasks = [asyncio.create_task(scene.ask()) for _ in range(50)]
        await gate.arrived()
        gate.release()
        assert await asyncio.gather(*tasks) == [{"answer": 1}] * 50
        assert scene.upstream.calls == 1
        assert [call.size for call in scene.store.log if call.method == "get_many"] == [1]


async def test_flight_stays_joinable_until_its_write_is_settled():
    """Who asks while the answer is being stored gets it at once, though it isn't there yet."""
    scene = Scene()
    async with scene.cache:
        gate = scene.hold("store")
        assert await scene.ask() == {"answer": 1}
        await gate.arrived()
        assert await scene.ask() == {"answer": 1}
        assert scene.store.calls["get_many"] == 1
        gate.release()
        await settled(scene)
        assert await scene.ask() == {"answer": 1}
        assert scene.upstream.calls == 1


async def test_lookups_of_one_turn_leave_together():
    """A hundred keys asked for at once are a few lookups, claims and writes at the store."""
    scene = Scene()
    async with scene.cache:
        await asyncio.gather(*(scene.ask(number) for number in range(100)))
        await settled(scene)
        sizes = {
            method: [c.size for c in scene.store.log if c.method == method]
            for method in ("get_many", "claim", "set_many")
        }
        for batches in sizes.values():  # not one batch, as a turn ends after a millisecond
            assert sum(batches) == 100
            assert len(batches) < 20


async def test_first_event_arrives_before_the_second_is_made():
    """A stream's reader has the first event while upstream still holds the second back."""
    scene = Scene()
    async with scene.cache:
        gate = scene.upstream.hold()
        reader = await scene.reader()
        assert await reader.next() == EVENTS[0]
        assert gate.arrivals == 1
        follower = await scene.reader()
        assert await follower.next() == EVENTS[0]  # from the start, though it came midway
        gate.release()
        assert [await reader.next() for _ in range(3)] == [*EVENTS[1:], None]
        assert [await follower.next() for _ in range(3)] == [*EVENTS[1:], None]
        assert scene.upstream.calls == 1


async def test_bare_break_counts_once_the_stream_is_collected():
    """A reader that is dropped without closing leaves its flight when it is collected."""
    scene = Scene()
    async with scene.cache:
        scene.upstream.hold()
        reader = await scene.reader()
        assert await reader.next() == EVENTS[0]
        del reader
        gc.collect()
        await settled(scene)
        assert scene.upstream.cancelled == 1
        assert not scene.leases


async def test_error_reaches_all_each_with_an_object_of_its_own():
    """An error is shared by all who waited, is not stored, and no two raise the same object."""
    scene = Scene()
    calls = 0

    async def fail():
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        raise KeyError("broken", calls)

    async with scene.cache:
        asked = [scene.cache.get_or_create("question", fail) for _ in range(5)]
        errors = await asyncio.gather(*asked, return_exceptions=True)
        assert [error.args for error in errors] == [("broken", 1)] * 5
        assert len({id(error) for error in errors}) == 5
        await settled(scene)
        assert not scene.leases
        with pytest.raises(KeyError):
            await scene.cache.get_or_create("question", fail)
        assert calls == 2


@pytest.mark.parametrize(
    ("scope", "callers", "calls"),
    [
        ("credentials", [b"a", b"b", b"b", b"b"], 2),
        ("credentials", [b"a", b"a", b"a", b"a"], 1),
        ("all", [b"a", b"b", b"b", b"b"], 1),
        ("own", [b"a", b"a", b"a", b"a"], 2),
        ("request", [b"a", b"a", b"a", b"a"], 1),
        ("request", [b"a", b"b", b"b", b"b"], 2),
    ],
)
async def test_errors_are_shared_with_those_they_are_true_for(scope, callers, calls):
    """The rest start one new flight between them."""
    scene = Scene()
    made = 0

    async def upstream(flight):
        nonlocal made
        made += 1
        await asyncio.sleep(0)
        if made == 1:
            raise PermissionError("not you")
        flight.add(b"fine")
        return Answer(meta=Meta("json"), chunks=(b"fine",))

    async with scene.cache:
        engine = engine_of(scene.cache)

        async def ask(credentials):
            caller = Caller(credentials, request=credentials)
            call = scene.streamed_call(scope=lambda _: scope, caller=caller)
            call = type(call)(
                **{f: getattr(call, f) for f in call.__struct_fields__} | {"upstream": upstream}
            )
            return (await fetch(engine, call)).entry.chunks

        results = await asyncio.gather(*map(ask, callers), return_exceptions=True)
        assert isinstance(results[0], PermissionError)
        shared = calls == 1
        for result in results[1:]:
            assert isinstance(result, PermissionError) if shared else result == (b"fine",)
        assert made == calls


async def test_who_asks_anew_has_the_lease_of_the_call_that_failed():
    """Between an error that is another's and the next call no other process gets the lease."""
    scene = Scene()

    async def failing(flight):
        raise PermissionError("not you")

    async with scene.cache:
        engine = engine_of(scene.cache)
        refused = replace(
            scene.streamed_call(scope=lambda _: "credentials", caller=Caller(b"a")),
            upstream=failing,
        )
        served = scene.streamed_call(caller=Caller(b"b"))
        both: Any = await asyncio.gather(
            fetch(engine, refused), fetch(engine, served), return_exceptions=True
        )
        first, second = both
        assert isinstance(first, PermissionError)
        assert second.outcome == "miss"
        await settled(scene)
        assert scene.store.calls["claim"] == 1
        assert not scene.leases


async def test_a_callers_patience_bounds_its_own_wait():
    """The impatient one gives up; the other two wait on and get the answer of the same call."""
    scene = Scene()
    async with scene.cache:
        engine = engine_of(scene.cache)
        gate = scene.upstream.hold()
        patient = [
            asyncio.create_task(fetch(engine, scene.streamed_call(caller=Caller(b"", 60.0))))
            for _ in range(2)
        ]
        await gate.arrived()
        with pytest.raises(WaitedTooLongError):
            await fetch(engine, scene.streamed_call(caller=Caller(b"", 0.01)))
        gate.release()
        for task in patient:
            assert (await task).entry.chunks == EVENTS
        assert scene.upstream.calls == 1


async def test_the_one_whose_call_it_is_keeps_its_own_time():
    """A flight's upstream call ends by its own timeout, not by the starter's patience here."""
    scene = Scene()
    async with scene.cache:
        gate = scene.upstream.hold()
        engine = engine_of(scene.cache)
        call = scene.streamed_call(caller=Caller(b"", 0.01))
        starter = asyncio.create_task(fetch(engine, call))
        await gate.arrived()
        await asyncio.sleep(0.03)  # beyond its patience
        gate.release()
        assert (await starter).entry.chunks == EVENTS


async def test_closing_tells_who_waits_and_finishes_storing():
    """Closing gives `CacheClosedError` to waiters of a call, and sees a write through."""
    scene = Scene()
    async with scene.cache:
        storing = scene.hold("store")
        await scene.ask("stored")
        await storing.arrived()
        gate = scene.upstream.hold()
        waiting = asyncio.create_task(scene.ask("waiting"))
        await gate.arrived()
        closing = asyncio.create_task(scene.cache.aclose())
        with pytest.raises(CacheClosedError):
            await waiting
        assert not closing.done()
        storing.release()
        await closing
    assert scene.upstream.cancelled == 1
    assert not scene.leases
    async with scene.cache:
        assert await scene.cache.get_or_create("stored", scene.upstream) == {"answer": 1}


async def test_closing_waits_for_no_renewal():
    """A claim that is granted when the cache is closing already is given back, and no more."""
    scene = Scene(lease_ttl=100_000)  # seconds: a renewal that is waited for outlasts the test
    async with scene.cache:
        gate = scene.hold("claim")
        asking = asyncio.create_task(scene.ask())
        await gate.arrived()
        closing = asyncio.create_task(scene.cache.aclose())
        with pytest.raises(CacheClosedError):
            await asking
        gate.release()
        async with asyncio.timeout(20):
            await closing
    assert not scene.leases


async def test_nothing_is_left_pending_between_calls():
    """A call that was answered and stored leaves no task to a loop that is stopped then."""
    scene = Scene()
    async with scene.cache:
        before = asyncio.all_tasks()
        await scene.ask()
        await settled(scene)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before


async def test_deleted_stays_deleted():
    """A call under way when its key is deleted answers its caller and stores nothing."""
    for clear in (False, True):
        scene = Scene()
        async with scene.cache:
            gate = scene.upstream.hold()
            asked = asyncio.create_task(scene.ask())
            await gate.arrived()
            await (scene.cache.clear() if clear else scene.cache.delete("question"))
            newcomer = asyncio.create_task(scene.ask())
            await gate.arrived(2)  # a new call, that doesn't wait for the old one
            gate.release()
            assert await asked == {"answer": 1}
            assert await newcomer == {"answer": 2}
            await settled(scene)
            assert scene.cache.stats().not_stored == {"deleted": 1}
            assert await scene.cache.get("question") == {"answer": 2}
            assert not scene.leases


async def test_what_was_set_meanwhile_stands():
    """A call that ends after its key was set by hand doesn't overwrite what was set."""
    scene = Scene()
    async with scene.cache:
        gate = scene.upstream.hold()
        asked = asyncio.create_task(scene.ask())
        await gate.arrived()
        await scene.cache.set("question", "by hand")
        gate.release()
        assert await asked == {"answer": 1}
        await settled(scene)
        assert await scene.cache.get("question") == "by hand"


async def test_refresh_joins_only_refreshes():
    """A refresh goes upstream beside a plain call, and two refreshes share one call."""
    scene = Scene()
    async with scene.cache:
        gate = scene.upstream.hold()
        plain = asyncio.create_task(scene.ask())
        await gate.arrived()
        with options(mode="refresh"):
            fresh = [asyncio.create_task(scene.ask()) for _ in range(2)]
            await gate.arrived(2)
        gate.release()
        assert await plain == {"answer": 1}
        assert await asyncio.gather(*fresh) == [{"answer": 2}] * 2
        assert scene.upstream.calls == 2


async def _ask_plainly(scene, call):
    return (await fetch(engine_of(scene.cache), call)).entry.chunks


async def _ask_streamed(scene, call):
    fetched, reader = await engine_of(scene.cache).read(call)
    if reader is None:
        return fetched.entry.chunks
    chunks = []
    while (chunk := await reader.next()) is not None:
        chunks.append(chunk)
    return tuple(chunks)


async def _ask_in_bulk(scene, call):
    async def send(keys):
        scene.upstream.calls += 1
        return [Answer(meta=Meta("sse"), chunks=EVENTS) for _ in keys]

    def request(_):
        return replace(call, upstream=bulk.upstream, alone=False)

    found: Any = {}
    bulk = BulkCall(engine_of(scene.cache), send, request)
    await bulk.fetch([call.key], call.caller, found)
    return found[call.key].entry.chunks


class Refreshing:
    """A refresh under way, and calls that are made beside it."""

    def __init__(self, *, hide_inline, ask, mode):
        self.scene = Scene(hide_inline=hide_inline)
        self.ask, self.mode = ask, mode
        self.fails = False

    async def begin(self):
        """Begin a refresh; return its task and the gate that it waits at."""
        gate = self.scene.upstream.hold()

        async def upstream(flight):
            if self.fails:
                await self.scene.upstream()
                raise PermissionError("not you")
            return await self.scene.upstream.stream(flight)

        caller = Caller(b"the one who refreshes")
        call = replace(self.scene.streamed_call(), mode="refresh", upstream=upstream, caller=caller)
        call = replace(call, scope=lambda _: "credentials")
        task = asyncio.create_task(fetch(engine_of(self.scene.cache), call))
        await gate.arrived()
        self.scene.upstream.gate = None
        return task, gate

    def beside(self, credentials=b""):
        """Ask as any other caller does."""

        async def upstream(flight):
            await asyncio.sleep(0.01)  # no call is over in the turn in which it begins
            return await self.scene.upstream.stream(flight)

        call = replace(self.scene.streamed_call(caller=Caller(credentials)), upstream=upstream)
        return asyncio.create_task(self.ask(self.scene, replace(call, mode=self.mode)))

    async def joined(self, count):
        """Wait until so many wait for the refresh."""
        while callers_of_refreshes(engine_of(self.scene.cache)) < count:
            await asyncio.sleep(0)


@pytest.fixture(params=["read_write", "read_only"])
def mode(request):
    """A mode that joins refreshes."""
    return request.param


@pytest.fixture(params=[False, True], ids=["inline", "awaited"])
def hide_inline(request):
    """Whether the store has to be awaited."""
    return request.param


@pytest.fixture(params=[_ask_plainly, _ask_streamed, _ask_in_bulk])
def refreshing(request, mode, hide_inline):
    """A refresh, and a way to ask beside it, for each kind of store."""
    return Refreshing(hide_inline=hide_inline, ask=request.param, mode=mode)


async def test_what_is_stored_is_had_during_a_refresh(refreshing):
    """However the store is asked, and whatever becomes of the refresh."""
    scene = refreshing.scene
    async with scene.cache:
        stored = await scene.ask_streamed()
        await settled(scene)
        refreshing.fails = True
        refresh, gate = await refreshing.begin()
        async with asyncio.timeout(30):
            assert await refreshing.beside() == stored
        gate.release()
        with pytest.raises(PermissionError):
            await refresh
        assert scene.upstream.calls == 2


async def test_what_is_not_stored_comes_of_the_refresh_under_way(refreshing):
    """Those who find nothing make no call of their own."""
    scene = refreshing.scene
    async with scene.cache:
        refresh, gate = await refreshing.begin()
        tasks = [refreshing.beside() for _ in range(3)]
        async with asyncio.timeout(30):
            await refreshing.joined(4)
        gate.release()
        assert await asyncio.gather(*tasks) == [EVENTS] * 3
        assert (await refresh).entry.chunks == EVENTS
        assert scene.upstream.calls == 1


@pytest.mark.parametrize("hide_inline", [True], ids=["awaited"], indirect=True)
async def test_refresh_that_ends_during_a_lookup_is_not_missed(refreshing):
    """The lookup finds nothing, and returns when the refresh's answer is stored."""
    scene = refreshing.scene
    async with scene.cache:
        refresh, gate = await refreshing.begin()
        lookup = scene.store.stall("get_many", after=True, times=1)
        tasks = [refreshing.beside() for _ in range(3)]
        async with asyncio.timeout(30):
            await lookup.arrived()
        gate.release()
        await refresh
        while not scene.cache.stats().stored:
            await asyncio.sleep(0)
        lookup.release()
        assert await asyncio.gather(*tasks) == [EVENTS] * 3
        assert scene.upstream.calls == 1


async def test_error_of_a_refresh_is_shared_as_any_other(refreshing):
    """Those of the same credentials have it, and the rest make one call between them."""
    scene = refreshing.scene
    async with scene.cache:
        refreshing.fails = True
        refresh, gate = await refreshing.begin()
        same = refreshing.beside(b"the one who refreshes")
        others = [refreshing.beside() for _ in range(3)]
        async with asyncio.timeout(30):
            await refreshing.joined(5)
        gate.release()
        results = await asyncio.gather(refresh, same, *others, return_exceptions=True)
        assert all(isinstance(result, PermissionError) for result in results[:2])
        assert results[2:] == [EVENTS] * 3
        assert scene.upstream.calls == 2


async def test_refreshed_answer_isnt_overwritten_by_an_older_call():
    """A call that began before a refresh and ends after it leaves the refreshed answer stored."""
    scene = Scene()
    async with scene.cache:
        gate = scene.upstream.hold()
        older = asyncio.create_task(scene.ask())
        await gate.arrived()
        scene.upstream.gate = None
        with options(mode="refresh"):
            assert await scene.ask() == {"answer": 2}
        gate.release()
        assert await older == {"answer": 1}
        await settled(scene)
        assert await scene.ask() == {"answer": 2}


async def test_claim_adopted_by_who_needs_none_is_given_back():
    """A newcomer that takes no lease leaves none behind from the flight before it."""
    scene = Scene()
    async with scene.cache:
        gate = scene.hold("claim")
        first = asyncio.create_task(scene.ask())
        await gate.arrived()
        first.cancel()
        await asyncio.sleep(0)
        with options(mode="read_only"):
            assert await scene.ask() == {"answer": 1}
        gate.release()
        await settled(scene)
        assert not scene.leases


async def test_deleting_while_claiming_holds_no_newcomer_up():
    """A flight whose key is deleted while it claims leaves its lease to the newcomer."""
    scene = Scene()
    async with scene.cache:
        claiming = scene.hold("claim")
        calling = scene.upstream.hold()
        older = asyncio.create_task(scene.ask())
        await claiming.arrived()
        await scene.cache.delete("question")
        claiming.release()
        newcomer = asyncio.create_task(scene.ask())
        await calling.arrived(2)
        calling.release()
        await asyncio.gather(older, newcomer)
        await settled(scene)
        assert not scene.leases


async def test_copies_of_errors_are_whole():
    """What C code keeps in an error survives its being copied for each caller."""
    errors = [
        FileNotFoundError(2, "gone", "name"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        ImportError("no", name="module"),
    ]
    for error in errors:
        scene = Scene()

        async def fail(error=error):
            await asyncio.sleep(0)
            raise error

        async with scene.cache:
            got = await asyncio.gather(
                *(scene.cache.get_or_create("k", fail) for _ in range(2)), return_exceptions=True
            )
        assert [str(one) for one in got] == [str(error)] * 2
        assert got[0] is not got[1]


async def test_read_only_shares_flights_and_leaves_no_trace():
    """Mode "read_only" makes one call for many, stores nothing and takes no lease."""
    scene = Scene(mode="read_only")
    async with scene.cache:
        assert await asyncio.gather(*(scene.ask() for _ in range(5))) == [{"answer": 1}] * 5
        await settled(scene)
        assert scene.store.calls["claim"] == scene.store.calls["set_many"] == 0
        assert scene.cache.stats().not_stored == {"mode": 1}


async def test_replay_flight_fails_no_one_else():
    """A replay whose lookup is under way isn't joined by callers who may go upstream."""
    scene = Scene()
    async with scene.cache:
        gate = scene.store.stall("get_many", after=True, times=1)
        with options(mode="replay"):
            replay = asyncio.create_task(scene.ask())
            await gate.arrived()
        assert await scene.ask() == {"answer": 1}
        gate.release()
        with pytest.raises(Exception, match="nothing is stored"):
            await replay


async def test_answer_beyond_the_limit_is_delivered_unstored_and_unshared():
    """An oversized stream reaches its readers whole, frees what was read, takes no one in."""
    scene = Scene(max_entry_bytes=40)
    chunks = [b"data: %030d\n\n" % number for number in range(10)]
    more = asyncio.Event()

    async def long(flight):
        flight.start_body(Meta("sse"))
        for chunk in chunks:
            flight.add(chunk)
            await more.wait()
        return Answer(meta=Meta("sse"), chunks=tuple(flight.chunks))

    async with scene.cache:
        engine = engine_of(scene.cache)
        call = scene.streamed_call()
        call = type(call)(
            **{f: getattr(call, f) for f in call.__struct_fields__} | {"upstream": long}
        )
        _, reader = await engine.read(call)
        assert reader is not None
        got = [await reader.next()]
        more.set()
        got += [await reader.next() for _ in range(9)]
        assert got == chunks
        assert len(reader.flight.chunks) < 10
        assert await reader.next() is None
        await settled(scene)
        assert scene.cache.stats().not_stored == {"oversized": 1}


@pytest.mark.parametrize("mode", ["read_write", "refresh"])
async def test_a_refresh_supersedes_an_answer_that_is_still_being_encoded(mode, monkeypatch):
    """An older answer that was delivered but isn't stored yet never overwrites a newer one."""
    go, encode = threading.Event(), writer._encode

    def slowly(call, entry):
        if b"old" in entry.body:
            assert go.wait(30)
        return encode(call, entry)

    monkeypatch.setattr(writer, "_encode", slowly)

    async def made(text):
        return text * 50_000  # long enough to be encoded in a thread

    async with Cache.memory() as cache:
        with options(mode=mode):
            await cache.get_or_create("k", lambda: made("old"))
        with options(mode="refresh"):
            await cache.get_or_create("k", lambda: made("new"))
        go.set()
        while cache.stats().stored + sum(cache.stats().not_stored.values()) < 2:
            await asyncio.sleep(0.001)
        assert cache.stats().not_stored == {"deleted": 1}
        assert (await cache.get("k"))[:3] == "new"
