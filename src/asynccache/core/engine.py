"""The callers' side of one event loop: inline reads, boarding and joining flights, waiting."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Coroutine
from typing import Any, Final

from asynccache.core.breaker import CircuitBreaker
from asynccache.core.calls import STORING, CallRequest, Fetched, Mode
from asynccache.core.counters import Counters, Outcome
from asynccache.core.flight import Caller, Flight, NotSharedError
from asynccache.core.in_flight import InFlightTable
from asynccache.core.leases import LeaseManager
from asynccache.core.reader import Reader
from asynccache.core.runner import FlightRunner
from asynccache.core.shelf import Shelf
from asynccache.core.writer import EntryWriter
from asynccache.entries.entry import Entry
from asynccache.errors import CacheClosedError
from asynccache.keys.key import Namespace
from asynccache.runtime.clock import Clock
from asynccache.runtime.pacer import Pacer
from asynccache.runtime.waiters import WaitedTooLongError
from asynccache.stores.base import Store, Unknown


class Engine:
    """All that a cache does in one event loop. It owns the flights and every task they need.

    Args:
        store: Where entries live; shared with the cache's other loops.
        guard: Stands before the store; shared too.
        clock: For expiry and leases.
        max_entry_bytes: Bodies above this are neither stored nor shared with newcomers.
        store_timeout: Seconds that a lookup or claim may take.
        lease_ttl: Seconds of silence after which a lease is taken over.
        ttl_jitter: Share of a ttl by which it may be shortened, so that not all expire at once.
    """

    def __init__(
        self,
        store: Store,
        *,
        guard: CircuitBreaker,
        clock: Clock,
        max_entry_bytes: int,
        store_timeout: float,
        lease_ttl: float,
        ttl_jitter: float,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.pacer: Final = Pacer(self.loop)
        self.counters: Final = Counters()
        self.shelf: Final = Shelf(
            store,
            guard=guard,
            clock=clock,
            counters=self.counters,
            pacer=self.pacer,
            spawn=self.spawn,
            max_entry_bytes=max_entry_bytes,
            timeout=store_timeout,
            lease_ttl=lease_ttl,
        )
        self._limit = max_entry_bytes
        self._board: Final = InFlightTable()
        self._flying: set[Flight] = set()  # also those that are on no board any more
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._leases = LeaseManager(ttl=lease_ttl, clock=clock, spawn=self.spawn)
        recorder = EntryWriter(
            self.shelf, self._leases, clock=clock, counters=self.counters, ttl_jitter=ttl_jitter
        )
        self._pilot = FlightRunner(
            self._board, self.shelf, self._leases, recorder, clock=clock, counters=self.counters
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that lives until it ends or the engine is closed."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- calls -------------------------------------------------------------------------------

    def board(self, call: CallRequest) -> tuple[Flight, bool] | Entry:
        """Return what answers a call: an entry, or a flight and whether it was started for it.

        Nothing is awaited here: between the look at the flights, the inline read, and the entry of
        a new flight nobody else runs, so that no key ever has two. The caller has been counted in.
        """
        refreshing = call.mode == "refresh"
        board = self._board
        flight = board.find(call.mode, call.key)
        surely_missing = False
        if not refreshing:
            entry: Entry | Unknown | None = board.pending(call.key)
            if entry is None and flight is None:
                entry = self.shelf.peek(call.namespace, call.key)
                surely_missing = entry is None
            if isinstance(entry, Entry):
                return entry
            if flight is None and call.mode != "replay":
                flight = board.refresh_of(call.key)
        elif flight is not None and flight.entry is not None:
            flight.doomed = True  # whole already, so that a refresh supersedes it
            flight = None
        keep = call.mode in STORING
        if flight is not None and not flight.oversized:
            flight.enter(keep=keep)
            return flight, False
        if self._closed:
            raise CacheClosedError("the cache was closed")
        flight = Flight(
            call.key,
            call.caller,
            loop=self.loop,
            pacer=self.pacer,
            limit=self._limit,
            abandon=self._abandon,
        )
        flight.enter(keep=keep)
        if call.mode == "read_write":  # the others take no leases
            flight.holding = self._leases.adopt(call.key)
        board.put(call.mode, flight)
        self._flying.add(flight)
        look = not (surely_missing or refreshing)
        asked = self.shelf.ask(call.namespace, call.key) if look else None
        flight.task = self.spawn(self._pilot.fly(flight, call, asked))
        flight.task.add_done_callback(lambda _: self._flying.discard(flight))
        return flight, True

    def inline(self, mode: Mode, namespace: Namespace, key: bytes) -> Entry | None:
        """Return an entry that is at hand, without anything being prepared for a call.

        The way of nearly all hits. None where `fetch` has to find out, also while a flight is up.
        """
        if mode == "refresh":
            return None
        if not self._board.is_empty_for(key):
            return self._board.pending(key)
        entry = self.shelf.peek(namespace, key)
        return entry if isinstance(entry, Entry) else None

    def pending(self, key: bytes) -> Entry | None:
        """Return an answer that is whole and on its way into the store."""
        return self._board.pending(key)

    def join(self, mode: Mode, key: bytes) -> Flight | None:
        """Return a flight to `ride`, if one is up, without anything being prepared for a call."""
        flight = self._board.find(mode, key)
        if flight is None or flight.ended or flight.oversized:
            return None
        flight.enter(keep=mode in STORING)
        return flight

    async def ride(
        self, flight: Flight, caller: Caller, *, started: bool = False
    ) -> Fetched | None:
        """Return the whole answer of a flight that was boarded or joined; counts the caller out.

        None is returned where the flight's error was another caller's fate: then `fetch` anew.

        Raises:
            WaitedTooLongError: The caller's patience ended.
            BaseException: What the call upstream raised.
        """
        deadline = self.loop.time() + caller.patience
        entry = await self.arrive(flight, caller, deadline, started=started)
        if entry is None:
            return None
        how, originals = flight.outcome(started=started), flight.originals
        fetched = self.served(entry, how)
        return fetched if originals is None else Fetched(entry, how, originals.pop())

    async def arrive(
        self, flight: Flight, caller: Caller, deadline: float, *, started: bool
    ) -> Entry | None:
        """Do as `ride`, until a moment of the loop's time, without counting the call."""
        gate = flight.finished
        try:
            while not flight.ended:
                end = gate.enter(deadline)
                try:
                    await end
                except WaitedTooLongError:
                    if not flight.own_time(started=started):
                        raise
                    deadline = math.inf
                finally:
                    gate.leave(end)
            if flight.entry is not None:
                if flight.changed and not started:
                    raise NotSharedError
                return flight.entry
            error = flight.error_for(caller, started=started)
            if error is not None:
                raise error
            return None
        finally:
            flight.leave()

    async def fetch(self, call: CallRequest) -> Fetched:
        """Return the whole answer to a call: stored, from a flight under way, or from upstream.

        Raises:
            WaitedTooLongError: The caller's patience ended.
            ReplayMiss: In mode "replay", nothing is stored.
            CacheClosedError: The cache was closed meanwhile.
            BaseException: What the call upstream raised.
        """
        while True:
            boarded = self.board(call)
            if isinstance(boarded, Entry):
                return self.served(boarded, "hit")
            flight, started = boarded
            fetched = await self.ride(flight, call.caller, started=started)
            if fetched is not None:
                return fetched
            # The error was another caller's fate: the rest start one new flight between them.

    async def read(self, call: CallRequest) -> tuple[Fetched, Reader | None]:
        """Return the answer to a call as soon as its head is known, and a reader of its chunks.

        Where the answer was there already it is whole, and there is no reader. Else it has no
        chunks yet, and the reader has to be closed or exhausted.

        Raises:
            WaitedTooLongError: The caller's patience ended.
            BaseException: As `fetch`.
        """
        while True:
            boarded = self.board(call)
            if isinstance(boarded, Entry):
                return self.served(boarded, "hit"), None
            flight, started = boarded
            reader = Reader(flight, call.caller, self.loop, started=started)
            try:
                meta = await reader.head()
            except BaseException:
                reader.close()
                raise
            if meta is None:
                reader.close()
                error = flight.error_for(call.caller, started=started)
                if error is not None:
                    raise error
                continue
            if flight.changed and not started:
                reader.close()
                raise NotSharedError
            how = flight.outcome(started=started)
            if flight.entry is not None and how == "hit":
                reader.close()
                return self.served(flight.entry, how), None
            self._count(how)
            if how == "joined":  # what it saved shows at the end
                reader.on_close = lambda _, flight=flight: self._count_saved(flight.entry)
            return Fetched(flight.entry or Entry(call.key, 0, 0, meta, ()), how), reader

    def count_hit(self, entry: Entry) -> None:
        """Count one call as answered at once. The way of nearly all hits: nothing is made."""
        self.counters.hits += 1
        self._count_saved(entry)

    def served(self, entry: Entry, how: Outcome) -> Fetched:
        """Count one call as answered."""
        self._count(how)
        if how != "miss":
            self._count_saved(entry)
        return Fetched(entry, how)

    def served_many(self, fetched: Collection[Fetched]) -> Outcome:
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

    def _count(self, how: Outcome) -> None:
        counters = self.counters
        if how == "hit":
            counters.hits += 1
        elif how == "joined":
            counters.joined += 1
        else:
            counters.misses += 1

    def _count_saved(self, entry: Entry | None) -> None:
        if entry is not None:
            meta = entry.meta
            self.counters.tokens_saved += meta.input_tokens + meta.output_tokens
            self.counters.seconds_saved += meta.seconds

    # -- flights -----------------------------------------------------------------------------

    def _abandon(self, flight: Flight) -> None:
        """End a flight that nobody waits for. A newcomer meanwhile gets a new one."""
        self.counters.abandoned += 1
        self._doom(flight)
        if flight.task is not None:
            flight.task.cancel()

    def _doom(self, flight: Flight) -> None:
        """Take a flight off the board, and leave its lease to the next one for its key."""
        flight.doomed = True
        self._board.take_off(flight)
        holding, flight.holding = flight.holding, None
        if holding is not None:
            self._leases.abandon(holding)

    async def settle(self, keys: Collection[bytes] | None) -> None:
        """Keep flights for keys (None: all) from storing and from taking newcomers.

        Returns when nothing is being written for them any more.
        """
        while True:
            for key in (None,) if keys is None else keys:
                for flight in self._board.matching(key):
                    self._doom(flight)
            writing = self.shelf.writing(keys)
            if not writing:
                return
            await asyncio.wait(writing)

    # -- the end -----------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End every flight that still waits for an answer, and see all storing through."""
        self._closed = True
        for flight in self._flying:
            if not flight.ended and flight.task is not None:
                flight.task.cancel()
        self._leases.stop()
        while self._tasks:
            await asyncio.wait(self._tasks)
