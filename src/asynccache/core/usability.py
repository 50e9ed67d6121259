"""Marks answers that aren't what their requests demand, so that nobody gets them again."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Collection
from contextlib import suppress
from hashlib import sha256
from typing import Final

from msgspec.structs import replace

from asynccache.core.context import LoopContext
from asynccache.core.flight import Flight, Judging
from asynccache.core.store_client import StoreClient
from asynccache.entries.entry import Entry, encode_entry
from asynccache.runtime.bounded import BoundedDict
from asynccache.stores.base import Claim, Lease, Record, Unknown

_PROCESSOR: Final = 0.25  # seconds of it, for one answer: some ten thousand keywords of a schema
_WITHIN: Final = 2.0  # seconds, by the clock, that whoever asks next may have to wait
_SCHEMAS: Final = 1024  # that couldn't be read, and are counted once

_Verdict = tuple[bool, Collection[bytes]]


class UsabilityMarker:
    """Judges answers of one event loop, and marks those that are unusable.

    Args:
        context: The loop's.
    """

    __slots__ = ("_context", "_unread")

    def __init__(self, context: LoopContext) -> None:
        self._context = context
        self._unread: BoundedDict[bytes, None] = BoundedDict(_SCHEMAS)  # digests

    async def is_usable(self, judging: Judging) -> bool:
        """Judge an answer off the loop."""
        verdict: _Verdict = True, ()
        with suppress(TimeoutError):  # no thread is free: what can't be decided counts as usable
            async with asyncio.timeout(_WITHIN):
                verdict = await asyncio.to_thread(_bounded, judging)
        return self._counted(verdict)

    async def judged(self, flight: Flight, entry: Entry, judging: Judging) -> Entry:
        """Return a flight's entry, with a mark if its answer is unusable."""
        return _marked(flight, entry, usable=await self.is_usable(judging))

    def judged_now(self, flight: Flight, entry: Entry, judging: Judging) -> Entry:
        """Do as `judged`, where the loop is ending and nothing can be waited for."""
        return _marked(flight, entry, usable=self._counted(_bounded(judging)))

    def _counted(self, verdict: _Verdict) -> bool:
        usable, unread = verdict
        for schema in unread:
            digest = sha256(schema).digest()
            self._context.counters.unread_schemas += digest not in self._unread
            self._unread[digest] = None
        return usable

    async def mark(
        self, client: StoreClient, answer: Entry, storing: Collection[asyncio.Task[None]]
    ) -> None:
        """Mark an answer as unusable in the store, if it is still there.

        It takes the key's lease for that: where somebody else has it, an answer that replaces this
        one is on its way.

        Args:
            client: The way to the store.
            answer: Its entry.
            storing: Tasks that may still store it.
        """
        if storing:
            await asyncio.wait(storing)
        able, key = self._context.store.capabilities, answer.key
        lease: Lease | None = None
        if able.leases:
            lease = Lease(key, secrets.token_bytes(16))
            claimed = await client.claim(Claim(key=key, token=lease.token))
            if claimed is None or not claimed.granted:
                return
            data: bytes | Unknown | None = claimed.entry
            generation = claimed.generation
        else:
            generation = await client.generation(key) if able.generations else None
            data = await client.look_up(key)
        try:
            entry = None
            if isinstance(data, bytes) and not (able.generations and generation is None):
                entry = await client.checked(key, data, replayed=True)
            if entry is None or entry.meta.unusable or not client.rejects(entry):
                return
            marked = _unusable(entry)
            body = await asyncio.to_thread(encode_entry, marked)
            await client.write(
                Record(
                    key=key,
                    body=body,
                    expires=entry.expires,
                    generation=generation,
                    meta=marked.meta,
                )
            )
        finally:
            if lease is not None:
                await client.release([lease])


def _marked(flight: Flight, entry: Entry, *, usable: bool) -> Entry:
    flight.judged(usable=usable)
    return entry if usable else _unusable(entry)


def _unusable(entry: Entry) -> Entry:
    return replace(entry, meta=replace(entry.meta, unusable=True))


def _bounded(judging: Judging) -> _Verdict:
    """Judge within a bounded time, and let other threads go first."""
    end = time.thread_time() + _PROCESSOR

    def tick() -> None:
        time.sleep(0)
        if time.thread_time() > end:
            raise TimeoutError

    return judging(tick)
