"""The Cosmos DB store: entries and leases in one container, for all who have access to it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from asynccache.errors import StoreRefusedError
from asynccache.keys.key import Namespace
from asynccache.runtime.batcher import Batcher
from asynccache.runtime.clock import SYSTEM_CLOCK, Clock
from asynccache.runtime.pacer import Pacer
from asynccache.stores.base import (
    Capabilities,
    Claim,
    Claimed,
    Counted,
    Lease,
    Page,
    Record,
    Store,
)
from asynccache.stores.cosmos.account import ContainerPlace, CosmosAccount
from asynccache.stores.cosmos.keys import CosmosKeys, all_of
from asynccache.stores.cosmos.leases import claim_lease, release_lease, renew_lease
from asynccache.stores.cosmos.link import CosmosLink, Meter
from asynccache.stores.links import Links
from asynccache.stores.near import dropping_copies

T = TypeVar("T")

_FIRST_POLL: Final = 0.25  # seconds: reads cost money, and models take their time
_LONGEST_POLL: Final = 1.2  # seconds: with jitter a second, and twelve polls in ten
_LOOKUPS: Final = 2  # under way in one loop: more would each ask for less, and cost a request
_BATCH: Final = 1000  # keys in one query, the most that the SDK puts into one
_BATCH_BYTES: Final = 2 * 2**20  # of entries in one query, as far as that is known before
_LENT: Final = (
    "the client that was given belongs to another event loop:"
    " give a connection_string or a credential instead, and each loop gets its own"
)


class CosmosStore(Store):
    """Entries in a container of Azure Cosmos DB for NoSQL.

    Each event loop has a client of its own; a client of the user's own serves the loop that uses it
    first.

    Args:
        account: How the account is reached.
        place: Where in it answers are kept.
        timeout: Seconds until a request counts as unanswered.
        clock: Tells how long an entry has still to live.
    """

    capabilities = Capabilities(
        leases=True, generations=True, releases=True, glances=True, durable=True, remote=True
    )

    def __init__(
        self,
        account: CosmosAccount,
        place: ContainerPlace,
        *,
        timeout: float = 1.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._read_only = False
        self._meter = Meter()

        def make() -> CosmosLink:
            found = replace(place, create=False) if self._read_only else place
            return CosmosLink(account, found, timeout=timeout, clock=clock, meter=self._meter)

        self._links = Links(make, only_one=None if account.lent is None else _LENT)
        self._mean = 1024.0  # bytes of an entry, as far as has been seen

    # -- opening and closing -------------------------------------------------------------------

    async def open(self, *, read_only: bool = False) -> None:
        """Find the container, or make it.

        Raises:
            StoreRefusedError: It is missing or unfit; the message says what to change.
            StoreError: Cosmos DB can't be used; the message says why.
        """
        self._read_only = read_only
        if not self._links.are_open:
            self._meter = Meter()
        await self._links.open(CosmosLink.container)

    async def aclose(self) -> None:
        """Close the clients of all loops, each in its own loop."""
        await self._links.aclose()

    def counters(self) -> dict[Counted, int]:
        """Return how many requests were made, and their request units, rounded up."""
        return {
            "requests": self._meter.requests,
            "request_units": math.ceil(self._meter.charge),
        }

    async def _keys(self, namespace: Namespace) -> CosmosKeys:
        link = self._links.mine()
        return CosmosKeys(link, await link.container(), namespace)

    # -- entries -------------------------------------------------------------------------------

    @property
    def polls(self) -> tuple[float, float]:
        """Who waits looks rarely: a second passes between looks in the end."""
        return _FIRST_POLL, _LONGEST_POLL

    @property
    def batch(self) -> int:
        """How many keys one lookup should ask for, so that large entries don't hold up others."""
        return max(1, min(_BATCH, int(_BATCH_BYTES / self._mean)))

    async def get_many(self, namespace: Namespace, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return entries: a point read for a few, a query for many."""
        link = self._links.mine()
        lookups = link.lookups.get(namespace)
        if lookups is None:

            async def read(keys: Sequence[bytes]) -> list[bytes | None]:
                bodies = await (await self._keys(namespace)).bodies(keys)
                for body in filter(None, bodies):
                    self._mean += (len(body) - self._mean) / 64
                return bodies

            lookups = link.lookups[namespace] = Batcher(
                read, pacer=Pacer(link.loop), spawn=link.spawn,
                limit=lambda: self.batch, shared=True, at_once=_LOOKUPS,
            )  # fmt: skip
        return await asyncio.gather(*map(lookups.submit, keys))

    async def head_many(self, namespace: Namespace, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return envelopes; Cosmos DB sends no more of the entries."""
        place = await self._keys(namespace)
        heads: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _BATCH):
            heads.update(await place.heads(keys[start : start + _BATCH]))
        return [heads.get(key) for key in keys]

    async def set_many(self, namespace: Namespace, records: Sequence[Record]) -> list[bool]:
        """Write entries, and give back the leases that they name, in one step each."""
        place = await self._keys(namespace)
        if not place.expires and any(record.expires for record in records):
            raise StoreRefusedError(
                "the container has its time to live switched off, so that no ttl would work:"
                " set its default TTL to -1 (on, no default)"
            )
        with dropping_copies(namespace, [record.key for record in records]):
            return await _each(records, place.put)

    async def delete_many(self, namespace: Namespace, keys: Sequence[bytes]) -> int:
        """Remove entries, and the parts of those that are split."""
        place = await self._keys(namespace)
        with dropping_copies(namespace, keys):
            return sum(await all_of(map(place.remove, dict.fromkeys(keys))))

    async def clear(self, namespace: Namespace) -> int:
        """Remove the entries of this namespace, a page at a time, and parts that belong to none.

        Leases stay, without their generations.
        """
        place = await self._keys(namespace)
        cleared = 0
        cursor: str | None = ""
        while cursor is not None:
            items, cursor = await place.page(cursor, "")
            with dropping_copies(namespace, None):
                cleared += sum(await all_of(map(place.remove_listed, items)))
        return cleared

    async def scan(self, namespace: Namespace, cursor: str | None = None) -> Page:
        """Return a page of envelopes."""
        place = await self._keys(namespace)
        items, cursor = await place.page(cursor)
        envelopes = [envelope for _, envelope in place.envelopes(items)]
        return Page(envelopes=envelopes, cursor=cursor)

    # -- generations and leases ----------------------------------------------------------------

    async def generations(
        self, namespace: Namespace, keys: Sequence[bytes], *, renew: bool = False
    ) -> list[bytes]:
        """Return the generation of each key, a new one if asked."""
        place = await self._keys(namespace)
        unique = list(dict.fromkeys(keys))
        read = await all_of(place.generation(key, renew=renew) for key in unique)
        found = dict(zip(unique, read, strict=True))
        return [found[key] for key in keys]

    async def claim(
        self, namespace: Namespace, claims: Sequence[Claim], ttl: float
    ) -> list[Claimed]:
        """Claim leases by creating their keys' items, and look for their entries on the way."""
        place = await self._keys(namespace)
        return await _each(claims, lambda claim: claim_lease(place, claim))

    async def renew(self, namespace: Namespace, leases: Sequence[Lease], ttl: float) -> list[bool]:
        """Raise renewal counts, where nobody has changed the item meanwhile or it is ours yet."""
        place = await self._keys(namespace)
        return await _each(leases, lambda lease: renew_lease(place, lease))

    async def release(self, namespace: Namespace, leases: Sequence[Lease]) -> None:
        """Give leases back: their items go, or keep their entries alone."""
        place = await self._keys(namespace)
        await _each(leases, lambda lease: release_lease(place, lease))


async def _each(items: Sequence[Any], work: Callable[[Any], Awaitable[T]]) -> list[T]:
    """Work on all at once, on those of one key one after the other; return results in order.

    Raises:
        BaseException: What the work on one raised, when all others are done.
    """
    groups: dict[bytes, list[int]] = {}
    for at, item in enumerate(items):
        groups.setdefault(item.key, []).append(at)

    async def one(group: list[int]) -> list[tuple[int, T]]:
        return [(at, await work(items[at])) for at in group]

    done = await all_of(map(one, groups.values()))
    results = dict(pair for group in done for pair in group)
    return [results[at] for at in range(len(items))]
