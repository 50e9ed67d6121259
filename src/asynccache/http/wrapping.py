"""Clients of HTTP libraries, and of SDKs that stand on one, whose requests go through a cache."""

from __future__ import annotations

import functools
import importlib
import sys
from contextlib import suppress
from types import MethodType, ModuleType
from typing import Any, Final, TypeVar

from asynccache.cache.facade import AsyncCache, SyncCache, asynchronous, not_wrappable
from asynccache.errors import described
from asynccache.http.copies import Copier, bare_copy, made_later
from asynccache.http.exchange import HttpCache
from asynccache.http.httpx_sync import SyncCacheTransport
from asynccache.http.httpx_transport import CacheTransport, of_library
from asynccache.http.own_errors import hides_errors, letting_out

ClientT = TypeVar("ClientT")

_LIBRARIES: Final = ("httpx2", "httpx")
CHOOSE: Final = "_transport_for_url"
"""The method of a client that chooses the transport for a request."""
_ORIGINAL: Final = "_asynccache_original"


def wrap(client: ClientT, *, cache: AsyncCache, upstream: str | None = None) -> ClientT:
    """Return a copy of a client whose requests go through a cache; see `AsyncCache.wrap`.

    Wrapping a wrapped client takes it from its cache to this one.

    Raises:
        TypeError: There is no HTTP client in it, as far as is known.
    """
    http = HttpCache(cache, upstream)
    found: ClientT | None = _wrapped(client, http)
    if found is not None:
        return found
    copier = Copier(client, functools.partial(_wrapped, http=http))
    twin = copier.copied(client)
    if not copier.found:
        raise not_wrappable(client)
    for name in ("copy", "with_options"):
        if (method := getattr(type(client), name, None)) is not None:
            vars(twin)[name] = _carried_on(twin, method, cache, upstream)
    if hides_errors(client):
        sdk: Any = type(client)
        vars(twin)["request"] = letting_out(MethodType(sdk.request, twin))
    return twin


def _carried_on(twin: Any, method: Any, cache: AsyncCache, upstream: str | None) -> Any:
    """Return a method of an SDK's client that makes another one, for the same cache."""

    @functools.wraps(method)
    def copied(*args: Any, **kwargs: Any) -> Any:
        made = method(twin, *args, **kwargs)
        # A name stands for the server it was given to, and for no other.
        same = made.base_url == twin.base_url
        return wrap(made, cache=cache, upstream=upstream if same else None)

    return copied


def _wrapped(client: Any, http: HttpCache) -> Any:
    """Return an HTTP client's copy over a cache, None for what is none."""
    for library in libraries():
        if isinstance(client, library.AsyncClient | library.Client):
            return _wrapped_httpx(client, library, http)
    if "aiohttp" in sys.modules and isinstance(client, sys.modules["aiohttp"].ClientSession):
        from asynccache.http.aiohttp_session import wrapped_session

        return wrapped_session(client, http)
    return None


def aiohttp_middleware(
    cache: AsyncCache | SyncCache | None = None, *, upstream: str | None = None
) -> Any:
    """Return a middleware for a session of aiohttp that answers from a cache.

    Let it be the last one, so that it sees requests as they are sent. `AsyncCache.wrap` does so,
    and knows the timeouts of single requests besides; a middleware knows those of the session.

    Args:
        cache: The cache. None is the current one of each request.
        upstream: As for `AsyncCache.wrap`.

    Raises:
        ImportError: aiohttp isn't installed, or is older than 3.12.

    Example::

        session = aiohttp.ClientSession(middlewares=[aiohttp_middleware(cache)])
    """
    try:
        from asynccache.http.aiohttp_session import CacheMiddleware, require_middlewares
    except ModuleNotFoundError as exc:
        raise ImportError(
            "aiohttp isn't installed: run pip install aiohttp", name="aiohttp"
        ) from exc
    require_middlewares()
    own = None if cache is None else asynchronous(cache)
    return CacheMiddleware(HttpCache(own, upstream))


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
    is_sync = isinstance(client, library.Client)
    original: Any = vars(client).get(_ORIGINAL, client)
    twin = bare_copy(client)
    own = vars(twin)

    def transport_for_url(url: Any) -> Any:
        inner = getattr(original, CHOOSE)(url)
        return transport_over(library, inner, http, is_sync=is_sync)

    # What it was made of is kept, as that closes the connections once it is collected.
    own.update({_ORIGINAL: original, CHOOSE: transport_for_url})
    made_later(twin, client, functools.partial(_wrapped, http=http))
    return twin


def transport_over(library: ModuleType, inner: Any, http: HttpCache, *, is_sync: bool) -> Any:
    """Return a transport over another one, for a client of that kind."""
    if is_sync:
        return of_library(SyncCacheTransport, library, "BaseTransport")(library, inner, http)
    return of_library(CacheTransport, library, "AsyncBaseTransport")(library, inner, http)
