"""One event loop's way to one namespace of a store: sound entries in, guarded batches out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from asynccache.core.context import LoopContext
from asynccache.entries.entry import Entry, Flaw, decode_entry
from asynccache.keys.key import Namespace
from asynccache.runtime.batcher import Batcher
from asynccache.runtime.bounded import BoundedDict
from asynccache.stores.base import UNKNOWN, Claim, Claimed, Lease, Record, Unknown

T = TypeVar("T")

_LARGE: Final = 256 * 1024  # bytes: above, an entry is checked off the loop
_KNOWN: Final = 1024  # entries that were checked, and needn't be while their bytes are the same
_KNOWN_BYTES: Final = 16 * 1024  # bytes of the largest: all together stay below 16 MiB
_PATIENT: Final = 10  # times store_timeout: for writes, which no caller waits for
_WRITES: Final = 4096  # records: a turn's writes leave together, as one transaction if they can
_WRITTEN: Final = 8 * 2**20  # bytes of them, so that large ones don't hold the rest up
_RECORD: Final = _WRITTEN // _WRITES  # bytes that even a small record counts as


class StoreClient:
    """What flights and values ask of a store, in one namespace.

    A failing store answers like an empty one (see `CircuitBreaker`), so nothing here raises but
    `insist`, and what a strict breaker lets through. Single items travel with their turn's others.
    """

    __slots__ = (
        "__weakref__", "_accepted", "_claims", "_context", "_dropped", "_generations", "_known",
        "_now", "_reads", "_rejected", "_stable", "_writes", "_writing", "namespace", "store",
    )  # fmt: skip

    def __init__(self, context: LoopContext, namespace: Namespace) -> None:
        self.store: Final = context.store
        self.namespace: Final = namespace
        self._context = context
        self._stable = context.store.capabilities.stable
        self._now = None if context.store.capabilities.expires else context.clock.time_us
        self._known: BoundedDict[bytes, tuple[bytes, Entry]] = BoundedDict(_KNOWN)
        # By key: answers that callers couldn't use, and answers that they could.
        self._rejected: BoundedDict[bytes, tuple[int, int]] = BoundedDict(_KNOWN)
        self._accepted: BoundedDict[bytes, tuple[int, int]] = BoundedDict(_KNOWN)
        self._writing: dict[bytes, dict[int, asyncio.Future[bool | None]]] = {}  # by ids of records
        self._dropped: set[int] = set()  # ids of records that are not to be written any more
        pacer, spawn, store = context.pacer, context.spawn, context.store

        def limit() -> int:
            return store.batch

        self._reads: Batcher[bytes, bytes | Unknown | None] = Batcher(
            self._get_many, pacer=pacer, spawn=spawn, limit=limit, shared=True
        )
        self._generations: Batcher[tuple[bytes, bool], bytes | None] = Batcher(
            self._read_generations, pacer=pacer, spawn=spawn, limit=limit
        )
        self._writes: Batcher[Record, bool | None] = Batcher(
            self._set_many, pacer=pacer, spawn=spawn, limit=lambda: _WRITTEN, weigh=_weight
        )
        self._claims: Batcher[Claim, Claimed | None] = Batcher(
            self._claim_many, pacer=pacer, spawn=spawn, limit=limit
        )

    # -- reading -----------------------------------------------------------------------------

    def peek(self, key: bytes, *, replayed: bool = False) -> Entry | Unknown | None:
        """Look an entry up without waiting; UNKNOWN where only `look_up` can tell.

        What is unusable is found only if it is to be ``replayed``; so in all ways to look.
        """
        try:
            data = self.store.peek(self.namespace, key)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is the store's failure
            breaker = self._context.breaker
            error = breaker.note(exc, self._context.counters)
            if breaker.strict:
                raise error from error.__cause__
            return UNKNOWN
        if data is None or isinstance(data, Unknown):
            return data
        if not self._stable:
            return self._sound(key, data, replayed=replayed)
        known = self._known.get(key)
        if known is not None and known[0] is data and not known[1].expires:
            return known[1]
        entry = self._sound(key, data, replayed=replayed)
        if entry is not None and len(data) <= _KNOWN_BYTES and not self._is_unusable(entry):
            self._known[key] = (data, entry)
        return entry

    def look_up(self, key: bytes) -> asyncio.Future[bytes | Unknown | None]:
        """Have an entry looked up, together with this turn's other lookups; see `found`."""
        return self._reads.submit(key)

    async def found(
        self,
        key: bytes,
        looked_up: asyncio.Future[bytes | Unknown | None],
        *,
        replayed: bool = False,
    ) -> Entry | Unknown | None:
        """Return the entry that was looked up; UNKNOWN where the store couldn't tell."""
        data = await looked_up
        if data is None or isinstance(data, Unknown):
            return data
        return await self.checked(key, data, replayed=replayed)

    async def checked(self, key: bytes, data: bytes, *, replayed: bool = False) -> Entry | None:
        """Return the entry that bytes hold for a key, None for a flaw.

        Large ones are checked in a thread: summing and unpacking them would hold the loop.
        """
        if len(data) > _LARGE:
            return await asyncio.to_thread(self._sound, key, data, replayed=replayed)
        return self._sound(key, data, replayed=replayed)

    def _sound(self, key: bytes, data: bytes, *, replayed: bool) -> Entry | None:
        """Return the entry that bytes hold for a key; count what is wrong with them otherwise."""
        context = self._context
        found = decode_entry(data, key, now=self._now, max_bytes=context.limits.max_entry_bytes)
        if isinstance(found, Flaw):
            context.counters.flaws[found.reason] += 1
            return None
        if not replayed and self._is_unusable(found):
            context.counters.flaws["unusable"] += 1
            return None
        return found

    def _is_unusable(self, entry: Entry) -> bool:
        return entry.meta.unusable or (bool(self._rejected) and self.rejects(entry))

    # -- what callers think of answers -------------------------------------------------------

    def accept(self, entry: Entry) -> None:
        """Note that a caller could use an answer: another's failure doesn't count then."""
        self._accepted[entry.key] = _identity(entry)
        if self._rejected and self.rejects(entry):
            del self._rejected[entry.key]

    def reject(self, entry: Entry) -> bool:
        """Find an answer no more, as a caller couldn't use it; False if another one could."""
        if self._accepted.get(entry.key) == _identity(entry):
            return False
        self._rejected[entry.key] = _identity(entry)
        self._known.pop(entry.key, None)
        return True

    def rejects(self, entry: Entry) -> bool:
        """Tell whether an answer is one that `reject` was told of."""
        return self._rejected.get(entry.key) == _identity(entry)

    async def all_found(
        self,
        looked_up: Sequence[tuple[int, bytes, asyncio.Future[bytes | Unknown | None]]],
        *,
        replayed: bool,
    ) -> list[tuple[int, Entry | None]]:
        """Return what lookups have found, by their place; None also where the store couldn't tell.

        Args:
            looked_up: Of each lookup its place among others, its key, and what `look_up` gave.
            replayed: As for `peek`.
        """
        pacer = self._context.pacer
        entries: list[tuple[int, Entry | None]] = []
        try:
            for at, key, future in looked_up:
                if pacer.is_due(len(entries)):
                    await pacer.slot()
                entry = await self.found(key, future, replayed=replayed)
                entries.append((at, None if isinstance(entry, Unknown) else entry))
        finally:  # of the rest, if this ends early, nobody wants to hear
            for *_, future in looked_up[len(entries) :]:
                if not future.cancel() and not future.cancelled():
                    future.exception()
        return entries

    # -- writing -----------------------------------------------------------------------------

    def set(self, record: Record) -> asyncio.Future[bool | None]:
        """Write a value that no flight has made; False if it was refused, None if that failed."""
        return self._writes.submit(record)

    def write(self, record: Record) -> asyncio.Future[bool | None]:
        """Do as `set`, and let `writing` tell of it from now on."""
        written = self._writes.submit(record)
        self._writing.setdefault(record.key, {})[id(record)] = written
        return written

    def drop(self, keys: Collection[bytes] | None) -> None:
        """Write nothing of what `write` was given for keys (None: all) and hasn't left yet."""
        for key in self._writing.keys() if keys is None else self._writing.keys() & keys:
            self._dropped.update(self._writing[key])

    async def write_alone(self, record: Record) -> bool | None:
        """Do as `set`, in a batch of its own."""
        return (await self._set_many([record]))[0]

    def writing(self, keys: Collection[bytes] | None) -> list[asyncio.Future[bool | None]]:
        """Return the writes under way for keys, all of them for None."""
        found = self._writing.keys() if keys is None else self._writing.keys() & keys
        return [
            written
            for key in found
            for written in self._writing[key].values()
            if not written.done()
        ]

    # -- generations and leases --------------------------------------------------------------

    async def generation(self, key: bytes, *, renew: bool = False) -> bytes | None:
        """Return a key's generation, a new one if asked; None if the store couldn't tell."""
        return await self._generations.submit((key, renew))

    def claim(self, claim: Claim) -> asyncio.Future[Claimed | None]:
        """Claim a lease; None if the store couldn't tell."""
        return self._claims.submit(claim)

    async def renew(self, leases: Sequence[Lease]) -> Sequence[bool | None]:
        """Renew leases; None for each if the store couldn't tell."""
        ttl = self._context.limits.lease_ttl
        unknown: list[bool | None] = [None] * len(leases)
        return await self._run(partial(self.store.renew, self.namespace, leases, ttl), unknown)

    async def release(self, leases: Sequence[Lease]) -> None:
        """Give leases back."""
        await self._run(partial(self.store.release, self.namespace, leases), None)

    async def wait(self, key: bytes, timeout: float) -> bool:
        """Wait for news of a key; False at once if the store can't tell."""

        async def news() -> bool:
            await self.store.wait(self.namespace, key, timeout)
            return True

        return await self._run(news, default=False, beyond=timeout)

    # -- the guarded way ---------------------------------------------------------------------

    async def insist(self, call: Callable[[], Awaitable[T]], *, bounded: bool = True) -> T:
        """Run what the user asked for by name, and raise if it fails.

        Not ``bounded`` is what takes longer the more there is: the caller may cancel it.
        """
        context = self._context
        timeout = context.limits.store_timeout * _PATIENT if bounded else None
        return await context.breaker.insist(call, timeout=timeout, counters=context.counters)

    async def _run(
        self,
        call: Callable[[], Awaitable[Any]],
        default: T,
        *,
        times: int = 1,
        beyond: float = 0,
        count: int | None = None,
    ) -> T:
        """Run a store's call within its time; return the default if it fails.

        Args:
            call: The store's call.
            default: What a store that fails is taken to say.
            times: How many times the store's usual time it may take.
            beyond: Seconds that it may take beyond that.
            count: How many results it has to return.
        """
        context = self._context
        timeout = context.limits.store_timeout * times + beyond
        return await context.breaker.run(
            call, default, timeout=timeout, counters=context.counters, count=count
        )

    async def _get_many(self, keys: list[bytes]) -> Sequence[bytes | Unknown | None]:
        unknown: list[bytes | Unknown | None] = [UNKNOWN] * len(keys)
        return await self._run(
            partial(self.store.get_many, self.namespace, keys), unknown, count=len(keys)
        )

    async def _read_generations(self, asked: list[tuple[bytes, bool]]) -> Sequence[bytes | None]:
        found: dict[tuple[bytes, bool], bytes | None] = {}
        for renew in (False, True):
            keys = [key for key, new in asked if new is renew]
            if keys:
                unknown: list[bytes | None] = [None] * len(keys)
                read = partial(self.store.generations, self.namespace, keys, renew=renew)
                numbers = await self._run(read, unknown, count=len(keys))
                found.update(zip([(key, renew) for key in keys], numbers, strict=True))
        return [found[one] for one in asked]

    async def _set_many(self, records: list[Record]) -> Sequence[bool | None]:
        kept = [record for record in records if id(record) not in self._dropped]
        try:
            unknown: list[bool | None] = [None] * len(kept)
            written: Sequence[bool | None] = await self._run(
                partial(self.store.set_many, self.namespace, kept),
                unknown,
                times=_PATIENT,
                count=len(kept),
            )
            if len(kept) == len(records):
                return written
            done = dict(zip(map(id, kept), written, strict=True))
            return [done.get(id(record), False) for record in records]
        finally:
            for record in records:
                writing = self._writing.get(record.key, {})
                writing.pop(id(record), None)
                if not writing:
                    self._writing.pop(record.key, None)
                self._dropped.discard(id(record))

    async def _claim_many(self, claims: list[Claim]) -> Sequence[Claimed | None]:
        nothing: list[Claimed | None] = [None] * len(claims)
        ttl = self._context.limits.lease_ttl
        return await self._run(
            partial(self.store.claim, self.namespace, claims, ttl), nothing, count=len(claims)
        )


def _identity(entry: Entry) -> tuple[int, int]:
    """Return what sets an answer apart from others under its key. The hash of bytes is kept."""
    return entry.created, hash(entry.chunks)


def _weight(record: Record) -> int:
    return max(_RECORD, len(record.body))
