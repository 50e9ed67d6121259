"""Turns what azure-cosmos raises into errors of a store, and says what may be asked again."""

from __future__ import annotations

import asyncio
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

CHARGE: Final = "x-ms-request-charge"
"""The header that says how many request units a request has cost."""
_FAILING_OVER: Final = frozenset({3, 1008})  # not the write region any more; not there any more
_PASSING: Final = frozenset({408, 410, 449, 500, 502, 503, 504})  # statuses
_NO_CONTAINER: Final = 1003  # sub-status of a 404
_FIRST_PAUSE: Final = 0.02  # seconds, doubled each time, where Cosmos DB doesn't say how long


def status_of(exc: BaseException) -> int:
    """Return the HTTP status that an error stands for; 0 for none."""
    return int(exc.status_code or 0) if isinstance(exc, CosmosHttpResponseError) else 0


def answer_in(exc: BaseException) -> int:
    """Return the status of a refusal that is an answer: not there, there already, or changed.

    Other errors are 0. So is a missing container: it isn't the item that wasn't found.
    """
    status = status_of(exc)
    if status == NOT_FOUND and _sub_status(exc) == _NO_CONTAINER:
        return 0
    return status if status in (NOT_FOUND, CONFLICT, CHANGED) else 0


def pause_before_retry(exc: BaseException, attempt: int) -> float | None:
    """Return after how many seconds a request may be repeated; None if that is of no use."""
    status = status_of(exc)
    backoff: float = _FIRST_PAUSE * 2**attempt
    if status == 429:  # noqa: PLR2004 - throttled
        milliseconds = number_in(exc, "x-ms-retry-after-ms")
        return backoff if milliseconds is None else milliseconds / 1000
    if status in _PASSING or _meaning(exc)[0] is StoreFailoverError:
        return backoff
    if status or isinstance(exc, ClientAuthenticationError | ValueError | KeyError | TypeError):
        return None
    # The connection broke. A pooled one may have been closed long ago, and a new one works.
    return 0.0 if attempt == 0 else backoff


def mapped(exc: BaseException) -> StoreError:
    """Return the store's error for a driver's error; raise it ``from`` the latter."""
    if isinstance(exc, StoreError):
        return exc
    said = str(getattr(exc, "message", "") or str(exc) or type(exc).__name__).split("\n")[0][:300]
    error, advice = _meaning(exc)
    return error(f"{advice} ({said})")


def _meaning(exc: BaseException) -> tuple[type[StoreError], str]:
    match status_of(exc), _sub_status(exc):
        case 401, _:
            return StoreAuthError, (
                "Cosmos DB doesn't accept this key or token: check connection_string or credential"
            )
        case 403, sub if sub in _FAILING_OVER:
            return StoreFailoverError, "the account is between one write region and the next"
        case 403, _:
            return StoreDeniedError, (
                "this identity may not do that in Cosmos DB: give it the role"
                " 'Cosmos DB Built-in Data Contributor', and create database and container first"
            )
        case 404, 1003:
            return StoreUnavailableError, (
                "the container was deleted: close the cache and open it again, which makes it anew"
            )
        case 413, _:
            return StoreFullError, "Cosmos DB takes no item of this size"
        case 429, _:
            return StoreThrottledError, (
                "Cosmos DB has no request units left: raise the container's throughput"
            )
        case 0, _ if isinstance(exc, ClientAuthenticationError):
            return StoreAuthError, "there is no token for Cosmos DB: check the credential"
        case status, _ if status == 408 or isinstance(  # noqa: PLR2004 - as the others
            exc, TimeoutError | CosmosClientTimeoutError
        ):
            return StoreTimeoutError, "Cosmos DB did not answer in time"
        case _:
            return StoreUnavailableError, "Cosmos DB can't be used"


def _sub_status(exc: BaseException) -> int:
    return getattr(exc, "sub_status", None) or 0


def number_in(exc: BaseException, header: str) -> float | None:
    """Return what a header of a refusal says; None if there is none."""
    headers: dict[str, Any] = getattr(exc, "headers", None) or {}
    try:
        return float(headers[header])
    except (KeyError, TypeError, ValueError):
        return None
