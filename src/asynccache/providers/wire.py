"""A request on the wire, whoever sends it: where it goes, and all of its key but the body."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

from asynccache.keys.denied import is_credential_header, is_denied_query
from asynccache.keys.key import Namespace, Prefix
from asynccache.providers.provider import Operation

METHOD: Final = "POST"
_VARYING: Final = frozenset({
    b"content-length", b"idempotency-key", b"traceparent", b"x-stainless-retry-count",
})  # fmt: skip
"""Headers that differ from call to call. None is in a key."""
DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_COOKIE: Final = "cookie"
_ESCAPE: Final = re.compile("%[0-9A-Fa-f]{2}")
_UNRESERVED: Final = re.compile("[A-Za-z0-9._~-]")

RawHeaders = tuple[tuple[bytes, bytes], ...]
Where = tuple[
    Namespace,  # where the entry lives
    str,  # the server's address, or a name that takes its place
    str,  # the query, as it is sent
    str,  # the user-info of the URL
    frozenset[str],  # headers to leave out, their names in lower case
]
"""What of a request's key may differ where its headers and its path don't."""


class WireRequest(Struct, frozen=True, kw_only=True, gc=False):
    """A request as an HTTP library is about to send it."""

    method: str
    """In capitals."""
    scheme: str
    host: str
    """With its port, if the URL names it."""
    path: str
    """As it is sent."""
    query: str
    user_info: str
    headers: RawHeaders
    """Those that `steady` gives."""
    body: bytes | None
    """None for one that isn't there in one piece."""

    def __repr__(self) -> str:  # tools that report errors show it: without secrets
        return f"WireRequest({self.method} {self.host}{self.path})"


def steady(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """Return the headers less those that differ from call to call, and are in no key."""
    return tuple([pair for pair in headers if pair[0].lower() not in _VARYING])


def combined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by their names in lower case; the values of one name are joined."""
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.lower().decode("latin-1"), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def of_httpx(request: Any, body: bytes | None) -> WireRequest:
    """Return a request of httpx or httpx2 as it is about to be sent.

    Args:
        request: The request.
        body: Its body, if it is there in one piece.
    """
    url = request.url
    path, _, query = url.raw_path.partition(b"?")
    return WireRequest(
        method=request.method,
        scheme=url.scheme,
        host=url.netloc.decode("ascii"),
        path=path.decode("ascii"),
        query=query.decode("ascii"),
        user_info=url.userinfo.decode("ascii"),
        headers=steady(request.headers.raw),
        body=body,
    )


class RequestPath(Struct, frozen=True):
    """What the path of a request says."""

    before: str
    """The part that belongs to the server's address."""
    path: str
    """The rest, without a deployment."""
    deployment: str
    """The part in between that names a deployment, "" if none does."""
    model: str
    """The model, where the path names it."""


def place_of(path: str, operation: Operation) -> RequestPath | None:
    """Return what a path says, as it is sent; None if it isn't one of the operation's."""
    found = operation.path.search(path)
    if found is None:
        return None
    groups = found.groupdict()
    deployment = groups.get("deployment") or ""
    rest = path[found.start() + len(deployment) :]
    model = unquote(groups.get("model") or "")
    return RequestPath(path[: found.start()], rest, deployment, model)


def address_of(wire: WireRequest, place: RequestPath, model: object, upstream: str | None) -> str:
    """Return the address of a server, in one spelling; what the body's model says isn't in it.

    Args:
        wire: The request.
        place: What its path says.
        model: The model that the body names.
        upstream: A name that takes the server's place.
    """
    deployment, scheme = place.deployment, wire.scheme
    if deployment and unquote(deployment.rpartition("/")[2]) == model:
        deployment = ""
    if upstream:
        return upstream + deployment
    path = plain_path(place.before + deployment)
    return f"{scheme}://{wire.host.lower().removesuffix(DEFAULT_PORTS.get(scheme, ':'))}{path}"


def at_host(address: str, named: str, wire: WireRequest) -> str:
    """Return an address with the host that a request's header names, where that is another one.

    Many servers may stand behind one address.
    """
    port = DEFAULT_PORTS.get(wire.scheme, ":")
    hosts = [host.lower().removesuffix(port) for host in (named, wire.host)]
    return address if not named or hosts[0] == hosts[1] else f"{address} as {hosts[0]}"


def plain_path(path: str) -> str:
    """Return the one spelling of a path, as it is sent, among those that say the same."""
    return _ESCAPE.sub(_plain, path) if "%" in path else path


def _plain(escape: re.Match[str]) -> str:
    """Return the one spelling of those that say the same (RFC 3986, 6.2.2)."""
    character = unquote(escape[0])
    return character if _UNRESERVED.fullmatch(character) else escape[0].upper()


def prefix_of(headers: Mapping[str, str], path: str, where: Where) -> tuple[Prefix, bytes]:
    """Return the hashed part of a request that stands before its body, and whose request it is.

    The latter is a digest of its credentials, to be kept in memory only.

    Args:
        headers: As `combined` gives them.
        path: Path below the server's address.
        where: What differs from call to call of a client.

    Raises:
        NotCanonicalError: The query isn't text.
    """
    namespace, upstream, query, user_info, ignore_headers = where
    asked: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, errors="surrogateescape"):
        asked.setdefault(name, []).append(value)
    prefix = Prefix(
        namespace,
        method=METHOD,
        upstream=upstream,
        path=path,
        query={name: given[0] if len(given) == 1 else given for name, given in asked.items()},
        headers=headers,
        ignore_headers=ignore_headers,
    )
    named = sorted(pair for pair in headers.items() if is_credential_header(pair[0]))
    # A server's cookie differs from client to client of one account.
    whose = (
        user_info,
        [pair for pair in named if pair[0] != _COOKIE] or named,
        sorted((name, given) for name, given in asked.items() if is_denied_query(name)),
    )
    return prefix, sha256(repr(whose).encode("utf-8", "replace")).digest()
