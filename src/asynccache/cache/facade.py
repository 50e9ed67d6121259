"""What the ways in (openai, integrations) may use of core and cache, in one place."""

from __future__ import annotations

from asynccache.cache.ambient import (
    AMBIENCES as AMBIENCES,
    NO_CACHE as NO_CACHE,
    idle_watch as idle_watch,
)
from asynccache.cache.cache import (
    AsyncCache as AsyncCache,
    SyncCache as SyncCache,
    values_of as values_of,
)
from asynccache.cache.clients import not_wrappable as not_wrappable
from asynccache.cache.computing import (
    VALUE_META as VALUE_META,
    compute as compute,
    computed as computed,
)
from asynccache.cache.events import CallWatch as CallWatch, watch as watch
from asynccache.cache.factory import Cache as Cache
from asynccache.cache.framework import (
    FrameworkCache as FrameworkCache,
    mode_in_force as mode_in_force,
)
from asynccache.cache.in_force import (
    NO_OPTIONS as NO_OPTIONS,
    Options as Options,
    Samples as Samples,
    current_options as current_options,
    is_watched as is_watched,
    under as under,
)
from asynccache.cache.inputs import (
    InputsAnswer as InputsAnswer,
    InputsJob as InputsJob,
    InputsRequest as InputsRequest,
    InputsSender as InputsSender,
    ServerAnswer as ServerAnswer,
)
from asynccache.cache.lifecycle import (
    Bypass as Bypass,
    Lifecycle as Lifecycle,
    Scope as Scope,
    behind as behind,
    resolve as resolve,
)
from asynccache.cache.patches import Place as Place, bound as bound
from asynccache.cache.scopes import (
    asynchronous as asynchronous,
    current_cache as current_cache,
    options as options,
)
from asynccache.cache.settings import Settings as Settings, seconds_of as seconds_of
from asynccache.cache.values import Values as Values
from asynccache.core.calls import (
    Answer as Answer,
    CallRequest as CallRequest,
    Fetched as Fetched,
    Status as Status,
    StoreIf as StoreIf,
    plain as plain,
    status_of as status_of,
    store_good as store_good,
)
from asynccache.core.chunks import ChunkSource as ChunkSource
from asynccache.core.counters import Outcome as Outcome
from asynccache.core.engine import Engine as Engine
from asynccache.core.flight import (
    Caller as Caller,
    ErrorScope as ErrorScope,
    Fate as Fate,
    Flight as Flight,
    Judging as Judging,
    NotSharedError as NotSharedError,
    Reader as Reader,
    WaitedTooLongError as WaitedTooLongError,
)
from asynccache.core.modes import Mode as Mode
