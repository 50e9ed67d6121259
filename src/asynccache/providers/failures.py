"""What a call ended with, whichever library or SDK says it, and for whom that is true.

Who waits for another's call may have another library than whose error it is. Errors are told apart
by the names of their classes, so that no library has to be there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from asynccache.providers.refusal import RefusedError

Failure = Literal["timeout", "connect", "network", "client"]
"""It took too long; no connection came about; one broke off, or what came by it makes no sense; it
is the client's own: it was closed, has no connection left, or can't reach its proxy."""

_NAMED: Final[tuple[tuple[Failure, frozenset[str]], ...]] = (
    ("timeout", frozenset({"TimeoutException", "TimeoutError", "APITimeoutError"})),
    ("connect", frozenset({"ConnectError", "ClientConnectorError"})),
    ("network", frozenset({"RequestError", "ClientError", "APIConnectionError"})),
)
"""Names of base classes in httpx, in aiohttp and Python, and in the SDKs that Stainless makes."""
_CLIENTS_OWN: Final = frozenset({
    "ClosedResourceError",  # anyio's for a connection that was closed on this side
    "ClientClosedError", "ClientConnectorCertificateError", "ClientProxyConnectionError",
    "LocalProtocolError", "PoolTimeout", "ProxyError",
    "SSLCertVerificationError", "SSLError", "UnsupportedProtocol",
})  # fmt: skip
_EARLY: Final = frozenset({"ConnectTimeout", "WriteTimeout", "ConnectionTimeoutError"})
_CONNECTION: Final = frozenset({"connect", "network"})


class ClientClosedError(Exception):
    """The cause of an error where a client was closed, which its library doesn't tell."""


def failure_of(error: BaseException) -> Failure | None:
    """Return what went wrong, None if an error says nothing of the way to the server."""
    named = _names(error)
    found: Failure | None = next(
        (kind for kind, names in _NAMED if not names.isdisjoint(named)), None
    )
    if found is None:
        return None
    for cause in _causes(error):
        named |= _names(cause)
    if not named.isdisjoint(_CLIENTS_OWN):
        return "client"
    # An SDK's error is the same for all that may go wrong with a connection.
    if found == "network" and "ConnectError" in named:
        return "connect"
    return found


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
    causes = (error, *_causes(error))
    # How long a caller waits for an answer says nothing of how long it waits for a connection.
    early = any(not _EARLY.isdisjoint(_names(one)) for one in causes)
    return "timeout" if failure == "timeout" and not early else "own"
