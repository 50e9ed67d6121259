"""From a finished call to its entry: whether it is kept, for how long, its bytes, its writing."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from asynccache.core.calls import Answer, CallRequest, plain
from asynccache.core.context import LoopContext
from asynccache.core.flight import Fate, Flight
from asynccache.core.leases import LeaseManager
from asynccache.core.store_client import StoreClient
from asynccache.core.usability import UsabilityMarker
from asynccache.entries.entry import Entry, encode_entry, encode_paths
from asynccache.keys.paths import path_digests
from asynccache.runtime.logs import warn_of
from asynccache.stores.base import Record, Unknown

_log = logging.getLogger("asynccache")

_ENCODE_INLINE: Final = 64 * 1024  # bytes: above, compressing and summing would hold the loop
_MICROSECONDS: Final = 1_000_000
_FOR_EVER: Final = 100 * 365 * 86_400  # seconds: a longer ttl is none


class EntryWriter:
    """Makes entries of answers, and has them written once their callers have them.

    Args:
        context: The loop's.
        leases: Tells whether a flight may overwrite what it finds in the store.
    """

    __slots__ = ("_context", "_generations", "_leases", "_releasing", "_told", "marker")

    def __init__(self, context: LoopContext, leases: LeaseManager) -> None:
        self._context = context
        self._leases = leases
        self._releasing = context.store.capabilities.releases
        self._generations = context.store.capabilities.generations
        self._told: set[type[Exception]] = set()  # what rules of the user's have raised
        self.marker = UsabilityMarker(context)

    def date(self, call: CallRequest, answer: Answer, seconds: float) -> Entry:
        """Return the entry of an answer that took so many seconds, and count what it cost."""
        context = self._context
        meta = replace(answer.meta, seconds=seconds)
        context.counters.count_paid(meta)
        now = context.clock.time_ns() // 1000
        expires = expiry(call.ttl, now, context.limits.ttl_jitter)
        return Entry(call.key, now, expires, meta, answer.chunks)

    async def keep(
        self,
        flight: Flight,
        call: CallRequest,
        answer: Answer,
        entry: Entry,
        client: StoreClient,
    ) -> Entry | None:
        """Write a flight's entry, or count why not; return one that stands in the store instead."""
        stands: Entry | None = None
        unstored = self._refusal(flight, call, answer)
        if not unstored and self._generations and flight.generation is None:
            unstored = "store"  # it couldn't say what the key was like before the call
        try:
            if not unstored:
                await asyncio.sleep(0)  # before anything is encoded
                if flight.judging is not None:
                    entry = await self.marker.judged(flight, entry, flight.judging)
                unstored, stands = await self._write(flight, call, entry, client)
        except asyncio.CancelledError:
            # The loop is ending, and cancels each task once. What was paid for is still stored, by
            # this task alone, as the ones that carry batches are ending too.
            if flight.judging is not None:
                entry = self.marker.judged_now(flight, entry, flight.judging)
            unstored = await self._write_once(flight, call, entry, client.write_alone)
            self._count(unstored, entry)
            raise
        except Exception:  # noqa: BLE001 - nobody waits for it: told here, or never
            _log.exception("an answer was delivered but could not be stored")
            unstored = "error"
        self._count(unstored, entry)
        return stands

    def _refusal(self, flight: Flight, call: CallRequest, answer: Answer) -> str:
        """Return why an answer isn't to be stored, an empty str if it is."""
        unstored = flight.unstored()
        if unstored is not None:
            return unstored
        if not answer.complete:
            return "incomplete"
        if answer.private:
            return "secret"
        try:
            return "" if plain("store_if", call.store_if(answer)) else "store_if"
        except Exception as exc:  # noqa: BLE001 - the user's function; the answer isn't lost over it
            if type(exc) not in self._told:
                self._told.add(type(exc))
                warn_of(exc, f"store_if failed, so that nothing is stored, told once: {exc!r}")
            return "store_if"

    def _count(self, unstored: str, entry: Entry) -> None:
        counters = self._context.counters
        if unstored:
            counters.not_stored[unstored] += 1
        else:
            counters.stored += 1
            counters.cut += entry.meta.cut
            counters.unusable += entry.meta.unusable

    async def _write(
        self, flight: Flight, call: CallRequest, entry: Entry, client: StoreClient
    ) -> tuple[str, Entry | None]:
        """Return why an entry wasn't written, an empty str if it was, and what stands instead."""
        unstored = await self._write_once(flight, call, entry, client.write)
        if unstored != "conflict":
            return unstored, None
        found = await client.found(entry.key, client.look_up(entry.key))
        if found is not None:
            return unstored, None if isinstance(found, Unknown) else found
        # The stored answer stands, if it is one: damaged bytes don't keep an answer out.
        return await self._write_once(flight, call, entry, client.write, over=True), None

    async def _write_once(
        self,
        flight: Flight,
        call: CallRequest,
        entry: Entry,
        write: Callable[[Record], Awaitable[bool | None]],
        *,
        over: bool = False,
    ) -> str:
        held = flight.lease
        kept = held is None or await self._leases.still_held(held)
        size = sum(map(len, entry.chunks)) + len(call.canonical or b"")
        if size > _ENCODE_INLINE:
            body = await asyncio.to_thread(_encode, call, entry)
        else:
            body = _encode(call, entry)
        if flight.fate is Fate.INVALIDATED:  # looked at last, as that may have come meanwhile
            return "deleted"
        # Where the store can, storing gives the lease back: a step less, and waiters wake sooner.
        lease = held.lease if kept and held and self._releasing else None
        record = Record(
            key=entry.key,
            body=body,
            expires=entry.expires,
            if_absent=not over and held is not None and (held.contested or not kept),
            generation=flight.generation,
            lease=lease,
            meta=entry.meta,
        )
        written = await write(record)
        if written:
            if held is not None and lease is not None:
                self._leases.returned(held)
            return ""
        if written is None:
            return "store"
        return "conflict" if record.if_absent else "deleted"


def expiry(ttl: float | None, now: int, jitter: float) -> int:
    """Return when something recorded now expires, in microseconds since the epoch; 0 is never.

    Jitter, the share of the ttl that chance may take away, only ever shortens.
    """
    if ttl is None or ttl > _FOR_EVER:
        return 0
    kept = ttl * (1 - jitter * random.random())  # noqa: S311 - jitter, not a secret
    return now + max(1, int(kept * _MICROSECONDS))


def _encode(call: CallRequest, entry: Entry) -> bytes:
    if call.canonical is None:
        return encode_entry(entry)
    paths = encode_paths({"": path_digests(call.canonical), **call.facts})
    meta = replace(entry.meta, paths=paths)
    if call.keep_request:
        meta = replace(meta, request=Raw(msgspec.msgpack.encode(call.canonical)))
    return encode_entry(replace(entry, meta=meta))
