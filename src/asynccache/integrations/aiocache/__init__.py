"""asynccache as a cache of aiocache's, and a `cached` that shares calls under way."""

from __future__ import annotations

from asynccache.errors import from_extra

with from_extra("aiocache"):
    from asynccache.integrations.aiocache.backend import AsyncCacheBackend
    from asynccache.integrations.aiocache.decorator import cached
    from asynccache.integrations.aiocache.serializer import ValueSerializer

__all__ = ["AsyncCacheBackend", "ValueSerializer", "cached"]
