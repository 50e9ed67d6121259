"""What the ways in (openai, integrations) may use of core and cache, in one place."""

from __future__ import annotations

from asynccache.cache.cache import AsyncCache as AsyncCache
from asynccache.cache.cache import SyncCache as SyncCache
from asynccache.cache.cache import values_of as values_of
from asynccache.cache.computing import VALUE_META as VALUE_META
from asynccache.cache.computing import compute as compute
from asynccache.cache.computing import computed as computed
from asynccache.cache.events import CallWatch as CallWatch
from asynccache.cache.events import watch as watch
from asynccache.cache.in_force import Options as Options
from asynccache.cache.in_force import Samples as Samples
from asynccache.cache.in_force import current_options as current_options
from asynccache.cache.in_force import under as under
from asynccache.cache.lifecycle import Bypass as Bypass
from asynccache.cache.lifecycle import Lifecycle as Lifecycle
from asynccache.cache.lifecycle import Scope as Scope
from asynccache.cache.lifecycle import behind as behind
from asynccache.cache.lifecycle import resolve as resolve
from asynccache.cache.scopes import asynchronous as asynchronous
from asynccache.cache.scopes import current_cache as current_cache
from asynccache.cache.scopes import options as options
from asynccache.cache.settings import Settings as Settings
from asynccache.cache.values import Values as Values
from asynccache.core.bulk import BulkCall as BulkCall
from asynccache.core.bulk import fetch_many as fetch_many
from asynccache.core.calls import (
    Answer as Answer,
)
from asynccache.core.calls import (
    CallRequest as CallRequest,
)
from asynccache.core.calls import (
    Fetched as Fetched,
)
from asynccache.core.calls import (
    Status as Status,
)
from asynccache.core.calls import (
    StoreIf as StoreIf,
)
from asynccache.core.calls import (
    status_of as status_of,
)
from asynccache.core.calls import (
    store_good as store_good,
)
from asynccache.core.counters import Outcome as Outcome
from asynccache.core.engine import Engine as Engine
from asynccache.core.flight import Caller as Caller
from asynccache.core.flight import Fate as Fate
from asynccache.core.flight import Flight as Flight
from asynccache.core.flight import NotSharedError as NotSharedError
from asynccache.core.flight import Reader as Reader
from asynccache.core.modes import Mode as Mode
from asynccache.runtime.waiters import WaitedTooLongError as WaitedTooLongError
