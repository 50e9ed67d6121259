"""The Redis store: one server, a cluster, or what sentinels name."""

from __future__ import annotations

from asynccache.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
