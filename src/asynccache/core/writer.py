"""Turns a finished call into an entry: whether to keep it, for how long, its bytes, its writing."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from asynccache.core.calls import Answer, CallRequest
from asynccache.core.counters import Counters
from asynccache.core.flight import Flight
from asynccache.core.leases import LeaseManager
from asynccache.core.shelf import Shelf
from asynccache.entries.entry import Entry, encode_entry, encode_paths
from asynccache.keys.canonical import path_digests
from asynccache.keys.key import Namespace
from asynccache.runtime.clock import Clock
from asynccache.stores.base import Record

_log = logging.getLogger("asynccache")

_ENCODE_INLINE: Final = 64 * 1024  # bytes: above, compressing and summing would hold the loop
_MICROSECONDS: Final = 1_000_000
_FOR_EVER: Final = 100 * 365 * 86_400  # seconds: a longer ttl is none
Unkept = Literal[
    "mode", "oversized", "inexact", "changed", "incomplete", "secret", "deleted", "store_if"
]


class PendingEntry(Struct, frozen=True, kw_only=True):
    """What a flight leaves behind."""

    entry: Entry
    call: CallRequest
    refused: Unkept | None


class EntryWriter:
    """Makes records of answers, and has them written.

    Args:
        shelf: Where they go.
        leases: Tells whether a flight may overwrite what it finds there.
        clock: Dates them.
        counters: Told of what was paid, stored and not stored.
        ttl_jitter: Share of a ttl, from 0 to 1, by which it may be shortened.
    """

    __slots__ = ("_clock", "_counters", "_jitter", "_leases", "_shelf")

    def __init__(
        self,
        shelf: Shelf,
        leases: LeaseManager,
        *,
        clock: Clock,
        counters: Counters,
        ttl_jitter: float,
    ) -> None:
        self._shelf = shelf
        self._leases = leases
        self._clock = clock
        self._counters = counters
        self._jitter = ttl_jitter

    def record(
        self, flight: Flight, call: CallRequest, answer: Answer, seconds: float
    ) -> PendingEntry:
        """Date an answer and decide whether it is kept."""
        meta = replace(answer.meta, seconds=seconds)
        self._counters.tokens_paid += meta.input_tokens + meta.output_tokens
        now = self._clock.time_us()
        entry = Entry(call.key, now, expiry(call.ttl, now, self._jitter), meta, answer.chunks)
        return PendingEntry(entry=entry, call=call, refused=self._refused(flight, call, answer))

    async def keep(self, flight: Flight, recording: PendingEntry) -> None:
        """Write what a flight leaves behind, or count why not. Its callers have their answer."""
        try:
            unkept = recording.refused or await self._write(flight, recording, self._shelf.write)
            if unkept == "conflict":
                key = recording.entry.key
                asked = self._shelf.ask(recording.call.namespace, key)
                # The stored answer stands, if it is one: damaged bytes don't keep an answer out.
                if await self._shelf.found(key, asked) is None:
                    unkept = await self._write(flight, recording, self._shelf.write, over=True)
        except asyncio.CancelledError:
            # The loop is ending, and cancels each task once. What was paid for is still stored, by
            # this task alone, as the ones that carry batches are ending too.
            unkept = await self._write(flight, recording, self._shelf.write_alone)
            self._count(unkept, recording)
            raise
        except Exception:  # noqa: BLE001 - nobody waits for it: told here, or never
            _log.exception("an answer was delivered but could not be stored")
            unkept = "error"
        self._count(unkept, recording)

    def _count(self, unkept: str, recording: PendingEntry) -> None:
        if unkept:
            self._counters.not_stored[unkept] += 1
        else:
            self._counters.stored += 1
            self._counters.cut += recording.entry.meta.cut

    async def _write(
        self,
        flight: Flight,
        recording: PendingEntry,
        write: Callable[[Namespace, Record], Awaitable[bool]],
        *,
        over: bool = False,
    ) -> str:
        """Return why it wasn't written, an empty str if it was."""
        holding = flight.holding
        kept = holding is None or await self._leases.still_held(holding)
        entry = recording.entry
        size = sum(map(len, entry.chunks)) + len(recording.call.canonical or b"")
        if size > _ENCODE_INLINE:
            body = await asyncio.to_thread(_encode, recording)
        else:
            body = _encode(recording)
        if flight.doomed:  # looked at last, as its key may have been deleted while we waited
            return "deleted"
        # Where the store can, storing gives the lease back: a step less, and waiters wake sooner.
        lease = holding.lease if kept and holding and self._shelf.releasing else None
        record = Record(
            key=entry.key,
            body=body,
            expires=entry.expires,
            if_absent=not (kept or over),
            lease=lease,
            meta=entry.meta,
        )
        if await write(recording.call.namespace, record):
            if holding is not None and lease is not None:
                self._leases.returned(holding)
            return ""
        return "store" if kept else "conflict"

    def _refused(self, flight: Flight, call: CallRequest, answer: Answer) -> Unkept | None:
        if not flight.keep:
            return "mode"
        if flight.oversized:
            return "oversized"
        if flight.originals is not None:
            return "inexact"
        if call.unchanged is not None and not call.unchanged():
            return "changed"
        if not answer.complete:
            return "incomplete"
        if answer.private:
            return "secret"
        if flight.doomed:
            return "deleted"
        try:
            return None if call.store_if(answer) else "store_if"
        except Exception:  # noqa: BLE001 - the user's function; the answer isn't lost over it
            _log.exception("store_if failed; the answer is delivered but not stored")
            return "store_if"


def expiry(ttl: float | None, now: int, jitter: float) -> int:
    """Return when something recorded now expires, in microseconds since the epoch; 0 is never.

    Jitter, the share of the ttl that chance may take away, only ever shortens.
    """
    if ttl is None or ttl > _FOR_EVER:
        return 0
    kept = ttl * (1 - jitter * random.random())  # noqa: S311 - jitter, not a secret
    return now + max(1, int(kept * _MICROSECONDS))


def _encode(recording: PendingEntry) -> bytes:
    call, entry = recording.call, recording.entry
    if call.canonical is not None:
        paths = path_digests(call.canonical) | call.facts
        meta = replace(entry.meta, paths=encode_paths(paths))
        if call.keep_request:
            meta = replace(meta, request=Raw(msgspec.msgpack.encode(call.canonical)))
        entry = Entry(entry.key, entry.created, entry.expires, meta, entry.chunks)
    return encode_entry(entry)
