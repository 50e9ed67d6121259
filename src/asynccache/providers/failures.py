"""What a call ended with, whichever library or SDK says it, and for whom that is true.

Who waits for another's call may have another library than whose error it is. Errors are told apart
by the names of their classes, so that no library has to be there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from asynccache.providers.refusal import RefusedError

Failure = Literal["timeout", "connect", "network", "closed"]
"""It took too long; no connection came about; one broke off, or what came by it makes no sense; the
client was closed meanwhile."""

_NAMED: Final[tuple[tuple[Failure, frozenset[str]], ...]] = (
    ("timeout", frozenset({"TimeoutException", "TimeoutError", "APITimeoutError"})),
    ("connect", frozenset({"ConnectError", "ClientConnectorError"})),
    ("network", frozenset({"RequestError", "ClientError", "APIConnectionError"})),
)
"""Names of base classes in httpx, in aiohttp and Python, and in the SDKs that Stainless makes."""
_CLOSED: Final = "ClosedResourceError"  # anyio's for a connection that was closed on this side
_CONNECTION: Final = frozenset({"connect", "network"})


def failure_of(error: BaseException) -> Failure | None:
    """Return what went wrong, None if an error says nothing of the way to the server."""
    named = _names(error)
    found = next((kind for kind, names in _NAMED if not names.isdisjoint(named)), None)
    if found != "network":
        return found
    causes = [_names(cause) for cause in _causes(error)]
    if any(_CLOSED in names for names in causes):
        return "closed"
    # An SDK's error is the same for all that may go wrong with a connection.
    return "connect" if any("ConnectError" in names for names in causes) else found


def _names(error: BaseException) -> set[str]:
    return {base.__name__ for base in type(error).__mro__}


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield cause
        yield from _causes(cause)


def scope_of(
    error: BaseException,
) -> Literal["all", "credentials", "timeout", "connection", "own"]:
    """Return for whom an error is true that a call upstream ended with."""
    if isinstance(error, RefusedError):
        return "credentials" if error.depends_on_credentials else "all"
    failure = failure_of(error)
    if failure in _CONNECTION:
        return "connection"
    return "timeout" if failure == "timeout" else "own"
