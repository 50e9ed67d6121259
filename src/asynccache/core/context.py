"""What everything in one event loop's engine shares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct

from asynccache.core.breaker import CircuitBreaker
from asynccache.core.counters import Counters
from asynccache.runtime.clock import Clock
from asynccache.runtime.pacer import Pacer
from asynccache.stores.base import Store


class Limits(Struct, frozen=True, kw_only=True):
    """The limits of a cache that its engines keep to."""

    max_entry_bytes: int
    """Larger bodies are neither stored nor shared with newcomers."""
    store_timeout: float
    """Seconds that a lookup or a claim may take."""
    lease_ttl: float
    """Seconds of silence after which a lease is taken over."""
    ttl_jitter: float
    """Share of a ttl, 0 to 1, by which chance may shorten it."""


class LoopContext(Struct, frozen=True, kw_only=True, eq=False):
    """One event loop's share of a cache: made once, handed to every part of the engine."""

    loop: asyncio.AbstractEventLoop
    store: Store
    """Shared with the cache's other loops."""
    breaker: CircuitBreaker
    """Stands before the store; shared too."""
    clock: Clock
    counters: Counters
    pacer: Pacer
    limits: Limits
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    """Starts a task that the engine awaits when it is closed."""
