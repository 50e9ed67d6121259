"""Every error that asynccache raises of its own.

    AsyncCacheError
    ├── CacheClosedError        the cache isn't open, or was closed while somebody waited
    ├── ReplayMiss              mode "replay" has no entry for this request
    ├── NotCanonicalError       (also TypeError) a value has no canonical form to make a key of
    └── StoreError              a store could not do its work
        ├── StoreUnavailableError   gone, refusing, or its breaker is open
        │   ├── StoreAuthError          doesn't know this user or password
        │   ├── StoreFailoverError      between one primary and the next
        │   ├── StoreLoadingError       starting, and not ready yet
        │   └── StoreThrottledError     asked for more than it gives at the moment
        ├── StoreTimeoutError       did not answer before the deadline
        ├── StoreFullError          no room: disk full, quota, or memory limit
        ├── StoreReadOnlyError      may be read, not written
        ├── StoreDeniedError        knows this user, who may not do that
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
    """A store could not do its work; raised where something is to be removed, else only if asked.

    That is by ``delete``, ``clear`` and ``forget``, and everywhere with ``on_store_error="raise"``.
    """


class StoreUnavailableError(StoreError):
    """The store can't be reached or its breaker is open; calls go upstream until it is back."""


class StoreAuthError(StoreUnavailableError):
    """The store lets this user in with no such password: check the credentials."""


class StoreFailoverError(StoreUnavailableError):
    """The store is between one primary and the next; calls go upstream until it has settled."""


class StoreLoadingError(StoreUnavailableError):
    """The store is loading its data; calls go upstream until it is ready."""


class StoreThrottledError(StoreUnavailableError):
    """The store is asked for more than it gives at the moment; raise its throughput."""


class StoreTimeoutError(StoreError):
    """The store did not answer within ``store_timeout`` seconds."""


class StoreFullError(StoreError):
    """The store has no room left: free some, or lower ``max_bytes``."""


class StoreReadOnlyError(StoreError):
    """The store may only be read: give write access, or open it with ``mode="read_only"``."""


class StoreDeniedError(StoreError):
    """The store's user may not do this: grant what the store's page in the docs lists."""


class StoreRefusedError(StoreError):
    """What lies at the given place isn't safe to use; the message says what to change."""
