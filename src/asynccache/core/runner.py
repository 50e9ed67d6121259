"""What a flight's own task does: look up, claim, call upstream, deliver, store."""

from __future__ import annotations

import asyncio

from asynccache.core.calls import CallRequest
from asynccache.core.context import LoopContext
from asynccache.core.flight import Fate, Flight, InFlightTable, Phase
from asynccache.core.leases import LeaseManager
from asynccache.core.store_client import StoreClient
from asynccache.core.writer import EntryWriter
from asynccache.entries.entry import Entry
from asynccache.errors import ReplayMiss
from asynccache.stores.base import Unknown


class FlightRunner:
    """Takes flights from their lookup to the end of their store write.

    Args:
        context: The loop's.
        in_flight: Where flights can be joined until they end.
        leases: Gives leave to call, where the store gives leases.
    """

    __slots__ = (
        "_context",
        "_generations",
        "_in_flight",
        "_leases",
        "_leasing",
        "closing",
        "writer",
    )

    def __init__(
        self, context: LoopContext, in_flight: InFlightTable, leases: LeaseManager
    ) -> None:
        self._context = context
        self._in_flight = in_flight
        self._leases = leases
        self._leasing = context.store.capabilities.leases
        self._generations = context.store.capabilities.generations
        self.closing = False
        self.writer = EntryWriter(context, leases)

    async def run(
        self,
        flight: Flight,
        call: CallRequest,
        client: StoreClient,
        looked_up: asyncio.Future[bytes | Unknown | None] | None,
        *,
        refreshed: bool,
    ) -> None:
        """End a flight with an answer or an error.

        Args:
            flight: It stands in the table, and is removed at the end.
            call: What its first caller asked for.
            client: The way to the store.
            looked_up: The lookup; None where the store has nothing, or needn't be asked.
            refreshed: A refresh of the key was under way before the lookup. Where this finds
                nothing, the flight's callers ask anew: they join the refresh, or find its answer.
        """
        try:
            found = await self._found(call, client, looked_up)
            entry = None if isinstance(found, Unknown) else found
            if entry is None and refreshed:
                return
            if found is None:  # a store that couldn't tell isn't asked more: one delay is enough
                entry = await self._prepare(flight, call, client)
            if entry is None:
                await self._call(flight, call, client)
            else:
                flight.complete_from_store(entry)
        except asyncio.CancelledError as exc:
            task = flight.task
            if task is None or not task.cancelling():  # the call cancelled itself, not we the call
                flight.fail(exc, "own")
                return
            # Nobody waits any more, or the cache is being closed under those who do, or the loop.
            if flight.entry is None:
                flight.cut(closing=self.closing)
            raise
        except BaseException as exc:
            flight.fail(exc, call.scope(exc) if flight.source == "upstream" else "all")
            if isinstance(exc, KeyboardInterrupt | SystemExit):  # the loop's too
                raise
        finally:
            self._in_flight.remove(flight)
            flight.end()
            await self._let_go(flight)

    async def _let_go(self, flight: Flight) -> None:
        """Give a flight's lease back, or leave it to those whom its error isn't true for."""
        if flight.lease is None:
            return
        if flight.error is not None:
            self._leases.abandon(flight.lease)
        else:
            # Cancelled or not: one cancellation is behind us, and this is short.
            await self._leases.release(flight.lease)

    async def _found(
        self,
        call: CallRequest,
        client: StoreClient,
        looked_up: asyncio.Future[bytes | Unknown | None] | None,
    ) -> Entry | Unknown | None:
        replayed = call.mode == "replay"
        found: Entry | Unknown | None = None
        if looked_up is not None:
            found = await client.found(call.key, looked_up, replayed=replayed)
        if replayed and not isinstance(found, Entry):
            raise ReplayMiss(
                f"nothing is stored for {call.about}"
                f" (cache_seed {call.namespace.seed}, key {call.key.hex()})"
            )
        return found

    async def _prepare(
        self, flight: Flight, call: CallRequest, client: StoreClient
    ) -> Entry | None:
        """Get leave to call, and note the key's generation; or return another flight's answer."""
        if call.mode == "read_write" and self._leasing:
            return await self._acquire(flight, call, client)
        if self._generations and flight.storing:
            renew = call.mode == "refresh"  # so that of two, the later begun wins
            flight.generation = await client.generation(call.key, renew=renew)
        return None

    async def _acquire(
        self, flight: Flight, call: CallRequest, client: StoreClient
    ) -> Entry | None:
        flight.phase = Phase.CLAIM
        inherited, flight.lease = flight.lease, None
        acquired = await self._leases.acquire(client, call.key, inherited, call.waiting)
        flight.lease, flight.generation = acquired.lease, acquired.generation
        if flight.fate is Fate.INVALIDATED and flight.lease is not None:
            self._leases.abandon(flight.lease)
            flight.lease = None
        entry = acquired.entry
        if isinstance(entry, bytes):
            entry = await client.checked(call.key, entry)
        if acquired.waited:
            flight.source = "elsewhere"
        return entry

    async def _call(self, flight: Flight, call: CallRequest, client: StoreClient) -> None:
        flight.phase, flight.source = Phase.CALL, "upstream"
        context = self._context
        counters = context.counters
        began = context.clock.monotonic()
        counters.upstream_calls += call.alone
        try:
            answer = await call.upstream(flight)
        except Exception:
            counters.upstream_errors += call.alone
            raise
        if call.unchanged is not None and not call.unchanged():
            flight.worsen(Fate.PRIVATE)
        flight.received = answer.received
        seconds = context.clock.monotonic() - began if call.alone else answer.meta.seconds
        counters.seconds_paid += seconds
        entry = self.writer.date(call, answer, seconds)
        flight.judging = None if call.judge is None else call.judge(answer)
        held = flight.lease
        if held is not None and flight.meta is None and await self._leases.is_contested(held):
            # Others may have called too, so the answer is stored before anybody has it. What is
            # stored first is the answer of all who still wait.
            stored = await self.writer.keep(flight, call, answer, entry, client)
            if stored is None:
                flight.complete(entry)
            else:
                flight.source, flight.received = "elsewhere", None
                flight.complete_from_store(stored)
            return
        # From here on the callers have their answer, and the flight can't be abandoned.
        flight.complete(entry)
        if call.mode == "refresh":  # what was asked before it is yesterday's answer
            for older in self._in_flight.matching(call.key):
                if older is not flight:
                    older.worsen(Fate.INVALIDATED)
                    self._in_flight.remove(older)
        await self.writer.keep(flight, call, answer, entry, client)
