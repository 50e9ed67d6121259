"""The Cosmos DB store: entries and leases in one container, for all who have access to it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Final, TypeVar

from asynccache.errors import StoreRefusedError
from asynccache.keys.key import Namespace
from asynccache.runtime.clock import SYSTEM_CLOCK, Clock
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
from asynccache.stores.cosmos.container import ContainerPlace
from asynccache.stores.cosmos.held import Held
from asynccache.stores.cosmos.items import text_bytes
from asynccache.stores.cosmos.keys import Keys
from asynccache.stores.cosmos.leases import Leasing
from asynccache.stores.cosmos.link import CosmosLink, Meter, checked_address
from asynccache.stores.cosmos.lookups import CosmosLookups
from asynccache.stores.links import Links

T = TypeVar("T")
HashableT = TypeVar("HashableT", bound=Hashable)

DEFAULT_DATABASE: Final = "autogen_cache"  # AutoGen's
DEFAULT_CONTAINER: Final = "asynccache"
_FIRST_POLL: Final = 0.25  # seconds: reads cost money, and models take their time
_LONGEST_POLL: Final = 1.2  # seconds: with jitter a second, and twelve polls in ten
_BATCH: Final = 1000  # keys in one query, the most that the SDK puts into one
_BATCH_BYTES: Final = 2 * 2**20  # of entries in one query, as far as that is known before


class CosmosStore(Store):
    """Entries in a container of Azure Cosmos DB for NoSQL.

    Each event loop has a client of its own; a client of the user's own serves the loop that uses it
    first.

    Args:
        connection_string: As the portal shows it.
        container_id: Where answers are kept.
        database_id: Where the container is.
        endpoint: The account's address, with a ``credential``, instead of a connection string.
        credential: A key, or a token credential of ``azure.identity.aio``, which is not closed.
        client: An ``azure.cosmos.aio.CosmosClient`` to be used as it is, and not closed.
        create: Make database and container when they are missing.
        expiring: Entries will expire: refuse a container that can't end them.
        timeout: Seconds until a request counts as unanswered.
        clock: Tells how long an entry has still to live.

    Raises:
        TypeError: ``client`` is no client of azure-cosmos's ``aio``.
        ValueError: Nothing says where the account is, or too much does.
    """

    capabilities = Capabilities(leases=True, releases=True, glances=True, durable=True, remote=True)

    def __init__(
        self,
        connection_string: str | None = None,
        container_id: str = DEFAULT_CONTAINER,
        *,
        database_id: str = DEFAULT_DATABASE,
        endpoint: str | None = None,
        credential: object = None,
        client: object = None,
        create: bool = True,
        expiring: bool = False,
        timeout: float = 1.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        address = checked_address(connection_string, endpoint, credential, client)
        place = ContainerPlace(database_id, container_id, create, expiring)
        self._read_only = False
        self._meter = Meter()

        def make() -> CosmosLink:
            return CosmosLink(
                address, place, timeout=timeout, meter=self._meter, read_only=self._read_only
            )

        lent = (
            "the client that was given belongs to another event loop:"
            " give a connection_string or a credential instead, and each loop gets its own"
        )
        self._links = Links(make, only_one=None if client is None else lent)
        self._clock = clock
        self._held = Held()
        self._opening = 0
        self._mean = 1024.0  # bytes of an entry, as far as has been seen

    # -- opening and closing -------------------------------------------------------------------

    async def open(self, *, read_only: bool = False) -> None:
        """Find the container, or make it.

        Raises:
            StoreRefusedError: It is missing or unfit; the message says what to change.
            StoreError: Cosmos DB can't be used; the message says why.
        """
        was_open = self._links.are_open
        self._read_only = read_only
        if not was_open:
            self._meter.reset()
        self._links.open()
        self._opening += 1
        try:
            await self._links.mine().form()
        except BaseException:
            if not was_open and self._opening == 1:  # nobody else is trying at the moment
                await self._links.aclose()
            raise
        finally:
            self._opening -= 1

    async def aclose(self) -> None:
        """Close the clients of all loops, each in its own loop."""
        await self._links.aclose()

    def counters(self) -> dict[Counted, int]:
        """Return how many requests were made, and their request units, rounded up."""
        return {
            "requests": self._meter.requests,
            "request_units": math.ceil(self._meter.charge),
        }

    async def _keys(self, namespace: Namespace) -> Keys:
        link = self._links.mine()
        return Keys(link, await link.form(), namespace, clock=self._clock, held=self._held)

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
                place = Keys(link, await link.form(), namespace, clock=self._clock, held=self._held)
                bodies = await place.bodies(keys)
                for body in bodies:
                    if body is not None:
                        self._mean += (len(body) - self._mean) / 64
                return bodies

            lookups = link.lookups[namespace] = CosmosLookups(read, lambda: self.batch, link.spawn)
        return await lookups.get(keys)

    async def head_many(self, namespace: Namespace, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return envelopes; Cosmos DB sends no more of the entries."""
        place = await self._keys(namespace)
        heads: dict[bytes, bytes | None] = {}
        unique = list(dict.fromkeys(keys))
        for start in range(0, len(unique), _BATCH):
            heads.update(await place.heads(unique[start : start + _BATCH]))
        return [heads.get(key) for key in keys]

    async def set_many(self, namespace: Namespace, records: Sequence[Record]) -> list[bool]:
        """Write entries, and give back the leases that they name, in one step each."""
        place = await self._keys(namespace)
        if not self._links.mine().expires and any(record.expires for record in records):
            raise StoreRefusedError(
                "the container has its time to live switched off, so that no ttl would work:"
                " set its default TTL to -1 (on, no default)"
            )
        return await _each(records, lambda record: record.key, place.put)

    async def delete_many(self, namespace: Namespace, keys: Sequence[bytes]) -> int:
        """Remove entries, and the parts of those that are split."""
        place = await self._keys(namespace)
        removed: list[bool] = await _each(list(dict.fromkeys(keys)), lambda key: key, place.remove)
        return sum(removed)

    async def clear(self, namespace: Namespace) -> int:
        """Remove the entries of this namespace, a page at a time, and parts that belong to none."""
        place = await self._keys(namespace)
        cleared, cursor = 0, None
        while True:
            rows, cursor = await place.page(cursor, parts=True)
            removed: list[bool] = await _each(rows, lambda row: row.id, place.remove_row)
            cleared += sum(removed)
            if cursor is None:
                return cleared

    async def scan(self, namespace: Namespace, cursor: str | None = None) -> Page:
        """Return a page of envelopes."""
        place = await self._keys(namespace)
        rows, cursor = await place.page(cursor, parts=False)
        now = self._clock.time_us()
        envelopes = [text_bytes(row.head) for row in rows if row.is_live(now)]
        return Page(envelopes=envelopes, cursor=cursor)

    # -- leases --------------------------------------------------------------------------------

    async def claim(
        self, namespace: Namespace, claims: Sequence[Claim], ttl: float
    ) -> list[Claimed]:
        """Claim leases by creating their keys' items, and look for their entries on the way."""
        leasing = Leasing(await self._keys(namespace), ttl)
        return await _each(claims, lambda claim: claim.key, leasing.claim)

    async def renew(self, namespace: Namespace, leases: Sequence[Lease], ttl: float) -> list[bool]:
        """Raise renewal counts, where nobody has changed the item meanwhile or it is ours yet."""
        leasing = Leasing(await self._keys(namespace), ttl)
        return await _each(leases, lambda lease: lease.key, leasing.renew)

    async def release(self, namespace: Namespace, leases: Sequence[Lease]) -> None:
        """Give leases back: their items go, or keep their entries alone."""
        leasing = Leasing(await self._keys(namespace), 0)
        await _each(leases, lambda lease: lease.key, leasing.release)


async def _each(
    items: Sequence[T],
    named: Callable[[T], HashableT],
    work: Callable[[T], Awaitable[Any]],
) -> list[Any]:
    """Work on all at once, on those of the same name one after the other; results in order.

    Raises:
        BaseException: What the work on one raised, when all others are done.
    """
    groups: dict[HashableT, list[int]] = {}
    for at, item in enumerate(items):
        groups.setdefault(named(item), []).append(at)
    results: list[Any] = [None] * len(items)

    async def one(group: list[int]) -> None:
        for at in group:
            results[at] = await work(items[at])

    if len(groups) == 1:
        await one(next(iter(groups.values())))
        return results
    ended = await asyncio.gather(*map(one, groups.values()), return_exceptions=True)
    for failure in ended:
        if isinstance(failure, BaseException):
            raise failure
    return results
