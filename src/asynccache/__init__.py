"""asynccache: the same request is paid for once, and answered alike ever after.

async with Cache.disk() as cache:
client = cache.wrap(AsyncOpenAI())
await client.chat.completions.create(...)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asynccache._cache import AsyncCache
from asynccache._call import Answer, Mode, Status
from asynccache._call import status_of as status
from asynccache._canonical import canonical_value
from asynccache._context import current_cache, options, set_default_cache
from asynccache._errors import (
    AsyncCacheError,
    CacheClosedError,
    NotCanonicalError,
    ReplayMiss,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreRefusedError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from asynccache._factory import Cache, CacheOptions
from asynccache._memoize import memoize
from asynccache._stats import Stats
from asynccache._values import MISSING
from asynccache._wrappers import register_wrapper

__all__ = [
    "MISSING",
    "Answer",
    "AsyncCache",
    "AsyncCacheError",
    "Cache",
    "CacheClosedError",
    "CacheOptions",
    "Mode",
    "NotCanonicalError",
    "ReplayMiss",
    "Stats",
    "Status",
    "StoreError",
    "StoreFullError",
    "StoreReadOnlyError",
    "StoreRefusedError",
    "StoreTimeoutError",
    "StoreUnavailableError",
    "canonical_value",
    "current_cache",
    "memoize",
    "options",
    "set_default_cache",
    "status",
]


def _load_openai() -> Callable[..., Any]:
    from asynccache.openai import wrap

    return wrap


register_wrapper("openai", _load_openai)
