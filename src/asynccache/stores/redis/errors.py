"""What redis-py raises and Redis answers, as errors of a store: the edge that none passes."""

from __future__ import annotations

from typing import Final

from redis import exceptions as driver
from redis.asyncio.sentinel import MasterNotFoundError

from asynccache.errors import (
    StoreAuthError,
    StoreDeniedError,
    StoreError,
    StoreFailoverError,
    StoreFullError,
    StoreLoadingError,
    StoreReadOnlyError,
    StoreTimeoutError,
    StoreUnavailableError,
)

DRIVER_ERRORS: Final = (
    driver.RedisError, driver.RedisClusterException, OSError, EOFError,
    RuntimeError,  # asyncio's, for a loop or transport that was closed
)  # fmt: skip
"""What may come out of the driver."""

# What the driver raises; what Redis says, in the first word or, from within a script, further on;
# what it is to a store; what to do.
_MEANINGS: Final[
    tuple[tuple[tuple[type[Exception], ...], frozenset[str], type[StoreError], str], ...]
] = (
    ((driver.OutOfMemoryError,), frozenset({"OOM"}), StoreFullError,
     "Redis is full: raise its maxmemory, or set a maxmemory-policy such as allkeys-lru"),
    ((driver.ReadOnlyError,), frozenset({"READONLY"}), StoreReadOnlyError,
     "this Redis is a replica: give the address of its primary, or use Sentinel or a cluster"),
    ((), frozenset({"MISCONF", "NOREPLICAS"}), StoreReadOnlyError,
     "Redis takes no writes for the time being"),
    ((driver.BusyLoadingError,), frozenset({"LOADING"}), StoreLoadingError,
     "Redis is loading its data"),
    ((driver.AuthenticationError, driver.AuthorizationError),
     frozenset({"NOAUTH", "WRONGPASS"}), StoreAuthError,
     "Redis doesn't let this user in: check the user and password in redis_url"),
    ((driver.NoPermissionError,), frozenset({"NOPERM", "ACL"}), StoreDeniedError,
     "this Redis user may not do that: the docs list the commands, keys and channel it needs"),
    ((driver.ClusterDownError, driver.MovedError, driver.AskError, driver.TryAgainError,
      driver.SlotNotCoveredError), frozenset({"CLUSTERDOWN", "MASTERDOWN"}), StoreFailoverError,
     "the cluster is changing: some of its slots have no node now"),
    ((MasterNotFoundError,), frozenset(), StoreFailoverError,
     "no sentinel knows a primary of this name now"),
    ((driver.TimeoutError, TimeoutError), frozenset(), StoreTimeoutError,
     "Redis did not answer in time"),
)  # fmt: skip


def mapped(exc: BaseException) -> StoreError:
    """Return the error of a store that a driver's error is; raise it ``from`` the latter."""
    if isinstance(exc, StoreError):
        return exc
    said = str(exc) or type(exc).__name__
    for kinds, _, error, advice in _MEANINGS:
        if isinstance(exc, kinds):
            return error(f"{advice} ({said})")
    words = {word.strip("-:") for word in said.split()}
    for _, answers, error, advice in _MEANINGS:
        if words & answers:
            return error(f"{advice} ({said})")
    return StoreUnavailableError(f"Redis can't be used: {said}")
