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
CHOOSE: Final = "_transport_for_url"
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
        inner = library.HTTPTransport() if is_sync else library.AsyncHTTPTransport()
        return transport_over(library, inner, http, is_sync=is_sync)
    for library in libraries():
        kinds = {False: library.AsyncBaseTransport, True: library.BaseTransport}
        if isinstance(inner, (*kinds.values(),)):
            # A transport may be both, as those that mock are.
            fits = isinstance(inner, kinds[is_sync])
            return transport_over(library, inner, http, is_sync=is_sync if fits else not is_sync)
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
    is_sync = isinstance(client, library.Client)
    choose: Any = getattr(twin, CHOOSE)

    def transport_for_url(url: Any) -> Any:
        return transport_over(library, choose(url), http, is_sync=is_sync)

    setattr(twin, CHOOSE, transport_for_url)
    return twin


def transport_over(library: ModuleType, inner: Any, http: HttpCache, *, is_sync: bool) -> Any:
    """Return a transport over another one, for a client of that kind."""
    if is_sync:
        return of_library(SyncCacheTransport, library, "BaseTransport")(library, inner, http)
    return of_library(CacheTransport, library, "AsyncBaseTransport")(library, inner, http)
