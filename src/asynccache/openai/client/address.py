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
    is_denied_query,
    kept_headers,
    without_query,
)
from asynccache.keys.key import Namespace, Prefix
from asynccache.openai.client import sdk
from asynccache.runtime.bounded import BoundedDict

_REMEMBERED: Final = 256  # prefixes: one per namespace and set of extra headers in use
_CREDENTIALS: Final = ("organization", "project", "admin_api_key", "_azure_ad_token")
_CREDENTIAL_SOURCES: Final = (
    "_api_key_provider", "_azure_ad_token_provider", "workload_identity", "_provider",
)  # fmt: skip
"""Attributes of a client that fetch credentials: their results change, whose they are doesn't."""


class RequestAddress:
    """Follows one client's base URL, headers, query and credentials, which may change while in use.

    Args:
        client: The SDK's client.
        path: Path of the endpoint below the base URL.
        upstream: A name that takes the base URL's place.
        ignore_headers: Names to leave out of keys, in lower case.
    """

    def __init__(
        self,
        client: Any,
        path: str,
        upstream: str | None,
        ignore_headers: frozenset[str],
    ) -> None:
        self._client = client
        self._path = path
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
        self._plain: BoundedDict[Namespace, Prefix] = BoundedDict(_REMEMBERED)
        self._special: BoundedDict[tuple[Namespace, bytes], Prefix] = BoundedDict(_REMEMBERED)
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
    ) -> Prefix:
        """Return the hashed part of a request that stands before its body.

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
        headers: dict[str, str | None] = {}
        query: dict[str, Any] = {}
        if extra_headers:
            headers = _changes(extra_headers, self._ignore)
        if extra_query:
            query = {n: v for n, v in extra_query.items() if not sdk.is_not_given(v)}
        if not headers and not query:
            prefix = self._plain.get(namespace)
            if prefix is None:
                prefix = self._plain[namespace] = self._make(namespace, {}, {})
            return prefix
        shown = {name: None if sdk.is_omit(value) else (value,) for name, value in query.items()}
        known = (namespace, canonical_value((headers, shown)))
        prefix = self._special.get(known)
        if prefix is None:
            prefix = self._special[known] = self._make(namespace, headers, query)
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

    def _make(
        self,
        namespace: Namespace,
        headers: Mapping[str, str | None],
        query: Mapping[str, Any],
    ) -> Prefix:
        merged: dict[str, str | None] = dict(sdk.http_headers(self._client._client))
        merged.update(_changes(self._headers, self._ignore))
        merged.update(headers)
        asked = {**_listed(self._client._client.params), **_listed(self._base_url.params)}
        for name, value in {**self._query, **query}.items():
            if sdk.is_omit(value):
                asked.pop(name, None)
            else:
                asked[name] = value
        return Prefix(
            namespace,
            method="POST",
            upstream=self._upstream or self._url.removesuffix(self._path),
            path=self._path,
            query=asked,
            headers={name: value for name, value in merged.items() if value is not None},
            ignore_headers=self._ignore,
        )

    def credentials(
        self, extra_headers: Mapping[str, Any] | None, extra_query: Mapping[str, Any] | None
    ) -> bytes:
        """Return a digest of whose call it is; kept in memory, never stored."""
        client = self._client
        sources = [id(getattr(client, name, None)) for name in _CREDENTIAL_SOURCES]
        # What a source gave last says nothing: it may give another key to the same account.
        fetched = getattr(client, "_api_key_provider", None) is not None
        own = (
            None if fetched else client.api_key,
            [getattr(client, name, None) for name in _CREDENTIALS],
            sources,
            id(client._client.auth),
            self._followed,
        )
        if own != self._own:
            self._own = own
            self._own_digest = self._digest_of(own)
        if not extra_headers and not extra_query:
            return self._own_digest
        beside = (_named(is_credential_header, extra_headers), _named(is_denied_query, extra_query))
        return sha256(self._own_digest + repr(beside).encode("utf-8", "replace")).digest()

    def _digest_of(self, own: tuple[Any, ...]) -> bytes:
        client = self._client
        headers = (client._client.headers, client._custom_headers)
        queries = (client._custom_query, dict(client._base_url.params))
        whole = (
            own[:-1],
            client._base_url.userinfo,
            [_named(is_credential_header, given) for given in headers],
            [_named(is_denied_query, given) for given in queries],
        )
        return sha256(repr(whole).encode("utf-8", "replace")).digest()


def _named(chosen: Callable[[str], bool], given: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return those headers or query parameters whose name is chosen."""
    return sorted((n.lower(), str(v)) for n, v in (given or {}).items() if chosen(n))


def _changes(headers: Mapping[str, Any], ignore: frozenset[str]) -> dict[str, str | None]:
    """Return headers that matter to a key, in lower case; None for one that is to be left out.

    Raises:
        NotCanonicalError: One isn't text.
    """
    found: dict[str, str | None] = {}
    for name, value in kept_headers(headers.items(), ignore):
        if isinstance(value, str):
            found[name] = value
        elif sdk.is_omit(value):
            found[name] = None
        elif not sdk.is_not_given(value):
            raise NotCanonicalError(f"the header {name!r} isn't a str")
    return found


def _http_defaults(http: Any) -> tuple[list[Any], Any]:
    """Return what an HTTP client adds to every request, to be compared with later."""
    headers = http.headers
    # The list inside, where it can be had, as building one of it costs a microsecond a call.
    return getattr(headers, "_list", None) or headers.raw, http.params


def _listed(params: Any) -> dict[str, Any]:
    """Return query parameters; what is named several times is a list."""
    found: dict[str, Any] = {}
    for name in params:
        values = params.get_list(name)
        found[name] = values[0] if len(values) == 1 else values
    return found
