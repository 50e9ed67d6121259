"""Namespaces, keys, encoded entries and records for tests of stores."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from asynccache.entries.entry import Entry, Meta, encode_entry
from asynccache.keys.key import Namespace
from asynccache.stores.base import Record, Store

HOME: Final = Namespace.of("contract")
TENANT: Final = Namespace.of("contract", "acme")
AWAY: Final = Namespace.of("contract-2")
PATIENCE: Final = 30.0  # seconds after which a test gives up on something that should have happened


def key_of(name: object) -> bytes:
    """Return the key of a name. Keys are spread evenly, as real ones are."""
    return hashlib.sha256(repr(name).encode()).digest()


def body_of(name: object, size: int = 100) -> bytes:
    """Return an encoded entry for a name, of around ``size`` bytes that don't compress."""
    chunk = hashlib.shake_128(repr(name).encode()).digest(size)
    return encode_entry(Entry(key_of(name), 1_700_000_000_000_000, 0, Meta("json"), (chunk,)))


def record_of(name: object, body: bytes | None = None, *, size: int = 100, **fields: Any) -> Record:  # noqa: ANN401 - a record's
    """Return the record of a name, with its `body_of` unless another body is given."""
    return Record(key=key_of(name), body=body_of(name, size) if body is None else body, **fields)


async def get(store: Store, name: object, namespace: Namespace = HOME) -> bytes | None:
    """Look one name up and return its body."""
    (found,) = await store.get_many(namespace, [key_of(name)])
    return found
