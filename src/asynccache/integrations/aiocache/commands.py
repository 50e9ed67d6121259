"""The commands that aiocache asks of a cache, in those of one of ours.

aiocache's namespaces are namespaces of the cache's own, so that ``clear`` empties exactly one.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportArgumentType=false
# aiocache has no types.

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from hashlib import sha256
from inspect import isawaitable
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from aiocache.base import SENTINEL, BaseCache

from asynccache.cache.cache import AsyncCache
from asynccache.cache.in_force import current_options
from asynccache.cache.scopes import options
from asynccache.entries.values import MISSING, decode_value, encode_value

_SECOND: Final = 1_000_000  # microseconds
_SEED: Final = 32  # hex digits: what names a namespace of aiocache's among the cache's own
OWN: Final = object()
"""As a ttl: the cache's own."""
_LOCKS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakKeyDictionary()


class KeyPlace(str):
    """A key as aiocache builds it, which remembers its namespace."""

    __slots__ = ("space",)
    space: str | None


class Commands(BaseCache):  # type: ignore[misc] # aiocache has no types
    """What is below aiocache's public methods; a subclass says which cache it is about."""

    async def _cache(self) -> AsyncCache:
        raise NotImplementedError

    def _in(self, cache: AsyncCache, place: KeyPlace, ttl: Any = OWN) -> Any:  # noqa: ANN401 - a context manager
        """Return a block in the namespace of a key, where nothing expires that shouldn't."""
        own = current_options().namespace(cache.settings.namespace)
        named = sha256(repr((own.seed, place.space)).encode()).hexdigest()[:_SEED]
        if ttl is OWN or left_of(ttl) is not None:
            return options(cache_seed=f"aiocache-{named}")
        return options(cache_seed=f"aiocache-{named}", ttl=None)

    def _get_ttl(self, ttl: Any) -> Any:  # noqa: ANN401 - seconds, None, or a sentinel
        if ttl is not SENTINEL:
            return ttl
        return OWN if self.ttl is None else self.ttl

    @staticmethod
    def _wrapped(cache: AsyncCache, value: Any, ttl: Any) -> Any:  # noqa: ANN401 - as above
        """Return what is kept: what a serializer made, and when it ends, for changes to it."""
        seconds = cache.ttl_in_force(None) if ttl is OWN else left_of(ttl)
        return [value, 0 if seconds is None else cache.now() + int(seconds * _SECOND)]

    async def _get(
        self, key: KeyPlace, encoding: str | None = "utf-8", _conn: object = None
    ) -> Any:  # noqa: ANN401 - what is kept
        (found,) = await self._multi_get([key])
        return found

    async def _gets(
        self, key: KeyPlace, encoding: str | None = "utf-8", _conn: object = None
    ) -> Any:  # noqa: ANN401 - as above
        return await self._get(key)

    async def _multi_get(
        self, keys: Sequence[KeyPlace], encoding: str | None = "utf-8", _conn: object = None
    ) -> list[Any]:
        return [None if kept is MISSING else kept[0] for kept in await self._kept(keys)]

    async def _kept(self, keys: Sequence[KeyPlace]) -> list[Any]:
        """Return what is kept under keys of one namespace, and until when; MISSING for nothing."""
        if not keys:
            return []
        cache = await self._cache()
        with self._in(cache, keys[0]):
            return await cache.get_many([name_of(key) for key in keys], MISSING)

    async def _set(
        self,
        key: KeyPlace,
        value: Any,  # noqa: ANN401 - what a serializer made
        ttl: Any = None,  # noqa: ANN401 - seconds, or the cache's own
        _cas_token: Any = None,  # noqa: ANN401 - what `_gets` returned
        _conn: object = None,
    ) -> bool:
        if _cas_token is None:
            return await self._multi_set([(key, value)], ttl=ttl)
        async with _lock():
            if await self._get(key) != _cas_token:
                return False
            return await self._multi_set([(key, value)], ttl=ttl)

    async def _multi_set(
        self,
        pairs: Iterable[tuple[KeyPlace, Any]],
        ttl: Any = None,  # noqa: ANN401 - as above
        _conn: object = None,
    ) -> bool:
        items = list(pairs)
        if not items:
            return True
        cache = await self._cache()
        with self._in(cache, items[0][0], ttl):
            stored = await cache.set_many(
                [(name_of(key), self._wrapped(cache, value, ttl)) for key, value in items],
                ttl=left_of(ttl),
            )
        return all(stored)

    async def _add(
        self,
        key: KeyPlace,
        value: Any,  # noqa: ANN401 - as above
        ttl: Any = None,  # noqa: ANN401 - as above
        _conn: object = None,
    ) -> bool:
        cache = await self._cache()
        made = False

        async def make() -> Any:  # noqa: ANN401 - what is kept
            nonlocal made
            made = True
            return as_kept(self._wrapped(cache, value, ttl))

        with self._in(cache, key, ttl):
            await cache.get_or_create(name_of(key), make, ttl=left_of(ttl))
        if not made:
            raise ValueError(f"Key {key} already exists, use .set to update the value")
        return True

    async def _exists(self, key: KeyPlace, _conn: object = None) -> bool:
        (found,) = await self._kept([key])
        return found is not MISSING

    async def _delete(self, key: KeyPlace, _conn: object = None) -> int:
        cache = await self._cache()
        with self._in(cache, key):
            return int(await cache.delete(name_of(key)))

    async def _increment(self, key: KeyPlace, delta: int, _conn: object = None) -> int:
        serializer = cast("Any", self.serializer)
        async with _lock():
            (found,) = await self._kept([key])
            if found is MISSING:
                await self._multi_set([(key, serializer.dumps(delta))], ttl=OWN)
                return delta
            kept, expires = found
            try:
                number = int(serializer.loads(kept)) + delta
            except (TypeError, ValueError):
                raise TypeError("Value is not an integer") from None
            cache = await self._cache()
            left = max(1, expires - cache.now()) / _SECOND if expires else None
            await self._multi_set([(key, serializer.dumps(number))], ttl=left)
            return number

    async def _expire(self, key: KeyPlace, ttl: float, _conn: object = None) -> bool:
        async with _lock():
            (found,) = await self._kept([key])
            if found is MISSING:
                return False
            return await self._multi_set([(key, found[0])], ttl=ttl)

    async def _clear(self, namespace: str | None = None, _conn: object = None) -> bool:
        place = KeyPlace()
        place.space = self.namespace if namespace is None else namespace
        cache = await self._cache()
        with self._in(cache, place):
            await cache.clear()
        return True

    async def _raw(
        self,
        command: str,
        *args: Any,  # noqa: ANN401 - of the cache's
        encoding: str | None = "utf-8",
        _conn: object = None,
        **kwargs: Any,  # noqa: ANN401 - as above
    ) -> Any:  # noqa: ANN401 - as above
        result = getattr(await self._cache(), command)(*args, **kwargs)
        return await result if isawaitable(result) else result

    async def _redlock_release(self, key: KeyPlace, value: Any) -> int:  # noqa: ANN401 - what `_add` was given
        async with _lock():
            return await self._delete(key) if await self._get(key) == value else 0


def as_kept(value: object) -> Any:  # noqa: ANN401 - plain data
    """Return a value as it comes back once it is stored; TypeError if it can't be."""
    return decode_value(encode_value(value))


def name_of(place: KeyPlace) -> tuple[str, str]:
    """Return the key that a place is stored under."""
    return ("aiocache", str(place))


def left_of(ttl: Any) -> float | None:  # noqa: ANN401 - seconds, None, or the cache's own
    """Return seconds, None for what doesn't expire or does so by the cache's own rule."""
    return None if ttl is OWN or not ttl else float(ttl)


def _lock() -> asyncio.Lock:
    """Return the running loop's lock, for steps of two commands."""
    return _LOCKS.setdefault(asyncio.get_running_loop(), asyncio.Lock())
