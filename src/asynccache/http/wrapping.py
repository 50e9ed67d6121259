"""Clients of HTTP libraries, and of SDKs that stand on one, whose requests go through a cache."""

from __future__ import annotations

import copy
import importlib
import sys
from contextlib import suppress
from types import ModuleType
from typing import Any, Final, TypeVar

from asynccache.cache.facade import AsyncCache, not_wrappable
from asynccache.errors import described
from asynccache.http.exchange import HttpCache
from asynccache.http.httpx_sync import SyncCacheTransport
from asynccache.http.httpx_transport import CacheTransport, of_library

ClientT = TypeVar("ClientT")

_LIBRARIES: Final = ("httpx2", "httpx")
_CHOOSE: Final = "_transport_for_url"
"""The method of a client that chooses the transport for a request."""


def wrap(client: ClientT, *, cache: AsyncCache, upstream: str | None = None) -> ClientT:
    """Return a copy of a client whose requests go through a cache; see `AsyncCache.wrap`.

    Raises:
        TypeError: Nothing is known of such a client.
    """
    http = HttpCache(cache, upstream)
    found = _wrapped(client, http)
    if found is None:
        raise not_wrappable(client)
    return found


def _wrapped(client: ClientT, http: HttpCache) -> ClientT | None:
    for library in libraries():
        if isinstance(client, library.AsyncClient | library.Client):
            return _wrapped_httpx(client, library, http)
    return None


def transport(inner: Any, *, cache: AsyncCache, upstream: str | None = None, is_sync: bool) -> Any:
    """Return a transport that answers from a cache; see `AsyncCache.transport`.

    Raises:
        TypeError: ``inner`` is no transport.
        ImportError: Neither library is installed.
    """
    http = HttpCache(cache, upstream)
    if inner is None:
        library = _installed()
        return transport_over(
            library, library.HTTPTransport() if is_sync else library.AsyncHTTPTransport(), http
        )
    for library in libraries():
        if isinstance(inner, library.AsyncBaseTransport | library.BaseTransport):
            return transport_over(library, inner, http)
    raise TypeError(
        f"transport() takes a transport of httpx or httpx2, not {described(inner)}: pass none for"
        " the library's own, or wrap the client with cache.wrap(client)"
    )


def _installed() -> Any:
    for name in _LIBRARIES:
        with suppress(ImportError):
            return importlib.import_module(name)
    raise ImportError("neither httpx2 nor httpx is installed: run pip install httpx2")


def libraries() -> list[ModuleType]:
    """Return those of httpx and httpx2 that the program has imported."""
    return [sys.modules[name] for name in _LIBRARIES if name in sys.modules]


def _wrapped_httpx(client: ClientT, library: ModuleType, http: HttpCache) -> ClientT:
    twin = copy.copy(client)
    choose: Any = getattr(twin, _CHOOSE)

    def transport_for_url(url: Any) -> Any:
        return transport_over(library, choose(url), http)

    setattr(twin, _CHOOSE, transport_for_url)
    return twin


def transport_over(library: ModuleType, inner: Any, http: HttpCache) -> Any:
    """Return a transport over another one, of the same kind."""
    if isinstance(inner, library.AsyncBaseTransport):
        return of_library(CacheTransport, library, "AsyncBaseTransport")(library, inner, http)
    return of_library(SyncCacheTransport, library, "BaseTransport")(library, inner, http)
