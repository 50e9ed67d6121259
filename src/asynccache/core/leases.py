"""Keeps the leases that an event loop holds in a store: claimed, renewed, handed on, released."""

from __future__ import annotations

import asyncio
import functools
import random
import secrets
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from asynccache.core.context import LoopContext
from asynccache.core.store_client import StoreClient
from asynccache.entries.entry import Entry
from asynccache.stores.base import Claim, Claimed, Lease, Unknown

_WOKEN_POLLS: Final = 4  # within one time-to-live, by those who are woken: a message may be lost
_LEAST: Final = 0.8  # of a poll's pause, that chance leaves: enough to keep waiters out of step
_RENEWALS: Final = 3  # within one time-to-live, so that one may fail


class HeldLease:
    """A claim of this loop, from the moment it is made. It outlives the flight that made it."""

    __slots__ = ("abandoned", "client", "contested", "lease", "lost", "operation", "renewed_at")

    def __init__(
        self,
        client: StoreClient,
        lease: Lease,
        operation: asyncio.Future[Claimed | None],
        now: float,
    ) -> None:
        self.client = client
        self.lease = lease
        self.operation = operation
        self.renewed_at = now
        self.lost = False
        self.contested = False  # another had it before, who may still bring an answer
        self.abandoned = False  # its flight is gone; the next one for the key may take it over

    @property
    def claimed(self) -> Claimed | None:
        """What the store has said to the claim, from the moment that it did."""
        # Of the operation itself: a callback would tell a turn too late those who wait no more.
        operation = self.operation
        if not operation.done() or operation.cancelled() or operation.exception() is not None:
            return None  # whoever waits for it is told
        return operation.result()

    @property
    def granted(self) -> bool:
        """Whether the store has granted the claim."""
        claimed = self.claimed
        return claimed is not None and claimed.granted


class Acquired(Struct, frozen=True):
    """The end of `LeaseManager.acquire`: an answer made elsewhere, or leave to make the call."""

    entry: Entry | bytes | None = None
    """Bytes where the store found them while granting the lease: they still have to be checked."""
    lease: HeldLease | None = None
    """None where the store gives no leases at the moment: everyone goes upstream."""
    waited: bool = False
    generation: bytes | None = None
    """The key's, as it was before the call is made. None where the store told none."""


class LeaseManager:
    """All leases of one event loop.

    After `Limits.lease_ttl` seconds of silence, by the clock's monotonic time, others take a lease
    over.
    """

    __slots__ = ("_clock", "_held", "_renewing", "_spawn", "_stopped", "_ttl", "abandoned")

    def __init__(self, context: LoopContext) -> None:
        self._ttl = context.limits.lease_ttl
        self._clock = context.clock
        self._spawn = context.spawn
        self._held: set[HeldLease] = set()
        self.abandoned: Final[dict[bytes, HeldLease]] = {}
        # No task, which would be left pending where a loop is stopped between two calls.
        self._renewing: asyncio.TimerHandle | None = None
        self._stopped = False

    async def acquire(  # noqa: C901 - one loop of claims and waits, clearest in one place
        self,
        client: StoreClient,
        key: bytes,
        inherited: HeldLease | None,
        waiting: Callable[[], None] | None,
    ) -> Acquired:
        """Get leave to make the call for a key, or the entry that another has made meanwhile.

        Waits while the lease is held elsewhere, at most one time-to-live beyond its holder's last
        sign of life. When cancelled, a claim under way is finished and given back, or handed on to
        the next flight for the key.

        Args:
            client: The way to the store where the lease is held.
            key: What is to be called for.
            inherited: A claim that was adopted from an abandoned flight.
            waiting: Called each time after the lease was found to be held elsewhere.
        """
        silent_since = self._clock.monotonic()
        silent: Lease | None = None
        pause = 0.0
        glances = client.store.capabilities.glances
        waited = glancing = False
        while True:
            silence = self._clock.monotonic() - silent_since
            expect = silent if silent is not None and silence >= self._ttl else None
            held = inherited or self._begin(client, key, expect, waiting=glancing)
            adopted, inherited = inherited is not None, None
            await self._settled(held)
            claimed = held.claimed
            if claimed is None:
                return Acquired()
            held.contested = held.contested or waited
            if claimed.granted and adopted and claimed.generation is not None:
                # Of the flight that made the claim: the key may have changed since.
                return await self._reread(client, held)
            if claimed.granted:
                return Acquired(claimed.entry, held, waited, claimed.generation)
            sound = None if claimed.entry is None else await client.checked(key, claimed.entry)
            if sound is not None:
                return Acquired(sound, None, waited)
            glancing = glances and claimed.holder is not None
            if claimed.entry is not None and claimed.holder is None:
                # Left alone for bytes that are no entry: asked for again, it is granted.
                continue
            if claimed.holder != silent:
                silent, silent_since = claimed.holder, self._clock.monotonic()
            waited = True
            pause = await self._pause(client, key, pause)
            if glancing:  # the next claim finds the entry, too
                continue
            if waiting is not None:
                waiting()
            entry = await client.found(key, client.look_up(key))
            if isinstance(entry, Unknown):  # whoever has the lease: nothing would be heard of it
                return Acquired(waited=waited)
            if entry is not None:
                return Acquired(entry, None, waited)

    async def _reread(self, client: StoreClient, held: HeldLease) -> Acquired:
        """Return what an adopted claim leads to now: the generation first, then the entry."""
        try:
            generation = await client.generation(held.lease.key)
            entry = await client.found(held.lease.key, client.look_up(held.lease.key))
        except asyncio.CancelledError:
            self.abandon(held)
            raise
        return Acquired(None if isinstance(entry, Unknown) else entry, held, False, generation)

    async def _pause(self, client: StoreClient, key: bytes, pause: float) -> float:
        """Wait for news of a key, or for a pause; return the next one in seconds. 0: the first."""
        if client.store.capabilities.messages:
            jitter = 0.5 + random.random() / 2  # noqa: S311 - not a secret
            if await client.wait(key, self._ttl * jitter / _WOKEN_POLLS):
                return pause
        first, longest = client.store.polls
        pause = pause or first
        await asyncio.sleep(pause * random.uniform(_LEAST, 1))  # noqa: S311 - as above
        return min(longest, pause * 2)

    def adopt(self, key: bytes) -> HeldLease | None:
        """Take over the claim that an abandoned flight for a key has left, if there is one."""
        held = self.abandoned.pop(key, None)
        if held is not None:
            held.abandoned = False
        return held

    def _begin(
        self, client: StoreClient, key: bytes, expect: Lease | None, *, waiting: bool
    ) -> HeldLease:
        lease = Lease(key, secrets.token_bytes(16))
        claim = Claim(key=key, token=lease.token, expect=expect, waiting=waiting)
        operation = client.claim(claim)
        held = HeldLease(client, lease, operation, self._clock.monotonic())
        self._held.add(held)
        operation.add_done_callback(functools.partial(self._claimed, held))
        return held

    def _claimed(self, held: HeldLease, _operation: asyncio.Future[Claimed | None]) -> None:
        held.renewed_at = self._clock.monotonic()
        if not held.granted:
            self._held.discard(held)
        elif self._renewing is None:
            self._renew_later()

    async def _settled(self, held: HeldLease) -> None:
        try:
            await asyncio.shield(held.operation)
        except asyncio.CancelledError:
            self.abandon(held)
            raise

    def abandon(self, held: HeldLease) -> None:
        """Leave a claim to the next flight for its key; give it back if none comes at once."""
        if held.abandoned:
            return
        held.abandoned = True
        self.abandoned[held.lease.key] = held
        self._spawn(self._give_back(held))

    async def _give_back(self, held: HeldLease) -> None:
        try:
            await asyncio.wait([held.operation])
        finally:  # also where the loop is ending
            if held.abandoned:
                if self.abandoned.get(held.lease.key) is held:
                    del self.abandoned[held.lease.key]
                await self.release(held)

    def stop(self) -> None:
        """Stop renewing, as no flight is left to need it; a claim under way won't begin it anew."""
        self._stopped = True
        if self._renewing is not None:
            self._renewing.cancel()

    async def release(self, held: HeldLease) -> None:
        """Give a lease back, so that who waits for it can go on."""
        if not held.operation.done():
            self.abandon(held)  # adopted, and never used: given back when it is granted
            return
        self._held.discard(held)
        if held.granted and not held.lost:
            await held.client.release([held.lease])

    def returned(self, held: HeldLease) -> None:
        """Note that a lease was given back by the step that stored the answer."""
        self._held.discard(held)
        held.lost = True

    async def still_held(self, held: HeldLease) -> bool:
        """Tell whether a lease is ours yet, asking the store if its time may have run out."""
        if not held.lost and self._clock.monotonic() - held.renewed_at >= self._ttl:
            await self._renew_through(held.client, [held])
        return not held.lost

    async def is_contested(self, held: HeldLease) -> bool:
        """Tell whether another flight may have called for the key, too."""
        return not await self.still_held(held) or held.contested

    def _renew_later(self) -> None:
        if not self._stopped:
            loop = asyncio.get_running_loop()
            self._renewing = loop.call_later(self._ttl / _RENEWALS, self._begin_renewal)

    def _begin_renewal(self) -> None:
        if self._held:
            self._spawn(self._renew())
        else:
            self._renewing = None

    async def _renew(self) -> None:
        try:
            clients: dict[StoreClient, list[HeldLease]] = {}
            for held in self._held:
                if held.granted:
                    clients.setdefault(held.client, []).append(held)
            for client, leases in clients.items():
                await self._renew_through(client, leases)
        finally:
            self._renew_later()

    async def _renew_through(self, client: StoreClient, leases: list[HeldLease]) -> None:
        renewed = await client.renew([held.lease for held in leases])
        now = self._clock.monotonic()
        for held, kept in zip(leases, renewed, strict=True):
            if kept:
                held.renewed_at = now
            elif kept is False:  # None: the store couldn't tell, so the next time will
                held.lost = True
                self._held.discard(held)
