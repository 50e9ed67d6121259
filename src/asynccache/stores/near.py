"""A near cache: copies in memory in front of a shared store, so that a hit needs no round trip."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final
from weakref import ref

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

_LARGEST: Final = (
    8  # a copy takes an eighth of ``max_bytes`` at most, or it would push all others out
)
_MICROSECONDS: Final = 1_000_000


class NearCache(Store):
    """Another store, with copies in this process of the entries last read or written.

    An entry that another process deletes or overwrites may be returned for ``ttl`` seconds more. A
    change by this process is visible at once: its near caches tell each other.

    Args:
        store: The store behind.
        max_bytes: How many bytes the copies may take.
        ttl: Seconds after which a copy is no longer used.
        clock: Where the time comes from.
    """

    def __init__(
        self, store: Store, *, max_bytes: int, ttl: float, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.capabilities = replace(store.capabilities, inline=True, stable=True)
        self._store = store
        self._new_memory = partial(MemoryStore, max_bytes, clock=clock)
        self._memory = self._new_memory()
        self._largest = max_bytes // _LARGEST
        self._ttl = max(1, int(ttl * _MICROSECONDS))
        self._clock = clock
        # The latest lookup of each key. A change of the key takes it out: the lookup that ends
        # later may bring what was there before, and leaves no copy.
        self._asking: dict[tuple[Namespace, bytes], object] = {}
        _near_caches.append(ref(self, _near_caches.remove))

    @property
    def batch(self) -> int:
        """The same as that of the store behind."""
        return self._store.batch

    @property
    def polls(self) -> tuple[float, float]:
        """The same as those of the store behind."""
        return self._store.polls

    async def open(self, *, read_only: bool = False) -> None:
        await self._store.open(read_only=read_only)

    async def aclose(self) -> None:
        await self._store.aclose()

    def peek(self, namespace: Namespace, key: bytes) -> bytes | Unknown:
        """Return the copy, or `UNKNOWN` if there is none: only the store behind knows then."""
        found = self._memory.peek(namespace, key)
        return UNKNOWN if found is None else found

    async def get_many(self, namespace: Namespace, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return copies, and look the rest up in the store behind."""
        found = {key: self._memory.peek(namespace, key) for key in keys}
        missing = [key for key, body in found.items() if body is None]
        if missing:
            lookup = object()
            self._asking.update(((namespace, key), lookup) for key in missing)
            try:
                bodies = await self._store.get_many(namespace, missing)
            finally:
                kept = [key for key in missing if self._asking.get((namespace, key)) is lookup]
                for key in kept:
                    del self._asking[namespace, key]
            found.update(zip(missing, bodies, strict=True))
            there = [(key, body) for key in kept if (body := found[key]) is not None]
            await self._copy(namespace, [(*one, _expires(one[1])) for one in there])
        return [found[key] for key in keys]

    async def head_many(
        self, namespace: Namespace, keys: Sequence[bytes]
    ) -> Sequence[bytes | None]:
        return await self._store.head_many(namespace, keys)

    async def set_many(self, namespace: Namespace, records: Sequence[Record]) -> Sequence[bool]:
        """Write to the store behind and keep copies of what it has written."""
        with dropping_copies(namespace, [record.key for record in records]):
            written = await self._store.set_many(namespace, records)
        taken = [one for one, done in zip(records, written, strict=True) if done]
        await self._copy(namespace, [(one.key, one.body, one.expires) for one in taken])
        return written

    async def delete_many(self, namespace: Namespace, keys: Sequence[bytes]) -> int:
        with dropping_copies(namespace, keys):
            return await self._store.delete_many(namespace, keys)

    async def clear(self, namespace: Namespace) -> int:
        with dropping_copies(namespace, None):
            return await self._store.clear(namespace)

    async def scan(self, namespace: Namespace, cursor: str | None = None) -> Page:
        return await self._store.scan(namespace, cursor)

    async def generations(
        self, namespace: Namespace, keys: Sequence[bytes], *, renew: bool = False
    ) -> Sequence[bytes]:
        return await self._store.generations(namespace, keys, renew=renew)

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
        """Return the counters of the store behind. Copies are not counted."""
        return self._store.counters()

    async def _copy(self, namespace: Namespace, entries: list[tuple[bytes, bytes, int]]) -> None:
        """Keep copies of entries, given as key, body and expiry, that aren't too large."""
        until = self._clock.time_us() + self._ttl
        copies = [
            Record(key=key, body=body, expires=min(expires or until, until))
            for key, body, expires in entries
            if len(body) <= self._largest
        ]
        await self._memory.set_many(namespace, copies)

    def forget(self, namespace: Namespace, keys: Sequence[bytes] | None) -> None:
        """Drop the copies of keys; for None all there are, also those of other namespaces."""
        if keys is None:
            self._asking.clear()
            self._memory = self._new_memory()
            return
        for key in keys:
            self._asking.pop((namespace, key), None)
        self._memory.drop(namespace, keys)


_near_caches: Final[list[ref[NearCache]]] = []


@contextmanager
def dropping_copies(namespace: Namespace, keys: Sequence[bytes] | None) -> Generator[None]:
    """Change keys (None: all) of a shared store, and drop their copies in all this process has.

    Any near cache may stand before that store. After a failure too, as nobody knows then what was
    changed.
    """
    try:
        yield
    finally:
        _forget(namespace, keys)


def _forget(namespace: Namespace, keys: Sequence[bytes] | None) -> None:
    for near in [found for each in list(_near_caches) if (found := each())]:
        near.forget(namespace, keys)


def _expires(body: bytes) -> int:
    head = decode_head(body)
    return head.expires if head else 0
