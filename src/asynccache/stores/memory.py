"""Entries in this process's memory: bounded by bytes; first the expired go, then the least used."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Final, TypeAlias

from anyio.lowlevel import checkpoint

from asynccache.entries.entry import ENVELOPE_BYTES
from asynccache.errors import StoreFullError
from asynccache.keys.key import Namespace
from asynccache.runtime.clock import SYSTEM_CLOCK, Clock
from asynccache.runtime.forks import forget_in_child
from asynccache.runtime.loops import finish
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

DEFAULT_MAX_BYTES: Final = 256 * 2**20  # bytes: a hundred thousand answers of 2 kB
ENTRY_OVERHEAD: Final = 520  # bytes: key, tuples, dict slots, index and heap; measured 290 to 520
_PAGE: Final = 1000  # envelopes from which on a scan's page ends with the bucket it is in
_BUCKETS: Final = 256  # by the first byte of the key, so that a cursor survives sets and deletes
_CHANGES: Final = 16_384  # removed keys whose change is known: about 2 MB; older ones are refused
_ALL: Final = b""  # in place of a key: a whole namespace
_SORTED_OUT: Final = 4  # expiries looked at for each new one, while too many are no entry's
_SLICE: Final = 500  # entries handled in one turn of the loop: a few hundred microseconds

_Place: TypeAlias = tuple[Namespace, bytes]
_Kept: TypeAlias = tuple[bytes, int, int]  # body, expires, number of the change that set it
_Expiry: TypeAlias = tuple[int, int, _Place]
_Waiter: TypeAlias = "asyncio.Future[None]"


class _Generations:
    """The generations of a store's keys: the number of the last change when each was read.

    A key has a generation still unless it, or its whole namespace, was changed later. The number
    of the change that set an entry is kept with it; those of other changes are kept here.
    """

    __slots__ = ("_changed", "_entries", "_last", "_least")

    def __init__(self, entries: Mapping[_Place, _Kept]) -> None:
        self._entries = entries
        self._last = self._least = 0
        self._changed: OrderedDict[_Place, int] = OrderedDict()

    def read(self) -> bytes:
        """Return the generation that any key has now."""
        return b"%d" % self._last

    def renew(self, place: _Place) -> None:
        """Give a key, or with `_ALL` a namespace, a new generation."""
        self._last += 1
        self._note(place, self._last)

    def set(self, place: _Place) -> int:
        """Give a key that is set a new generation; return the number to keep with its entry."""
        self._last += 1
        self._changed.pop(place, None)
        return self._last

    def removed(self, place: _Place, number: int) -> None:
        """Take over the number that was kept with an entry."""
        if number > self._number(place):
            self._note(place, number)

    def current(self, place: _Place, generation: bytes) -> bool:
        """Return whether a key has this generation still."""
        kept = self._entries.get(place)
        return max(self._number(place), 0 if kept is None else kept[2]) <= int(generation)

    def _number(self, place: _Place) -> int:
        """Return the last change of a key that is known here."""
        changed, whole = self._changed.get(place, 0), self._changed.get((place[0], _ALL), 0)
        return max(self._least, changed, whole)

    def _note(self, place: _Place, number: int) -> None:
        self._changed[place] = number
        self._changed.move_to_end(place)
        if len(self._changed) > _CHANGES:
            self._least = max(self._least, self._changed.popitem(last=False)[1])


class _Expiries:
    """When entries expire, the soonest first.

    An entry that was replaced or removed leaves its own behind. Where these are too many, they are
    sorted out bit by bit, as more come.
    """

    __slots__ = ("_entries", "_heap", "_number", "_old")

    def __init__(self, entries: Mapping[_Place, _Kept]) -> None:
        self._entries = entries
        self._heap: list[_Expiry] = []
        self._old: list[_Expiry] = []  # still a heap, as it is taken apart from its end
        self._number = itertools.count()  # so that no two places are compared

    def add(self, place: _Place, expires: int) -> None:
        """Note when an entry expires."""
        heappush(self._heap, (expires, next(self._number), place))
        if not self._old and len(self._heap) > 2 * len(self._entries) + _SLICE:
            self._heap, self._old = self._old, self._heap
        for one in [self._old.pop() for _ in range(min(_SORTED_OUT, len(self._old)))]:
            if self._is_current(one):
                heappush(self._heap, one)

    def take(self, now: int) -> tuple[bool, _Place | None]:
        """Take out one that is over: whether there is any, and the entry if it is there still."""
        for heap in (self._heap, self._old):
            if heap and heap[0][0] <= now:
                one = heappop(heap)
                return True, one[2] if self._is_current(one) else None
        return False, None

    def _is_current(self, one: _Expiry) -> bool:
        expires, _, place = one
        kept = self._entries.get(place)
        return kept is not None and kept[1] == expires


class MemoryStore(Store):
    """A store in this process, shared by all its event loops and threads.

    It keeps what it holds when it is closed, so that one cache can be used in one event loop after
    another; the memory is given back when the store itself is dropped.

    Args:
        max_bytes: Room for all namespaces together. An entry takes its encoded size and
            `ENTRY_OVERHEAD`.
        clock: Where expiry takes the time from.

    Raises:
        ValueError: ``max_bytes`` is not positive.
    """

    capabilities = Capabilities(
        inline=True, leases=True, messages=True, stable=True, generations=True
    )

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES, *, clock: Clock = SYSTEM_CLOCK) -> None:
        if max_bytes <= 0:
            raise ValueError(f"max_bytes must be positive, not {max_bytes}")
        self._max_bytes = max_bytes
        self._clock = clock
        # Readers take no lock. Finding an entry and marking it as used are one call into C each,
        # whose hashes and comparisons run no Python code, so the GIL makes each of them atomic;
        # between the two an entry may vanish, which `peek` allows for. Whatever changes more than
        # the order of use holds the lock, so that the other tables always agree with this one.
        self._entries: OrderedDict[_Place, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._bytes = 0
        self._buckets: dict[tuple[Namespace, int], set[bytes]] = {}
        self._expiries = _Expiries(self._entries)
        self._generations = _Generations(self._entries)
        self._leases: dict[_Place, Lease] = {}
        self._waiters: dict[_Place, set[_Waiter]] = {}
        self._evicted = 0
        self._expired = 0
        self._find = self._entries.get
        self._touch = self._entries.move_to_end
        forget_in_child(self)

    def forget(self) -> None:
        """Leave to the parent, in a forked child, its threads' lock, its leases and who waits."""
        self._lock = threading.Lock()
        self._leases, self._waiters = {}, {}

    async def open(self, *, read_only: bool = False) -> None:
        """Do nothing: memory is always open."""

    async def aclose(self) -> None:
        """Do nothing: what is kept is there for the next loop that opens the store."""

    def peek(self, namespace: Namespace, key: bytes) -> bytes | None:
        """Return the encoded entry, or None for none, without waiting; never `UNKNOWN`."""
        place = (namespace, key)
        kept = self._find(place)
        if kept is None:
            return None
        body, expires, _ = kept
        if expires and expires <= self._clock.time_us():
            self._drop_expired(place, kept)
            return None
        try:  # noqa: SIM105 - suppress() would cost as much as the whole rest
            self._touch(place)
        except KeyError:  # evicted or deleted by another thread just now; it was there when asked
            pass
        return body

    async def get_many(self, namespace: Namespace, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the encoded entry of each key, None where there is none."""
        found: list[bytes | None] = []
        for start in range(0, len(keys), _SLICE):
            if start:
                await checkpoint()
            found.extend(self.peek(namespace, key) for key in keys[start : start + _SLICE])
        return found

    async def head_many(self, namespace: Namespace, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the envelope alone of each key; being looked at so doesn't count as being used."""
        now = self._clock.time_us()
        bodies = [_live(self._find((namespace, key)), now) for key in keys]
        return [None if body is None else body[:ENVELOPE_BYTES] for body in bodies]

    async def set_many(self, namespace: Namespace, records: Sequence[Record]) -> list[bool]:
        """Write entries; False where ``if_absent`` found one or the generation is another.

        Raises:
            StoreFullError: One entry alone is larger than ``max_bytes``; the rest is written.
        """
        written: list[bool] = []
        too_large = 0
        for at, record in enumerate(records):
            if at and not at % _SLICE:
                await checkpoint()
            if len(record.body) + ENTRY_OVERHEAD > self._max_bytes:
                too_large += 1
                continue
            # Cancelled between two slices, a set has made room for nothing, and nothing else.
            while (done := self._put((namespace, record.key), record)) is None:
                await checkpoint()
            written.append(done)
        if too_large:
            raise StoreFullError(
                f"{too_large} of {len(records)} entries are larger than the whole memory store:"
                f" raise max_bytes ({self._max_bytes})"
            )
        return written

    async def delete_many(self, namespace: Namespace, keys: Sequence[bytes]) -> int:
        """Remove entries; return how many were there."""
        with self._lock:
            for key in keys:
                self._generations.renew((namespace, key))
        return self.drop(namespace, keys)

    async def clear(self, namespace: Namespace) -> int:
        """Remove all entries of this namespace and of no other; return how many there were.

        What is set while it runs may or may not stay.
        """
        with self._lock:
            self._generations.renew((namespace, _ALL))
        count = unrested = 0
        for number in range(_BUCKETS):
            with self._lock:
                keys = list(self._buckets.get((namespace, number), ()))
            count += self._delete([(namespace, key) for key in keys])
            unrested += len(keys)
            if unrested > _SLICE:
                unrested = 0
                await checkpoint()
        return count

    async def scan(self, namespace: Namespace, cursor: str | None = None) -> Page:
        """Return a page of envelopes: as many whole buckets as make `_PAGE` of them."""
        first, now = int(cursor or 0), self._clock.time_us()
        envelopes: list[bytes] = []
        with self._lock:
            for number in range(first, _BUCKETS):
                for key in self._buckets.get((namespace, number), ()):
                    body, expires, _ = self._entries[namespace, key]
                    if not 0 < expires <= now:
                        envelopes.append(body[:ENVELOPE_BYTES])
                if len(envelopes) >= _PAGE and number + 1 < _BUCKETS:
                    return Page(envelopes=envelopes, cursor=str(number + 1))
        return Page(envelopes=envelopes, cursor=None)

    async def generations(
        self, namespace: Namespace, keys: Sequence[bytes], *, renew: bool = False
    ) -> list[bytes]:
        """Return the generation of each key, a new one if asked."""
        with self._lock:
            for key in keys if renew else ():
                self._generations.renew((namespace, key))
            return [self._generations.read()] * len(keys)

    async def claim(
        self, namespace: Namespace, claims: Sequence[Claim], ttl: float
    ) -> list[Claimed]:
        """Try to hold each key's lease and look for its entry in the same step.

        Leases aren't expired here: they last until they are released or taken over.
        """
        now = self._clock.time_us()
        answers: list[Claimed] = []
        with self._lock:
            generation = self._generations.read()
            for claim in claims:
                place = (namespace, claim.key)
                holder = self._leases.get(place)
                if granted := holder is None or holder == claim.expect:
                    holder = None
                    self._leases[place] = Lease(claim.key, claim.token)
                entry = _live(self._find(place), now)
                answers.append(
                    Claimed(granted=granted, entry=entry, holder=holder, generation=generation)
                )
        return answers

    async def renew(self, namespace: Namespace, leases: Sequence[Lease], ttl: float) -> list[bool]:
        """Raise the renewal count of leases still held by their token; False where it is lost."""
        held: list[bool] = []
        with self._lock:
            for lease in leases:
                place = (namespace, lease.key)
                now = self._leases.get(place)
                held.append(now is not None and now.token == lease.token)
                if now is not None and held[-1]:
                    self._leases[place] = Lease(now.key, now.token, now.renewals + 1)
        return held

    async def release(self, namespace: Namespace, leases: Sequence[Lease]) -> None:
        """Give leases back; one that another token holds meanwhile is left alone."""
        woken: list[_Waiter] = []
        with self._lock:
            for lease in leases:
                place = (namespace, lease.key)
                held = self._leases.get(place)
                if held is not None and held.token == lease.token:
                    del self._leases[place]
                    woken.extend(self._waiters.pop(place, ()))
        _wake(woken)

    async def wait(self, namespace: Namespace, key: bytes, timeout: float) -> None:
        """Return when the entry was set or deleted or the lease released, or after ``timeout``.

        Returns at once where nobody holds the lease, so that a release that came between a refused
        `claim` and this call isn't slept through.
        """
        place = (namespace, key)
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            if place not in self._leases:
                return
            self._waiters.setdefault(place, set()).add(waiter)
        try:
            await asyncio.wait([waiter], timeout=timeout)
        finally:  # also when cancelled: nothing stays behind
            with self._lock:
                waiters = self._waiters.get(place, set())
                waiters.discard(waiter)
                if not waiters:
                    self._waiters.pop(place, None)

    def counters(self) -> dict[Counted, int]:
        """Return how many entries made room for others, and how many were found past their time."""
        return {"evicted": self._evicted, "expired": self._expired}

    def _put(self, place: _Place, record: Record) -> bool | None:
        """Write one entry; None if a slice was evicted for it and more must go: call again."""
        cost = len(record.body) + ENTRY_OVERHEAD
        namespace, key = place
        generations = self._generations
        with self._lock:
            if record.generation is not None and not generations.current(place, record.generation):
                return False
            if record.if_absent and _live(self._find(place), self._clock.time_us()) is not None:
                return False
            for _ in range(_SLICE):
                if self._bytes - _cost(self._find(place)) + cost <= self._max_bytes:
                    break
                self._make_room()
            else:
                return None
            before = self._find(place)
            self._bytes += cost - _cost(before)
            if record.generation is None:
                number = generations.set(place)
            else:
                number = 0 if before is None else before[2]
            self._entries[place] = (record.body, record.expires, number)
            if record.expires:
                self._expiries.add(place, record.expires)
            self._touch(place)
            self._buckets.setdefault((namespace, key[0]), set()).add(key)
            woken = self._waiters.pop(place, ())
        _wake(woken)
        return True

    def drop(self, namespace: Namespace, keys: Sequence[bytes]) -> int:
        """Remove entries at once, and leave their generations; return how many were there."""
        return self._delete([(namespace, key) for key in keys])

    def _delete(self, places: Iterable[_Place]) -> int:
        now = self._clock.time_us()
        count = 0
        woken: list[_Waiter] = []
        with self._lock:
            for place in places:
                kept = self._find(place)
                if kept is None:
                    continue
                count += _live(kept, now) is not None
                self._unlist(place, self._entries.pop(place))
                woken.extend(self._waiters.pop(place, ()))
        _wake(woken)
        return count

    def _make_room(self) -> None:
        """Remove what has expired, else what was used longest ago; the lock is held."""
        any_over, place = self._expiries.take(self._clock.time_us())
        if not any_over:
            self._unlist(*self._entries.popitem(last=False))
            self._evicted += 1
        elif place is not None:
            self._unlist(place, self._entries.pop(place))
            self._expired += 1

    def _drop_expired(self, place: _Place, kept: _Kept) -> None:
        # A reader never waits: if a writer holds the lock, the next reader or eviction drops it.
        if self._lock.acquire(blocking=False):
            try:
                if self._find(place) is kept:  # not what a writer has put there since
                    self._unlist(place, self._entries.pop(place))
                    self._expired += 1
            finally:
                self._lock.release()

    def _unlist(self, place: _Place, kept: _Kept) -> None:
        """Take an entry that was just removed out of the other tables; the lock is held."""
        self._bytes -= _cost(kept)
        self._generations.removed(place, kept[2])
        namespace, key = place
        bucket = self._buckets[namespace, key[0]]
        bucket.discard(key)
        if not bucket:
            del self._buckets[namespace, key[0]]


def _live(kept: _Kept | None, now: int) -> bytes | None:
    return None if kept is None or 0 < kept[1] <= now else kept[0]


def _cost(kept: _Kept | None) -> int:
    return 0 if kept is None else len(kept[0]) + ENTRY_OVERHEAD


def _wake(waiters: Iterable[_Waiter]) -> None:
    for waiter in waiters:
        finish(waiter)
