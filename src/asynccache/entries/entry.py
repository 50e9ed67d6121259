"""The envelope: how one finished answer is written to bytes, and what makes bytes trustworthy.

A checksum over everything and the key inside the envelope make cut, flipped, moved, foreign and
newer bytes a `Flaw` instead of an answer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from asynccache.entries.compression import compress, decompress

_MAGIC: Final = b"ayc\n"
_VERSION: Final = 1
_RAW, _ZSTD = 0, 1
_NO_KEY: Final = bytes(8)  # id of the encryption key; all zero is plain
_CHECKSUM_BYTES: Final = 16
_SEAL: Final = (
    len(_MAGIC) + _CHECKSUM_BYTES
)  # bytes that the checksum can't cover; all others it does
# magic, checksum, version, flags, codec, reserved, key, created, expires, stored, plain, encryption
_HEAD: Final = struct.Struct("<4s16sBBBx32sQQQQ8s")
ENVELOPE_BYTES: Final = _HEAD.size
_COPY_BELOW: Final = 64 * 1024  # bytes: a copy is cheaper to hash than a view, if it is small
_COMPRESS_ABOVE: Final = 4096  # bytes: below, zstd saves less than its 20 microseconds are worth
_SKEW: Final = 60_000_000  # microseconds by which the clocks of those who share a store may differ

Kind = Literal["json", "sse", "lines", "value"]
"""A JSON document, server-sent events, JSON line by line, or a value of the user's own."""


class Meta(Struct, frozen=True, array_like=True, gc=False):
    """What is known of an answer beside its body. New fields go to the end, with a default."""

    kind: Kind
    status: int = 200
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """The few response headers worth keeping, in lower case."""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    """How long the answer took upstream."""
    cut: bool = False
    """A token limit ended the answer."""
    paths: Raw = Raw(b"\x80")
    """Digests of the request's parts, as `encode_paths` writes them; left undecoded by a hit."""
    request: Raw = Raw(b"\xc0")
    """The request, if the cache was told to keep requests; else msgpack's nil."""
    batch: bytes = b""
    """Of an answer that came with others: 32 bytes that tell for which request, then the rest of
    the body that they came in."""
    unusable: bool = False
    """The answer isn't what its request demands: mode "replay" alone gives it again."""
    cache_read_tokens: int = 0
    """Input tokens that the provider read from its own cache of prompts."""
    cache_write_tokens: int = 0
    """Input tokens that it wrote there."""


class Entry(Struct, frozen=True, gc=False):
    """One finished answer, as recorded."""

    key: bytes
    created: int
    """Microseconds since the epoch."""
    expires: int
    """Microseconds since the epoch; 0 is never."""
    meta: Meta
    chunks: tuple[bytes, ...]
    """The body: one chunk for JSON and values, one per server-sent event for a stream."""

    @property
    def body(self) -> bytes:
        """The body in one piece."""
        chunks = self.chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Flaw(Struct, frozen=True):
    """Why bytes are not an answer: the same to a caller as a miss, but counted."""

    reason: Literal["corrupt", "foreign", "misplaced", "oversized", "expired"]


class Head(Struct, frozen=True):
    """An envelope without its payload, as a scan shows it."""

    key: bytes
    created: int
    expires: int
    stored_size: int
    """Bytes of the payload as it is stored."""
    plain_size: int
    """Bytes of the payload once decompressed."""


class _Payload(Struct, frozen=True, array_like=True, gc=False):
    meta: Meta
    chunks: tuple[bytes, ...]


_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(_Payload).decode


def encode_entry(entry: Entry) -> bytes:
    """Return the bytes of an entry: the envelope, then the payload."""
    payload = _ENCODE(_Payload(entry.meta, entry.chunks))
    plain, codec = len(payload), _RAW
    if plain > _COMPRESS_ABOVE:
        payload, codec = compress(payload), _ZSTD
    head = _HEAD.pack(
        _MAGIC, b"", _VERSION, 0, codec, entry.key, entry.created, entry.expires, len(payload),
        plain, _NO_KEY,
    )  # fmt: skip
    summed = head[_SEAL:] + payload
    return b"".join((_MAGIC, sha256(summed).digest()[:_CHECKSUM_BYTES], summed))


def decode_entry(
    data: bytes, key: bytes, *, now: Callable[[], int] | None, max_bytes: int
) -> Entry | Flaw:
    """Return the entry that bytes hold, or the flaw that makes them worthless.

    Args:
        data: What a store returned.
        key: The key it was asked for.
        now: Returns microseconds since the epoch; called for an entry that expires. None where the
            store has seen to that.
        max_bytes: The largest payload to decompress, checked before anything is allocated.
    """
    if len(data) < ENVELOPE_BYTES:
        return Flaw("corrupt")
    magic, checksum, version, flags, codec, named, created, expires, stored, plain, encryption = (
        _HEAD.unpack_from(data)
    )
    if magic != _MAGIC or version != _VERSION or flags or codec > _ZSTD or encryption != _NO_KEY:
        return Flaw("foreign")
    if plain > max_bytes or stored > max_bytes:
        return Flaw("oversized")
    if len(data) != ENVELOPE_BYTES + stored:
        return Flaw("corrupt")
    view = memoryview(data)
    summed = data[_SEAL:] if len(data) < _COPY_BELOW else view[_SEAL:]
    if checksum != sha256(summed).digest()[:_CHECKSUM_BYTES]:
        return Flaw("corrupt")
    payload = view[ENVELOPE_BYTES:]
    if named != key:
        return Flaw("misplaced")
    # What was made in the future was made by a clock that was wrong, and so is its expiry.
    if expires and now is not None and not created - _SKEW <= now() < expires:
        return Flaw("expired")
    try:
        if codec == _ZSTD:
            payload = _decompressed(payload, plain)
        found = _DECODE(payload)
    except (ValueError, RecursionError, msgspec.MsgspecError):  # the sum is right: ours, and wrong
        return Flaw("corrupt")
    return Entry(key, created, expires, found.meta, found.chunks)


def decode_head(data: bytes) -> Head | None:
    """Return what an envelope says of its entry, None if it isn't one of ours."""
    if len(data) < ENVELOPE_BYTES:
        return None
    magic, _, version, _, _, key, created, expires, stored, plain, _ = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        return None
    return Head(key, created, expires, stored, plain)


def encode_paths(paths: dict[str, Any]) -> Raw:
    """Return trees of digests in the form that `Meta.paths` keeps.

    Args:
        paths: The body's tree under an empty name, other digests of the request under theirs.
    """
    return Raw(_ENCODE(paths))


def decode_paths(paths: Raw) -> dict[str, Any]:
    """Return the trees of digests kept in `Meta.paths`."""
    return msgspec.msgpack.decode(paths, type=dict[str, Any])


def _decompressed(payload: memoryview, plain: int) -> memoryview:
    # One byte more than announced is asked for, so that a payload that lies about its size shows.
    found = decompress(payload, plain + 1)
    if len(found) != plain:
        raise ValueError("the payload's size isn't what its envelope says")
    return memoryview(found)
