"""The Cosmos DB store."""

from __future__ import annotations

from asynccache.stores.cosmos.store import CosmosStore

__all__ = ["CosmosStore"]
