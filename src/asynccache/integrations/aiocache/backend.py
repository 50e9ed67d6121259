"""`AsyncCacheBackend`: one of our caches, as a cache of aiocache's.

aiocache's namespaces are namespaces of the cache's own, so that ``clear`` empties exactly one.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportArgumentType=false
# aiocache has no types.

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from hashlib import sha256
from inspect import isawaitable
from typing import Any, Final, Self, TypeAlias, cast
from weakref import WeakKeyDictionary

from aiocache.base import SENTINEL, BaseCache
from aiocache.serializers import PickleSerializer

from asynccache.cache.facade import (
    Answer,
    AsyncCache,
    Cache,
    Scope,
    behind,
    current_cache,
    current_options,
    options,
    seconds_of,
)
from asynccache.entries.values import MISSING, decode_value, encode_value
from asynccache.errors import CacheClosedError, described
from asynccache.integrations.aiocache.serializer import ValueSerializer
from asynccache.runtime.logs import warn_of

_SECOND: Final = 1_000_000  # microseconds
_SEED: Final = 32  # hex digits: what names a namespace of aiocache's among the cache's own
_OWN: Final = object()
_LOCKS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakKeyDictionary()

_Ttl: TypeAlias = Any
"""Seconds; None or 0 for what doesn't expire; `_OWN` for the cache's own rule."""
_Kept: TypeAlias = Any
"""What a serializer made of a value, None for nothing."""


class _KeyPlace(str):
    """A key as aiocache builds it, which remembers its namespace."""

    __slots__ = ("space",)
    space: str | None

    def __new__(cls, built: str, space: str | None) -> Self:
        """Return the key of a namespace."""
        place = super().__new__(cls, built)
        place.space = space
        return place


class AsyncCacheBackend(BaseCache):  # type: ignore[misc] # aiocache has no types
    """One of our caches, as a cache of aiocache's.

    Args:
        over: The `AsyncCache` to use, which is opened and closed by whoever made it; or a URL for
            `Cache.from_url`, opened at the first use and closed by ``close``; or None: the cache in
            force where a command is given.
        serializer: An aiocache serializer; default `ValueSerializer`. ``PickleSerializer`` is
            refused.
        plugins: As aiocache has them.
        namespace: As aiocache has it.
        key_builder: As aiocache has it.
        timeout: Seconds that a command may last; 0 or None for no limit.
        ttl: Seconds that values are kept by default; None leaves the cache's own.

    Raises:
        TypeError: ``over`` is something else, or the serializer runs what it reads.
        ValueError: The URL names no cache.

    Example:
        >>> from aiocache import cached
        >>> from asynccache.integrations.aiocache import AsyncCacheBackend
        >>> @cached(cache=AsyncCacheBackend, ttl=60)
        ... async def answer(question: str) -> str: ...
    """

    NAME = "asynccache"

    def __init__(
        self,
        over: AsyncCache | str | None = None,
        *,
        serializer: Any = None,  # noqa: ANN401 - aiocache's
        plugins: Sequence[Any] | None = None,
        namespace: str | None = None,
        key_builder: Callable[..., Any] | None = None,
        timeout: float | None = 5,
        ttl: float | None = None,
    ) -> None:
        if over is not None and not isinstance(over, AsyncCache | str):
            raise TypeError(
                f"over must be an AsyncCache or a URL, not {described(over)};"
                " None takes the cache in force"
            )
        super().__init__(
            serializer=serializer or ValueSerializer(),
            plugins=plugins,
            namespace=namespace,
            key_builder=key_builder,
            timeout=timeout,
            ttl=ttl,
        )
        self._own = isinstance(over, str)
        self._over = Cache.from_url(over) if isinstance(over, str) else over
        self._openings = 0

    def __repr__(self) -> str:
        return f"AsyncCacheBackend({self._over!r})"

    @property
    def build_key(self) -> Callable[..., Any]:
        """What makes keys of what commands are given. As in any aiocache cache, it can be set."""
        return self._build_place

    @build_key.setter
    def build_key(self, build: Callable[..., Any]) -> None:
        def build_place(key: Any, namespace: str | None = None) -> _KeyPlace:  # noqa: ANN401 - any key
            space = cast("str | None", self.namespace if namespace is None else namespace)
            built = build(key, namespace=space)
            built = built.value if isinstance(built, Enum) else built
            return _KeyPlace(built if isinstance(built, str) else repr(built), space)

        self._build_place = build_place

    @property
    def serializer(self) -> Any:  # noqa: ANN401 - aiocache's
        """The serializer; setting one refuses ``PickleSerializer``."""
        return self._serializer

    @serializer.setter
    def serializer(self, value: Any) -> None:  # noqa: ANN401 - aiocache's
        if isinstance(value, PickleSerializer):
            raise TypeError(
                "PickleSerializer runs what it reads: leave serializer out, and what msgspec can"
                " encode is kept as data"
            )
        self._serializer = value

    @classmethod
    def parse_uri_path(cls, path: str) -> dict[str, Any]:  # noqa: ARG003 - aiocache's signature
        """Return the options in the path of a URL: none."""
        return {}

    async def get_or_create(
        self,
        key: Any,  # noqa: ANN401 - as aiocache's
        create: Callable[[], Awaitable[Any]],
        *,
        ttl: _Ttl = SENTINEL,
        skip: Callable[[Any], bool] = lambda _: False,
    ) -> Any:  # noqa: ANN401 - any value
        """Return the value kept under a key, or make it once, however many ask at the same time.

        Args:
            key: As for ``get``.
            create: Makes the value.
            ttl: Seconds that it is kept; None or 0 for ever.
            skip: Tells which values are given to those who wait and not kept. None never is, as
                aiocache can't tell it from nothing.

        Raises:
            CacheClosedError: No cache is open.
            Exception: What ``create`` raised.
        """
        place: _KeyPlace = self.build_key(key)
        cache = await self._cache()
        ttl = self._get_ttl(ttl)
        around = contextvars.copy_context()
        rule = _scope(cache).store_if
        kept_at_all = False

        async def value_made() -> tuple[Any, bool]:
            value = await create()
            return value, value is not None and not skip(value)

        async def make() -> _Kept:
            nonlocal kept_at_all
            # What makes the value knows nothing of the namespace that it is kept in.
            making = asyncio.get_running_loop().create_task(value_made(), context=around)
            value, kept_at_all = await making
            try:
                made = _as_kept(self.serializer.dumps(value))
            except Exception as exc:
                warn_of(exc, "nothing is kept under %s: it can't be encoded: %r", place, exc)
                raise _NotKeptError(value) from exc
            return _with_end(cache, made, ttl)

        def store_if(answer: Answer) -> bool:
            return kept_at_all and rule(answer)

        try:
            with self._in(cache, place, ttl), options(store_if=store_if):
                kept, _ = await cache.get_or_create(_name(place), make, ttl=_seconds(ttl))
        except _NotKeptError as exc:
            return exc.value
        return self.serializer.loads(kept)

    async def _close(self, *args: object, _conn: object = None, **kwargs: object) -> None:
        openings, self._openings = self._openings, 0
        if self._over is not None:
            for _ in range(openings):
                await self._over.aclose()

    async def _cache(self) -> AsyncCache:
        """Return the cache to use now.

        Raises:
            CacheClosedError: There is none, or it isn't open.
        """
        cache = current_cache() if self._over is None else self._over
        if cache is None:
            raise CacheClosedError(
                "no cache is in force here: give AsyncCacheBackend one, as over="
            )
        if not cache.is_open:
            if not self._own:
                raise CacheClosedError(
                    "the cache under AsyncCacheBackend isn't open: open it first"
                )
            await cache.open()
            self._openings += 1
        return cache

    def _in(
        self, cache: AsyncCache, place: _KeyPlace, ttl: _Ttl = _OWN
    ) -> AbstractContextManager[object]:
        """Return a block in the namespace of a key, where nothing expires that shouldn't."""
        named = sha256(repr((_scope(cache).namespace.seed, place.space)).encode()).hexdigest()[
            :_SEED
        ]
        if ttl is _OWN or _seconds(ttl) is not None:
            return options(cache_seed=f"aiocache-{named}")
        return options(cache_seed=f"aiocache-{named}", ttl=None)

    # -- aiocache's commands, below its public methods -------------------------------------------

    def _get_ttl(self, ttl: _Ttl) -> _Ttl:
        if ttl is not SENTINEL:
            return ttl
        return _OWN if self.ttl is None else self.ttl

    async def _get(
        self, key: _KeyPlace, encoding: str | None = "utf-8", _conn: object = None
    ) -> _Kept:
        (found,) = await self._multi_get([key])
        return found

    _gets = _get

    async def _multi_get(
        self, keys: Sequence[_KeyPlace], encoding: str | None = "utf-8", _conn: object = None
    ) -> list[_Kept]:
        return [None if kept is MISSING else kept[0] for kept in await self._found(keys)]

    async def _found(self, keys: Sequence[_KeyPlace]) -> list[Any]:
        """Return what is kept under keys of one namespace, and until when; MISSING for nothing."""
        if not keys:
            return []
        cache = await self._cache()
        with self._in(cache, keys[0]):
            return await cache.get_many([_name(key) for key in keys], MISSING)

    async def _set(
        self, key: _KeyPlace, value: _Kept, ttl: _Ttl = None, _cas_token: _Kept = None,
        _conn: object = None,
    ) -> bool:  # fmt: skip
        if _cas_token is None:
            return await self._multi_set([(key, value)], ttl=ttl)
        async with _lock():
            if await self._get(key) != _cas_token:
                return False
            return await self._multi_set([(key, value)], ttl=ttl)

    async def _multi_set(
        self, pairs: Iterable[tuple[_KeyPlace, _Kept]], ttl: _Ttl = None, _conn: object = None
    ) -> bool:
        items = list(pairs)
        if not items:
            return True
        cache = await self._cache()
        with self._in(cache, items[0][0], ttl):
            kept = [(_name(key), _with_end(cache, value, ttl)) for key, value in items]
            return all(await cache.set_many(kept, ttl=_seconds(ttl)))

    async def _add(
        self, key: _KeyPlace, value: _Kept, ttl: _Ttl = None, _conn: object = None
    ) -> bool:
        cache = await self._cache()
        made = False

        async def make() -> _Kept:
            nonlocal made
            made = True
            return _with_end(cache, value, ttl)

        with self._in(cache, key, ttl):
            await cache.get_or_create(_name(key), make, ttl=_seconds(ttl))
        if not made:
            # Whoever made it goes on first: aiocache's lock notes then that it is held.
            await asyncio.sleep(0)
            raise ValueError(f"Key {key} already exists, use .set to update the value")
        return True

    async def _exists(self, key: _KeyPlace, _conn: object = None) -> bool:
        return await self._found([key]) != [MISSING]

    async def _delete(self, key: _KeyPlace, _conn: object = None) -> int:
        cache = await self._cache()
        with self._in(cache, key):
            return int(await cache.delete(_name(key)))

    async def _increment(self, key: _KeyPlace, delta: int, _conn: object = None) -> int:
        serializer = self.serializer
        cache = await self._cache()
        async with _lock():
            (found,) = await self._found([key])
            number, left = delta, _OWN
            if found is not MISSING:
                kept, end = found
                try:
                    number += int(serializer.loads(kept))
                except (TypeError, ValueError):
                    raise TypeError("Value is not an integer") from None
                left = max(1, end - _scope(cache).now()) / _SECOND if end else None
            await self._multi_set([(key, serializer.dumps(number))], ttl=left)
            return number

    async def _expire(self, key: _KeyPlace, ttl: float, _conn: object = None) -> bool:
        async with _lock():
            (found,) = await self._found([key])
            return found is not MISSING and await self._multi_set([(key, found[0])], ttl=ttl)

    async def _clear(self, namespace: str | None = None, _conn: object = None) -> bool:
        cache = await self._cache()
        space = cast("str | None", self.namespace if namespace is None else namespace)
        with self._in(cache, _KeyPlace("", space)):
            await cache.clear()
        return True

    async def _raw(
        self, command: str, *args: object, encoding: str | None = "utf-8", _conn: object = None,
        **kwargs: object,
    ) -> object:  # fmt: skip
        result = getattr(await self._cache(), command)(*args, **kwargs)
        return await result if isawaitable(result) else result

    async def _redlock_release(self, key: _KeyPlace, value: _Kept) -> int:
        async with _lock():
            return await self._delete(key) if await self._get(key) == value else 0


class _NotKeptError(Exception):
    """Carries a value past the cache, to all who wait for it."""

    def __init__(self, value: object) -> None:
        super().__init__("not kept")
        self.value = value


def _scope(cache: AsyncCache) -> Scope:
    return behind(cache).scope(current_options())


def _as_kept(value: object) -> _Kept:
    """Return a value as it comes back once it is stored; TypeError if it can't be."""
    return decode_value(encode_value(value))


def _with_end(cache: AsyncCache, value: _Kept, ttl: _Ttl) -> _Kept:
    """Return what is stored: what a serializer made, and when it ends, for changes to it."""
    scope = _scope(cache)
    seconds = scope.ttl if ttl is _OWN else _seconds(ttl)
    return _as_kept([value, 0 if seconds is None else scope.now() + int(seconds * _SECOND)])


def _name(place: _KeyPlace) -> tuple[str, str]:
    """Return the key that a place is stored under."""
    return ("aiocache", str(place))


def _seconds(ttl: _Ttl) -> float | None:
    """Return seconds, None for what doesn't expire or does so by the cache's own rule."""
    return None if ttl is _OWN or not ttl else seconds_of(ttl)


def _lock() -> asyncio.Lock:
    """Return the running loop's lock, for steps of two commands."""
    return _LOCKS.setdefault(asyncio.get_running_loop(), asyncio.Lock())
