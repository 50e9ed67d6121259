"""What azure-cosmos raises, as errors of a store: the edge that none passes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.cosmos.exceptions import CosmosClientTimeoutError, CosmosHttpResponseError

from asynccache.errors import (
    StoreAuthError,
    StoreDeniedError,
    StoreError,
    StoreFailoverError,
    StoreFullError,
    StoreThrottledError,
    StoreTimeoutError,
    StoreUnavailableError,
)

DRIVER_ERRORS: Final = (
    AzureError, CosmosClientTimeoutError, OSError, EOFError, asyncio.IncompleteReadError,
    RuntimeError,  # aiohttp's, for a session or loop that was closed
    ValueError, KeyError, TypeError,  # the driver's own, over an answer that it can't read
)  # fmt: skip
"""What may come out of the driver."""

NOT_FOUND: Final = 404
CONFLICT: Final = 409
CHANGED: Final = 412

_THROTTLED: Final = 429
_RETRY_WITH: Final = 449
_FORBIDDEN: Final = 403
_FAILING_OVER: Final = frozenset({3, 1008})  # not the write region any more; not there any more
_PASSING: Final = frozenset({408, 410, _RETRY_WITH, 500, 502, 503, 504})
_NO_CONTAINER: Final = 1003  # sub-status of a 404
_FIRST_PAUSE: Final = 0.02  # seconds, doubled each time, where Cosmos DB doesn't say how long


def status_of(exc: BaseException) -> int:
    """Return the HTTP status that an error stands for; 0 for none."""
    return int(exc.status_code or 0) if isinstance(exc, CosmosHttpResponseError) else 0


def answer_in(exc: BaseException) -> int | None:
    """Return the status of a refusal that is an answer: not there, there already, or changed."""
    status = status_of(exc)
    if status not in (NOT_FOUND, CONFLICT, CHANGED) or _is_homeless(exc):
        return None
    return status


def charge_of(exc: BaseException) -> float:
    """Return the request units that a refused request has cost."""
    return _number(exc, "x-ms-request-charge") or 0.0


def pause_before_retry(exc: BaseException, attempt: int) -> float | None:
    """Return after how many seconds a request may be repeated; None if that is of no use."""
    status = status_of(exc)
    backoff: float = _FIRST_PAUSE * 2**attempt
    if status == _THROTTLED:
        milliseconds = _number(exc, "x-ms-retry-after-ms")
        return backoff if milliseconds is None else milliseconds / 1000
    if status in _PASSING or (status == _FORBIDDEN and _is_failover(exc)):
        return backoff
    if status or isinstance(exc, ClientAuthenticationError | ValueError | KeyError | TypeError):
        return None
    # A connection that broke off: a pooled one may have been closed long ago, a new one works.
    return 0.0 if attempt == 0 else backoff


def mapped(exc: BaseException) -> StoreError:
    """Return the error of a store that a driver's error is; raise it ``from`` the latter."""
    if isinstance(exc, StoreError):
        return exc
    said = str(getattr(exc, "message", "") or str(exc) or type(exc).__name__).split("\n")[0][:300]
    error, advice = _meaning(exc)
    return error(f"{advice} ({said})")


def _meaning(exc: BaseException) -> tuple[type[StoreError], str]:
    match status_of(exc):
        case 401:
            return StoreAuthError, (
                "Cosmos DB doesn't accept this key or token: check connection_string or credential"
            )
        case 403 if _is_failover(exc):
            return StoreFailoverError, "the account is between one write region and the next"
        case 403:
            return StoreDeniedError, (
                "this identity may not do that in Cosmos DB: give it the role"
                " 'Cosmos DB Built-in Data Contributor', and create database and container first"
            )
        case 404 if _is_homeless(exc):
            return StoreUnavailableError, (
                "the container was deleted: close the cache and open it again, which makes it anew"
            )
        case 408:
            return StoreTimeoutError, "Cosmos DB did not answer in time"
        case 413:
            return StoreFullError, "Cosmos DB takes no item of this size"
        case 429:
            return StoreThrottledError, (
                "Cosmos DB has no request units left: raise the container's throughput"
            )
        case 0 if isinstance(exc, ClientAuthenticationError):
            return StoreAuthError, "there is no token for Cosmos DB: check the credential"
        case 0 if isinstance(exc, TimeoutError | CosmosClientTimeoutError):
            return StoreTimeoutError, "Cosmos DB did not answer in time"
        case _:
            return StoreUnavailableError, "Cosmos DB can't be used"


def _is_homeless(exc: BaseException) -> bool:
    """Tell whether it isn't the item that is missing, but its container."""
    return getattr(exc, "sub_status", 0) == _NO_CONTAINER


def _number(exc: BaseException, header: str) -> float | None:
    headers: Mapping[str, Any] = getattr(exc, "headers", None) or {}
    try:
        return float(headers[header])
    except (KeyError, TypeError, ValueError):
        return None


def _is_failover(exc: BaseException) -> bool:
    return getattr(exc, "sub_status", 0) in _FAILING_OVER
