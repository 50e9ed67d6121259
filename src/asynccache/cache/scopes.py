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
    """Set options for every cached call in a block, and in tasks started inside it to their end.

    Args:
        mode: As the cache's ``mode``.
        ttl: Seconds or timedelta until answers stored in the block expire; None is never.
        cache_seed: Use this namespace of the same store.
        sample: Ask for the n-th independent answer to the same request (0, the default, is the
            first); ``"each"`` gives the k-th identical request of the block sample k.
        store_if: Whether to store an `Answer`: a plain function of it. Callers who join a call
            that is under way leave that to whoever started it.
        cache: Use this cache instead of the one in force, also in wrapped clients; None uses none.

    Raises:
        ValueError: An option has no such value.
        TypeError: An option has the wrong type.

    What isn't named stays as the surrounding block has it.
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
            raise ValueError(f'sample must be a number from 0 on, or "each", not {sample!r}')
        changed = replace(changed, sample=sample, samples=None)
    if store_if is not UNSET:
        changed = replace(changed, store_if=rule_of(store_if))
    if cache is not UNSET:
        changed = replace(changed, cache=asynchronous(cache))
    with in_force.under(changed):
        yield


def asynchronous(cache: object) -> AsyncCache | None:
    """Return the cache that is behind either of its faces, None for None.

    Raises:
        TypeError: It is no cache.
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
    """Name the cache for code that runs in no block of any: web handlers, workers, threads.

    Args:
        cache: The process-wide default; None for none. It has to be opened by somebody.

    Raises:
        TypeError: It is no cache.
    """
    in_force.set_default(asynchronous(cache))


def current_cache() -> AsyncCache | None:
    """Return the cache in force around the caller: option, ambient, default, or None."""
    return cast("AsyncCache | None", in_force.cache_in_force())
