"""Caching an async function by its arguments."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_type_hints

from asynccache._canonical import canonical_value
from asynccache._compute import compute
from asynccache._context import current_cache, seconds_of
from asynccache._errors import NotCanonicalError
from asynccache._values import check_type

if TYPE_CHECKING:
    from asynccache._cache import AsyncCache

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("asynccache")


def memoize(
    *,
    ttl: float | timedelta | None = None,
    ignore: Sequence[str] = (),
    version: str | int | None = None,
    cache: AsyncCache | None = None,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Cache an async function or method by its qualified name and bound arguments.

    ``@asynccache.memoize()`` uses the cache in force when the function is called, and calls
    straight through where there is none; ``@cache.memoize()`` always uses that cache.

    Args:
        ttl: Seconds or timedelta until a result expires; None leaves the cache's own.
        ignore: Names of parameters that don't matter to the result (``self``, a session, a logger).
        version: Part of the key: change it when the function's meaning changes.
        cache: Use this cache.

    Returns:
        A decorator. The decorated function returns a fresh object each time, built from the
        stored bytes as the return annotation says, on the first call too.

    Raises:
        TypeError: The function isn't async, ``ignore`` names no parameter of it, or (when it is
            called) ``self`` has no canonical form and isn't ignored, or the return annotation is
            none that stored bytes can be told apart for.

    A function's captured variables are not in its key: give each its own ``version``.

    Example:
        >>> @memoize(ttl=3600, ignore=["session"])
        ... async def fetch(url: str, session: object = None) -> str: ...
    """
    seconds = seconds_of(ttl)

    def decorate(
        function: Callable[P, Coroutine[Any, Any, T]],
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        if not inspect.iscoroutinefunction(function):
            name = getattr(function, "__qualname__", repr(function))
            raise TypeError(f"memoize takes async functions; {name} isn't one")
        recipe = Recipe(function, frozenset(ignore), version)

        @functools.wraps(function)
        async def memoized(*args: P.args, **kwargs: P.kwargs) -> T:
            used = cache if cache is not None else current_cache()
            if used is None:
                return await function(*args, **kwargs)
            result: T = await compute(
                used,
                "memoize",
                recipe.key(args, kwargs),
                lambda: function(*args, **kwargs),
                ttl=seconds,
                type=recipe.returns(),
            )
            return result

        return memoized

    return decorate


class Recipe:
    """How one function's calls become keys, and its results typed."""

    def __init__(
        self, function: Callable[..., Any], ignore: frozenset[str], version: str | int | None
    ) -> None:
        self.name = f"{function.__module__}.{function.__qualname__}"
        self._function = function
        self._signature = inspect.signature(function)
        self._ignore = ignore
        self._version = version
        self._returns: Any = None
        unknown = ignore - self._signature.parameters.keys()
        if unknown:
            raise TypeError(f"ignore= names {sorted(unknown)}, which {self.name} doesn't take")

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return what identifies a call; TypeError for a ``self`` that can't be part of it."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = {k: v for k, v in bound.arguments.items() if k not in self._ignore}
        if "self" in arguments:
            try:
                canonical_value(arguments["self"])
            except NotCanonicalError as exc:
                raise TypeError(
                    f"{self.name}: {exc} If the result doesn't depend on it, say ignore=['self']."
                ) from None
        return (self.name, self._version, arguments)

    def returns(self) -> Any:  # noqa: ANN401 - a type form
        """Return the annotation of the result, resolved at the first call, when all names exist."""
        if self._returns is None:
            try:
                self._returns = get_type_hints(self._function).get("return", Any)
            except (NameError, AttributeError, SyntaxError) as exc:
                _log.warning(
                    "%s: results stay untyped, as an annotation can't be read: %s", self.name, exc
                )
                self._returns = Any
            if self._returns is type(None):
                self._returns = Any
            check_type(self._returns)
        return self._returns
