"""The names of keys in Redis: which entry and lease lie where, and which key is nobody's but ours.

``asynccache:<namespace>:{<2 hex digits>}:<64 hex digits>`` is an entry. Its lease lies beside it,
with ``:lease`` at the end. Keys with the same two digits share
``asynccache:<namespace>:{<2 hex digits>}:generations``. Only what is in braces decides on the slot
in a cluster: a namespace spreads over 256 slots, enough to fill a cluster evenly and few enough to
batch.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from asynccache.keys.key import Namespace

CHANNEL: Final = b"asynccache:woken"
"""Where the keys are published that somebody waits for. One channel, since the key says it all."""
_LEASE: Final = b":lease"


class RedisNames:
    """The names of one namespace's keys. `names_of` keeps them.

    Args:
        namespace: Its text holds no character that a pattern of ``SCAN`` would interpret.
    """

    __slots__ = ("_heads", "_ours", "generations", "pattern")

    def __init__(self, namespace: Namespace) -> None:
        head = f"asynccache:{namespace.text}:"
        self._heads = [f"{head}{{{tag:02x}}}:".encode() for tag in range(256)]
        self.generations = [head + b"generations" for head in self._heads]
        """The names of the generations, by the first byte of their keys."""
        self._ours = re.compile(re.escape(head.encode()) + rb"\{([0-9a-f]{2})\}:(\1[0-9a-f]{62})")
        self.pattern = f"{head}{{??}}:*"
        """Matches all entries, and more: see `key_of`."""

    def entry(self, key: bytes) -> bytes:
        """Return the name of a key's entry."""
        return self._heads[key[0]] + key.hex().encode()

    def lease(self, key: bytes) -> bytes:
        """Return the name of a key's lease."""
        return self.entry(key) + _LEASE

    @staticmethod
    def message(key: bytes) -> bytes:
        """Return what is published when a key has news."""
        return key.hex().encode()

    def key_of(self, name: bytes) -> bytes | None:
        """Return the key that a name is the entry of; None if it is none, or a stranger's."""
        found = self._ours.fullmatch(name)
        return None if found is None else bytes.fromhex(found[2].decode())


@lru_cache(maxsize=256)
def names_of(namespace: Namespace) -> RedisNames:
    """Return the names of a namespace's keys."""
    return RedisNames(namespace)
