"""What the parts of the store contract share: names, bodies, and which test needs what."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, Protocol, TypeVar

from asynccache.entries.entry import Entry, Meta, encode_entry
from asynccache.keys.key import Namespace
from asynccache.stores.base import Record, Store

Need = Literal[
    "inline", "leases", "messages", "releases", "glances", "durable", "clock"
]  # fmt: skip
"""A capability, or a `clock` fixture."""

HOME: Final = Namespace.of("contract")
TENANT: Final = Namespace.of("contract", "acme")
AWAY: Final = Namespace.of("contract-2")
PATIENCE: Final = 30.0  # seconds until something that should be awake counts as asleep for ever

_Test = TypeVar("_Test", bound=Callable[..., Any])


class Elsewhere(Protocol):
    """Runs work in an event loop of its own, in another thread."""

    async def __call__(self, work: Callable[[], Awaitable[Any]], /) -> Any:  # noqa: ANN401 - whatever the work returns
        """Run it and return what it returns."""


def needs(*what: Need) -> Callable[[_Test], _Test]:
    """Mark a test as one that only stores with these capabilities are put through."""

    def marked(test: _Test) -> _Test:
        test.__dict__["needs"] = frozenset(what)
        return test

    return marked


def key_of(name: object) -> bytes:
    """Return a key, spread as real ones are."""
    return hashlib.sha256(repr(name).encode()).digest()


def body_of(name: object, size: int = 100) -> bytes:
    """Return an encoded entry for `key_of` the name, around ``size`` bytes that don't compress."""
    chunk = hashlib.shake_128(repr(name).encode()).digest(size)
    return encode_entry(Entry(key_of(name), 1_700_000_000_000_000, 0, Meta("json"), (chunk,)))


def record_of(
    name: object, *, size: int = 100, expires: int = 0, if_absent: bool = False
) -> Record:
    """Return what is written for a name."""
    return Record(key=key_of(name), body=body_of(name, size), expires=expires, if_absent=if_absent)


async def get(store: Store, name: object, namespace: Namespace = HOME) -> bytes | None:
    """Return the one body that a store has for a name."""
    (found,) = await store.get_many(namespace, [key_of(name)])
    return found


async def scanned(store: Store, namespace: Namespace = HOME) -> list[bytes]:
    """Return the envelopes of all pages."""
    found: list[bytes] = []
    cursor: str | None = None
    while True:
        page = await store.scan(namespace, cursor)
        found.extend(page.envelopes)
        if page.cursor is None:
            return found
        cursor = page.cursor
