"""The disk store: rows in SQLite, large bodies in files of their own."""

from __future__ import annotations

from asynccache.stores.disk.store import DiskStore

__all__ = ["DiskStore"]
