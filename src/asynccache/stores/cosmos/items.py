"""What is written to Cosmos DB: items that hold an entry, the lease on its key, or both.

Everything about a key is one item, so that creating it claims the key and shows at the same moment
that nothing is stored for it. Its id is its partition key, too: each key is a partition of its own,
and whatever path the container's partition key has, a point read finds the item.
"""

from __future__ import annotations

import importlib
import math
import secrets
import sys
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct, field

from asynccache.entries.entry import ENVELOPE_BYTES, Meta, decode_head
from asynccache.keys.key import Namespace
from asynccache.stores.base import Lease

# Bytes: in base64 they and the rest of an item stay below 1 MiB. Cosmos DB takes twice that; above
# it aiohttp warns, rightly, that sending holds the loop.
PART: Final = 750_000
LARGE: Final = 128 * 1024  # bytes: above, turning them into text would hold the loop
_SMALL: Final = 8192  # bytes: larger entries come compressed
_LEVEL: Final = 3
_SPACE: Final = 32  # characters of a namespace in an id: old containers hash 101 of a partition key
_MICROSECONDS: Final = 1_000_000
_LONGEST: Final = 2**31 - 1  # seconds: the longest ttl that an item may have
_DAMAGED: Final = "!"  # is no base64
OURS: Final = frozenset({"entry", "lease", "part", "ttl", "namespace", "key"})
"""First words of paths that are no partition key for these items."""


class Parts(Struct, frozen=True):
    """Where the body of a split entry is."""

    name: str
    count: int


class EntryText(Struct, frozen=True, kw_only=True):
    """An entry as text, and what is worth reading beside it."""

    head: str
    """The envelope, base64."""
    body: str = ""
    """The rest, base64; empty where it is in parts."""
    codec: Literal["zstd", "none"] = "none"
    """How the rest was packed here; larger ones are compressed already."""
    parts: Parts | None = None
    expires: int = 0
    """Microseconds since the epoch; 0 is never."""
    created: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0


class LeaseText(Struct, frozen=True):
    """A lease as text."""

    token: str
    renewals: int
    seconds: int
    """How long it lasts without renewal, where the item holds nothing else."""


class Item(Struct, frozen=True, kw_only=True):
    """What was read."""

    id: str
    etag: str = field(default="", name="_etag")
    entry: EntryText | None = None
    lease: LeaseText | None = None

    def live(self, now: int) -> EntryText | None:
        """Return the entry, if its time isn't over."""
        entry = self.entry
        return None if entry is None or 0 < entry.expires <= now else entry

    def holder(self, key: bytes) -> Lease | None:
        """Return the lease, if there is one."""
        if self.lease is None:
            return None
        return Lease(key, bytes.fromhex(self.lease.token), self.lease.renewals)


def read(document: Any) -> Item:  # noqa: ANN401 - JSON
    """Return what a document holds; of one that is damaged, an entry that is none."""
    try:
        return msgspec.convert(document, Item)
    except msgspec.ValidationError:
        etag = str(document.get("_etag", ""))
        return Item(id=str(document.get("id")), etag=etag, entry=EntryText(head=_DAMAGED))


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


def part_ids(namespace: Namespace, parts: Parts) -> list[str]:
    """Return the ids of a split entry's parts, in order."""
    prefix = prefix_of(namespace)
    return [f"{prefix}+{parts.name}.{number}" for number in range(parts.count)]


# -- writing --------------------------------------------------------------------------------------


class Form(Struct, frozen=True):
    """How documents look in a container.

    Args:
        path: The names that lead to its partition key.
    """

    path: tuple[str, ...]

    def _document(self, name: str, content: dict[str, Any]) -> dict[str, Any]:
        document: dict[str, Any] = {"id": name, **content}
        if self.path != ("id",):
            inner = document
            for step in self.path[:-1]:
                inner = inner.setdefault(step, {})
            inner[self.path[-1]] = name
        return document

    def item(
        self,
        namespace: Namespace,
        key: bytes,
        *,
        entry: EntryText | None = None,
        lease: LeaseText | None = None,
        now: int = 0,
    ) -> dict[str, Any]:
        """Return the document that holds an entry, a lease, or both."""
        content: dict[str, Any] = {"namespace": namespace.text, "key": key.hex()}
        if entry is not None:
            content["entry"] = msgspec.to_builtins(entry)
        if lease is not None:
            content["lease"] = msgspec.to_builtins(lease)
        seconds = 0 if lease is None else lease.seconds
        if entry is None:
            content["ttl"] = seconds
        elif entry.expires:
            content["ttl"] = max(_seconds(entry.expires, now), seconds)
        return self._document(id_of(namespace, key), content)

    def part(self, namespace: Namespace, name: str, body: str, ttl: int) -> dict[str, Any]:
        """Return the document that holds a part of a split entry."""
        content: dict[str, Any] = {"namespace": namespace.text, "part": body}
        if ttl:
            content["ttl"] = ttl
        return self._document(name, content)


def part_ttl(expires: int, now: int) -> int:
    """Return for how long a part is kept: longer than its entry; 0 for ever."""
    return min(_LONGEST, _seconds(expires, now) + 60) if expires else 0


def _seconds(expires: int, now: int) -> int:
    return min(_LONGEST, max(1, math.ceil((expires - now) / _MICROSECONDS)))


def new_lease(token: bytes, ttl: float, renewals: int = 0) -> LeaseText:
    """Return a lease as text. Cosmos DB counts in whole seconds: it is rounded up."""
    return LeaseText(token.hex(), renewals, max(1, math.ceil(ttl)))


def pack(body: bytes, expires: int, meta: Meta | None) -> tuple[EntryText, list[str]]:
    """Return an encoded entry as text, and the text of its parts if one item hasn't room for it."""
    envelope, rest = body[:ENVELOPE_BYTES], memoryview(body)[ENVELOPE_BYTES:]
    head = decode_head(body)
    beside: dict[str, Any] = {"head": _text(envelope), "expires": expires}
    if head is not None:
        moment = datetime.fromtimestamp(head.created // _MICROSECONDS, UTC)
        beside["created"] = moment.isoformat().replace("+00:00", "Z")
    if meta is not None:
        beside.update(
            model=meta.model, input_tokens=meta.input_tokens, output_tokens=meta.output_tokens
        )
    if len(rest) > PART:
        texts = [_text(rest[start : start + PART]) for start in range(0, len(rest), PART)]
        parts = Parts(secrets.token_hex(16), len(texts))
        return EntryText(parts=parts, **beside), texts
    if len(rest) <= _SMALL:
        packed = _zstd().compress(rest, _LEVEL)
        if len(packed) < len(rest):
            return EntryText(body=_text(packed), codec="zstd", **beside), []
    return EntryText(body=_text(rest), **beside), []


def unpack(entry: EntryText, parts: Sequence[str] = ()) -> bytes:
    """Return the encoded entry that text holds; nothing, which is no entry, if it is damaged."""
    try:
        head = b64decode(entry.head, validate=True)
        if entry.parts is not None:
            return b"".join([head, *(b64decode(part, validate=True) for part in parts)])
        rest = b64decode(entry.body, validate=True)
        if entry.codec == "zstd":
            rest = _decompressed(rest)
        return head + rest
    except ValueError:
        return b""


def text_bytes(text: str | None) -> bytes:
    """Return the bytes that base64 stands for; none if it is damaged."""
    try:
        return b64decode(text or "", validate=True)
    except ValueError:
        return b""


def _text(data: bytes | memoryview) -> str:
    return b64encode(data).decode()


def _decompressed(data: bytes) -> bytes:
    zstd = _zstd()
    try:
        # Nothing larger was packed here: what pretends to be is damaged.
        rest: bytes = zstd.ZstdDecompressor().decompress(data, _SMALL)
    except zstd.ZstdError as exc:
        raise ValueError("this isn't what was packed") from exc
    return rest


@cache
def _zstd() -> Any:  # noqa: ANN401 - one module under two names
    built_in = sys.version_info >= (3, 14)
    return importlib.import_module("compression.zstd" if built_in else "backports.zstd")
