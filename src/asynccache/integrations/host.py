"""What the caches that frameworks define have in common: which cache, in which mode and thread.

A framework asks for a value, and makes the call itself if there is none. So a miss is all that it
can be told of whatever goes wrong here; except in mode "replay", where a call would be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from msgspec import UNSET

from asynccache.cache.cache import AsyncCache
from asynccache.cache.computing import VALUE_META
from asynccache.cache.events import watch
from asynccache.cache.in_force import current_options
from asynccache.cache.scopes import current_cache
from asynccache.core.calls import Mode
from asynccache.entries.entry import Entry
from asynccache.errors import CacheClosedError, ReplayMiss
from asynccache.runtime import background

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

_CLOSED: Final = "the cache isn't open"
_OWN_LOOP: Final = "a sync call on asynccache's own loop, which can't wait for itself: await it"


class SyncView(Protocol):
    """What ``with`` gives: a `SyncCache`, which stands for a cache."""

    @property
    def asynchronous(self) -> AsyncCache:
        """The cache itself."""
        ...


def mode_of(cache: AsyncCache) -> Mode:
    """Return the mode in force for a cache around the caller."""
    mode = current_options().mode
    return cache.settings.mode if mode is UNSET else mode


def cache_for(
    own: AsyncCache | None, *, reading: bool, endpoint: str = "value"
) -> AsyncCache | None:
    """Return the cache that serves a framework's call: its own, else the one in force; or None.

    Args:
        own: What the framework's cache was made with.
        reading: Whether the call looks something up. What goes past the cache is counted once,
            though a framework looks up and stores.
        endpoint: What watchers are told the call is.

    Raises:
        CacheClosedError: In mode "replay" the cache isn't open, so that there is nothing to replay.
    """
    cache = current_cache() if own is None else own
    if cache is None:
        return None
    mode = mode_of(cache)
    if mode == "off":
        if reading:
            passed(cache, None, endpoint=endpoint)
        return None
    if not cache.is_open:
        if mode == "replay":
            error = CacheClosedError(f"nothing can be replayed: {_CLOSED}")
            raise _told(cache, error, endpoint) if reading else error
        if reading:
            passed(cache, _CLOSED, endpoint=endpoint)
        return None
    return cache


def cache_to_clear(own: AsyncCache | None) -> AsyncCache | None:
    """Return the cache that a framework asks to clear, in whichever mode; None if there is none."""
    return current_cache() if own is None else own


def answered(
    cache: AsyncCache,
    *,
    hit: bool,
    endpoint: str = "value",
    key: object = None,
    entry: Entry | None = None,
) -> None:
    """Count what a lookup found, and tell who watches.

    A miss is told of now, without what the call costs that the framework makes next.

    Args:
        cache: Where it was looked up.
        hit: Whether something was found.
        endpoint: What watchers are told the call is.
        key: What was looked up, None where that isn't known.
        entry: What was found, None where that isn't known.

    Raises:
        ReplayMiss: Nothing, in mode "replay".
    """
    if not hit and mode_of(cache) == "replay":
        cache.note_replay_miss()
        seed = current_options().namespace(cache.settings.namespace).seed
        error = ReplayMiss(f"nothing is stored for this {endpoint} lookup (cache_seed {seed})")
        raise _told(cache, error, endpoint, key)
    cache.note_lookup(hit=hit)
    told = watch(cache.settings.observer, endpoint)
    if told is not None:
        known = entry or Entry(_digest(cache, key), 0, 0, VALUE_META, ())
        told.served("hit" if hit else "miss", known, cache.now())


def passed(cache: AsyncCache, reason: str | None, *, endpoint: str = "value") -> None:
    """Count a lookup that goes past the cache, and tell who watches.

    Raises:
        ReplayMiss: In mode "replay", where it may not.
    """
    if mode_of(cache) == "replay":
        raise _told(cache, ReplayMiss(reason), endpoint)
    cache.note_bypass(reason)
    told = watch(cache.settings.observer, endpoint)
    if told is not None:
        told.passed(reason)


def _told(cache: AsyncCache, error: E, endpoint: str, key: object = None) -> E:
    told = watch(cache.settings.observer, endpoint)
    if told is not None:
        told.key = _digest(cache, key)
        told.failed(error)
    return error


def _digest(cache: AsyncCache, key: object) -> bytes:
    return b"" if key is None else cache.digest(key)


def from_thread(
    own: AsyncCache | None,
    default: T,
    function: Callable[..., Coroutine[Any, Any, T]],
    *args: object,
    reading: bool = False,
    endpoint: str = "value",
) -> T:
    """Await a coroutine function for a caller that can't, with the cache that serves it.

    On an event loop's own thread this holds that loop until the answer is there: the work is done
    in the background loop, so that neither waits for the other. Called from the background loop
    itself it can't wait, and returns ``default``.

    Args:
        own: What the framework's cache was made with.
        default: What is returned where there is no cache.
        function: Awaited with the cache and ``args``.
        args: Further arguments.
        reading: As for `cache_for`.
        endpoint: As for `cache_for`.
    """
    cache = cache_in_thread(own, reading=reading, endpoint=endpoint)
    return default if cache is None else background.call(function, cache, *args)


def cache_in_thread(
    own: AsyncCache | None, *, reading: bool, endpoint: str = "value"
) -> AsyncCache | None:
    """Return the cache that serves a call which can't await, as `cache_for` does, or None.

    None on the background loop too, which can't wait for itself.
    """
    cache = cache_for(own, reading=reading, endpoint=endpoint)
    if cache is None or not background.in_background_loop():
        return cache
    if reading:
        passed(cache, _OWN_LOOP, endpoint=endpoint)
    return None
