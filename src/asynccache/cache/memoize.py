"""`memoize`: an async function, cached by its arguments."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Never, ParamSpec, TypeVar

from asynccache.cache.cache import AsyncCache
from asynccache.cache.function_keys import memoizing

P = ParamSpec("P")
T = TypeVar("T")


def memoize(
    *bare: Never,
    ttl: float | timedelta | None = None,
    ignore: Sequence[str] = (),
    version: str | int | None = None,
    cache: AsyncCache | None = None,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Cache an async function or method by its qualified name and bound arguments.

    ``@asynccache.memoize()`` uses the cache in force when the function is called, and calls
    straight through where there is none; ``@cache.memoize()`` always uses that cache.

    Args:
        bare: Nothing: write ``@memoize()``, not ``@memoize``.
        ttl: Seconds or timedelta until a result expires; None leaves the cache's own.
        ignore: Names of parameters that don't matter to the result (``self``, a session, a logger).
            The class of an ignored ``self`` or ``cls``, by whatever name, stays in the key.
        version: Part of the key: change it when the function's meaning changes.
        cache: Use this cache.

    Returns:
        A decorator. The decorated function returns a fresh object each time, built from the
        stored bytes as the return annotation says, on the first call too. A result that wouldn't
        come back as it was is delivered and not stored (see `stats`), and told once in the log.

    Raises:
        TypeError: The function isn't async, ``ignore`` names no parameter of it, the return
            annotation is a union whose members look alike in stored bytes, or (when it is called)
            ``self`` or ``cls`` has no canonical form and isn't ignored.

    A function's captured variables are not in its key: give each its own ``version``.

    Example:
        >>> @memoize(ttl=3600, ignore=["session"])
        ... async def fetch(url: str, session: object = None) -> str: ...
    """
    return memoizing(cache, bare, ttl=ttl, ignore=ignore, version=version)
