"""Leases in Cosmos DB: claimed by creating a key's item, kept by changing it if it is unchanged."""

from __future__ import annotations

from typing import Final

from asynccache.errors import StoreUnavailableError
from asynccache.stores.base import Claim, Claimed, Lease
from asynccache.stores.cosmos.errors import NOT_FOUND
from asynccache.stores.cosmos.items import Item, new_lease
from asynccache.stores.cosmos.keys import Keys

_RACES: Final = 100  # times that others may change an item while we do


class Leasing:
    """Claims, renews and releases leases of a namespace.

    An item that holds nothing but a lease is ended by Cosmos DB when it isn't renewed for ``ttl``
    seconds; one that holds an entry, too, keeps the lease until somebody takes it over.

    Args:
        keys: Those of the namespace.
        ttl: Seconds that leases last without renewal.
    """

    def __init__(self, keys: Keys, ttl: float) -> None:
        self._keys = keys
        self._held = keys.held
        self._ttl = ttl

    async def claim(self, claim: Claim) -> Claimed:
        """Claim a key's lease, and look for its entry on the way."""
        keys, key, token = self._keys, claim.key, claim.token
        lease = new_lease(token, self._ttl)
        # Where somebody is likely to hold it, looking costs less than being refused.
        look = claim.waiting or claim.expect is not None or self._held.seen(keys.name(key))
        for _ in range(_RACES):
            if not look:
                status, etag = await keys.create(key, lease=lease)
                if not status:  # and so there was no entry either
                    self._held.keep(lease.token, etag, 0)
                    return Claimed(granted=True)
            look = False
            item = await keys.read(key)
            if item is None:
                continue
            entry = await keys.body(key, item)
            holder = item.holder(key)
            if holder is not None and holder.token == token:  # ours: the answer was lost
                return Claimed(granted=True, entry=entry)
            if holder not in (None, claim.expect):
                return Claimed(granted=False, entry=entry, holder=holder)
            if holder is None and entry is not None and claim.waiting:
                return Claimed(granted=False, entry=entry)
            beside = item.live(keys.clock.time_us())
            status, etag = await keys.replace(key, item.etag, entry=beside, lease=lease)
            if not status:
                if beside is None:
                    self._held.keep(lease.token, etag, 0)
                return Claimed(granted=True, entry=entry)
        raise StoreUnavailableError("others change this item faster than it can be claimed")

    async def renew(self, lease: Lease) -> bool:
        """Raise a lease's renewal count and let it last anew; False where it is lost."""
        keys, key = self._keys, lease.key
        name = lease.token.hex()
        noted = self._held.take(name)
        if noted is not None:
            etag, renewals = noted
            renewed = new_lease(lease.token, self._ttl, renewals + 1)
            status, etag = await keys.replace(key, etag, lease=renewed)
            if not status:
                self._held.keep(name, etag, renewals + 1)
                return True
        for _ in range(_RACES):
            item = await self._ours(lease)
            if item is None or item.lease is None:
                return False
            renewals = item.lease.renewals + 1
            renewed = new_lease(lease.token, self._ttl, renewals)
            status, etag = await keys.replace(key, item.etag, entry=item.entry, lease=renewed)
            if not status:
                if item.entry is None:
                    self._held.keep(name, etag, renewals)
                return True
        raise StoreUnavailableError("others change this item faster than it can be renewed")

    async def release(self, lease: Lease) -> None:
        """Give a lease back; one that another token holds is left alone."""
        keys, key = self._keys, lease.key
        noted = self._held.take(lease.token.hex())
        if noted is not None and await keys.delete(key, noted[0]) in (0, NOT_FOUND):
            return
        for _ in range(_RACES):
            item = await self._ours(lease)
            if item is None:
                return
            if item.live(keys.clock.time_us()) is None:
                status = await keys.delete(key, item.etag)
            else:
                status, _ = await keys.replace(key, item.etag, entry=item.entry)
            if status in (0, NOT_FOUND):
                return
        raise StoreUnavailableError("others change this item faster than it can be released")

    async def _ours(self, lease: Lease) -> Item | None:
        item = await self._keys.read(lease.key)
        if item is None or item.lease is None or item.lease.token != lease.token.hex():
            return None
        return item
