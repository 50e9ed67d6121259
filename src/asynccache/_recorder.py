"""Turns a finished call into an entry: whether to keep it, for how long, and its bytes."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from asynccache._call import Answer, Call
from asynccache._canonical import canonical_json, path_digests
from asynccache._clock import Clock
from asynccache._entry import Entry, encode_entry, encode_paths
from asynccache._flight import Flight
from asynccache._stats import Counters
from asynccache.stores._base import Record

_log = logging.getLogger("asynccache")

_ENCODE_INLINE: Final = 64 * 1024  # bytes: above, compressing and summing would hold the loop
_MICROSECONDS: Final = 1_000_000


class Recording(Struct, frozen=True, kw_only=True):
    """What a flight leaves behind."""

    entry: Entry
    call: Call
    refused: Literal["mode", "oversized", "incomplete", "deleted", "store_if"] | None


class Recorder:
    """Makes records of answers.

    Args:
        clock: Dates them.
        counters: Told of what was paid.
        ttl_jitter: Share of a ttl, from 0 to 1, by which it may be shortened.
    """

    __slots__ = ("_clock", "_counters", "_jitter")

    def __init__(self, clock: Clock, counters: Counters, *, ttl_jitter: float) -> None:
        self._clock = clock
        self._counters = counters
        self._jitter = ttl_jitter

    def record(self, flight: Flight, call: Call, answer: Answer, seconds: float) -> Recording:
        """Date an answer and decide whether it is kept."""
        meta = replace(answer.meta, seconds=seconds)
        self._counters.tokens_paid += meta.input_tokens + meta.output_tokens
        now = self._clock.time_us()
        entry = Entry(call.key, now, expiry(call.ttl, now, self._jitter), meta, answer.chunks)
        return Recording(entry=entry, call=call, refused=self._refused(flight, call, answer))

    async def encode(self, recording: Recording, *, if_absent: bool) -> Record:
        """Return the bytes to be written; large ones are made off the loop."""
        entry = recording.entry
        size = sum(map(len, entry.chunks)) + len(recording.call.canonical or b"")
        if size > _ENCODE_INLINE:
            body = await asyncio.to_thread(_encode, recording)
        else:
            body = _encode(recording)
        return Record(key=entry.key, body=body, expires=entry.expires, if_absent=if_absent)

    def _refused(
        self, flight: Flight, call: Call, answer: Answer
    ) -> Literal["mode", "oversized", "incomplete", "deleted", "store_if"] | None:
        if not flight.keep:
            return "mode"
        if flight.oversized:
            return "oversized"
        if not answer.complete:
            return "incomplete"
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
    if ttl is None:
        return 0
    kept = ttl * (1 - jitter * random.random())  # noqa: S311 - jitter, not a secret
    return now + max(1, int(kept * _MICROSECONDS))


def _encode(recording: Recording) -> bytes:
    call, entry = recording.call, recording.entry
    if call.canonical is not None:
        paths = path_digests(call.canonical)
        if call.facts is not None:
            described = path_digests(canonical_json(call.facts))
            paths.update({f"@{path}": digest for path, digest in described.items()})
        meta = replace(entry.meta, paths=encode_paths(paths))
        if call.keep_request:
            meta = replace(meta, request=Raw(msgspec.msgpack.encode(call.canonical)))
        entry = Entry(entry.key, entry.created, entry.expires, meta, entry.chunks)
    return encode_entry(entry)
