"""Memory in front of a store that others share: hits without a round trip, as fresh as a ttl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from asynccache.entries.entry import decode_head
from asynccache.keys.key import Namespace
from asynccache.runtime.clock import SYSTEM_CLOCK, Clock
from asynccache.stores.base import (
    UNKNOWN,
    Claim,
    Claimed,
    Counted,
    Lease,
    Page,
    Record,
    Store,
    Unknown,
)
from asynccache.stores.memory import MemoryStore

_LARGEST: Final = 8  # of the room, one entry takes an eighth at most: larger ones would empty it
_MICROSECONDS: Final = 1_000_000


class NearCache(Store):
    """A store with a copy in this process of what was lately read from it or written to it.

    What another process deletes or overwrites is served from here for ``ttl`` seconds more at most;
    what this one does shows at once.

    Args:
        store: The store behind.
        max_bytes: Room for the copies.
        ttl: Seconds until a copy is not believed any more.
        clock: Tells them.
    """

    def __init__(
        self, store: Store, *, max_bytes: int, ttl: float, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.capabilities = replace(store.capabilities, inline=True, stable=True)
        self._store = store
        self._memory = MemoryStore(max_bytes, clock=clock)
        self._largest = max_bytes // _LARGEST
        self._ttl = max(1, int(ttl * _MICROSECONDS))
        self._clock = clock
        # Lookups under way, by place: one that a change has overtaken leaves no copy.
        self._asking: dict[tuple[Namespace, bytes], object] = {}

    @property
    def batch(self) -> int:
        """As the store behind."""
        return self._store.batch

    @property
    def polls(self) -> tuple[float, float]:
        """As the store behind."""
        return self._store.polls

    async def open(self, *, read_only: bool = False) -> None:
        await self._store.open(read_only=read_only)

    async def aclose(self) -> None:
        await self._store.aclose()

    def peek(self, namespace: Namespace, key: bytes) -> bytes | Unknown:
        """Return the copy, if there is one; else only the store behind can tell."""
        found = self._memory.peek(namespace, key)
        return UNKNOWN if found is None else found

    async def get_many(self, namespace: Namespace, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return copies, and what the store behind has of the rest."""
        found: list[bytes | None] = [self._memory.peek(namespace, key) for key in keys]
        missing = [at for at, body in enumerate(found) if body is None]
        if not missing:
            return found
        lookup = object()
        for at in missing:
            self._asking[namespace, keys[at]] = lookup
        copies: list[tuple[bytes, bytes, int]] = []
        try:
            asked = await self._store.get_many(namespace, [keys[at] for at in missing])
            for at, body in zip(missing, asked, strict=True):
                found[at] = body
                if body is not None and self._asking.get((namespace, keys[at])) is lookup:
                    head = decode_head(body)
                    copies.append((keys[at], body, head.expires if head else 0))
        finally:
            for at in missing:
                if self._asking.get((namespace, keys[at])) is lookup:
                    del self._asking[namespace, keys[at]]
        await self._copy(namespace, copies)
        return found

    async def head_many(
        self, namespace: Namespace, keys: Sequence[bytes]
    ) -> Sequence[bytes | None]:
        return await self._store.head_many(namespace, keys)

    async def set_many(self, namespace: Namespace, records: Sequence[Record]) -> Sequence[bool]:
        """Write to the store behind, and keep copies of what it took."""
        try:
            written = await self._store.set_many(namespace, records)
        finally:  # also where nobody knows what was written
            await self._forget(namespace, [record.key for record in records])
        taken = [one for one, done in zip(records, written, strict=True) if done]
        await self._copy(namespace, [(one.key, one.body, one.expires) for one in taken])
        return written

    async def delete_many(self, namespace: Namespace, keys: Sequence[bytes]) -> int:
        try:
            return await self._store.delete_many(namespace, keys)
        finally:
            await self._forget(namespace, keys)

    async def clear(self, namespace: Namespace) -> int:
        try:
            return await self._store.clear(namespace)
        finally:
            self._asking.clear()
            await self._memory.clear(namespace)

    async def scan(self, namespace: Namespace, cursor: str | None = None) -> Page:
        return await self._store.scan(namespace, cursor)

    async def claim(
        self, namespace: Namespace, claims: Sequence[Claim], ttl: float
    ) -> Sequence[Claimed]:
        return await self._store.claim(namespace, claims, ttl)

    async def renew(
        self, namespace: Namespace, leases: Sequence[Lease], ttl: float
    ) -> Sequence[bool]:
        return await self._store.renew(namespace, leases, ttl)

    async def release(self, namespace: Namespace, leases: Sequence[Lease]) -> None:
        await self._store.release(namespace, leases)

    async def wait(self, namespace: Namespace, key: bytes, timeout: float) -> None:
        await self._store.wait(namespace, key, timeout)

    def counters(self) -> dict[Counted, int]:
        """Return what the store behind counts: copies come and go unsaid."""
        return self._store.counters()

    async def _copy(
        self, namespace: Namespace, entries: Sequence[tuple[bytes, bytes, int]]
    ) -> None:
        """Keep copies of entries, given as key, body and expiry, that aren't too large."""
        until = self._clock.time_us() + self._ttl
        copies = [
            Record(key=key, body=body, expires=min(expires or until, until))
            for key, body, expires in entries
            if len(body) <= self._largest
        ]
        await self._memory.set_many(namespace, copies)

    async def _forget(self, namespace: Namespace, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._asking.pop((namespace, key), None)
        await self._memory.delete_many(namespace, keys)
