"""The guarded, batched way from one event loop to one namespace of a store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from asynccache.core.breaker import CircuitBreaker
from asynccache.core.counters import Counters
from asynccache.errors import StoreUnavailableError
from asynccache.keys.key import Namespace
from asynccache.runtime.batcher import Batcher
from asynccache.runtime.pacer import Pacer
from asynccache.stores.base import UNKNOWN, Claim, Claimed, Lease, Record, Store, Unknown

T = TypeVar("T")

_PATIENT: Final = 10  # times store_timeout: for writes, which no caller waits for
_WRITES: Final = 4096  # records: a turn's writes leave together, as one transaction if they can
_WRITTEN: Final = 8 * 2**20  # bytes of them, so that large ones don't hold the rest up
_RECORD: Final = _WRITTEN // _WRITES  # bytes that even a small record counts as


class Lane:
    """What a flight asks of a store: one item each time, which travels with its turn's others.

    A failing store answers like an empty one (see `CircuitBreaker`), so nothing here raises but
    what a strict breaker lets through.
    """

    __slots__ = (
        "_claims",
        "_counters",
        "_guard",
        "_reads",
        "_timeout",
        "_writes",
        "namespace",
        "store",
    )

    def __init__(
        self,
        store: Store,
        namespace: Namespace,
        *,
        guard: CircuitBreaker,
        timeout: float,
        lease_ttl: float,
        counters: Counters,
        pacer: Pacer,
        spawn: Callable[[Any], asyncio.Task[None]],
    ) -> None:
        self.store = store
        self.namespace = namespace
        self._guard = guard
        self._timeout = timeout
        self._counters = counters

        async def read(keys: list[bytes]) -> Sequence[bytes | Unknown | None]:
            unknown: list[bytes | Unknown | None] = [UNKNOWN] * len(keys)
            return await self._run_batch(lambda: store.get_many(namespace, keys), unknown)

        async def write(records: list[Record]) -> Sequence[bool]:
            return await self._run_batch(
                lambda: store.set_many(namespace, records), [False] * len(records), _PATIENT
            )

        async def claim(claims: list[Claim]) -> Sequence[Claimed | None]:
            nothing: list[Claimed | None] = [None] * len(claims)
            return await self._run_batch(lambda: store.claim(namespace, claims, lease_ttl), nothing)

        def limit() -> int:
            return store.batch

        self._reads = Batcher(read, pacer=pacer, spawn=spawn, limit=limit, shared=True)
        self._writes = Batcher(write, pacer=pacer, spawn=spawn, limit=_most_written, weigh=_weight)
        self._claims = Batcher(claim, pacer=pacer, spawn=spawn, limit=limit)

    async def _run(self, call: Callable[[], Any], default: T, times: int = 1) -> T:
        return await self._guard.run(
            call, default, timeout=self._timeout * times, counters=self._counters
        )

    async def _run_batch(
        self, call: Callable[[], Awaitable[Sequence[T]]], default: list[T], times: int = 1
    ) -> Sequence[T]:
        async def complete() -> Sequence[T]:
            results = await call()
            if len(results) != len(default):
                raise StoreUnavailableError(
                    f"it gave {len(results)} results for {len(default)}: it broke its contract"
                )
            return results

        return await self._run(complete, default, times)

    def get(self, key: bytes) -> asyncio.Future[bytes | Unknown | None]:
        """Look an entry up; UNKNOWN if the store couldn't tell."""
        return self._reads.submit(key)

    def set(self, record: Record) -> asyncio.Future[bool]:
        """Write an entry; False if it wasn't."""
        return self._writes.submit(record)

    async def set_alone(self, record: Record) -> bool:
        """Write an entry in a batch of its own; False if it wasn't."""
        written = await self._run_batch(
            lambda: self.store.set_many(self.namespace, [record]), [False], _PATIENT
        )
        return written[0]

    def claim(self, claim: Claim) -> asyncio.Future[Claimed | None]:
        """Claim a lease; None if the store couldn't tell."""
        return self._claims.submit(claim)

    async def renew(self, leases: Sequence[Lease], ttl: float) -> Sequence[bool | None]:
        """Renew leases; None for each if the store couldn't tell."""
        unknown: list[bool | None] = [None] * len(leases)
        return await self._run(lambda: self.store.renew(self.namespace, leases, ttl), unknown)

    async def release(self, leases: Sequence[Lease]) -> None:
        """Give leases back."""
        await self._run(lambda: self.store.release(self.namespace, leases), None)

    async def wait(self, key: bytes, timeout: float) -> bool:
        """Wait for news of a key; False at once if the store can't tell."""

        async def news() -> bool:
            await self.store.wait(self.namespace, key, timeout)
            return True

        return await self._guard.run(
            news, default=False, timeout=timeout + self._timeout, counters=self._counters
        )

    async def insist(self, call: Callable[[], Any], *, bounded: bool = True) -> Any:  # noqa: ANN401 - whatever the call returns
        """Run what the user asked for by name, and raise if it fails.

        Not ``bounded`` is what takes longer the more there is: the caller may cancel it.
        """
        timeout = self._timeout * _PATIENT if bounded else None
        return await self._guard.insist(call, timeout=timeout, counters=self._counters)


def _most_written() -> int:
    return _WRITTEN


def _weight(record: Record) -> int:
    return max(_RECORD, len(record.body)) if isinstance(record.body, bytes) else _WRITTEN
