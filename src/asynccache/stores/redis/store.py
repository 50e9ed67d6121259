"""The Redis store: entries and leases in one Redis or Valkey, or a cluster, for many machines."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from asynccache.entries.entry import ENVELOPE_BYTES
from asynccache.keys.key import Namespace
from asynccache.runtime.clock import SYSTEM_CLOCK, Clock
from asynccache.stores.base import Capabilities, Claim, Claimed, Lease, Page, Record, Store
from asynccache.stores.links import Links
from asynccache.stores.near import dropping_copies
from asynccache.stores.redis.address import RedisAddress
from asynccache.stores.redis.client import belongs
from asynccache.stores.redis.keys import CHANNEL, names_of
from asynccache.stores.redis.link import RedisLink
from asynccache.stores.redis.scan import Scans
from asynccache.stores.redis.scripts import (
    CLAIM,
    DELETE,
    READ,
    RELEASE,
    RENEW,
    STORE,
    expected,
    lease_in,
)

DEFAULT_URL: Final = "redis://localhost:6379/0"
DEFAULT_CONNECTIONS: Final = 8  # to one server and loop: two keep it busy, more let large ones pass
_BATCH: Final = 256  # commands or keys in one round trip
_BATCH_BYTES: Final = 2**20  # of entries in one round trip, as far as that is known before
_LENT: Final = (
    "the client that was given belongs to another event loop: give redis_url instead, and each loop"
    " gets connections of its own"
)
_SLACK: Final = 0.02  # seconds beyond a lease's end until who waits claims it


class RedisStore(Store):
    """Entries in Redis 6.2 or Valkey 7.2 and later, shared by everybody who has the address.

    Each event loop has connections of its own; a client of the user's own serves the loop that
    uses it first.

    Args:
        url: Where Redis is; `asynccache.Cache.redis` lists the forms.
        client: A ``redis.asyncio.Redis`` or ``RedisCluster`` to be used as it is, and not closed.
        timeout: Seconds until a command counts as unanswered.
        max_connections: To one server, in one loop; who needs one more waits.
        clock: Tells how long an entry has still to live when it is set.

    Raises:
        TypeError: ``client`` is none of redis-py's asynchronous clients.
        ValueError: The URL says nothing that Redis could be reached by.
    """

    capabilities = Capabilities(
        leases=True, messages=True, generations=True, releases=True, expires=True, durable=True,
        remote=True,
    )  # fmt: skip

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        client: object | None = None,
        timeout: float = 1.0,
        max_connections: int = DEFAULT_CONNECTIONS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if client is not None and not belongs(client):
            raise TypeError(
                "client must be a redis.asyncio.Redis or RedisCluster,"
                f" not {type(client).__module__}.{type(client).__qualname__}"
            )
        address = RedisAddress.of(url)
        self._links = Links(
            lambda: RedisLink(address, client, timeout=timeout, limit=max_connections),
            only_one=None if client is None else _LENT,
        )
        self._timeout = timeout
        self._clock = clock
        self._scans = Scans()
        self._mean = 1024.0  # bytes of an entry, as far as has been seen

    # -- opening and closing -------------------------------------------------------------------

    async def open(self, *, read_only: bool = False) -> None:
        """Ask Redis for a key, so that what is wrong with the address shows now.

        Raises:
            StoreError: Redis can't be used; the message says why.
        """
        await self._links.open(lambda link: link.ask([0], [(b"MGET", b"asynccache:{00}:open")]))

    async def aclose(self) -> None:
        """Close the connections of all loops, each in its own loop."""
        await self._links.aclose()

    # -- entries -------------------------------------------------------------------------------

    @property
    def batch(self) -> int:
        """How many keys one lookup should ask for, so that large entries don't hold up others."""
        return max(1, min(_BATCH, int(_BATCH_BYTES / self._mean)))

    async def get_many(self, namespace: Namespace, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return entries: one command for all, or one for each slot of a cluster."""
        link = self._links.mine()
        entry = names_of(namespace).entry
        if len(keys) == 1:
            # The guard has set a deadline to lookups; a second one would cost what it saves.
            ((found,),) = await link.ask([keys[0][0]], [(b"MGET", entry(keys[0]))], bounded=False)
            return [found]
        unique = list(dict.fromkeys(keys))
        bodies: dict[bytes, bytes | None] = {}
        start = 0
        while start < len(unique):
            part = unique[start : start + self.batch]
            start += len(part)
            groups = link.grouped(part)
            commands = [(b"MGET", *(entry(part[at]) for at in group)) for group in groups]
            replies = await link.ask([part[group[0]][0] for group in groups], commands)
            for group, reply in zip(groups, replies, strict=True):
                for at, body in zip(group, reply, strict=True):
                    bodies[part[at]] = body
                    if body is not None:
                        self._mean += (len(body) - self._mean) / 64
        return [bodies[key] for key in keys]

    async def head_many(self, namespace: Namespace, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return envelopes; Redis sends no more of the entries."""
        link = self._links.mine()
        return await self._heads(link, [names_of(namespace).entry(key) for key in keys], keys)

    async def _heads(
        self, link: RedisLink, names: Sequence[bytes], keys: Sequence[bytes]
    ) -> list[bytes | None]:
        heads: list[bytes | None] = []
        end = b"%d" % (ENVELOPE_BYTES - 1)
        for start in range(0, len(keys), _BATCH):
            part = names[start : start + _BATCH]
            tags = [key[0] for key in keys[start : start + _BATCH]]
            # What isn't there looks empty: only EXISTS tells it from an entry without a byte.
            replies = await link.ask(
                [tag for tag in tags for _ in range(2)],
                [
                    command
                    for name in part
                    for command in ((b"GETRANGE", name, b"0", end), (b"EXISTS", name))
                ],
            )
            found = zip(replies[::2], replies[1::2], strict=True)
            heads.extend(head if there else None for head, there in found)
        return heads

    async def set_many(self, namespace: Namespace, records: Sequence[Record]) -> list[bool]:
        """Write entries, and give back the leases that they name, in one step each."""
        link = self._links.mine()
        names = names_of(namespace)
        now = self._clock.time_us()
        written: list[bool] = []
        tags: list[int] = []
        arguments: list[tuple[bytes, ...]] = []
        size = 0

        async def send() -> None:
            with dropping_copies(namespace, [record.key for record in records]):
                written.extend(reply == 1 for reply in await link.run(STORE, tags, arguments))
            tags.clear()
            arguments.clear()

        for record in records:
            key, body = record.key, record.body
            if arguments and (len(arguments) == _BATCH or size + len(body) > _BATCH_BYTES):
                await send()
                size = 0
            size += len(body)
            tags.append(key[0])
            arguments.append((
                names.entry(key), names.lease(key), names.generations[key[0]],
                CHANNEL, names.message(key), b"" if record.lease is None else record.lease.token,
                body, _milliseconds(record.expires, now), b"1" if record.if_absent else b"0",
                record.generation or b"",
            ))  # fmt: skip
        if arguments:
            await send()
        return written

    async def delete_many(self, namespace: Namespace, keys: Sequence[bytes]) -> int:
        """Remove entries, and wake who waits for them."""
        link = self._links.mine()
        names = names_of(namespace)
        deleted = 0
        for start in range(0, len(keys), _BATCH):
            part = keys[start : start + _BATCH]
            arguments = [
                (names.entry(key), names.lease(key), names.generations[key[0]],
                 CHANNEL, names.message(key), b"")
                for key in part
            ]  # fmt: skip
            with dropping_copies(namespace, part):
                deleted += sum(await link.run(DELETE, [key[0] for key in part], arguments))
        return deleted

    async def clear(self, namespace: Namespace) -> int:
        """Remove the entries that ``SCAN`` finds, a batch at a time; nobody else's keys.

        The generations go first, so that nothing that was begun before is stored after it.
        """
        link = self._links.mine()
        names = names_of(namespace)
        await link.ask(range(256), [(b"UNLINK", name) for name in names.generations])
        cleared = 0
        with dropping_copies(namespace, None):
            async for keys in self._scans.walk(link, names):
                groups = link.grouped(keys)
                each = [(b"UNLINK", *(names.entry(keys[at]) for at in group)) for group in groups]
                cleared += sum(await link.ask([keys[group[0]][0] for group in groups], each))
        return cleared

    async def scan(self, namespace: Namespace, cursor: str | None = None) -> Page:
        """Return a page of envelopes. A cursor is good in the process that it was given in."""
        link = self._links.mine()
        names = names_of(namespace)
        keys, cursor = await self._scans.page(link, names, cursor)
        heads = await self._heads(link, [names.entry(key) for key in keys], keys)
        return Page(envelopes=[head for head in heads if head is not None], cursor=cursor)

    # -- generations and leases ----------------------------------------------------------------

    async def generations(
        self, namespace: Namespace, keys: Sequence[bytes], *, renew: bool = False
    ) -> list[bytes]:
        """Return the generation of each key, a new one if asked."""
        link = self._links.mine()
        names = names_of(namespace)
        read: list[bytes] = []
        for start in range(0, len(keys), _BATCH):
            part = keys[start : start + _BATCH]
            arguments = [
                (names.generations[key[0]], secrets.token_bytes(16),
                 names.message(key) if renew else b"")
                for key in part
            ]  # fmt: skip
            read.extend(await link.run(READ, [key[0] for key in part], arguments))
        return read

    async def claim(
        self, namespace: Namespace, claims: Sequence[Claim], ttl: float
    ) -> list[Claimed]:
        """Claim leases and look for their entries, one step each; Redis ends them after ``ttl``."""
        link = self._links.mine()
        names = names_of(namespace)
        lasting = _lasting(ttl)
        answers: list[Claimed] = []
        for start in range(0, len(claims), _BATCH):
            part = claims[start : start + _BATCH]
            arguments = [
                (names.entry(claim.key), names.lease(claim.key),
                 names.generations[claim.key[0]], claim.token, lasting, expected(claim.expect))
                for claim in part
            ]  # fmt: skip
            replies = await link.run(CLAIM, [claim.key[0] for claim in part], arguments)
            for claim, (held, entry, generation) in zip(part, replies, strict=True):
                holder = None if held is None else lease_in(claim.key, held)
                answers.append(
                    Claimed(granted=held is None, entry=entry, holder=holder, generation=generation)
                )
        return answers

    async def renew(self, namespace: Namespace, leases: Sequence[Lease], ttl: float) -> list[bool]:
        """Raise renewal counts, and let the leases last for ``ttl`` again."""
        link = self._links.mine()
        names = names_of(namespace)
        lasting = _lasting(ttl)
        renewed: list[bool] = []
        for start in range(0, len(leases), _BATCH):
            part = leases[start : start + _BATCH]
            arguments = [(names.lease(lease.key), lease.token, lasting) for lease in part]
            replies = await link.run(RENEW, [lease.key[0] for lease in part], arguments)
            renewed.extend(reply == 1 for reply in replies)
        return renewed

    async def release(self, namespace: Namespace, leases: Sequence[Lease]) -> None:
        """Give leases back, and wake who waits for them."""
        link = self._links.mine()
        names = names_of(namespace)
        for start in range(0, len(leases), _BATCH):
            part = leases[start : start + _BATCH]
            arguments = [
                (names.entry(lease.key), names.lease(lease.key), CHANNEL,
                 names.message(lease.key), lease.token)
                for lease in part
            ]  # fmt: skip
            await link.run(RELEASE, [lease.key[0] for lease in part], arguments)

    async def wait(self, namespace: Namespace, key: bytes, timeout: float) -> None:
        """Return when a message says so, when the lease runs out, or after ``timeout``."""
        link = self._links.mine()
        names = names_of(namespace)
        waker, message = link.waker, names.message(key)
        woken = waker.enter(message)
        try:
            await waker.hearing(min(timeout, self._timeout))
            # Looked at only now: what ends from here on is heard.
            left = await link.left(key, names.lease(key))
            if left > 0:
                await waker.sleep(woken, min(timeout, left + _SLACK))
        finally:
            waker.leave(message, woken)


def _lasting(ttl: float) -> bytes:
    return b"%d" % max(1, round(ttl * 1000))


def _milliseconds(expires: int, now: int) -> bytes:
    """Return how long an entry lasts, in milliseconds, for `STORE`."""
    if not expires:
        return b"0"
    return b"-1" if expires <= now else b"%d" % -((now - expires) // 1000)
