"""What is written to Cosmos DB: items that hold an entry, the lease on its key, its generation.

Everything about a key is one item, so that creating it claims the key and shows at the same moment
that nothing is stored for it. A generation is valid while its item holds it: who removes the item
has changed the key. The id is its partition key, too: each key is a partition of its own,
and whatever path the container's partition key has, a point read finds the item.
"""

from __future__ import annotations

import math
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct, field

from asynccache.entries.compression import compress, decompress
from asynccache.entries.entry import ENVELOPE_BYTES, Meta, decode_head
from asynccache.keys.key import Namespace
from asynccache.stores.base import Lease

# Bytes: in base64 they and the rest of an item stay below 1 MiB. Cosmos DB takes twice that; above
# it aiohttp warns, rightly, that sending holds the loop.
PART: Final = 750_000
LARGE: Final = 128 * 1024  # bytes: above, turning them into text would hold the loop
_SMALL: Final = 8192  # bytes: larger entries come compressed
_SPACE: Final = 32  # characters of a namespace in an id: old containers hash 101 of a partition key
_MICROSECONDS: Final = 1_000_000
_LATEST: Final = 253_402_300_800 * _MICROSECONDS  # the year 10000, which no date can be written of
_LONGEST: Final = 2**31 - 1  # seconds: the longest ttl that an item may have
_OUTLIVES: Final = 60  # seconds that parts are kept longer than their entry
_DAY: Final = 86_400  # seconds that an item lasts at least while a call may need its generation
_DAMAGED: Final = "!"  # is no base64
OURS: Final = frozenset({"entry", "lease", "generation", "part", "ttl", "namespace", "key"})
"""First words of paths that are no partition key for these items."""


class EntryText(Struct, frozen=True, kw_only=True):
    """An entry as text, and what is worth reading beside it."""

    head: str
    """The envelope, base64."""
    body: str = ""
    """The rest, base64; empty where it is split."""
    codec: Literal["zstd", "none"] = "none"
    """How the rest was packed here; larger ones are compressed already."""
    parts: tuple[str, ...] = ()
    """The names of the items that the rest is split over, in order."""
    expires: int = 0
    """Microseconds since the epoch; 0 is never."""
    created: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0


class LeaseText(Struct, frozen=True):
    """A lease as text."""

    token: str
    renewals: int = 0


class GenerationText(Struct, frozen=True):
    """A key's generation."""

    name: str = field(default_factory=lambda: secrets.token_hex(8))
    keep: bool = False
    """A call needs it that has no lease."""


class CosmosItem(Struct, frozen=True, kw_only=True):
    """What was read about a key. Without an etag, it is that there is nothing."""

    id: str
    etag: str = field(default="", name="_etag")
    """Changes with the item; empty where there is none."""
    entry: EntryText | None = None
    lease: LeaseText | None = None
    generation: GenerationText | None = None

    def has(self, generation: bytes) -> bool:
        """Return whether the key has this generation still."""
        return self.generation is not None and self.generation.name.encode() == generation

    def live(self, now: int) -> EntryText | None:
        """Return the entry, if its time isn't over."""
        entry = self.entry
        return None if entry is None or 0 < entry.expires <= now else entry

    def holder(self, key: bytes) -> Lease | None:
        """Return the lease, if there is one."""
        if self.lease is None:
            return None
        return Lease(key, bytes.fromhex(self.lease.token), self.lease.renewals)

    def held_by(self, token: bytes) -> LeaseText | None:
        """Return the lease, if it is this token's."""
        return self.lease if self.lease is not None and self.lease.token == token.hex() else None


def read(document: Any) -> CosmosItem:  # noqa: ANN401 - JSON
    """Return what a document holds; of one that is damaged, an entry that is none."""
    try:
        return msgspec.convert(document, CosmosItem)
    except msgspec.ValidationError:
        damaged = EntryText(head=_DAMAGED)
        return CosmosItem(
            id=str(document.get("id")), etag=str(document.get("_etag", "")), entry=damaged
        )


# -- names ----------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def prefix_of(namespace: Namespace) -> str:
    """Return what the ids of a namespace begin with, and those of no other do."""
    text = namespace.text
    if len(text) > _SPACE or "%" in text:  # no namespace begins with a tilde
        text = "~" + sha256(text.encode()).hexdigest()[: _SPACE - 1]
    return text + ":"


def id_of(namespace: Namespace, key: bytes) -> str:
    """Return the id of a key's item."""
    return prefix_of(namespace) + key.hex()


def part_ids(namespace: Namespace, entry: EntryText) -> list[str]:
    """Return the ids of an entry's parts, in order; none if it isn't split."""
    return [f"{prefix_of(namespace)}+{name}" for name in entry.parts]


# -- writing --------------------------------------------------------------------------------------


def document(
    name: str, namespace: Namespace, path: Sequence[str], content: dict[str, Any]
) -> dict[str, Any]:
    """Return a document.

    Args:
        name: Its id, which is its partition key, too.
        namespace: Whose it is.
        path: The names that lead to the container's partition key.
        content: What it holds; a ``ttl`` of 0 is left out.
    """
    made: dict[str, Any] = {"id": name, "namespace": namespace.text, **content}
    if not made["ttl"]:
        del made["ttl"]
    inner = made
    for step in path[:-1]:
        inner = inner.setdefault(step, {})
    inner[path[-1]] = name
    return made


def item_content(
    key: bytes,
    entry: EntryText | None,
    lease: LeaseText | None,
    generation: GenerationText | None,
    now: int,
) -> dict[str, Any]:
    """Return what the document of an entry, a lease and a generation holds."""
    needed = entry is None or lease is not None or (generation is not None and generation.keep)
    content: dict[str, Any] = {"key": key.hex(), "ttl": _DAY if needed else 0}
    if entry is not None:
        content["entry"] = msgspec.to_builtins(entry)
        ends = _seconds(entry.expires, now)
        content["ttl"] = max(ends, content["ttl"]) if ends else 0
    if lease is not None:
        content["lease"] = msgspec.to_builtins(lease)
    if generation is not None:
        content["generation"] = msgspec.to_builtins(generation)
    return content


def part_content(text: str, expires: int, now: int) -> dict[str, Any]:
    """Return what the document of a split entry's part holds."""
    ends = _seconds(expires, now)
    return {"part": text, "ttl": min(_LONGEST, ends + _OUTLIVES) if ends else 0}


def _seconds(expires: int, now: int) -> int:
    """Return for how many seconds more something is kept; 0 for ever."""
    if not expires:
        return 0
    return min(_LONGEST, max(1, math.ceil((expires - now) / _MICROSECONDS)))


def pack(body: bytes, expires: int, meta: Meta | None) -> tuple[EntryText, list[str]]:
    """Return an encoded entry as text, and the text of its parts if one item hasn't room for it."""
    envelope, rest = body[:ENVELOPE_BYTES], memoryview(body)[ENVELOPE_BYTES:]
    beside: dict[str, Any] = {"head": _text(envelope), "expires": expires}
    head = decode_head(body)
    if head is not None and head.created < _LATEST:  # else it isn't sound
        moment = datetime.fromtimestamp(head.created // _MICROSECONDS, UTC)
        beside["created"] = moment.isoformat().replace("+00:00", "Z")
    if meta is not None:
        beside.update(
            model=meta.model, input_tokens=meta.input_tokens, output_tokens=meta.output_tokens
        )
    if len(rest) > PART:
        texts = [_text(rest[start : start + PART]) for start in range(0, len(rest), PART)]
        name = secrets.token_hex(16)
        parts = tuple(f"{name}.{number}" for number in range(len(texts)))
        return EntryText(parts=parts, **beside), texts
    if len(rest) <= _SMALL:
        packed = compress(rest)
        if len(packed) < len(rest):
            return EntryText(body=_text(packed), codec="zstd", **beside), []
    return EntryText(body=_text(rest), **beside), []


def unpack(entry: EntryText, parts: Sequence[str] = ()) -> bytes:
    """Return the encoded entry that text holds; nothing, which is no entry, if it is damaged."""
    texts = parts if entry.parts else (entry.body,)
    try:
        head, *rest = (b64decode(text, validate=True) for text in (entry.head, *texts))
        if entry.codec == "zstd":
            # Nothing larger was packed here: what pretends to be is damaged.
            rest = [decompress(b"".join(rest), _SMALL)]
    except ValueError:
        return b""
    return b"".join((head, *rest))


def envelope_of(entry: EntryText) -> bytes:
    """Return an entry's envelope; nothing if it is damaged."""
    return unpack(EntryText(head=entry.head))


def _text(data: bytes | memoryview) -> str:
    return b64encode(data).decode()
