"""asynccache: the same request is paid for once, and answered alike ever after.

Example::

    async with Cache.disk() as cache:
        client = cache.wrap(AsyncOpenAI())
        await client.chat.completions.create(...)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asynccache.cache.cache import AsyncCache, SyncCache
    from asynccache.cache.events import CallEvent, record
    from asynccache.cache.factory import Cache
    from asynccache.cache.instrument import (
        instrument,
        instrument_openai,
        uninstrument,
        uninstrument_openai,
    )
    from asynccache.cache.memoize import memoize
    from asynccache.cache.scopes import current_cache, options, set_default_cache
    from asynccache.cache.settings import CacheOptions
    from asynccache.core.calls import Answer, Status, status_of as status, store_good
    from asynccache.core.counters import Stats
    from asynccache.core.modes import Mode
    from asynccache.entries.values import MISSING, Missing
    from asynccache.errors import (
        AsyncCacheError,
        CacheClosedError,
        NotCanonicalError,
        ReplayMiss,
        StoreAuthError,
        StoreBusyError,
        StoreDeniedError,
        StoreError,
        StoreFailoverError,
        StoreFullError,
        StoreLoadingError,
        StoreReadOnlyError,
        StoreRefusedError,
        StoreThrottledError,
        StoreTimeoutError,
        StoreUnavailableError,
    )
    from asynccache.keys.canonical import canonical_value

    __version__: str

__all__ = [
    "MISSING",
    "Answer",
    "AsyncCache",
    "AsyncCacheError",
    "Cache",
    "CacheClosedError",
    "CacheOptions",
    "CallEvent",
    "Missing",
    "Mode",
    "NotCanonicalError",
    "ReplayMiss",
    "Stats",
    "Status",
    "StoreAuthError",
    "StoreBusyError",
    "StoreDeniedError",
    "StoreError",
    "StoreFailoverError",
    "StoreFullError",
    "StoreLoadingError",
    "StoreReadOnlyError",
    "StoreRefusedError",
    "StoreThrottledError",
    "StoreTimeoutError",
    "StoreUnavailableError",
    "SyncCache",
    "canonical_value",
    "current_cache",
    "instrument",
    "instrument_openai",
    "memoize",
    "options",
    "record",
    "set_default_cache",
    "status",
    "store_good",
    "uninstrument",
    "uninstrument_openai",
]

# Each name is loaded when it is first asked for, as anyio does it: importing the package costs
# nothing in a program that goes on without it.
_HOMES: Final = {
    "cache.cache": ("AsyncCache", "SyncCache"),
    "core.calls": ("Answer", "Status", "store_good"),
    "core.modes": ("Mode",),
    "keys.canonical": ("canonical_value",),
    "cache.scopes": ("current_cache", "options", "set_default_cache"),
    "errors": (
        "AsyncCacheError", "CacheClosedError", "NotCanonicalError", "ReplayMiss",
        "StoreAuthError", "StoreBusyError", "StoreDeniedError", "StoreError", "StoreFailoverError",
        "StoreFullError", "StoreLoadingError", "StoreReadOnlyError", "StoreRefusedError",
        "StoreThrottledError", "StoreTimeoutError", "StoreUnavailableError",
    ),
    "cache.events": ("CallEvent", "record"),
    "cache.factory": ("Cache",),
    "cache.instrument": (
        "instrument", "instrument_openai", "uninstrument", "uninstrument_openai",
    ),
    "cache.memoize": ("memoize",),
    "cache.settings": ("CacheOptions",),
    "core.counters": ("Stats",),
    "entries.values": ("MISSING", "Missing"),
}  # fmt: skip
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "status":
        found: object = importlib.import_module("asynccache.core.calls").status_of
    elif name == "__version__":
        found = _version()
    elif name in _HOME_OF:
        found = getattr(importlib.import_module(f"asynccache.{_HOME_OF[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def _version() -> str:
    metadata = importlib.import_module("importlib.metadata")  # it takes longer than all of ours
    try:
        found: str = metadata.version("asynccache")
    except metadata.PackageNotFoundError as exc:
        raise AttributeError("asynccache isn't installed here, so that it has no version") from exc
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
