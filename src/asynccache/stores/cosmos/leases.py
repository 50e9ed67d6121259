"""Leases in Cosmos DB: claimed by creating a key's item, kept by changing it if it is unchanged.

A lease stays until it is released or taken over, or until Cosmos DB ends its item after a day.
Until then the item tells whether the key was changed meanwhile, even if the lease was lost.
"""

from __future__ import annotations

from asynccache.stores.base import Claim, Claimed, Lease
from asynccache.stores.cosmos.items import CosmosItem, GenerationText, LeaseText
from asynccache.stores.cosmos.keys import CosmosKeys, Wanted


async def claim_lease(keys: CosmosKeys, claim: Claim) -> Claimed:
    """Claim a key's lease, and look for its entry on the way."""
    key, token, held = claim.key, claim.token, keys.link.held
    lease, new = LeaseText(token.hex()), GenerationText()
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
        return item.live(keys.now()), lease, item.generation or new

    before, etag = await keys.change(key, step, None if look else nothing)
    if etag is None:
        if before.held_by(token):  # the answer to an earlier attempt was lost
            name = before.generation.name if before.generation else ""
            return Claimed(granted=True, entry=entry, generation=name.encode())
        return Claimed(granted=False, entry=entry, holder=before.holder(key))
    generation = before.generation or new
    if before.live(keys.now()) is None:
        keys.link.own[before.id, token] = CosmosItem(
            id=before.id, etag=etag, lease=lease, generation=generation
        )
    return Claimed(granted=True, entry=entry, generation=generation.name.encode())


async def renew_lease(keys: CosmosKeys, lease: Lease) -> bool:
    """Raise a lease's renewal count; False where it is lost."""
    renewed: LeaseText | None = None

    async def step(item: CosmosItem) -> Wanted | None:
        nonlocal renewed
        ours = item.held_by(lease.token)
        if ours is None:
            return None
        renewed = LeaseText(ours.token, ours.renewals + 1)
        return item.entry, renewed, item.generation

    own = keys.remembered(lease.key, lease.token)
    before, etag = await keys.change(lease.key, step, own)
    if etag is not None and before.entry is None:
        keys.link.own[before.id, lease.token] = CosmosItem(
            id=before.id, etag=etag, lease=renewed, generation=before.generation
        )
    return etag is not None


async def release_lease(keys: CosmosKeys, lease: Lease) -> None:
    """Give a lease back; one that another token holds is left alone."""

    async def step(item: CosmosItem) -> Wanted | None:
        if item.held_by(lease.token) is None:
            return None
        entry, generation = item.live(keys.now()), item.generation
        if entry is None and generation is not None and not generation.keep:
            generation = None  # it was this lease's, and goes with it
        return entry, None, generation

    await keys.change(lease.key, step, keys.remembered(lease.key, lease.token))
