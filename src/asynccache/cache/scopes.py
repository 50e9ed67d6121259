"""The public way to say which cache and which options are in force."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal, cast

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from asynccache.cache import in_force
from asynccache.cache.cache import AsyncCache, SyncCache
from asynccache.cache.in_force import Samples, current_options
from asynccache.cache.settings import mode_of, rule_of, seconds_of
from asynccache.core.calls import StoreIf
from asynccache.core.modes import Mode
from asynccache.keys.key import Namespace


@contextmanager
def options(
    *,
    mode: Mode | UnsetType = UNSET,
    ttl: float | timedelta | UnsetType | None = UNSET,
    cache_seed: int | str | UnsetType = UNSET,
    sample: int | Literal["each"] | UnsetType = UNSET,
    store_if: StoreIf | UnsetType = UNSET,
    cache: AsyncCache | SyncCache | UnsetType | None = UNSET,
) -> Generator[None]:
    """Set options for every cached call in a block, and in tasks that were started inside it.

    Options that aren't named stay as the surrounding block has them.

    Args:
        mode: As the cache's ``mode``.
        ttl: Seconds or timedelta until answers that the block stores expire. None: never.
        cache_seed: Use this namespace of the same store.
        sample: Ask for the n-th independent answer to the same request. 0, the default, is the
            first. ``"each"`` gives the k-th identical request of the block sample k.
        store_if: A plain function of an `Answer` that returns whether to store it. For a shared
            call the function of the caller that started it decides.
        cache: Use this cache, also in wrapped clients. None uses no cache.

    Raises:
        ValueError: An option has no such value.
        TypeError: An option has the wrong type.
    """
    changed = current_options()
    if mode is not UNSET:
        changed = replace(changed, mode=mode_of(mode))
    if ttl is not UNSET:
        changed = replace(changed, ttl=seconds_of(ttl))
    if cache_seed is not UNSET:
        Namespace.of(cache_seed)
        changed = replace(changed, cache_seed=cache_seed)
    if sample == "each":
        changed = replace(changed, sample=0, samples=Samples())
    elif sample is not UNSET:
        if type(sample) is not int or sample < 0:
            raise ValueError(f'sample must be an integer from 0 up, or "each", not {sample!r}')
        changed = replace(changed, sample=sample, samples=None)
    if store_if is not UNSET:
        changed = replace(changed, store_if=rule_of(store_if))
    if cache is not UNSET:
        changed = replace(changed, cache=asynchronous(cache))
    with in_force.under(changed):
        yield


def asynchronous(cache: object) -> AsyncCache | None:
    """Return the `AsyncCache` of a cache or of its synchronous view, None for None.

    Raises:
        TypeError: ``cache`` isn't a cache.
    """
    found: object = getattr(cache, "asynchronous", cache)
    if found is None or isinstance(found, AsyncCache):
        return found
    raise TypeError(
        "cache must be an AsyncCache, a SyncCache or None, not"
        f" {cache.__name__ if isinstance(cache, type) else type(cache).__qualname__}:"
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
