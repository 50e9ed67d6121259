"""Every error that asynccache raises of its own.

    AsyncCacheError
    ├── CacheClosedError        the cache isn't open, or was closed while somebody waited
    ├── ReplayMiss              mode "replay" has no entry for this request
    ├── NotCanonicalError       (also TypeError) a value has no canonical form to make a key of
    └── StoreError              a store could not do its work
        ├── StoreUnavailableError   gone, refusing, or its breaker is open
        ├── StoreTimeoutError       did not answer before the deadline
        ├── StoreFullError          no room: disk full, quota, or memory limit
        ├── StoreReadOnlyError      may be read, not written
        └── StoreRefusedError       found, and not ours to use: foreign, newer, or unsafe

Bad arguments raise the built-in ``ValueError`` and ``TypeError``. What a driver raises never passes
a store: it is mapped to a `StoreError` at the edge, with the driver's error as its cause.
"""

from __future__ import annotations


class AsyncCacheError(Exception):
    """Base of all errors below, to catch whatever this library may raise of its own."""


class CacheClosedError(AsyncCacheError):
    """The cache isn't open: use it inside ``async with cache:``, or call ``cache.open()`` first."""


class ReplayMiss(AsyncCacheError):  # noqa: N818 - the name users know from record-and-replay tools
    """Nothing is stored for this request, and mode "replay" never goes upstream.

    Record it first, by making the same request once in mode "read_write".
    """


class NotCanonicalError(AsyncCacheError, TypeError):
    """A value can't be turned into a key: leave it out with ``ignore=`` or pass plain data."""


class StoreError(AsyncCacheError):
    """A store could not do its work; seen while opening, or with ``on_store_error="raise"``."""


class StoreUnavailableError(StoreError):
    """The store can't be reached or its breaker is open; calls go upstream until it is back."""


class StoreTimeoutError(StoreError):
    """The store did not answer within ``store_timeout`` seconds."""


class StoreFullError(StoreError):
    """The store has no room left: free some, or lower ``max_bytes``."""


class StoreReadOnlyError(StoreError):
    """The store may only be read: give write access, or open it with ``mode="read_only"``."""


class StoreRefusedError(StoreError):
    """What lies at the given place isn't safe to use; the message says what to change."""
