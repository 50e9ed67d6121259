"""A cache as a framework's own: the framework looks answers up, and makes the calls itself.

So a miss is all that the framework can be told of whatever goes wrong here; except in mode
"replay", where a call would be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from asynccache.cache.cache import AsyncCache, SyncCache, values_of
from asynccache.cache.events import CallWatch, watch
from asynccache.cache.in_force import current_options
from asynccache.cache.lifecycle import Bypass, behind
from asynccache.cache.scopes import asynchronous, current_cache
from asynccache.cache.values import packed
from asynccache.core.flight import Judging
from asynccache.core.modes import Mode
from asynccache.entries.entry import Entry, Meta
from asynccache.errors import CacheClosedError, ReplayMiss
from asynccache.runtime import background

E = TypeVar("E", bound=Exception)

_OWN_LOOP: Final = "a sync call on asynccache's own loop, which can't wait for itself: await it"


class FrameworkCache:
    """Says which cache serves a framework's lookups, counts them, and tells who watches.

    Args:
        cache: An `AsyncCache` or `SyncCache`; None is the cache in force around each call.
        endpoint: What watchers are told that the calls are, e.g. "langchain".

    Raises:
        TypeError: ``cache`` is no cache.
    """

    __slots__ = ("_endpoint", "_own")

    def __init__(self, cache: AsyncCache | SyncCache | None, endpoint: str) -> None:
        self._own: Final = asynchronous(cache)
        self._endpoint: Final = endpoint

    def named(self) -> AsyncCache | None:
        """Return the framework's cache, or the one in force: also if it is closed, in any mode."""
        return current_cache() if self._own is None else self._own

    def serving(self, *, reading: bool) -> AsyncCache | None:
        """Return the cache that serves a call; None if the call goes past it, or there is none.

        Args:
            reading: Whether the call looks something up. What goes past the cache is counted once,
                though a framework looks up and stores.

        Raises:
            CacheClosedError: The cache isn't open, in mode "replay".
        """
        cache = self.named()
        if cache is None:
            return None
        try:
            bypass = behind(cache).bypass(current_options())
        except CacheClosedError as exc:
            if reading:
                self._failed(cache, exc)
            raise
        if bypass is None:
            return cache
        if reading:
            self.passed(cache, bypass.reason)
        return None

    def serving_thread(self, *, reading: bool) -> AsyncCache | None:
        """Return what `serving` does, to a caller that can't await and uses the background loop.

        None on the background loop itself, which can't wait for itself.
        """
        cache = self.serving(reading=reading)
        if cache is None or not background.in_background_loop():
            return cache
        if reading:
            self.passed(cache, _OWN_LOOP)
        return None

    def answered(self, cache: AsyncCache, key: object, entry: Entry | None) -> None:
        """Count what a lookup found, and tell who watches; see `Lifecycle.note_lookup`.

        Args:
            cache: Where it was looked up.
            key: What was looked up; None where that isn't known.
            entry: What was found; None is a miss.

        Raises:
            ReplayMiss: It is a miss, in mode "replay".
        """
        lifecycle = behind(cache)
        if entry is None and mode_in_force(cache) == "replay":
            lifecycle.note_replay_miss()
            seed = current_options().namespace(lifecycle.settings.namespace).seed
            what = f"this {self._endpoint} lookup (cache_seed {seed})"
            raise self._failed(cache, ReplayMiss(f"nothing is stored for {what}"), key)
        lifecycle.note_lookup(self._endpoint, lambda: _digest(cache, key), entry)

    async def store(
        self,
        cache: AsyncCache,
        items: Sequence[tuple[object, object]],
        *,
        ttl: float | None = None,
        judging: Judging | None = None,
    ) -> None:
        """Store what came of a call, so that only mode "replay" finds it if it is unusable.

        Args:
            cache: Where it was looked up.
            items: Keys and plain data.
            ttl: Seconds until it expires; None for the cache's own.
            judging: Tells whether it is usable; None where there is nothing to judge.
        """
        pack = packed
        if judging is not None:
            engine = behind(cache).scope(current_options()).engine
            pack = packed if await engine.is_usable(judging) else _packed_unusable
        await values_of(cache).put(items, pack, ttl=ttl)

    def passed(self, cache: AsyncCache, reason: str | None) -> None:
        """Count a lookup that goes past the cache, and tell who watches.

        Raises:
            ReplayMiss: In mode "replay", where it may not.
        """
        try:
            Bypass(behind(cache), mode_in_force(cache), reason).note()
        except ReplayMiss as exc:
            raise self._failed(cache, exc) from None
        if (watcher := self._watch(cache)) is not None:
            watcher.passed(reason)

    def _failed(self, cache: AsyncCache, error: E, key: object = None) -> E:
        if (watcher := self._watch(cache)) is not None:
            watcher.key = _digest(cache, key)
            watcher.failed(error)
        return error

    def _watch(self, cache: AsyncCache) -> CallWatch | None:
        return watch(behind(cache).settings, self._endpoint)


def _packed_unusable(value: object, type: Any) -> tuple[Meta, bytes]:  # noqa: ANN401 - a type form
    meta, data = packed(value, type)
    return replace(meta, unusable=True), data


def _digest(cache: AsyncCache, key: object) -> bytes:
    return b"" if key is None else values_of(cache).digest(key)


def mode_in_force(cache: AsyncCache) -> Mode:
    """Return a cache's mode around the caller, in any thread."""
    return behind(cache).mode(current_options())
