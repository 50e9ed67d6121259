"""Leases in Cosmos DB: claimed by creating a key's item, kept by changing it if it is unchanged.

An item that holds nothing but a lease is ended by Cosmos DB when it isn't renewed in time; one that
holds an entry, too, keeps the lease until somebody takes it over.
"""

from __future__ import annotations

from asynccache.stores.base import Claim, Claimed, Lease
from asynccache.stores.cosmos.items import CosmosItem, LeaseText
from asynccache.stores.cosmos.keys import CosmosKeys, Wanted


async def claim_lease(keys: CosmosKeys, claim: Claim, ttl: float) -> Claimed:
    """Claim a key's lease, and look for its entry on the way."""
    key, token, held = claim.key, claim.token, keys.link.held
    lease = LeaseText.of(token, ttl)
    entry: bytes | None = None
    nothing = keys.nothing(key)
    # Where somebody is likely to hold it, looking costs less than being refused.
    look = nothing.id in held or claim.waiting or claim.expect is not None
    held.pop(nothing.id, None)

    async def step(item: CosmosItem) -> Wanted | None:
        nonlocal entry
        entry = await keys.body(key, item)
        holder = item.holder(key)
        if holder not in (None, claim.expect):
            return None
        if holder is None and entry is not None and claim.waiting:
            return None
        return item.live(keys.now()), lease

    before, etag = await keys.change(key, step, None if look else nothing)
    if etag is None:
        if before.held_by(token):  # the answer to an earlier attempt was lost
            return Claimed(granted=True, entry=entry)
        return Claimed(granted=False, entry=entry, holder=before.holder(key))
    if before.live(keys.now()) is None:
        keys.link.own[before.id, token] = CosmosItem(id=before.id, etag=etag, lease=lease)
    return Claimed(granted=True, entry=entry)


async def renew_lease(keys: CosmosKeys, lease: Lease, ttl: float) -> bool:
    """Raise a lease's renewal count and let it last anew; False where it is lost."""
    renewed: LeaseText | None = None

    async def step(item: CosmosItem) -> Wanted | None:
        nonlocal renewed
        ours = item.held_by(lease.token)
        if ours is None:
            return None
        renewed = LeaseText.of(lease.token, ttl, ours.renewals + 1)
        return item.entry, renewed

    own = keys.remembered(lease.key, lease.token)
    before, etag = await keys.change(lease.key, step, own)
    if etag is not None and before.entry is None:
        keys.link.own[before.id, lease.token] = CosmosItem(id=before.id, etag=etag, lease=renewed)
    return etag is not None


async def release_lease(keys: CosmosKeys, lease: Lease) -> None:
    """Give a lease back; one that another token holds is left alone."""

    async def step(item: CosmosItem) -> Wanted | None:
        return None if item.held_by(lease.token) is None else (item.live(keys.now()), None)

    await keys.change(lease.key, step, keys.remembered(lease.key, lease.token))
