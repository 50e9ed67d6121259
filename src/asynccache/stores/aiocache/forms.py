"""What is kept in an aiocache cache: names, entries with a stamp, leases, and a list of keys.

``asynccache:<namespace>:<64 hex digits>`` is an entry, its lease lies beside it with ``:lease`` at
the end. ``…:generation`` is a random number that every entry of the namespace bears: another one
clears it at once, whatever the cache can't list. ``…:index:<generation>:<2 hex digits>`` is one
part of a list of keys.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import sha256
from typing import Final

from asynccache.keys.key import KEY_BYTES, Namespace
from asynccache.stores.base import Lease

GENERATION_BYTES: Final = 8
BUCKETS: Final = 256  # of a namespace's list of keys, by their first byte
FREE: Final = b"free"
"""What stands in a lease's place for a moment once it was given back."""
_LABEL: Final = 80  # characters: with all else below memcached's 250, and room for a prefix
_STAMP: Final = struct.Struct(">4s8sQ")  # magic, generation, expires
_MAGIC: Final = b"ayc1"
_LEASE: Final = struct.Struct(">4s16sQ")  # magic, token, renewals
_LEASE_MAGIC: Final = b"ayl1"


class AiocacheNames:
    """The names of one namespace. `names_of` keeps them."""

    __slots__ = ("_head", "generation")

    def __init__(self, namespace: Namespace) -> None:
        label = namespace.text
        if len(label) > _LABEL:  # no seed begins with ~
            label = f"~{sha256(label.encode()).hexdigest()}"
        self._head = f"asynccache:{label}:"
        self.generation = f"{self._head}generation"

    def entry(self, key: bytes) -> str:
        """Return the name of a key's entry."""
        return f"{self._head}{key.hex()}"

    def lease(self, key: bytes) -> str:
        """Return the name of a key's lease."""
        return f"{self.entry(key)}:lease"

    def bucket(self, generation: bytes, number: int) -> str:
        """Return the name of one part of the list of keys."""
        return f"{self._head}index:{generation.hex()}:{number:02x}"


@lru_cache(maxsize=256)
def names_of(namespace: Namespace) -> AiocacheNames:
    """Return the names of a namespace."""
    return AiocacheNames(namespace)


def is_generation(kept: bytes | None) -> bool:
    """Tell whether what is kept is a number that entries can bear."""
    return kept is not None and len(kept) == GENERATION_BYTES


def stamped(body: bytes, generation: bytes, expires: int) -> bytes:
    """Return an entry as it is kept."""
    return _STAMP.pack(_MAGIC, generation, expires) + body


def body_in(kept: bytes | None, generation: bytes | None, now: int) -> bytes | None:
    """Return the entry in what is kept: None if it is past its time, cleared, or a stranger's."""
    if kept is None or len(kept) < _STAMP.size:
        return None
    magic, borne, expires = _STAMP.unpack_from(kept)
    if magic != _MAGIC or borne != generation or 0 < expires <= now:
        return None
    return kept[_STAMP.size :]


def packed(lease: Lease) -> bytes:
    """Return a lease as it is kept."""
    return _LEASE.pack(_LEASE_MAGIC, lease.token, lease.renewals)


def lease_in(key: bytes, kept: bytes | None) -> Lease | None:
    """Return the lease in what is kept; None if nobody holds it."""
    if kept is None or len(kept) != _LEASE.size:
        return None
    magic, token, renewals = _LEASE.unpack(kept)
    return Lease(key, token, renewals) if magic == _LEASE_MAGIC else None


def keys_in(kept: bytes | None) -> dict[bytes, None]:
    """Return the keys in a part of the list, in order."""
    listed = kept or b""
    ends = range(0, len(listed) - KEY_BYTES + 1, KEY_BYTES)
    return dict.fromkeys(listed[start : start + KEY_BYTES] for start in ends)
