"""Any aiocache cache as a store."""

from __future__ import annotations

from asynccache.stores.aiocache.store import AiocacheStore

__all__ = ["AiocacheStore"]
