"""The aiocache store: entries and leases in any aiocache cache, in its commands alone."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence, Set as AbstractSet
from contextlib import suppress
from typing import Final

from asynccache.entries.entry import ENVELOPE_BYTES
from asynccache.errors import StoreFullError, StoreUnavailableError
from asynccache.keys.key import Namespace
from asynccache.runtime.clock import SYSTEM_CLOCK, Clock
from asynccache.stores.aiocache.driver import Driver
from asynccache.stores.aiocache.forms import (
    BUCKETS,
    FREE,
    GENERATION_BYTES,
    AiocacheNames,
    body_in,
    is_generation,
    keys_in,
    lease_in,
    names_of,
    packed,
    stamped,
)
from asynccache.stores.base import BATCH, Capabilities, Claim, Claimed, Lease, Page, Record, Store

_SECOND: Final = 1_000_000  # microseconds
_FREED: Final = 1  # second that a lease which was given back leaves a mark
_PART: Final = 16  # parts of the list of keys that a scan reads at once
_PAGE: Final = 1000  # keys after which a page of a scan ends
_CROWDED: Final = 1024  # keys in a part of the list, after which the dead are looked for


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
        await self._driver.get_many(["asynccache:open"])
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
        names = names_of(namespace)
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
        generation = await self._generation(names)
        await self._list(namespace, generation, [record.key for record in records])
        written: list[bool] = []
        too_large: StoreFullError | None = None
        for record in records:
            try:
                written.append(await self._write(names, record, generation))
            except StoreFullError as exc:
                too_large = exc
        if too_large is not None:
            raise too_large
        return written

    async def _write(self, names: AiocacheNames, record: Record, generation: bytes) -> bool:
        name, expires = names.entry(record.key), record.expires
        value = stamped(record.body, generation, expires)
        # Whole seconds, which all caches take, and no less than are left.
        ttl = max(0, expires - self._clock.time_us()) // _SECOND + 1 if expires else None

        def unless_live(kept: bytes | None) -> bytes | None:
            return value if body_in(kept, generation, self._clock.time_us()) is None else None

        if record.if_absent:
            return (await self._driver.update(name, unless_live, ttl))[1]
        await self._driver.set(name, value, ttl)
        return True

    async def delete_many(self, namespace: Namespace, keys: Sequence[bytes]) -> int:
        """Remove entries, one after the other."""
        names = names_of(namespace)
        unique = list(dict.fromkeys(keys))
        there = await self.get_many(namespace, unique)
        gone = [await self._driver.delete(names.entry(key)) for key in unique]
        return sum(done and body is not None for done, body in zip(gone, there, strict=True))

    async def clear(self, namespace: Namespace) -> int:
        """Make all entries those of the past, at once; then remove what the list of keys names."""
        names = names_of(namespace)
        (generation,) = await self._driver.get_many([names.generation])
        if generation is None or not is_generation(generation):
            return 0
        keys = await self._listed(names, generation, range(BUCKETS))
        there = await self.get_many(namespace, keys)
        await self._driver.set(names.generation, secrets.token_bytes(GENERATION_BYTES), None)
        parts = [names.bucket(generation, number) for number in sorted({key[0] for key in keys})]
        for name in (*map(names.entry, keys), *parts):
            await self._driver.delete(name)
        return sum(body is not None for body in there)

    async def scan(self, namespace: Namespace, cursor: str | None = None) -> Page:
        """Return a page of envelopes, as the list of keys names them."""
        names, first = names_of(namespace), int(cursor or 0)
        (generation,) = await self._driver.get_many([names.generation])
        keys: list[bytes] = []
        while generation is not None and first < BUCKETS and len(keys) < _PAGE:
            keys += await self._listed(names, generation, range(first, first + _PART))
            first += _PART
        found = await self.head_many(namespace, keys)
        return Page(
            envelopes=[head for head in found if head is not None],
            cursor=None if generation is None or first >= BUCKETS else str(first),
        )

    # -- the list of keys ----------------------------------------------------------------------

    # An aiocache cache can't list its keys, so each namespace has a list, for scanning and counting
    # alone. Whether an entry counts is told by its generation: a part of the list that the cache
    # has dropped costs entries that aren't shown, and no wrong answer.

    async def _generation(self, names: AiocacheNames) -> bytes:
        """Return the number that the namespace's entries bear, made if there is none yet."""
        new = secrets.token_bytes(GENERATION_BYTES)
        old, made = await self._driver.update(
            names.generation, lambda kept: None if is_generation(kept) else new, None,
            likely_new=False,
        )  # fmt: skip
        return new if made or old is None else old

    async def _list(self, namespace: Namespace, generation: bytes, keys: Sequence[bytes]) -> None:
        """Note keys that are about to be written."""
        parts: dict[int, dict[bytes, None]] = {}
        for key in keys:
            parts.setdefault(key[0], {})[key] = None
        for number, new in parts.items():
            name = names_of(namespace).bucket(generation, number)
            with suppress(StoreFullError):  # a list without end: its entries are kept, not shown
                old = await self._relist(name, new)
                if len(old) // _CROWDED < len(old | new) // _CROWDED:
                    found = await self.get_many(namespace, list(old))
                    dead = {key for key, body in zip(old, found, strict=True) if body is None}
                    await self._relist(name, {}, dead - new.keys())

    async def _relist(
        self, name: str, new: dict[bytes, None], dead: AbstractSet[bytes] = frozenset()
    ) -> dict[bytes, None]:
        """Add keys to a part of the list, take the dead off it, and return what it was."""

        def change(kept: bytes | None) -> bytes | None:
            listed = keys_in(kept)
            changed = [key for key in listed | new if key not in dead]
            return None if len(changed) == len(listed) else b"".join(changed)

        old, _ = await self._driver.update(name, change, None, likely_new=False)
        return keys_in(old)

    async def _listed(self, names: AiocacheNames, generation: bytes, parts: range) -> list[bytes]:
        kept = await self._driver.get_many([names.bucket(generation, part) for part in parts])
        return [key for part in kept for key in keys_in(part)]

    # -- leases --------------------------------------------------------------------------------

    async def claim(
        self, namespace: Namespace, claims: Sequence[Claim], ttl: float
    ) -> list[Claimed]:
        """Claim leases one by one, then look for all their entries; the cache ends them."""
        holders = [await self._take(namespace, claim, _lasting(ttl)) for claim in claims]
        entries = await self.get_many(namespace, [claim.key for claim in claims])
        return [
            Claimed(granted=holder is None, entry=entry, holder=holder)
            for holder, entry in zip(holders, entries, strict=True)
        ]

    async def _take(self, namespace: Namespace, claim: Claim, ttl: int) -> Lease | None:
        """Take a lease, or return who holds it."""
        mine = packed(Lease(claim.key, claim.token))

        def take(kept: bytes | None) -> bytes | None:
            return mine if lease_in(claim.key, kept) in {None, claim.expect} else None

        kept, taken = await self._driver.update(names_of(namespace).lease(claim.key), take, ttl)
        return None if taken else lease_in(claim.key, kept)

    async def renew(self, namespace: Namespace, leases: Sequence[Lease], ttl: float) -> list[bool]:
        """Raise the renewal count of leases still held by their token, by compare and set."""
        return [await self._change(namespace, lease, _lasting(ttl)) for lease in leases]

    async def release(self, namespace: Namespace, leases: Sequence[Lease]) -> None:
        """Give leases back, by compare and set: not every cache can compare and delete."""
        for lease in leases:
            await self._change(namespace, lease, _FREED, release=True)

    async def _change(
        self, namespace: Namespace, lease: Lease, ttl: int, *, release: bool = False
    ) -> bool:
        """Renew or give back a lease that is held by the same token yet; tell if it is."""

        def changed(kept: bytes | None) -> bytes | None:
            held = lease_in(lease.key, kept)
            if held is None or held.token != lease.token:
                return None
            return FREE if release else packed(Lease(held.key, held.token, held.renewals + 1))

        return (await self._driver.update(names_of(namespace).lease(lease.key), changed, ttl))[1]


def _lasting(ttl: float) -> int:
    """Return the whole seconds that a lease lasts, which all caches take."""
    return max(1, math.ceil(ttl))
