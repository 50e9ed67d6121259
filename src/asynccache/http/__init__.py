"""HTTP clients whose requests to model providers are answered from a cache.

Whatever SDK stands on them: the cache knows the providers' endpoints, not the SDKs.
"""

from __future__ import annotations

from asynccache.http.httpx_sync import SyncCacheTransport
from asynccache.http.httpx_transport import CacheTransport
from asynccache.http.wrapping import aiohttp_middleware, wrap as wrap
from asynccache.providers.provider import Operation, Provider
from asynccache.providers.table import endpoint, register

__all__ = [
    "CacheTransport",
    "Operation",
    "Provider",
    "SyncCacheTransport",
    "aiohttp_middleware",
    "endpoint",
    "register",
]
