"""An embeddings answer taken apart into its items, and put together from items again."""

from __future__ import annotations

import array
import binascii
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from openai.types import CreateEmbeddingResponse, Embedding
from pydantic import BaseModel, ValidationError

from asynccache.openai.client import sdk

_DATA: Final = "data"
_USAGE: Final = "usage"
_INDEX: Final = "index"
_REMEMBERED: Final = 16 * 2**20  # bytes of vectors that were read
_NUMBER: Final = 32  # bytes of one in a list


class _Whole(Struct):
    data: list[Raw]


class _Place(Struct):
    index: int


class _Item(Struct, forbid_unknown_fields=True):
    object: str
    index: int
    embedding: str | list[float]


_ENCODE: Final = msgspec.json.Encoder().encode
_WHOLE: Final = msgspec.json.Decoder(_Whole).decode
_PLACE: Final = msgspec.json.Decoder(_Place).decode
_ITEM: Final = msgspec.json.Decoder(_Item).decode
_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_construct: Final[Any] = vars(BaseModel)["model_construct"].__func__  # the SDK's own is lenient


def split(body: bytes, count: int) -> tuple[bytes, list[bytes]] | None:
    """Return an answer without its items, and the items in the order of the inputs.

    Args:
        body: JSON, as the server sent it.
        count: How many items there have to be.

    None is returned for an answer whose items can't be told apart.
    """
    try:
        items = _WHOLE(body).data
        placed = {_PLACE(item).index: bytes(item) for item in items}
        head = _MEMBERS(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if len(items) != count or placed.keys() != set(range(count)):
        return None
    return _ENCODE({**head, _DATA: Raw(b"[]")}), [placed[at] for at in range(count)]


def combined(heads: Sequence[bytes]) -> bytes:
    """Return the rest of an answer to inputs that were sent in several calls."""
    first, *others = heads
    if not others:
        return first
    members = _MEMBERS(first)
    usage = _usage(first)
    for other in others:
        for name, number in _usage(other).items():
            usage[name] = usage.get(name, 0) + number
    return _ENCODE({**members, _USAGE: usage})


def unpaid(head: bytes) -> bytes:
    """Return the rest of an answer for which nothing was sent."""
    return _ENCODE({**_MEMBERS(head), _USAGE: dict.fromkeys(_usage(head), 0)})


def _usage(head: bytes) -> dict[str, int]:
    try:
        found: dict[str, Any] = msgspec.json.decode(head).get(_USAGE) or {}
        return {name: number for name, number in found.items() if type(number) is int}
    except AttributeError:
        return {}


def assembled(head: bytes, items: Sequence[bytes]) -> bytes:
    """Return the body of an answer; each item gets the index of its place."""
    data: list[Raw] = []
    for at, item in enumerate(items):
        if _PLACE(item).index == at:
            data.append(Raw(item))
        else:
            data.append(Raw(_ENCODE({**_MEMBERS(item), _INDEX: at})))
    return _ENCODE({**_MEMBERS(head), _DATA: data})


def embedding_response(head: bytes, items: Sequence[bytes], *, decode: bool) -> Any:
    """Return the SDK's object of an answer, built without the body; None where that can't be.

    Args:
        head: The answer without its items.
        items: In order.
        decode: Make numbers of vectors that travelled as text, as the SDK does by default.
    """
    try:
        response = CreateEmbeddingResponse.model_validate_json(head, strict=True)
        response.data = [_embedding(item, at, decode=decode) for at, item in enumerate(items)]
    except (ValidationError, msgspec.MsgspecError, ValueError):
        return None
    return response


class _Read:
    """Remembers what was read of items that are asked for again and again.

    Reading 1,536 numbers takes ten times as long as copying the list of them.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bool], _Item] = {}
        self._bytes = 0

    def item(self, data: bytes, *, decode: bool) -> _Item:
        """Return what an item says; its vector is shared, and has to be copied."""
        known = self._known.get((data, decode))
        if known is None:
            known = _ITEM(data)
            if decode and isinstance(known.embedding, str):
                known.embedding = numbers(known.embedding)
            vector = known.embedding
            size = len(data) + (len(vector) if isinstance(vector, str) else len(vector) * _NUMBER)
            self._bytes += size
            if self._bytes > _REMEMBERED:
                self._known.clear()
                self._bytes = size
            self._known[data, decode] = known
        return known


_READ: Final = _Read()


def _embedding(data: bytes, at: int, *, decode: bool) -> Any:
    item = _READ.item(data, decode=decode)
    vector = item.embedding
    return _construct(
        Embedding,
        object=item.object,
        index=at,
        embedding=vector if isinstance(vector, str) else vector.copy(),
    )


def numbers(text: str) -> list[float]:
    """Return the vector that base64 text stands for: little-endian floats of four bytes."""
    found = array.array("f", binascii.a2b_base64(text))
    if sys.byteorder == "big":
        found.byteswap()
    return found.tolist()


def decoded(response: Any, encoding_format: object) -> Any:
    """Return an answer whose vectors are numbers, if the caller left their form to the SDK.

    Raises:
        ValueError: There is none, as the SDK has it.
    """
    if sdk.is_given(encoding_format):
        return response
    if not response.data:
        raise ValueError("No embedding data received")
    for item in response.data:
        if isinstance(item.embedding, str):
            item.embedding = numbers(item.embedding)
    return response
