"""The contract between a cache and the place where encoded entries live: bytes in, bytes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from asynccache.entries.entry import Meta
from asynccache.keys.key import Namespace


class Unknown(Enum):
    """Type of `UNKNOWN`, the answer of a `Store.peek` that can't tell without waiting."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
"""What `Store.peek` returns when only an asynchronous lookup can tell."""


Counted: TypeAlias = Literal["evicted", "dropped", "expired", "requests", "request_units"]
"""What a store may count: see `Store.counters`."""

BATCH: Final = 256  # keys: a batch of lookups this long takes a local store a millisecond


FIRST_POLL: Final = 0.01  # seconds; doubled up to the longest
LONGEST_POLL: Final = 0.1  # seconds: "one poll" in the bound of a waiter's wait


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a store can do beyond keeping bytes."""

    inline: bool = False
    """`Store.peek` may answer, so it is worth asking before anything is awaited."""
    leases: bool = False
    """`claim`, `renew` and `release` work, so that one flight among all processes makes a call."""
    messages: bool = False
    """`wait` is woken by the store; otherwise it returns at its timeout and the caller looks."""
    stable: bool = False
    """`Store.peek` returns the very same object until an entry changes, so that what was checked
    once needs no second check."""
    releases: bool = False
    """`set_many` gives back the lease that a record names, in the same step as it writes."""
    glances: bool = False
    """A claim that is `Claim.waiting` costs one look and finds the entry, too, so that polling is
    done by claims alone."""
    durable: bool = False
    """What was set is there in the next process."""
    remote: bool = False
    """Calls travel a network, so that they need a deadline each."""


class Lease(Struct, frozen=True):
    """A claim on a key: who holds it, and how often it was renewed."""

    key: bytes
    token: bytes
    """16 random bytes, new for each claim."""
    renewals: int = 0


class Record(Struct, frozen=True, kw_only=True):
    """One encoded entry to be written."""

    key: bytes
    """The 32 bytes of the entry's key."""
    body: bytes
    """The encoded entry, envelope first."""
    expires: int = 0
    """Microseconds since the epoch after which the entry is gone; 0 is never."""
    if_absent: bool = False
    """Write only if no live entry is there (an expired one counts as absent)."""
    lease: Lease | None = None
    """Give this lease back too, if it is still held; named only to stores that can do so."""
    meta: Meta | None = None
    """What may be written beside the entry for people to read, where a store has room for it."""


class Claim(Struct, frozen=True, kw_only=True):
    """A wish to hold a key's lease."""

    key: bytes
    token: bytes
    expect: Lease | None = None
    """Take the lease over if its token and renewal count are still these (compare and set)."""
    waiting: bool = False
    """The lease was refused before: it is likely to be held yet, and an entry is waited for. A
    store that `Capabilities.glances` may leave a lease that is free alone where an entry is."""


class Claimed(Struct, frozen=True, kw_only=True):
    """The answer to a `Claim`."""

    granted: bool
    entry: bytes | None = None
    """The encoded entry, if there is one: looked up in the same step."""
    holder: Lease | None = None
    """Who holds the lease, when it wasn't granted."""


class Page(Struct, frozen=True, kw_only=True):
    """One page of a `Store.scan`."""

    envelopes: Sequence[bytes]
    """The first `asynccache.stores.ENVELOPE_BYTES` bytes of entries, in no promised order."""
    cursor: str | None
    """What to pass for the next page; None when this was the last."""


class Store(ABC):
    """Where encoded entries live.

    What every store promises (`asynccache.testing.StoreContract` checks it):

    - Bytes in, bytes out: a store never looks into a body beyond its first bytes, the envelope,
      and never hands out bytes that were set under another key or namespace.
    - Batch first: each method takes many keys and answers in their order; an empty batch is
      allowed and does nothing. A key given twice is answered twice.
    - An entry is visible whole or not at all, to readers in every process.
    - ``set_many`` returns when the entries survive whatever the store says they survive.
    - A body past its ``expires`` is never returned.
    - Failure is a `StoreError`, raised from the driver's own error; anything else is a bug.
      Absence is None, never an error.
    - Methods may be called from several event loops and threads at once. ``peek`` never waits.
    - Cancelling a call leaves the store usable; what was being written is whole or absent.
    - ``open`` and ``aclose`` are called by the cache, once each per use, and may be repeated.
    """

    capabilities: Capabilities = Capabilities()

    @property
    def batch(self) -> int:
        """How many keys one `get_many` should ask for, when many are asked for at once."""
        return BATCH

    @property
    def polls(self) -> tuple[float, float]:
        """How many seconds who waits for a lease sleeps, at first and in the end, unless woken."""
        return FIRST_POLL, LONGEST_POLL

    @abstractmethod
    async def open(self, *, read_only: bool = False) -> None:
        """Make the store ready.

        Args:
            read_only: Nothing will be written, so nothing may be created either.

        Raises:
            StoreError: It can't be used; the message says what to do.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Write what is queued, give back connections and threads. Closing twice is harmless."""

    def peek(self, namespace: Namespace, key: bytes) -> bytes | Unknown | None:
        """Return the encoded entry, None for none, without waiting; `UNKNOWN` if that can't be."""
        return UNKNOWN

    @abstractmethod
    async def get_many(self, namespace: Namespace, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return the encoded entry of each key, None where there is none."""

    @abstractmethod
    async def head_many(
        self, namespace: Namespace, keys: Sequence[bytes]
    ) -> Sequence[bytes | None]:
        """Return the envelope alone of each key (no body is read), None where there is none."""

    @abstractmethod
    async def set_many(self, namespace: Namespace, records: Sequence[Record]) -> Sequence[bool]:
        """Write entries; True where it was written, False where ``if_absent`` found one."""

    @abstractmethod
    async def delete_many(self, namespace: Namespace, keys: Sequence[bytes]) -> int:
        """Remove entries; return how many were there."""

    @abstractmethod
    async def clear(self, namespace: Namespace) -> int:
        """Remove all entries of this namespace and of no other; return how many there were."""

    @abstractmethod
    async def scan(self, namespace: Namespace, cursor: str | None = None) -> Page:
        """Return a page of envelopes; entries set meanwhile may or may not appear, none twice."""

    async def claim(
        self, namespace: Namespace, claims: Sequence[Claim], ttl: float
    ) -> Sequence[Claimed]:
        """Try to hold each key's lease and look for its entry in the same step.

        A lease is granted when nobody holds it, or when ``expect`` is exactly what is held. Where
        the store can expire leases itself it does so after ``ttl`` seconds without renewal;
        otherwise it keeps them until they are released or taken over.
        """
        raise NotImplementedError(f"{type(self).__name__} has no leases")

    async def renew(
        self, namespace: Namespace, leases: Sequence[Lease], ttl: float
    ) -> Sequence[bool]:
        """Raise the renewal count of leases still held by their token; False where it is lost."""
        raise NotImplementedError(f"{type(self).__name__} has no leases")

    async def release(self, namespace: Namespace, leases: Sequence[Lease]) -> None:
        """Give leases back; one that another token holds meanwhile is left alone."""
        raise NotImplementedError(f"{type(self).__name__} has no leases")

    async def wait(self, namespace: Namespace, key: bytes, timeout: float) -> None:
        """Return when the key's entry or lease may have changed, at the latest after ``timeout``.

        Return at once where nobody holds the lease, so that a release which came between a refused
        `claim` and this call isn't slept through. Cancelled or timed out, leave nothing behind.
        Only called where ``capabilities.messages`` is set; other stores are polled.
        """
        raise NotImplementedError(f"{type(self).__name__} has no messages")

    def counters(self) -> dict[Counted, int]:
        """Return what the store did of its own accord since it was opened, and what that cost.

        ``requests`` and ``request_units`` are given by stores that are paid for by use.
        """
        return {}
