"""Keeps the leases that an event loop holds in a store: claimed, renewed, handed on, released."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec import Struct

from asynccache.core.lane import Lane
from asynccache.entries.entry import Entry
from asynccache.runtime.clock import Clock
from asynccache.stores.base import Claim, Claimed, Lease, Unknown

_WOKEN_POLLS: Final = 4  # within one time-to-live, by those who are woken: a message may be lost
_LEAST: Final = 0.8  # of a poll's pause, that chance leaves: enough to keep waiters out of step
_RENEWALS: Final = 3  # within one time-to-live, so that one may fail


class HeldLease:
    """A claim of this loop, from the moment it is made. It outlives the flight that made it."""

    __slots__ = ("abandoned", "claimed", "lane", "lease", "lost", "operation", "renewed_at")

    def __init__(self, lane: Lane, lease: Lease, now: float) -> None:
        self.lane = lane
        self.lease = lease
        self.renewed_at = now
        self.lost = False
        self.abandoned = False  # its flight is gone; the next one for the key may take it over
        self.claimed: Claimed | None = None
        self.operation: asyncio.Task[None] | None = None


class Acquired(Struct, frozen=True):
    """The end of `LeaseManager.acquire`: an answer made elsewhere, or leave to make the call."""

    entry: Entry | bytes | None = None
    """Bytes where the store found them while granting the lease: they still have to be checked."""
    holding: HeldLease | None = None
    """None where the store gives no leases at the moment: everyone goes upstream."""
    waited: bool = False


class LeaseManager:
    """All leases of one event loop.

    Args:
        ttl: Seconds of silence after which others take a lease over.
        clock: Its monotonic time measures silence.
        spawn: Starts tasks; whoever owns them awaits them at closing.
    """

    __slots__ = ("_abandoned", "_clock", "_held", "_renewing", "_spawn", "_stopped", "_ttl")

    def __init__(
        self, *, ttl: float, clock: Clock, spawn: Callable[[Any], asyncio.Task[None]]
    ) -> None:
        self._ttl = ttl
        self._clock = clock
        self._spawn = spawn
        self._held: set[HeldLease] = set()
        self._abandoned: dict[bytes, HeldLease] = {}
        # No task, which would be left pending where a loop is stopped between two calls.
        self._renewing: asyncio.TimerHandle | None = None
        self._stopped = False

    async def acquire(
        self,
        lane: Lane,
        key: bytes,
        find: Callable[[], Awaitable[Entry | Unknown | None]],
        check: Callable[[bytes], Awaitable[Entry | None]],
        inherited: HeldLease | None,
    ) -> Acquired:
        """Get leave to make the call for a key, or the entry that another has made meanwhile.

        Waits while the lease is held elsewhere, at most one time-to-live beyond its holder's last
        sign of life. When cancelled, a claim under way is finished and given back, or handed on to
        the next flight for the key.

        Args:
            lane: Where the lease is held.
            key: What is to be called for.
            find: Looks the entry up, and returns it only if it is sound.
            check: Returns the entry that bytes hold, if it is sound.
            inherited: A claim that was adopted from an abandoned flight.
        """
        silent_since = self._clock.monotonic()
        silent: Lease | None = None
        pause, _ = lane.store.polls
        glances = lane.store.capabilities.glances
        waited = waiting = False
        while True:
            silence = self._clock.monotonic() - silent_since
            expect = silent if silent is not None and silence >= self._ttl else None
            holding = inherited or self._begin(lane, key, expect, waiting=waiting)
            inherited = None
            await self._settled(holding)
            claimed = holding.claimed
            if claimed is None:
                return Acquired()
            if claimed.granted:
                return Acquired(claimed.entry, holding, waited)
            sound = None if claimed.entry is None else await check(claimed.entry)
            if sound is not None:
                return Acquired(sound, None, waited)
            waiting = glances and claimed.holder is not None
            if claimed.entry is not None and claimed.holder is None:
                # Left alone for bytes that are no entry: asked for again, it is granted.
                continue
            if claimed.holder != silent:
                silent, silent_since = claimed.holder, self._clock.monotonic()
            waited = True
            pause = await self._pause(lane, key, pause)
            # Where claims glance, the next one finds the entry, too.
            entry = None if waiting else await find()
            if isinstance(entry, Unknown):  # whoever has the lease: nothing would be heard of it
                return Acquired(waited=waited)
            if entry is not None:
                return Acquired(entry, None, waited)

    async def _pause(self, lane: Lane, key: bytes, pause: float) -> float:
        """Wait for news of a key, or for a while; return how long a while is the next time."""
        if lane.store.capabilities.messages:
            jitter = 0.5 + random.random() / 2  # noqa: S311 - not a secret
            if await lane.wait(key, self._ttl * jitter / _WOKEN_POLLS):
                return pause
        await asyncio.sleep(pause * random.uniform(_LEAST, 1))  # noqa: S311 - as above
        return min(lane.store.polls[1], pause * 2)

    def adopt(self, key: bytes) -> HeldLease | None:
        """Take over the claim that an abandoned flight for a key has left, if there is one."""
        holding = self._abandoned.pop(key, None)
        if holding is not None:
            holding.abandoned = False
        return holding

    def _begin(self, lane: Lane, key: bytes, expect: Lease | None, *, waiting: bool) -> HeldLease:
        lease = Lease(key, secrets.token_bytes(16))
        holding = HeldLease(lane, lease, self._clock.monotonic())
        self._held.add(holding)
        holding.operation = self._spawn(self._make(holding, expect, waiting=waiting))
        return holding

    async def _settled(self, holding: HeldLease) -> None:
        try:
            if holding.operation is not None:
                await asyncio.shield(holding.operation)
        except asyncio.CancelledError:
            self.abandon(holding)
            raise
        if holding.claimed is None or not holding.claimed.granted:
            self._held.discard(holding)

    async def _make(self, holding: HeldLease, expect: Lease | None, *, waiting: bool) -> None:
        lease = holding.lease
        claim = Claim(key=lease.key, token=lease.token, expect=expect, waiting=waiting)
        claimed = await holding.lane.claim(claim)
        holding.renewed_at = self._clock.monotonic()
        holding.claimed = claimed
        granted = claimed is not None and claimed.granted
        if granted and self._renewing is None:
            self._renew_later()

    def abandon(self, holding: HeldLease) -> None:
        """Leave a claim to the next flight for its key; give it back if none comes at once."""
        if holding.abandoned:
            return
        holding.abandoned = True
        self._abandoned[holding.lease.key] = holding
        self._spawn(self._give_back(holding))

    async def _give_back(self, holding: HeldLease) -> None:
        if holding.operation is not None:
            await asyncio.wait([holding.operation])
        if holding.abandoned:
            if self._abandoned.get(holding.lease.key) is holding:
                del self._abandoned[holding.lease.key]
            await self.release(holding)

    def stop(self) -> None:
        """Stop renewing, as no flight is left to need it; a claim under way won't begin it anew."""
        self._stopped = True
        if self._renewing is not None:
            self._renewing.cancel()

    async def release(self, holding: HeldLease) -> None:
        """Give a lease back, so that who waits for it can go on."""
        if holding.operation is not None and not holding.operation.done():
            self.abandon(holding)  # adopted, and never used: given back when it is granted
            return
        self._held.discard(holding)
        if holding.claimed is not None and holding.claimed.granted and not holding.lost:
            await holding.lane.release([holding.lease])

    def returned(self, holding: HeldLease) -> None:
        """Note that a lease was given back by the step that stored the answer."""
        self._held.discard(holding)
        holding.lost = True

    async def still_held(self, holding: HeldLease) -> bool:
        """Tell whether a lease is ours yet, asking the store if its time may have run out."""
        if not holding.lost and self._clock.monotonic() - holding.renewed_at >= self._ttl:
            await self._renew_one_lane(holding.lane, [holding])
        return not holding.lost

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
            lanes: dict[Lane, list[HeldLease]] = {}
            for holding in self._held:
                if holding.claimed is not None and holding.claimed.granted:
                    lanes.setdefault(holding.lane, []).append(holding)
            for lane, holdings in lanes.items():
                await self._renew_one_lane(lane, holdings)
        finally:
            self._renew_later()

    async def _renew_one_lane(self, lane: Lane, holdings: list[HeldLease]) -> None:
        renewed = await lane.renew([holding.lease for holding in holdings], self._ttl)
        now = self._clock.monotonic()
        for holding, kept in zip(holdings, renewed, strict=True):
            if kept:
                holding.renewed_at = now
            elif kept is False:  # None: the store couldn't tell, so the next time will
                holding.lost = True
                self._held.discard(holding)
