"""The callers' side of one event loop: inline reads, starting and joining flights, waiting."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final
from weakref import WeakValueDictionary

from asynccache.core.breaker import CircuitBreaker
from asynccache.core.calls import CallRequest, Fetched
from asynccache.core.context import Limits, LoopContext
from asynccache.core.counters import Counters, Outcome
from asynccache.core.flight import Caller, Fate, Flight, InFlightTable, Judging, Phase, Reader
from asynccache.core.leases import LeaseManager
from asynccache.core.modes import STORING, Mode
from asynccache.core.runner import FlightRunner
from asynccache.core.store_client import StoreClient
from asynccache.entries.entry import Entry
from asynccache.errors import CacheClosedError, ReplayMiss
from asynccache.keys.key import Namespace
from asynccache.runtime.bounded import BoundedDict
from asynccache.runtime.clock import Clock
from asynccache.runtime.loops import LoopEnd
from asynccache.runtime.pacer import Pacer
from asynccache.stores.base import UNKNOWN, Store, Unknown

_log = logging.getLogger("asynccache")

_LAST_CALLS: Final = 1.0  # seconds that calls may take that begin while their loop ends
_LAST_WORDS: Final = 10.0  # seconds that cancelled calls may take to end

_NAMESPACES: Final = 1024


class Engine:
    """All that a cache does in one event loop. It owns the flights and every task they need.

    Args:
        store: Where entries live; shared with the cache's other loops.
        breaker: Stands before the store; shared too.
        clock: For expiry and leases.
        limits: The cache's.
    """

    def __init__(
        self, store: Store, *, breaker: CircuitBreaker, clock: Clock, limits: Limits
    ) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self.pacer: Final = Pacer(self.loop)
        self.counters: Final = Counters()
        self._context: Final = LoopContext(
            loop=self.loop,
            store=store,
            breaker=breaker,
            clock=clock,
            counters=self.counters,
            pacer=self.pacer,
            limits=limits,
            spawn=self.spawn,
        )
        # All that are in use, and the last ones of a service with many tenants for next time.
        self._clients: WeakValueDictionary[Namespace, StoreClient] = WeakValueDictionary()
        self._recent: BoundedDict[Namespace, StoreClient] = BoundedDict(_NAMESPACES)
        self._in_flight: Final = InFlightTable()
        # By their tasks, also those that can't be joined any more.
        self._flying: dict[asyncio.Task[None], Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._end: Final = LoopEnd.here()
        self._end.add(self, self._finish)
        self._leases: Final = LeaseManager(self._context)
        self._runner: Final = FlightRunner(self._context, self._in_flight, self._leases)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that lives until it ends or the engine is closed."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def client(self, namespace: Namespace) -> StoreClient:
        """Return this loop's way to a namespace of the store."""
        client = self._recent.get(namespace)
        if client is None:
            client = self._clients.get(namespace) or StoreClient(self._context, namespace)
            self._clients[namespace] = self._recent[namespace] = client
        return client

    # -- calls -------------------------------------------------------------------------------

    def peek(self, mode: Mode, namespace: Namespace, key: bytes) -> Entry | Unknown | None:
        """Return an entry that is at hand, without anything being prepared for a call.

        The way of nearly all hits. None where there is surely none and no call is under way;
        UNKNOWN where `fetch` has to find out.
        """
        if mode == "refresh":
            return UNKNOWN
        in_flight = self._in_flight
        if key in in_flight.flights or key in in_flight.refreshes:
            return in_flight.pending(key, replayed=mode == "replay") or UNKNOWN
        return self.client(namespace).peek(key, replayed=mode == "replay")

    def storing(self, key: bytes) -> asyncio.Task[None] | None:
        """Return the task of a flight whose answer is whole, and not yet seen through."""
        flight = self._in_flight.whole(key)
        return None if flight is None else flight.task

    async def stored(self, tasks: Collection[asyncio.Task[None]]) -> None:
        """Wait until what `storing` returned has ended: only the store knows what then stands.

        No longer than a store may take to answer.
        """
        await asyncio.wait(tasks, timeout=self._context.limits.store_timeout)

    async def fetch(
        self,
        mode: Mode,
        key: bytes,
        caller: Caller,
        prepare: Callable[[], CallRequest],
        *,
        missing: bool = False,
    ) -> Fetched:
        """Return the whole answer to a call: stored, from a flight under way, or from upstream.

        Args:
            mode: As the call's.
            key: As the call's.
            caller: Who asks.
            prepare: Makes the call's request; called at most once, where no flight can be joined.
            missing: `peek` has just returned None, in this very turn of the loop.

        Raises:
            NotSharedError: A flight was joined whose answer is its starter's alone.
            WaitedTooLongError: The caller's patience ended.
            ReplayMiss: In mode "replay", nothing is stored.
            CacheClosedError: The cache was closed meanwhile.
            BaseException: What the call upstream raised.
        """
        flight, started = None if missing else self._join(mode, key), False
        call: CallRequest | None = None
        looked = False
        while True:
            if flight is None:
                call = call or prepare()
                found = self.get_or_start(call, missing=missing, looked=looked)
                missing = False
                if isinstance(found, Entry):
                    return self._served(found, "hit")
                flight, started = found
            late = flight.ended and not started
            try:
                entry = await flight.wait(caller, started=started)
            except ReplayMiss:
                self.note_replay_miss(mode)
                raise
            if entry is not None:
                break
            # The error was another caller's fate: the rest start one new flight between them.
            looked, flight = flight.empty, None
        original = None if flight.originals is None else (flight.originals.pop(),)
        how = flight.outcome(started=started, late=late)
        return self._served(entry, how, original, None if late else flight.received)

    async def read(self, call: CallRequest) -> tuple[Fetched, Reader | None]:
        """Return the answer to a call as soon as its head is known, and a reader of its chunks.

        Where the answer was there already it is whole, and there is no reader. Else it has no
        chunks yet, and the reader has to be closed or exhausted.

        Raises:
            WaitedTooLongError: The caller's patience ended.
            BaseException: As `fetch`.
        """
        looked = False
        while True:
            found = self.get_or_start(call, looked=looked)
            if isinstance(found, Entry):
                return self._served(found, "hit"), None
            flight, started = found
            if flight.ended and not started:  # whole, and being judged
                entry = await flight.wait(call.caller, started=started)
                if entry is None:
                    continue
                return self._served(entry, flight.outcome(started=started, late=True)), None
            reader = Reader(flight, call.caller, self.loop, started=started)
            try:
                meta = await reader.head()
            except ReplayMiss:
                self.note_replay_miss(call.mode)
                raise
            if meta is None:
                looked = flight.empty
                continue
            how = flight.outcome(started=started)
            if flight.entry is not None and how == "hit":
                reader.close()
                return self._served(flight.entry, how), None
            self._count(how)
            if how == "joined":  # what it saved shows at the end
                reader.on_close = lambda _, flight=flight: self._count_saved(flight.entry)
            entry = flight.entry or Entry(call.key, 0, 0, meta, ())
            return Fetched(entry, how, received=flight.received), reader

    def get_or_start(
        self, call: CallRequest, *, missing: bool = False, looked: bool = False
    ) -> tuple[Flight, bool] | Entry:
        """Return what answers a call: an entry, or a flight and whether it was started for it.

        Nothing is awaited here: between the look at the flights, the inline read, and the entry of
        a new flight nobody else runs, so that no key ever has two. The caller has been counted in.
        ``missing`` is as for `fetch`; ``looked`` is for who has waited for a flight that is empty.
        """
        key, client = call.key, self.client(call.namespace)
        if missing:
            return self._start(call, client, look=False), True
        in_flight = self._in_flight
        flight = in_flight.by_mode[call.mode].get(key)
        refresh: Flight | None = None
        look = call.mode != "refresh"
        if look:
            replayed = call.mode == "replay"
            entry: Entry | Unknown | None = in_flight.pending(key, replayed=replayed)
            if entry is None and flight is None:
                entry = client.peek(key, replayed=replayed)
                look = entry is not None
            if isinstance(entry, Entry):
                return entry
            if flight is None and call.mode != "replay":
                refresh = in_flight.refreshes.get(key)
            if refresh is not None and (looked or refresh.ended or not look):
                flight = refresh  # else the store may have what needn't wait for it
        elif flight is not None and flight.entry is not None:
            flight.worsen(Fate.INVALIDATED)  # whole already, so that a refresh supersedes it
            flight = None
        if flight is not None and flight.joinable:
            flight.enter(storing=call.mode in STORING)
            return flight, False
        refreshed = flight is None and refresh is not None and refresh.joinable
        return self._start(call, client, look=look, refreshed=refreshed), True

    def _start(
        self, call: CallRequest, client: StoreClient, *, look: bool, refreshed: bool = False
    ) -> Flight:
        if self._closed:
            raise CacheClosedError("the cache was closed")
        flight = Flight(
            call.namespace,
            call.key,
            call.caller,
            loop=self.loop,
            pacer=self.pacer,
            limit=self._context.limits.max_entry_bytes,
            abandon=self._abandon,
        )
        flight.enter(storing=call.mode in STORING)
        if call.mode == "read_write" and self._leases.abandoned:  # the others take no leases
            flight.lease = self._leases.adopt(call.key)
        self._in_flight.by_mode[call.mode][call.key] = flight
        looked_up = client.look_up(call.key) if look else None
        running = self._runner.run(flight, call, client, looked_up, refreshed=refreshed)
        task = flight.task = self.spawn(running)
        self._flying[task] = flight
        task.add_done_callback(self._landed)
        return flight

    def _landed(self, task: asyncio.Task[None]) -> None:
        flight = self._flying.pop(task)
        if not flight.ended:  # cancelled before it began, as at the end of a loop
            self._in_flight.remove(flight)
            flight.cut(closing=self._closed)
            if flight.lease is not None:
                self._leases.abandon(flight.lease)

    def _join(self, mode: Mode, key: bytes) -> Flight | None:
        """Return a flight to wait for, if one is up; the caller has been counted in."""
        flight = self._in_flight.by_mode[mode].get(key)
        if flight is None or flight.ended or not flight.joinable:
            return None
        flight.enter(storing=mode in STORING)
        return flight

    def _served(
        self,
        entry: Entry,
        how: Outcome,
        original: tuple[object] | None = None,
        received: object = None,
    ) -> Fetched:
        """Count one call as answered."""
        self._count(how)
        if how != "miss":
            self._count_saved(entry)
        return Fetched(entry, how, original, received)

    def note_replay_miss(self, mode: Mode) -> None:
        """Count one call that raised `ReplayMiss`, of its own mode and not of a call inside it."""
        self.counters.replay_misses += mode == "replay"

    def count_hit(self, entry: Entry) -> None:
        """Count one call as answered inline."""
        self.counters.hits += 1
        self._count_saved(entry)

    def _count(self, how: Outcome) -> None:
        counters = self.counters
        if how == "miss":
            counters.misses += 1
        elif how == "joined":
            counters.joined += 1
        else:
            counters.hits += 1

    def _count_saved(self, entry: Entry | None) -> None:
        """Count what an answer would have cost that somebody else has paid for."""
        if entry is not None:
            meta, counters = entry.meta, self.counters
            counters.tokens_saved += meta.input_tokens + meta.output_tokens
            counters.seconds_saved += meta.seconds

    def count_together(self, fetched: Collection[Fetched]) -> Outcome:
        """Count one call as answered by several entries; return what it was on the whole."""
        outcomes = {one.outcome for one in fetched}
        how: Outcome = "joined" if "joined" in outcomes else "hit"
        if "miss" in outcomes:
            how = "miss"
        self._count(how)
        for one in fetched:
            if one.outcome != "miss":
                self._count_saved(one.entry)
        return how

    # -- the end of flights ------------------------------------------------------------------

    def _abandon(self, flight: Flight) -> None:
        """End a flight that nobody waits for. A newcomer meanwhile gets a new one."""
        self.counters.abandoned += 1
        self._invalidate(flight)
        if flight.task is not None:
            flight.task.cancel()

    def _invalidate(self, flight: Flight) -> None:
        """Keep a flight from storing and from being joined."""
        flight.worsen(Fate.INVALIDATED)
        self.give_up(flight)

    def give_up(self, flight: Flight) -> None:
        """Let no newcomer join a flight any more; the next for its key has its lease."""
        self._in_flight.remove(flight)
        held, flight.lease = flight.lease, None
        if held is not None:
            self._leases.abandon(held)

    def is_making(self, key: bytes) -> bool:
        """Tell whether a call for a key is under way; in any thread, as `supersede`."""
        return next(self._in_flight.matching(key), None) is not None

    async def is_usable(self, judging: Judging) -> bool:
        """Tell whether an answer that no flight has made is usable."""
        return await self._runner.writer.marker.is_usable(judging)

    def reject(self, namespace: Namespace, entry: Entry, *, storing: bool) -> None:
        """Give an answer to nobody any more, as a caller couldn't use it, unless another could.

        Args:
            namespace: Where it is stored.
            entry: The answer. A newer one under its key isn't meant.
            storing: Mark it in the store, too.
        """
        client = self.client(namespace)
        if not client.rejects(entry) and client.reject(entry):
            tasks = self._in_flight.reject(entry)
            if storing and not self._closed:
                self.spawn(self._runner.writer.marker.mark(client, entry, tasks))

    def supersede(self, namespace: Namespace, keys: Collection[bytes] | None) -> None:
        """Let nothing be stored or joined of flights for keys of a namespace (None: all of it).

        Only while the loop's own thread waits for the caller, so that nothing else touches them.
        """
        for flight in self._in_flight.affected(namespace, keys):
            flight.worsen(Fate.INVALIDATED)
        self.client(namespace).drop(keys)

    async def settle(self, namespace: Namespace, keys: Collection[bytes] | None) -> None:
        """Keep flights for keys of a namespace (None: all) from storing and taking newcomers.

        An answer that is whole already is stored first. Returns when nothing is being written for
        the keys any more.
        """
        while True:
            storing: list[asyncio.Future[Any]] = [*self.client(namespace).writing(keys)]
            for flight in self._in_flight.affected(namespace, keys):
                if flight.phase is Phase.STORE and flight.task is not None:
                    storing.append(flight.task)
                else:
                    self._invalidate(flight)
            if not storing:
                return
            await asyncio.wait(storing)

    async def aclose(self) -> None:
        """End every flight that still waits for an answer, and see all storing through."""
        self._closed = self._runner.closing = True
        self.leave()
        ending = {task for task, flight in self._flying.items() if not flight.ended}
        for task in ending:
            task.cancel()
        self._leases.stop()
        if ending:
            await asyncio.wait(ending, timeout=_LAST_WORDS)
        while rest := {task for task in self._tasks if task not in ending}:
            await asyncio.wait(rest)
        if left := sum(not task.done() for task in ending):
            _log.warning("the cache is closed, though %d cancelled calls go on", left)

    async def _finish(self) -> None:
        """See through what tasks began as they were cancelled by the end of the loop."""
        until = self.loop.time() + _LAST_CALLS
        while self._tasks and (left := until - self.loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        if self._tasks:
            await self.aclose()

    def leave(self) -> None:
        """Let the loop end without this engine."""
        self._end.discard(self)
