"""The aiocache store: entries and leases in any aiocache cache, in its commands alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from asynccache.entries.entry import ENVELOPE_BYTES
from asynccache.errors import StoreFullError, StoreUnavailableError
from asynccache.keys.key import Namespace
from asynccache.runtime.clock import SYSTEM_CLOCK, Clock
from asynccache.stores.aiocache.driver import Driver
from asynccache.stores.aiocache.forms import (
    BUCKETS,
    FREE,
    AiocacheNames,
    body_in,
    lease_in,
    names_of,
    packed,
    stamped,
)
from asynccache.stores.aiocache.index import ATTEMPTS, BATCH, Index
from asynccache.stores.base import Capabilities, Claim, Claimed, Lease, Page, Record, Store

_SECOND: Final = 1_000_000  # microseconds
_FREED: Final = 1  # second that a lease which was given back leaves a mark
_PART: Final = 16  # parts of the list of keys that a scan reads at once
_PAGE: Final = 1000  # keys after which a page of a scan ends


class AiocacheStore(Store):
    """Entries in an aiocache cache of the user's, which is used as it is, and not closed.

    The cache is used in one event loop, the first that uses the store; others send it their work.
    Leases are held by compare and set, which aiocache's own caches have: others hold none, so
    that one flight in each event loop makes a call.

    Args:
        cache: An instance of an aiocache cache: ``SimpleMemoryCache()``, ``RedisCache(…)``,
            ``MemcachedCache(…)``, or a subclass of ``BaseCache``.
        clock: Where expiry takes the time from.

    Raises:
        TypeError: ``cache`` is none, or lacks a command that keeping entries needs.
    """

    def __init__(self, cache: object, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._driver = Driver(cache)
        self._clock = clock
        self._index = Index(self._driver, clock.time_us)
        self.capabilities = Capabilities(
            leases=self._driver.compares,
            durable=self._driver.shared,
            remote=not self._driver.memory,
        )
        self._is_open = False

    async def open(self, *, read_only: bool = False) -> None:
        """Ask the cache for a key, so that what is wrong with it shows now.

        Raises:
            StoreError: The cache can't be used.
        """
        await self._driver.home.run(lambda: self._driver.get_many(["asynccache:open"]))
        self._is_open = True

    async def aclose(self) -> None:
        """Wait for what is under way; the cache stays open, being the user's."""
        if self._is_open:
            self._is_open = False
            with suppress(StoreUnavailableError):  # what is under way ends with its loop, not here
                await self._driver.home.run(self._driver.home.settle)

    # -- entries -------------------------------------------------------------------------------

    async def get_many(self, namespace: Namespace, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return entries: one command of the cache's for each 256 of them."""
        return await self._driver.home.run(lambda: self._get_many(names_of(namespace), keys))

    async def _get_many(self, names: AiocacheNames, keys: Sequence[bytes]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for start in range(0, len(keys), BATCH):
            asked = [names.entry(key) for key in keys[start : start + BATCH]]
            generation, *kept = await self._driver.get_many([names.generation, *asked])
            now = self._clock.time_us()
            found.extend(body_in(each, generation, now) for each in kept)
        return found

    async def head_many(self, namespace: Namespace, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return envelopes; the cache gives no parts of values, so all of them travels."""
        found = await self.get_many(namespace, keys)
        return [None if body is None else body[:ENVELOPE_BYTES] for body in found]

    async def set_many(self, namespace: Namespace, records: Sequence[Record]) -> list[bool]:
        """Write entries, one after the other.

        Raises:
            StoreFullError: The cache takes no value of an entry's size; the rest is written.
        """
        if not records:
            return []
        names = names_of(namespace)
        written: list[bool] = []
        too_large: StoreFullError | None = None
        generation = await self._driver.home.run(
            lambda: self._ready(names, [record.key for record in records])
        )
        for record in records:
            write = partial(self._write, names, record, generation)
            try:
                written.append(await self._driver.home.run(write))
            except StoreFullError as exc:
                too_large = exc
        if too_large is not None:
            raise too_large
        return written

    async def _ready(self, names: AiocacheNames, keys: Sequence[bytes]) -> bytes:
        generation = await self._index.generation(names, make=True) or b""
        await self._index.list_keys(names, generation, keys)
        return generation

    async def _write(self, names: AiocacheNames, record: Record, generation: bytes) -> bool:
        name, ttl = names.entry(record.key), self._ttl(record.expires)
        value = stamped(record.body, generation, record.expires)
        if not record.if_absent:
            await self._driver.set(name, value, ttl)
            return True
        for _ in range(ATTEMPTS):
            if await self._driver.add(name, value, ttl):
                return True
            marked = await self._driver.marked(name)
            if marked is None:
                continue
            mark, kept = marked
            if body_in(kept, generation, self._clock.time_us()) is not None:
                return False
            if await self._driver.replace(name, value, mark, ttl):
                return True
        raise StoreUnavailableError("the aiocache cache neither takes a value nor has one")

    def _ttl(self, expires: int) -> int | None:
        """Return whole seconds, which all caches take, and no less than are left."""
        if not expires:
            return None
        return max(0, expires - self._clock.time_us()) // _SECOND + 1

    async def delete_many(self, namespace: Namespace, keys: Sequence[bytes]) -> int:
        """Remove entries, one after the other."""
        names = names_of(namespace)
        return await self._driver.home.run(lambda: self._delete_many(names, keys))

    async def _delete_many(self, names: AiocacheNames, keys: Sequence[bytes]) -> int:
        unique = list(dict.fromkeys(keys))
        there = await self._get_many(names, unique)
        deleted = 0
        for key, body in zip(unique, there, strict=True):
            gone = await self._driver.delete(names.entry(key))
            deleted += gone and body is not None
        return deleted

    async def clear(self, namespace: Namespace) -> int:
        """Make all entries those of the past, at once; then remove what the list of keys names."""
        names = names_of(namespace)
        return await self._driver.home.run(lambda: self._clear(names))

    async def _clear(self, names: AiocacheNames) -> int:
        generation = await self._index.generation(names)
        if generation is None:
            return 0
        keys = await self._index.listed(names, generation, 0, BUCKETS)
        there = await self._get_many(names, keys)
        await self._index.renewed(names)
        for key in keys:
            await self._driver.delete(names.entry(key))
        await self._index.drop(names, generation)
        return sum(body is not None for body in there)

    async def scan(self, namespace: Namespace, cursor: str | None = None) -> Page:
        """Return a page of envelopes, as the list of keys names them."""
        names = names_of(namespace)
        return await self._driver.home.run(lambda: self._scan(names, int(cursor or 0)))

    async def _scan(self, names: AiocacheNames, first: int) -> Page:
        generation = await self._index.generation(names)
        keys: list[bytes] = []
        while generation is not None and first < BUCKETS and len(keys) < _PAGE:
            keys.extend(await self._index.listed(names, generation, first, _PART))
            first += _PART
        found = await self._get_many(names, keys)
        return Page(
            envelopes=[body[:ENVELOPE_BYTES] for body in found if body is not None],
            cursor=None if generation is None or first >= BUCKETS else str(first),
        )

    # -- leases --------------------------------------------------------------------------------

    async def claim(
        self, namespace: Namespace, claims: Sequence[Claim], ttl: float
    ) -> list[Claimed]:
        """Claim leases one by one, then look for all their entries; the cache ends them."""
        names = names_of(namespace)
        return await self._driver.home.run(lambda: self._claim(names, claims, ttl))

    async def _claim(
        self, names: AiocacheNames, claims: Sequence[Claim], ttl: float
    ) -> list[Claimed]:
        holders = [await self._claim_one(names, claim, _lasting(ttl)) for claim in claims]
        entries = await self._get_many(names, [claim.key for claim in claims])
        return [
            Claimed(granted=holder is None, entry=entry, holder=holder)
            for holder, entry in zip(holders, entries, strict=True)
        ]

    async def _claim_one(self, names: AiocacheNames, claim: Claim, ttl: int) -> Lease | None:
        """Take a lease, or return who holds it."""
        name, mine = names.lease(claim.key), packed(Lease(claim.key, claim.token))
        for _ in range(ATTEMPTS):
            if await self._driver.add(name, mine, ttl):
                return None
            marked = await self._driver.marked(name)
            if marked is None:
                continue
            mark, kept = marked
            held = lease_in(claim.key, kept)
            if held is not None and held != claim.expect:
                return held
            if await self._driver.replace(name, mine, mark, ttl):
                return None
        raise StoreUnavailableError("the aiocache cache neither grants a lease nor holds one")

    async def renew(self, namespace: Namespace, leases: Sequence[Lease], ttl: float) -> list[bool]:
        """Raise the renewal count of leases still held by their token, by compare and set."""
        names = names_of(namespace)

        def longer(held: Lease) -> bytes:
            return packed(Lease(held.key, held.token, held.renewals + 1))

        async def renewed() -> list[bool]:
            return [await self._change(names, lease, longer, _lasting(ttl)) for lease in leases]

        return await self._driver.home.run(renewed)

    async def release(self, namespace: Namespace, leases: Sequence[Lease]) -> None:
        """Give leases back, by compare and set: not every cache can compare and delete."""
        names = names_of(namespace)

        def free(_: Lease) -> bytes:
            return FREE

        async def released() -> None:
            for lease in leases:
                await self._change(names, lease, free, _FREED)

        await self._driver.home.run(released)

    async def _change(
        self, names: AiocacheNames, lease: Lease, change: Callable[[Lease], bytes], ttl: int
    ) -> bool:
        """Change a lease that is held by the same token yet; tell if it is."""
        name = names.lease(lease.key)
        for _ in range(ATTEMPTS):
            marked = await self._driver.marked(name)
            if marked is None:
                return False
            mark, kept = marked
            held = lease_in(lease.key, kept)
            if held is None or held.token != lease.token:
                return False
            if await self._driver.replace(name, change(held), mark, ttl):
                return True
        raise StoreUnavailableError("the aiocache cache neither changes a lease nor loses it")


def _lasting(ttl: float) -> int:
    """Return the whole seconds that a lease lasts, which all caches take."""
    return max(1, math.ceil(ttl))
