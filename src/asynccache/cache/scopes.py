"""The public way to say which cache and which options are in force."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Literal, Never, ParamSpec, TypeVar, cast

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from asynccache.cache import in_force
from asynccache.cache.cache import AsyncCache, SyncCache
from asynccache.cache.in_force import Samples, current_options
from asynccache.cache.settings import mode_of, refuse_others, rule_of, seconds_of
from asynccache.core.calls import StoreIf
from asynccache.core.modes import Mode
from asynccache.errors import described
from asynccache.keys.key import Namespace

P = ParamSpec("P")
T = TypeVar("T")


class OptionsBlock:
    """What `options` returns: a context manager for one block, or a decorator of functions.

    Args:
        changes: The options that it sets, checked.
    """

    def __init__(self, changes: dict[str, Any]) -> None:
        self._changes: Final = changes
        self._block: AbstractContextManager[None] | None = None

    def __enter__(self) -> None:
        if self._block is not None:
            raise RuntimeError("this block was entered already: call options(...) for each block")
        changes = self._changes
        if "samples" in changes:
            changes = {**changes, "samples": changes["samples"] and Samples()}
        self._block = in_force.under(replace(current_options(), **changes))
        self._block.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.__exit__(exc_type, exc, traceback)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return a function that runs in such a block, each call in one of its own.

        Raises:
            TypeError: It is neither a function nor a coroutine function.
        """
        if (
            inspect.isclass(function)
            or inspect.isgeneratorfunction(function)
            or inspect.isasyncgenfunction(function)
            or not callable(function)
        ):
            raise TypeError(
                "options(...) decorates functions and coroutine functions; in a generator or"
                " anything else write `with options(...):` around the calls"
            )

        async def awaited(work: Any) -> Any:  # noqa: ANN401 - whatever the function returns
            with OptionsBlock(self._changes):
                return await work

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def decorated_async(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401 - T's own
                return await awaited(function(*args, **kwargs))

            return cast("Callable[P, T]", decorated_async)

        @functools.wraps(function)
        def decorated(*args: P.args, **kwargs: P.kwargs) -> T:
            with OptionsBlock(self._changes):
                made = function(*args, **kwargs)
            return cast("T", awaited(made)) if inspect.iscoroutine(made) else made

        return decorated


def options(
    *unnamed: Never,
    mode: Mode | UnsetType = UNSET,
    ttl: float | timedelta | UnsetType | None = UNSET,
    cache_seed: int | str | UnsetType = UNSET,
    tenant: str | UnsetType | None = UNSET,
    sample: int | Literal["each"] | UnsetType = UNSET,
    store_if: StoreIf | UnsetType = UNSET,
    cache: AsyncCache | SyncCache | UnsetType | None = UNSET,
    **unknown: Never,
) -> OptionsBlock:
    """Set options for every cached call in a block, and in tasks that were started inside it.

    Options that aren't named stay as the surrounding block has them. ``@options(...)`` puts every
    call of a function or a coroutine function into such a block.

    Args:
        unnamed: Nothing: write ``options(mode="refresh")``, not ``options("refresh")``.
        mode: As the cache's ``mode``.
        ttl: Seconds or timedelta until answers that the block stores expire. None: never.
        cache_seed: Use this namespace of the same store.
        tenant: Use the answers of this tenant, and no other's: any text, such as a customer's id.
        sample: Ask for the n-th independent answer to the same request. 0, the default, is the
            first. ``"each"`` gives the k-th identical request of the block sample k.
        store_if: A plain function of an `Answer` that returns whether to store it. For a shared
            call the function of the caller that started it decides.
        cache: Use this cache, also in wrapped clients. None uses no cache.
        **unknown: Nothing: there are no other options.

    Raises:
        ValueError: An option has no such value.
        TypeError: An option has the wrong type, or there is none of that name.
    """
    refuse_others(unnamed, unknown, _OPTIONS)
    changes: dict[str, Any] = {}
    if mode is not UNSET:
        changes["mode"] = mode_of(mode)
    if ttl is not UNSET:
        changes["ttl"] = seconds_of(ttl)
    if cache_seed is not UNSET:
        changes["cache_seed"] = Namespace.of(cache_seed).seed
    if tenant is not UNSET:
        changes["tenant"] = Namespace.of(0, tenant).tenant
    if sample == "each":
        changes |= {"sample": 0, "samples": True}
    elif sample is not UNSET:
        if type(sample) is not int or sample < 0:
            raise ValueError(f'sample must be an integer from 0 up, or "each", not {sample!r}')
        changes |= {"sample": sample, "samples": None}
    if store_if is not UNSET:
        changes["store_if"] = rule_of(store_if)
    if cache is not UNSET:
        changes["cache"] = asynchronous(cache)
    return OptionsBlock(changes)


_OPTIONS: Final = tuple(inspect.signature(options).parameters)[1:-1]


def asynchronous(cache: object) -> AsyncCache | None:
    """Return the `AsyncCache` of a cache or of its synchronous view, None for None.

    Raises:
        TypeError: ``cache`` isn't a cache.
    """
    found: object = getattr(cache, "asynchronous", cache)
    if found is None or isinstance(found, AsyncCache):
        return found
    raise TypeError(
        f"cache must be an AsyncCache, a SyncCache or None, not {described(cache)}:"
        " pass what Cache.disk() or Cache.from_url(...) returns"
    )


def set_default_cache(cache: AsyncCache | SyncCache | None) -> None:
    """Set the cache for code that runs outside of any cache's block.

    Web handlers, workers and threads are such code.

    Args:
        cache: The default of this process, or None for none. You have to open it yourself.

    Raises:
        TypeError: ``cache`` isn't a cache.
    """
    in_force.set_default(asynchronous(cache))


def current_cache() -> AsyncCache | None:
    """Return the current cache of the caller, or None.

    It is that of `options`, else of the innermost open block, else `set_default_cache`'s.
    """
    return cast("AsyncCache | None", in_force.cache_in_force())
