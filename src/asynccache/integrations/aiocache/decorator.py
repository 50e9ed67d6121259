"""aiocache's decorator, so that calls of one function are shared while they are under way.

aiocache's own asks a cache, calls the function, and tells the cache: the cache doesn't learn that a
call has begun, so no cache can make others wait for it.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# aiocache has no types.

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiocache

from asynccache.errors import CacheClosedError
from asynccache.integrations.aiocache.backend import AsyncCacheBackend

_CACHE_ARGUMENT: Final = 6  # arguments of aiocache's `cached` up to and with `cache`


class cached(aiocache.cached):  # type: ignore[misc] # noqa: N801 - aiocache's name and types
    """aiocache's ``cached``, sharing calls: of many that ask for the same, one calls the function.

    Takes what aiocache's takes; ``cache`` is `AsyncCacheBackend` by default. With another cache,
    with ``cache_read=False`` or ``cache_write=False``, it does as aiocache's. Where no cache is
    open, the function is called.

    Args:
        *args: As aiocache's.
        **kwargs: As aiocache's, and what `AsyncCacheBackend` takes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - aiocache's
        if len(args) < _CACHE_ARGUMENT:
            kwargs.setdefault("cache", AsyncCacheBackend)
        super().__init__(*args, **kwargs)

    async def decorator(
        self,
        f: Callable[..., Awaitable[Any]],
        *args: Any,  # noqa: ANN401 - the function's
        cache_read: bool = True,
        cache_write: bool = True,
        aiocache_wait_for_write: bool = True,
        **kwargs: Any,  # noqa: ANN401 - the function's
    ) -> Any:  # noqa: ANN401 - the function's
        """Answer one call of the decorated function."""
        backend = self.cache
        if not isinstance(backend, AsyncCacheBackend) or not (cache_read and cache_write):
            return await super().decorator(
                f,
                *args,
                cache_read=cache_read,
                cache_write=cache_write,
                aiocache_wait_for_write=aiocache_wait_for_write,
                **kwargs,
            )
        called = False

        async def create() -> Any:  # noqa: ANN401 - the function's
            nonlocal called
            called = True
            return await f(*args, **kwargs)

        try:
            return await backend.get_or_create(
                self.get_cache_key(f, args, kwargs), create, ttl=self.ttl, skip=self.skip_cache_func
            )
        except CacheClosedError:
            if called:
                raise
            return await create()
