"""Where a client's requests go, and with what headers: the part of a request beside its body."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from asynccache._canonical import canonical_value
from asynccache._key import DENIED_HEADERS, Namespace, Prefix, kept_headers

_REMEMBERED: Final = 256  # prefixes: one per namespace and set of extra headers in use
_CREDENTIAL_HEADERS: Final = ("authorization", "api-key", "x-api-key", "openai-organization", "openai-project")


class Address:
    """Follows one client's base URL, headers, query and credentials, which may change while in use.

    Args:
        client: The SDK's client.
        path: Path of the endpoint below the base URL.
        upstream: A name that takes the base URL's place.
        ignore_headers: Names to leave out of keys, in lower case.
    """

    def __init__(
        self, client: Any, path: str, upstream: str | None, ignore_headers: frozenset[str]  # noqa: ANN401 - the SDK's client
    ) -> None:
        self._client = client
        self._path = path
        self._upstream = upstream
        self._ignore = ignore_headers
        self._seen: tuple[Any, Any, Any] = (None, None, None)
        self._plain: dict[Namespace, Prefix] = {}
        self._special: dict[tuple[Namespace, bytes], Prefix] = {}
        self._credentials: tuple[tuple[Any, ...], bytes] = ((), b"")

    @property
    def url(self) -> str:
        """The endpoint's URL without user-info and query, for errors."""
        url = self._client._base_url
        port = "" if url.port is None else f":{url.port}"
        return f"{url.scheme}://{url.host}{port}{url.path.rstrip('/')}{self._path}"

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
        seen = self._seen
        if (
            client._base_url is not seen[0]
            or client._custom_headers != seen[1]
            or client._custom_query != seen[2]
        ):
            self._plain.clear()
            self._special.clear()
            self._seen = (client._base_url, dict(client._custom_headers), dict(client._custom_query))
        if not extra_headers and not extra_query:
            prefix = self._plain.get(namespace)
            if prefix is None:
                prefix = self._plain[namespace] = self._make(namespace, {}, {})
            return prefix
        headers, query = extra_headers or {}, extra_query or {}
        kept = kept_headers(_text(headers).items(), self._ignore)
        known = (namespace, canonical_value((kept, sorted(headers), dict(query))))
        prefix = self._special.get(known)
        if prefix is None:
            if len(self._special) >= _REMEMBERED:
                self._special.clear()
            prefix = self._special[known] = self._make(namespace, headers, query)
        return prefix

    def _make(
        self, namespace: Namespace, headers: Mapping[str, Any], query: Mapping[str, Any]
    ) -> Prefix:
        url = self._client._base_url
        merged = {name.lower(): value for name, value in self._client._custom_headers.items()}
        merged.update({name.lower(): value for name, value in headers.items()})
        return Prefix(
            namespace,
            method="POST",
            upstream=self._upstream or self.url.removesuffix(self._path),
            path=self._path,
            query={**dict(url.params), **self._client._custom_query, **query},
            headers=_text(merged),
            ignore_headers=self._ignore,
        )

    def credentials(self, extra_headers: Mapping[str, Any] | None) -> bytes:
        """Return a digest of whose call it is; kept in memory, never stored."""
        client = self._client
        own = (
            client.api_key,
            client.organization,
            client.project,
            id(getattr(client, "_api_key_provider", None)),
            getattr(client, "_azure_ad_token", None),
            *_credentials(client._custom_headers),
            *(_credentials(extra_headers) if extra_headers else ()),
        )
        if own != self._credentials[0]:
            self._credentials = (own, sha256(repr(own).encode("utf-8", "replace")).digest())
        return self._credentials[1]


def _credentials(headers: Mapping[str, Any]) -> list[Any]:
    return sorted(
        (name.lower(), str(value))
        for name, value in headers.items()
        if name.lower() in _CREDENTIAL_HEADERS and name.lower() in DENIED_HEADERS
    )


def _text(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return headers that are sent: the SDK lets a marker stand for one to be left out."""
    return {name: value for name, value in headers.items() if isinstance(value, str)}
