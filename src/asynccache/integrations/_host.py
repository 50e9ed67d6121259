"""What the caches that frameworks define have in common: which cache, in which mode and thread.

A framework asks for a value, and makes the call itself if there is none. So a miss is all that it
can be told of whatever goes wrong here; except in mode "replay", where a call would be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from msgspec import UNSET

from asynccache import _portal
from asynccache._cache import AsyncCache
from asynccache._call import Mode
from asynccache._context import current_cache, current_options
from asynccache._errors import CacheClosedError, ReplayMiss

T = TypeVar("T")

_CLOSED: Final = "the cache isn't open"
_OWN_LOOP: Final = "a sync call on asynccache's own loop, which can't wait for itself: await it"


class Face(Protocol):
    """What ``with`` gives: a `SyncCache`, which stands for a cache."""

    @property
    def asynchronous(self) -> AsyncCache:
        """The cache itself."""
        ...


def checked(cache: AsyncCache | Face | None) -> AsyncCache | None:
    """Return the cache that a framework's is made with, by whichever of its faces.

    Raises:
        TypeError: It is no cache.
    """
    found: object = getattr(cache, "asynchronous", cache)
    if found is None or isinstance(found, AsyncCache):
        return found
    raise TypeError(
        f"cache must be an AsyncCache, a SyncCache or None, not {type(cache).__qualname__};"
        " Cache.from_url makes one of a URL"
    )


def cache_of(named: AsyncCache | Face | None) -> AsyncCache | None:
    """Return what `checked` does."""
    return checked(named)


def mode_of(cache: AsyncCache) -> Mode:
    """Return the mode in force for a cache around the caller."""
    mode = current_options().mode
    return cache.settings.mode if mode is UNSET else mode


def cache_for(own: AsyncCache | None, *, reading: bool) -> AsyncCache | None:
    """Return the cache that serves a framework's call: its own, else the one in force; or None.

    Args:
        own: What the framework's cache was made with.
        reading: Whether the call looks something up. What goes past the cache is counted once,
            though a framework looks up and stores.

    Raises:
        CacheClosedError: In mode "replay" the cache isn't open, so that there is nothing to replay.
    """
    cache = current_cache() if own is None else own
    if cache is None:
        return None
    mode = mode_of(cache)
    if not cache.is_open:
        if mode == "replay":
            raise CacheClosedError(f"nothing can be replayed: {_CLOSED}")
        if reading:
            cache.note_bypass(None if mode == "off" else _CLOSED)
        return None
    if mode == "off":
        if reading:
            cache.note_bypass(None)
        return None
    return cache


def cache_to_clear(own: AsyncCache | None) -> AsyncCache | None:
    """Return the cache that a framework asks to clear, in whichever mode; None if there is none."""
    return current_cache() if own is None else own


def answered(cache: AsyncCache, *, hit: bool) -> None:
    """Count what a lookup found.

    Raises:
        ReplayMiss: Nothing, in mode "replay".
    """
    if not hit and mode_of(cache) == "replay":
        raise ReplayMiss("nothing is stored for this request")
    cache.note_lookup(hit=hit)


def from_thread(
    own: AsyncCache | None,
    default: T,
    function: Callable[..., Coroutine[Any, Any, T]],
    *args: object,
    reading: bool = False,
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
    """
    cache = cache_for(own, reading=reading)
    if cache is None:
        return default
    if _portal.in_portal():
        if mode_of(cache) == "replay":
            raise ReplayMiss(_OWN_LOOP)
        if reading:
            cache.note_bypass(_OWN_LOOP)
        return default
    return _portal.call(function, cache, *args)
