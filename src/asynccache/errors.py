"""Every error that asynccache raises of its own.

    AsyncCacheError
    ├── CacheClosedError        the cache isn't open, or was closed while a caller waited
    ├── ReplayMiss              mode "replay" has no entry for this request
    ├── NotCanonicalError       (also TypeError) a value has no canonical form to make a key of
    └── StoreError              a store could not do its work
        ├── StoreUnavailableError   can't be reached, or the circuit breaker is open
        │   ├── StoreAuthError          rejects the user name or the password
        │   ├── StoreFailoverError      is changing its primary server
        │   ├── StoreLoadingError       is starting and not ready yet
        │   └── StoreThrottledError     limits the rate of requests
        ├── StoreTimeoutError       did not answer before the deadline
        ├── StoreBusyError          another process keeps it from being written
        ├── StoreFullError          no room: disk full, quota, or memory limit
        ├── StoreReadOnlyError      can be read but not written
        ├── StoreDeniedError        does not allow this user to do this
        └── StoreRefusedError       holds something that is unsafe to use: foreign, newer or older

Bad arguments raise the built-in ``ValueError`` and ``TypeError``. A store maps each error of its
driver to a `StoreError`, with the driver's error as its cause.

Two functions at the end make what messages have in common.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final


class AsyncCacheError(Exception):
    """Base class of all errors that this library defines."""


class CacheClosedError(AsyncCacheError):
    """The cache isn't open: use it inside ``async with cache:``, or call ``cache.open()`` first."""


class ReplayMiss(AsyncCacheError):  # noqa: N818 - the name users know from record-and-replay tools
    """Nothing is stored for this request, and mode "replay" never goes upstream.

    Record it first, by making the same request once in mode "read_write".
    """


class NotCanonicalError(AsyncCacheError, TypeError):
    """A value can't be turned into a key: leave it out with ``ignore=`` or pass plain data."""


class StoreError(AsyncCacheError):
    """A store could not do its work.

    ``delete``, ``clear`` and ``forget`` raise it. Other methods raise it only with
    ``on_store_error="raise"``.
    """


class StoreUnavailableError(StoreError):
    """The store can't be reached, or its circuit breaker is open. Calls go upstream meanwhile."""


class StoreAuthError(StoreUnavailableError):
    """The store rejects the user name or the password. Check the credentials."""


class StoreFailoverError(StoreUnavailableError):
    """The store is changing its primary server. Calls go upstream until the change is over."""


class StoreLoadingError(StoreUnavailableError):
    """The store is loading its data. Calls go upstream until it is ready."""


class StoreThrottledError(StoreUnavailableError):
    """The store limits the rate of requests. Raise its throughput."""


class StoreTimeoutError(StoreError):
    """The store did not answer within ``store_timeout`` seconds."""


class StoreBusyError(StoreError):
    """Another process keeps the store from being written. What is there can still be read."""


class StoreFullError(StoreError):
    """The store has no room left. Free some, or lower ``max_bytes``."""


class StoreReadOnlyError(StoreError):
    """The store can only be read. Give write access, or open it with ``mode="read_only"``."""


class StoreDeniedError(StoreError):
    """The store's user is not allowed to do this. Grant the rights that the store's page lists."""


class StoreRefusedError(StoreError):
    """What the store found is not safe to use. The message says what to change."""


@contextmanager
def from_extra(extra: str) -> Generator[None]:
    """Say which extra to install where an import in this block finds no package.

    Raises:
        ImportError: A package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        package = (exc.name or "asynccache").partition(".")[0]
        if package == "asynccache":
            raise
        raise ImportError(
            f'{package} isn\'t installed: run pip install "asynccache[{extra}]"', name=exc.name
        ) from exc


_VOWEL_FIRST: Final = re.compile(
    r"[AEFHILMNORSX](?=[A-Z0-9])"  # spelt out: an HTTPError
    r"|(?![A-Z]{2})([AaIi]|[Ee](?!u)|[Oo](?!ne(?![a-z]))|[Uu](?!ni|int|r[il]|s[aeu]|t|uid))"
)


def described(value: object) -> str:
    """Return what kind of value was given, to be read in a message: "an int", "a dict", "None"."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    article = "an" if _VOWEL_FIRST.match(name.lstrip("_")) else "a"
    return f"{article} {name}"
