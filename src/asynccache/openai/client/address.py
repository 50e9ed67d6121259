"""Where a client's requests go, with what headers, on whose account: a request beside its body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

from asynccache.errors import NotCanonicalError
from asynccache.keys.canonical import canonical_value
from asynccache.keys.denied import (
    is_credential_header,
    is_denied_header,
    is_denied_query,
    without_query,
)
from asynccache.keys.key import Namespace, Prefix
from asynccache.openai.client import sdk
from asynccache.providers.provider import Operation
from asynccache.providers.wire import (
    address_of,
    at_host,
    combined,
    of_httpx,
    place_of,
    prefix_of,
)
from asynccache.runtime.bounded import BoundedDict

_HOST: Final = "host"
_REMEMBERED: Final = 256  # prefixes: one per namespace, model of Azure's, and extras in use
_DEPLOYMENTS: Final = "/deployments/"
_CREDENTIALS: Final = ("organization", "project", "admin_api_key", "_azure_ad_token")
_CREDENTIAL_SOURCES: Final = (
    "_api_key_provider", "_azure_ad_token_provider", "workload_identity", "_provider",
)  # fmt: skip
"""Attributes of a client that fetch credentials: their results change, whose they are doesn't."""
_NO_NAMESPACE: Final = Namespace("0")


class RequestAddress:
    """Follows one client's base URL, headers, query and credentials, which may change while in use.

    What is sent is asked of the SDK itself: it builds a request, which nobody sends, for each
    address, set of headers and query that is new.

    Args:
        client: The SDK's client.
        path: Path of the endpoint below the base URL.
        operation: What the table of providers says of it.
        upstream: A name that takes the base URL's place.
        ignore_headers: Names to leave out of keys, in lower case.
    """

    def __init__(
        self,
        client: Any,
        path: str,
        operation: Operation,
        upstream: str | None,
        ignore_headers: frozenset[str],
    ) -> None:
        self._client = client
        self._path = path
        self._operation = operation
        self._upstream = upstream
        self._ignore = ignore_headers
        # A subclass may make its headers or query anew for each request.
        self._own_headers = sdk.sets_own(client, "default_headers")
        self._own_query = sdk.sets_own(client, "default_query")
        self._base_url: Any = None
        self._headers: Mapping[str, Any] = {}
        self._query: Mapping[str, Any] = {}
        self._http: tuple[Any, Any] = (None, None)
        self._url = ""
        self._deployed = False  # the address may name the model
        self._plain: BoundedDict[Namespace | tuple[Namespace, str], Prefix] = BoundedDict(
            _REMEMBERED
        )
        self._special: BoundedDict[tuple[Namespace, str, bytes], Prefix] = BoundedDict(_REMEMBERED)
        self._followed = 0  # how often the client's settings were found changed
        self._own: tuple[Any, ...] = ()
        self._own_digest = b""

    @property
    def url(self) -> str:
        """The endpoint's URL without user-info and query, for errors."""
        if self._client._base_url is not self._base_url:
            self._follow()
        return self._url

    @property
    def place(self) -> str:
        """The server's host and port, or the name that was given to it, for errors."""
        return self._upstream or urlsplit(self.url).netloc

    def prefix(
        self,
        namespace: Namespace,
        extra_headers: Mapping[str, Any] | None,
        extra_query: Mapping[str, Any] | None,
        model: object,
    ) -> Prefix:
        """Return the hashed part of a request that stands before its body.

        Args:
            namespace: Where the entry lives.
            extra_headers: The call's own.
            extra_query: The call's own.
            model: The model that the body names.

        Raises:
            NotCanonicalError: A header or query value has no canonical form.
        """
        client = self._client
        if (
            client._base_url is not self._base_url
            or (client.default_headers if self._own_headers else client._custom_headers)
            != self._headers
            or (client.default_query if self._own_query else client._custom_query) != self._query
            or _http_defaults(client._client) != self._http
        ):
            self._follow()
        named = model if self._deployed and isinstance(model, str) else ""
        headers: dict[str, Any] = {}
        query: dict[str, Any] = {}
        if extra_headers:
            headers = _changes(extra_headers, self._ignore)
        if extra_query:
            query = {n: v for n, v in extra_query.items() if not sdk.is_not_given(v)}
        if not headers and not query:
            plain = (namespace, named) if named else namespace
            prefix = self._plain.get(plain)
            if prefix is None:
                prefix = self._plain[plain] = self._made(namespace, {}, {}, named)[0]
            return prefix
        shown = [_shown(given) for given in (headers, query)]
        known = (namespace, named, canonical_value(shown))
        prefix = self._special.get(known)
        if prefix is None:
            prefix = self._special[known] = self._made(namespace, headers, query, named)[0]
        return prefix

    def _follow(self) -> None:
        """Take in what the client is set to now; every prefix is made anew."""
        client = self._client
        self._plain.clear()
        self._special.clear()
        self._followed += 1
        self._headers = dict(
            client.default_headers if self._own_headers else client._custom_headers
        )
        self._query = dict(client.default_query if self._own_query else client._custom_query)
        headers, params = _http_defaults(client._client)
        self._http = (list(headers), params)
        self._base_url = client._base_url
        self._url = without_query(str(client._base_url)).rstrip("/") + self._path
        self._deployed = isinstance(client, sdk.AZURE) or _DEPLOYMENTS in self._url

    def _made(
        self,
        namespace: Namespace,
        headers: Mapping[str, Any],
        query: Mapping[str, Any],
        model: str,
    ) -> tuple[Prefix, bytes]:
        """Return a prefix, and whose request it is as far as that can be seen in the request.

        Raises:
            NotCanonicalError: The SDK can't build it, or builds another one.
        """
        request = sdk.unsent_request(self._client, self._path, headers, query, model)
        wire = of_httpx(request, None)
        place = place_of(wire.path, self._operation)
        if place is None:  # as where the base URL has a query, after which the SDK puts the path
            raise NotCanonicalError("its URL doesn't end with the endpoint's path")
        upstream = address_of(wire, place, model, self._upstream)
        sent = combined(wire.headers)
        upstream = at_host(upstream, sent.get("host", ""), wire)
        where = (namespace, upstream, wire.query, wire.user_info, self._ignore)
        return prefix_of(sent, place.path, where)

    def credentials(
        self, extra_headers: Mapping[str, Any] | None, extra_query: Mapping[str, Any] | None
    ) -> bytes:
        """Return a digest of whose call it is; kept in memory, never stored.

        It is the one that the HTTP client's requests have, where the SDK fetches no key for them.
        """
        client = self._client
        sources = [id(found) for found in _sources_of(client)]
        # What a source gave last says nothing: it may give another key to the same account.
        own = (
            None if sources else client.api_key,
            [getattr(client, name, None) for name in _CREDENTIALS],
            sources,
            self._followed,
        )
        if own != self._own:
            self._own = own
            self._own_digest = self._digest({}, {}, sources)
        headers = _named(is_credential_header, extra_headers)
        query = _named(is_denied_query, extra_query)
        return self._digest(headers, query, sources) if headers or query else self._own_digest

    def _digest(
        self, headers: Mapping[str, Any], query: Mapping[str, Any], sources: list[int]
    ) -> bytes:
        try:
            whose = self._made(_NO_NAMESPACE, headers, query, "")[1]
        except NotCanonicalError:  # it can't be sent either
            whose = sha256(repr((headers, query)).encode("utf-8", "replace")).digest()
        return sha256(whose + repr(sources).encode()).digest() if sources else whose


def _sources_of(client: Any) -> list[Any]:
    """Return what fetches a client's credentials while it sends."""
    found = [getattr(client, name, None) for name in _CREDENTIAL_SOURCES]
    return [one for one in (*found, client._client.auth) if one is not None]


def _named(chosen: Callable[[str], bool], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return those headers or query parameters whose name is chosen."""
    return {name: value for name, value in (given or {}).items() if chosen(name)}


def _changes(headers: Mapping[str, Any], ignore: frozenset[str]) -> dict[str, Any]:
    """Return headers that matter to a key.

    Raises:
        NotCanonicalError: One isn't text.
    """
    found: dict[str, Any] = {}
    for name, value in headers.items():
        lowered = name.lower()
        if sdk.is_not_given(value) or lowered in ignore:
            continue
        if is_denied_header(lowered) and lowered != _HOST:  # another host may be another server
            continue
        if not isinstance(value, str) and not sdk.is_omit(value):
            raise NotCanonicalError(f"the header {name!r} isn't a str")
        found[name] = value
    return found


def _shown(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return headers or query parameters as plain data; None is for one that is taken away."""
    return {name: None if sdk.is_omit(value) else (value,) for name, value in given.items()}


def _http_defaults(http: Any) -> tuple[list[Any], Any]:
    """Return what an HTTP client adds to every request, to be compared with later."""
    headers = http.headers
    # The list inside, where it can be had, as building one of it costs a microsecond a call.
    return getattr(headers, "_list", None) or headers.raw, http.params
