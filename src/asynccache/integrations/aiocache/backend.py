"""`AsyncCacheBackend`: one of our caches, as a cache of aiocache's."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportArgumentType=false
# aiocache has no types.

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Any, Final, cast

from aiocache.base import SENTINEL
from aiocache.serializers import PickleSerializer

from asynccache.cache.cache import AsyncCache
from asynccache.cache.factory import Cache
from asynccache.cache.scopes import current_cache, options
from asynccache.core.calls import Answer
from asynccache.errors import CacheClosedError
from asynccache.integrations.aiocache.commands import Commands, KeyPlace, as_kept, left_of, name_of
from asynccache.integrations.aiocache.serializer import ValueSerializer

_log: Final = logging.getLogger("asynccache")


class AsyncCacheBackend(Commands):
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
                f"over must be an AsyncCache or a URL, not {type(over).__qualname__};"
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
        build = cast("Any", key_builder or self._build_key)

        def build_key(key: Any, namespace: str | None = None) -> KeyPlace:  # noqa: ANN401 - any key
            space = cast("str | None", self.namespace if namespace is None else namespace)
            built = build(key, namespace=space)
            built = built.value if isinstance(built, Enum) else built
            place = KeyPlace(built if isinstance(built, str) else repr(built))
            place.space = space
            return place

        self.build_key = build_key
        self._own = isinstance(over, str)
        self._over = Cache.from_url(over) if isinstance(over, str) else over
        self._openings = 0

    def __repr__(self) -> str:
        return f"AsyncCacheBackend({self._over!r})"

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
        ttl: Any = SENTINEL,  # noqa: ANN401 - seconds, None, or aiocache's sentinel
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
        place: KeyPlace = self.build_key(key)
        cache = await self._cache()
        ttl = self._get_ttl(ttl)
        around = contextvars.copy_context()
        rule = cache.rule_in_force()
        kept_at_all = False

        async def value_made() -> tuple[Any, bool]:
            value = await create()
            return value, value is not None and not skip(value)

        async def make() -> Any:  # noqa: ANN401 - what is kept
            nonlocal kept_at_all
            # What makes the value knows nothing of the namespace that it is kept in.
            making = asyncio.get_running_loop().create_task(value_made(), context=around)
            value, kept_at_all = await making
            try:
                made = as_kept(self.serializer.dumps(value))
            except Exception as exc:
                _log.exception("nothing is kept under %s: it can't be encoded", place)
                raise _NotKeptError(value) from exc
            return self._wrapped(cache, made, ttl)

        def store_if(answer: Answer) -> bool:
            return kept_at_all and rule(answer)

        try:
            with self._in(cache, place, ttl), options(store_if=store_if):
                kept, _ = await cache.get_or_create(name_of(place), make, ttl=left_of(ttl))
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


class _NotKeptError(Exception):
    """Carries a value past the cache, to all who wait for it."""

    def __init__(self, value: object) -> None:
        super().__init__("not kept")
        self.value = value
