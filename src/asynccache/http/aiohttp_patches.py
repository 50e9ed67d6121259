"""The sessions of aiohttp, patched where all their requests begin."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp

from asynccache.cache.facade import Place, bound
from asynccache.http.aiohttp_session import REQUEST, options_with, require_middlewares
from asynccache.http.ambient import AmbientHttpCache


def places(name: str) -> Iterator[Place]:
    """Return what is patched.

    Raises:
        ImportError: The library isn't as those that are known.
    """
    require_middlewares()
    made = functools.partial(_patched, AmbientHttpCache(name))
    yield Place(aiohttp.ClientSession, REQUEST, made)


def _patched(http: AmbientHttpCache, original: Any) -> Callable[..., Any]:
    @functools.wraps(original)
    async def request(self: aiohttp.ClientSession, method: str, *args: Any, **options: Any) -> Any:
        asked = options_with(http, self, method, options)
        return await bound(original, self)(method, *args, **asked)

    return request
