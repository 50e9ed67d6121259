"""The store contract: what a cache asks of the place that keeps its encoded entries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from asynccache.entries.entry import Meta
from asynccache.keys.key import Namespace


class Unknown(Enum):
    """The type of `UNKNOWN`, which `Store.peek` returns when it can't tell without waiting."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
"""`Store.peek` returns this when only an asynchronous lookup can find the answer."""


Counted: TypeAlias = Literal["evicted", "dropped", "expired", "requests", "request_units"]
"""The names of what a store may count. See `Store.counters`."""

BATCH: Final = 256  # keys: a batch of lookups this long takes a local store a millisecond


FIRST_POLL: Final = 0.01  # seconds; doubled up to the longest
LONGEST_POLL: Final = 0.1  # seconds: "one poll" in the bound of a waiter's wait


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a store can do beyond keeping bytes. The cache makes use of what is True."""

    inline: bool = False
    """`Store.peek` can return entries. The cache then tries it before it awaits anything."""
    leases: bool = False
    """`Store.claim`, `Store.renew` and `Store.release` work, so that one process among many makes
    a call while the others wait for its answer."""
    messages: bool = False
    """`Store.wait` returns as soon as an entry or a lease may have changed. Without it the cache
    polls."""
    stable: bool = False
    """`Store.peek` returns the same object each time until the entry changes. The cache then checks
    an entry once and not at each lookup."""
    generations: bool = False
    """`Store.claim` and `Store.generations` tell a key's generation, and `Store.set_many` compares
    it. What is deleted or overwritten while a call is made then stays so, whoever did it. Without
    it the cache sees to that for its own process only."""
    releases: bool = False
    """`Store.set_many` also releases the lease that a record names, in the same step as it
    writes."""
    glances: bool = False
    """A claim with ``Claim.waiting`` costs one lookup and also returns the entry, so that the cache
    polls with claims alone."""
    expires: bool = False
    """The store itself tells what has expired, by a clock that all its users share. The cache then
    doesn't compare an entry's expiry with the clock of this machine."""
    durable: bool = False
    """Entries outlive the process."""
    remote: bool = False
    """Calls travel over a network, so each gets a deadline."""


class Lease(Struct, frozen=True):
    """Who holds the lease of a key. One holder makes the call while others wait for the entry."""

    key: bytes
    """The 32 bytes of the key."""
    token: bytes
    """16 random bytes that identify the holder. Each claim has new ones."""
    renewals: int = 0
    """How often the holder has renewed the lease. A count that no longer grows tells others that
    the holder is gone."""


class Record(Struct, frozen=True, kw_only=True):
    """An encoded entry to be written."""

    key: bytes
    """The 32 bytes of the key."""
    body: bytes
    """The encoded entry. It starts with the envelope."""
    expires: int = 0
    """Microseconds since the epoch at which the entry expires. 0 means never."""
    if_absent: bool = False
    """Write only if there is no entry. An expired entry counts as none."""
    generation: bytes | None = None
    """Write only if the key still has this generation. None writes in any case, and gives the key
    a new one. Only stores with ``Capabilities.generations`` get one."""
    lease: Lease | None = None
    """Also release this lease if its token still holds it. Only stores with
    ``Capabilities.releases`` get one."""
    meta: Meta | None = None
    """What a store may keep beside the entry for people to read."""


class Claim(Struct, frozen=True, kw_only=True):
    """A request for the lease of a key."""

    key: bytes
    """The 32 bytes of the key."""
    token: bytes
    """16 random bytes that identify the claimant. They become the token of the lease."""
    expect: Lease | None = None
    """Take the lease over if exactly this token and renewal count hold it now (compare and
    set)."""
    waiting: bool = False
    """The lease was refused before, and the claimant now waits for the entry. A store with
    ``Capabilities.glances`` may then return the entry without granting a lease that is free."""


class Claimed(Struct, frozen=True, kw_only=True):
    """The answer to a `Claim`."""

    granted: bool
    """The claimant now holds the lease."""
    entry: bytes | None = None
    """The encoded entry, looked up in the same step. None if there is none."""
    holder: Lease | None = None
    """Who holds the lease instead. None if it was granted."""
    generation: bytes | None = None
    """The key's generation, read no later than the entry. Needed only where the lease is granted,
    and only of stores with ``Capabilities.generations``."""


class Page(Struct, frozen=True, kw_only=True):
    """One page of the answer to `Store.scan`."""

    envelopes: Sequence[bytes]
    """The first `asynccache.stores.ENVELOPE_BYTES` bytes of each entry, in any order."""
    cursor: str | None
    """Pass this to `Store.scan` for the next page. None means that this page is the last."""


class Store(ABC):
    """The base class of all stores. A store keeps encoded entries by namespace and key.

    Every store promises the following. `asynccache.testing.StoreContract` tests it.

    - A store takes bytes and returns the same bytes. It reads nothing of a body beyond the
      envelope, which is at its start, and it never returns bytes that were set under another key
      or namespace.
    - Methods take batches and answer in the order of the keys. An empty batch is allowed and does
      nothing. A key that is given twice is answered twice.
    - Readers in every process see a whole entry or none.
    - ``set_many`` returns when the entries are as safe as the store can make them.
    - An entry is never returned after it has expired.
    - A failure is a `StoreError`, raised from the driver's error. Any other exception is a bug. A
      missing entry is None, not an error.
    - Methods may be called from several event loops and threads at once. ``peek`` never waits.
    - A cancelled call leaves the store usable, and the entry it was writing whole or absent.
    - A store with generations gives a key a new one when the key is deleted, when its namespace is
      cleared, and when it is set without a generation. It may forget a key's generation after a day
      or to save room. It then refuses every record whose generation is older than that.
    - The cache calls ``open`` and ``aclose`` once per use. Both may be called again.
    """

    capabilities: Capabilities = Capabilities()
    """What this store can do. A subclass sets it for all its stores, or each store for itself."""

    @property
    def batch(self) -> int:
        """The number of keys that the cache should look up with one `get_many` at most."""
        return BATCH

    @property
    def polls(self) -> tuple[float, float]:
        """The first and the longest pause between two polls for a lease, in seconds."""
        return FIRST_POLL, LONGEST_POLL

    @abstractmethod
    async def open(self, *, read_only: bool = False) -> None:
        """Make the store ready.

        Args:
            read_only: Nothing will be written. The store must not create anything either.

        Raises:
            StoreError: The store can't be used. The message says what to do.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Write what is queued, then close connections and threads. Closing twice is harmless."""

    def peek(self, namespace: Namespace, key: bytes) -> bytes | Unknown | None:
        """Return the encoded entry or None without waiting, or `UNKNOWN` if that isn't possible."""
        return UNKNOWN

    @abstractmethod
    async def get_many(self, namespace: Namespace, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return the encoded entry of each key, or None if there is none."""

    @abstractmethod
    async def head_many(
        self, namespace: Namespace, keys: Sequence[bytes]
    ) -> Sequence[bytes | None]:
        """Return the envelope of each key without reading the body, or None if there is none."""

    @abstractmethod
    async def set_many(self, namespace: Namespace, records: Sequence[Record]) -> Sequence[bool]:
        """Write entries.

        The answer is False for a record whose ``if_absent`` found an entry, or whose
        ``generation`` the key no longer has.
        """

    @abstractmethod
    async def delete_many(self, namespace: Namespace, keys: Sequence[bytes]) -> int:
        """Remove entries and return how many there were."""

    @abstractmethod
    async def clear(self, namespace: Namespace) -> int:
        """Remove all entries of this namespace and of no other. Return how many there were."""

    @abstractmethod
    async def scan(self, namespace: Namespace, cursor: str | None = None) -> Page:
        """Return a page of envelopes. Entries set meanwhile may be missing; none comes twice."""

    async def generations(
        self, namespace: Namespace, keys: Sequence[bytes], *, renew: bool = False
    ) -> Sequence[bytes]:
        """Return the generation of each key: bytes that only the store understands.

        Args:
            namespace: The namespace of the keys.
            keys: The keys.
            renew: Give each key a new generation first. Its entry stays.
        """
        raise NotImplementedError(f"{type(self).__name__} has no generations")

    async def claim(
        self, namespace: Namespace, claims: Sequence[Claim], ttl: float
    ) -> Sequence[Claimed]:
        """Claim the lease of each key, and look its entry up in the same step.

        A lease is granted if nobody holds it, or if it is exactly what the claim expects. A store
        that can expire leases does so after ``ttl`` seconds without renewal. Other stores keep a
        lease until it is released or taken over.
        """
        raise NotImplementedError(f"{type(self).__name__} has no leases")

    async def renew(
        self, namespace: Namespace, leases: Sequence[Lease], ttl: float
    ) -> Sequence[bool]:
        """Add 1 to the renewals of each lease. The answer is False for a lease that was lost."""
        raise NotImplementedError(f"{type(self).__name__} has no leases")

    async def release(self, namespace: Namespace, leases: Sequence[Lease]) -> None:
        """Release leases. A lease that another token holds by now stays as it is."""
        raise NotImplementedError(f"{type(self).__name__} has no leases")

    async def wait(self, namespace: Namespace, key: bytes, timeout: float) -> None:
        """Wait until the entry or the lease of the key may have changed.

        Return at once if nobody holds the lease: it may have been released between a refused
        `claim` and this call. Leave nothing behind when the wait is cancelled or times out. The
        cache calls this only if ``capabilities.messages`` is set, and polls otherwise.

        Args:
            namespace: The namespace of the key.
            key: The key to wait for.
            timeout: Seconds after which to return in any case.
        """
        raise NotImplementedError(f"{type(self).__name__} has no messages")

    def counters(self) -> dict[Counted, int]:
        """Return how often the store did what since it was opened.

        ``evicted`` counts entries that made room for others, ``dropped`` entries that were not
        written, and ``expired`` entries that were removed because they had expired. ``requests``
        and ``request_units`` are reported by stores that charge for use.
        """
        return {}
