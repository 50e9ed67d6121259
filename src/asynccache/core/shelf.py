"""What one event loop sees of a store: sound entries, and lanes to its namespaces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeAlias

from asynccache.core.breaker import CircuitBreaker
from asynccache.core.counters import Counters
from asynccache.core.lane import Lane
from asynccache.entries.entry import Entry, Flaw, decode_entry
from asynccache.errors import StoreError
from asynccache.keys.key import Namespace
from asynccache.runtime.clock import Clock
from asynccache.runtime.pacer import Pacer
from asynccache.stores.base import Record, Store, Unknown

_LARGE: Final = 256 * 1024  # bytes: above, an entry is checked off the loop
_KNOWN: Final = (
    1024  # entries that were checked, and needn't be again while their bytes are the same
)
_KNOWN_BYTES: Final = 16 * 1024  # bytes of the largest: all together stay below 16 MiB


class Shelf:
    """Finds entries, and tells them from bytes that are none.

    Args:
        store: Where entries live; shared with the cache's other loops.
        guard: Stands before the store; shared too.
        clock: Tells what has expired.
        counters: Told of flaws and failures.
        pacer: The loop's.
        spawn: Starts tasks; whoever owns them awaits them at closing.
        max_entry_bytes: Larger entries are refused before they are decompressed.
        timeout: Seconds that a lookup or claim may take.
        lease_ttl: Seconds of silence after which a lease is taken over.
    """

    __slots__ = (
        "_clock", "_counters", "_guard", "_known", "_lanes", "_lease_ttl", "_limit", "_pacer",
        "_spawn", "_stable", "_store", "_timeout", "_writing",
    )  # fmt: skip

    def __init__(
        self,
        store: Store,
        *,
        guard: CircuitBreaker,
        clock: Clock,
        counters: Counters,
        pacer: Pacer,
        spawn: Callable[[Any], asyncio.Task[None]],
        max_entry_bytes: int,
        timeout: float,
        lease_ttl: float,
    ) -> None:
        self._store = store
        self._stable = store.capabilities.stable
        self._known: dict[bytes, tuple[bytes, Entry]] = {}
        self._guard = guard
        self._clock = clock
        self._counters = counters
        self._pacer = pacer
        self._spawn = spawn
        self._limit = max_entry_bytes
        self._timeout = timeout
        self._lease_ttl = lease_ttl
        self._lanes: dict[Namespace, Lane] = {}
        self._writing: dict[bytes, set[asyncio.Future[bool]]] = {}

    @property
    def leasing(self) -> bool:
        """Whether the store gives leases."""
        return self._store.capabilities.leases

    @property
    def releasing(self) -> bool:
        """Whether a record may name the lease that its writing gives back."""
        return self._store.capabilities.releases

    def lane(self, namespace: Namespace) -> Lane:
        """Return this loop's way to a namespace."""
        lane = self._lanes.get(namespace)
        if lane is None:
            lane = self._lanes[namespace] = Lane(
                self._store,
                namespace,
                guard=self._guard,
                timeout=self._timeout,
                lease_ttl=self._lease_ttl,
                counters=self._counters,
                pacer=self._pacer,
                spawn=self._spawn,
            )
        return lane

    def peek(self, namespace: Namespace, key: bytes) -> Entry | Unknown | None:
        """Look an entry up without waiting; UNKNOWN where only `ask` can tell."""
        try:
            data = self._store.peek(namespace, key)
        except StoreError as exc:
            self._guard.note(exc, self._counters)
            if self._guard.strict:
                raise
            return None
        if data is None or isinstance(data, Unknown):
            return data
        if not self._stable:
            return self.sound(key, data)
        known = self._known.get(key)
        if known is not None and known[0] is data and not known[1].expires:
            return known[1]
        entry = self.sound(key, data)
        if entry is not None and len(data) <= _KNOWN_BYTES:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[key] = (data, entry)
        return entry

    def ask(self, namespace: Namespace, key: bytes) -> asyncio.Future[bytes | Unknown | None]:
        """Have an entry looked up, together with this turn's other lookups; see `found`."""
        return self.lane(namespace).get(key)

    async def found(
        self, key: bytes, asked: asyncio.Future[bytes | Unknown | None]
    ) -> Entry | Unknown | None:
        """Return the entry that was asked for; UNKNOWN where the store couldn't tell."""
        data = await asked
        if data is None or isinstance(data, Unknown):
            return data
        return self.sound(key, data) if len(data) <= _LARGE else await self.checked(key, data)

    async def checked(self, key: bytes, data: bytes) -> Entry | None:
        """Return the entry that bytes hold for a key, as `sound` does; large ones off the loop."""
        if len(data) > _LARGE:  # summing and unpacking it would hold the loop
            return await asyncio.to_thread(self.sound, key, data)
        return self.sound(key, data)

    async def write_alone(self, namespace: Namespace, record: Record) -> bool:
        """Write an answer without waiting for others to travel with."""
        return await self.lane(namespace).set_alone(record)

    def write(self, namespace: Namespace, record: Record) -> asyncio.Future[bool]:
        """Write an answer, and let `writing` tell of it from now on; False if it wasn't written."""
        written = self.lane(namespace).set(record)
        self._writing.setdefault(record.key, set()).add(written)
        written.add_done_callback(lambda done: self._settled(record.key, done))
        return written

    def writing(self, keys: Collection[bytes] | None) -> list[asyncio.Future[bool]]:
        """Return the writes under way for keys, all of them for None."""
        found = self._writing.keys() if keys is None else self._writing.keys() & keys
        return [written for key in found for written in self._writing[key] if not written.done()]

    def _settled(self, key: bytes, written: asyncio.Future[bool]) -> None:
        self._writing[key].discard(written)
        if not self._writing[key]:
            del self._writing[key]

    def sound(self, key: bytes, data: bytes) -> Entry | None:
        """Return the entry that bytes hold for a key; count what is wrong with them otherwise."""
        found = decode_entry(data, key, now=self._clock.time_us(), max_bytes=self._limit)
        if isinstance(found, Flaw):
            self._counters.flaws[found.reason] += 1
            return None
        return found


Asked: TypeAlias = tuple[int, Shelf, bytes, "asyncio.Future[bytes | Unknown | None]"]
"""A lookup under way: its place among others, whose it is, for which key, and its `Shelf.ask`."""


async def all_found(asked: Sequence[Asked]) -> list[tuple[int, Entry | None]]:
    """Return what lookups have found, by their place; None also where a store couldn't tell."""
    entries: list[tuple[int, Entry | None]] = []
    try:
        for at, shelf, key, future in asked:
            entry = await shelf.found(key, future)
            entries.append((at, None if isinstance(entry, Unknown) else entry))
    finally:  # of the rest, if this ends early, nobody wants to hear
        for *_, future in asked[len(entries) :]:
            if not future.cancel() and not future.cancelled():
                future.exception()
    return entries
