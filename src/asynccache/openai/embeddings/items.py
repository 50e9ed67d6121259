"""The SDK's object of an embeddings answer, made of its items."""

from __future__ import annotations

import array
import binascii
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from openai.types import CreateEmbeddingResponse, Embedding
from pydantic import BaseModel, ValidationError

from asynccache.openai.client import sdk

_REMEMBERED: Final = 16 * 2**20  # bytes of vectors that were read
_NUMBER: Final = 32  # bytes of one in a list


class _Item(Struct, forbid_unknown_fields=True):
    object: str
    index: int
    embedding: str | list[float]


_ITEM: Final = msgspec.json.Decoder(_Item).decode
_construct: Final[Any] = vars(BaseModel)["model_construct"].__func__  # the SDK's own is lenient


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
