"""What a flight's own task does: look up, claim, call upstream, hand over, store."""

from __future__ import annotations

import asyncio

from asynccache.core.calls import CallRequest
from asynccache.core.counters import Counters
from asynccache.core.flight import Flight, Phase
from asynccache.core.in_flight import InFlightTable
from asynccache.core.leases import LeaseManager
from asynccache.core.shelf import Shelf
from asynccache.core.writer import EntryWriter
from asynccache.entries.entry import Entry
from asynccache.errors import CacheClosedError, ReplayMiss
from asynccache.runtime.clock import Clock
from asynccache.stores.base import Unknown


class FlightRunner:
    """Takes flights from their lookup to the end of their store write.

    Args:
        board: Where flights stand until they end.
        shelf: Where entries are found.
        leases: Gives leave to call, where the store gives leases.
        recorder: Stores answers.
        clock: Measures calls.
        counters: Told of calls and failures.
    """

    __slots__ = ("_board", "_clock", "_counters", "_leases", "_recorder", "_shelf")

    def __init__(
        self,
        board: InFlightTable,
        shelf: Shelf,
        leases: LeaseManager,
        recorder: EntryWriter,
        *,
        clock: Clock,
        counters: Counters,
    ) -> None:
        self._board = board
        self._shelf = shelf
        self._leases = leases
        self._recorder = recorder
        self._clock = clock
        self._counters = counters

    async def fly(
        self,
        flight: Flight,
        call: CallRequest,
        asked: asyncio.Future[bytes | Unknown | None] | None,
    ) -> None:
        """End a flight with an answer or an error.

        Args:
            flight: Stands on the board; taken off it at the end.
            call: What its first caller asked for.
            asked: What the store was asked for it; None where it has nothing, or needn't be asked.
        """
        try:
            found = None if asked is None else await self._shelf.found(call.key, asked)
            entry = None if isinstance(found, Unknown) else found
            if entry is None and call.mode == "replay":
                raise self._nothing_to_replay(call)  # noqa: TRY301 - fails the flight, below
            # A store that couldn't tell isn't asked for a lease: one delay is enough.
            if found is None and call.mode == "read_write" and self._shelf.leasing:
                entry = await self._acquire(flight, call)
            if entry is None:
                await self._ask(flight, call)
            else:
                flight.land(entry)
        except asyncio.CancelledError as exc:
            task = flight.task
            if task is None or not task.cancelling():  # the call cancelled itself, not we the call
                flight.fail(exc, "own")
                return
            # Either nobody waits any more, or the cache is being closed under those who do.
            flight.fail(CacheClosedError("the cache was closed while this call waited"), "all")
            raise
        except BaseException as exc:
            flight.fail(exc, call.scope(exc) if flight.source == "upstream" else "all")
            if isinstance(exc, KeyboardInterrupt | SystemExit):  # the loop's too
                raise
        finally:
            flight.phase = Phase.DONE
            self._board.take_off(flight)
            if flight.holding is not None:
                # Cancelled or not: one cancellation is behind us, and this is short.
                await self._leases.release(flight.holding)

    def _nothing_to_replay(self, call: CallRequest) -> ReplayMiss:
        self._counters.replay_misses += 1
        return ReplayMiss(
            f"nothing is stored for {call.about}"
            f" (cache_seed {call.namespace.seed}, key {call.key.hex()})"
        )

    async def _acquire(self, flight: Flight, call: CallRequest) -> Entry | None:
        flight.phase = Phase.CLAIM

        async def find() -> Entry | Unknown | None:
            if call.waiting is not None:
                call.waiting()
            return await self._shelf.found(call.key, self._shelf.ask(call.namespace, call.key))

        async def check(data: bytes) -> Entry | None:
            return await self._shelf.checked(call.key, data)

        inherited, flight.holding = flight.holding, None
        acquired = await self._leases.acquire(
            self._shelf.lane(call.namespace), call.key, find, check, inherited
        )
        flight.holding = acquired.holding
        if flight.doomed and flight.holding is not None:  # its key was deleted meanwhile
            self._leases.abandon(flight.holding)
            flight.holding = None
        entry = acquired.entry
        if isinstance(entry, bytes):
            entry = await self._shelf.checked(call.key, entry)
        if acquired.waited:
            flight.source = "elsewhere"
        return entry

    async def _ask(self, flight: Flight, call: CallRequest) -> None:
        flight.phase, flight.source = Phase.CALL, "upstream"
        began = self._clock.monotonic()
        self._counters.upstream_calls += call.alone
        try:
            answer = await call.upstream(flight)
        except Exception:
            self._counters.upstream_errors += call.alone
            raise
        flight.changed = call.unchanged is not None and not call.unchanged()
        seconds = self._clock.monotonic() - began if call.alone else answer.meta.seconds
        self._counters.seconds_paid += seconds
        recording = self._recorder.record(flight, call, answer, seconds)
        flight.complete(recording.entry)
        if call.mode == "refresh":  # what was asked before it is yesterday's answer
            for older in list(self._board.matching(call.key)):
                if older is not flight:
                    older.doomed = True
                    self._board.take_off(older)
        # From here on the callers have their answer, and the flight can't be abandoned.
        await self._recorder.keep(flight, recording)
