"""What the ways in (openai, integrations) may use of core and cache, in one place."""

from __future__ import annotations

from asynccache.cache.cache import AsyncCache, SyncCache, values_of
from asynccache.cache.computing import VALUE_META, compute, computed
from asynccache.cache.events import CallWatch, watch
from asynccache.cache.in_force import Options, Samples, current_options, under
from asynccache.cache.lifecycle import Bypass, Lifecycle, Scope, behind, resolve
from asynccache.cache.scopes import asynchronous, current_cache, options
from asynccache.cache.settings import Settings
from asynccache.cache.values import Values
from asynccache.core.bulk import BulkCall, fetch_many
from asynccache.core.calls import (
    Answer,
    CallRequest,
    Fetched,
    Status,
    StoreIf,
    status_of,
    store_good,
)
from asynccache.core.counters import Outcome
from asynccache.core.engine import Engine
from asynccache.core.flight import Caller, Fate, Flight, NotSharedError, Reader
from asynccache.core.flight import Scope as ErrorScope
from asynccache.core.modes import Mode
from asynccache.runtime.waiters import WaitedTooLongError

__all__ = [
    "VALUE_META",
    "Answer",
    "AsyncCache",
    "BulkCall",
    "Bypass",
    "CallRequest",
    "CallWatch",
    "Caller",
    "Engine",
    "ErrorScope",
    "Fate",
    "Fetched",
    "Flight",
    "Lifecycle",
    "Mode",
    "NotSharedError",
    "Options",
    "Outcome",
    "Reader",
    "Samples",
    "Scope",
    "Settings",
    "Status",
    "StoreIf",
    "SyncCache",
    "Values",
    "WaitedTooLongError",
    "asynchronous",
    "behind",
    "compute",
    "computed",
    "current_cache",
    "current_options",
    "fetch_many",
    "options",
    "resolve",
    "status_of",
    "store_good",
    "under",
    "values_of",
    "watch",
]
