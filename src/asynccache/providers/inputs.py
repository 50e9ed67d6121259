"""The inputs of an embeddings request, and what the answers to them are made of.

Each input has a key of its own. An answer is taken apart into its items and a head, which is the
rest of it, and put together from items again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec
from msgspec import Raw, Struct

from asynccache.keys.canonical import canonical_json, without_paths
from asynccache.keys.denied import DENIED_MEMBERS
from asynccache.keys.normalizer import Normalization
from asynccache.providers.bodies import keyed_form
from asynccache.providers.provider import Operation

INPUT: Final = "input"
_DATA: Final = "data"
_USAGE: Final = "usage"
_INDEX: Final = "index"
_APART: Final = DENIED_MEMBERS | {INPUT}
_ENCODE: Final = msgspec.json.Encoder().encode
_WRITE: Final = msgspec.json.Encoder(order="sorted").encode
"""Writes an input as canonical JSON does."""


class _Whole(Struct):
    data: list[Raw]


class _Place(Struct):
    index: int


_WHOLE: Final = msgspec.json.Decoder(_Whole).decode
_PLACE: Final = msgspec.json.Decoder(_Place).decode
_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw]).decode


# -- requests ----------------------------------------------------------------------------------


def inputs_of(given: object) -> Sequence[Any]:
    """Return the inputs of a request: a text or a list of tokens is one, any other list several."""
    if isinstance(given, list):
        several = cast("list[object]", given)
        if several and type(several[0]) is not int:
            return several
    return [given]


def size_of(given: object) -> int:
    """Return how much of a request an input takes up."""
    return len(_WRITE(given))


def keys_of(
    data: Mapping[str, Any],
    operation: Operation,
    key: Callable[[bytes], bytes],
    *,
    ignore: tuple[tuple[str, ...], ...],
    normalize: Normalization | None,
) -> list[bytes]:
    """Return each input's key: that of a request for it alone, in a list, marked as an input's.

    Args:
        data: The body of the request.
        operation: What it asks for.
        key: Returns the key of a canonical body.
        ignore: Paths that are left out of keys.
        normalize: What is applied to the rest; None for nothing.

    Raises:
        NotCanonicalError: An input alone has no key, as a normalizer sees it.
    """
    inputs = inputs_of(data[INPUT])
    none = inputs == [[]] and not data[INPUT]  # which isn't an empty one
    several: Sequence[Any] = () if none else inputs
    if normalize is not None:
        mark = normalize.mark + b"#"
        found: list[bytes] = []
        for one in [[one] for one in several] or [[]]:
            alone = {**data, INPUT: one}
            form, _ = keyed_form(
                alone,
                canonical_json(alone),
                operation=operation,
                ignore=ignore,
                normalize=normalize,
            )
            found.append(key(mark + form))
        return found
    rest = without_paths(
        {name: value for name, value in data.items() if name not in _APART}, ignore
    )
    before = canonical_json({name: value for name, value in rest.items() if name < INPUT})[:-1]
    after = canonical_json({name: value for name, value in rest.items() if name > INPUT})[1:]
    # No request's body begins with the mark: what is stored for an input is no answer to a request.
    left = b"#" + before + (b',"input":[' if len(before) > 1 else b'"input":[')
    right = b"]" + (b"," if len(after) > 1 else b"") + after
    return [key(left + one + right) for one in [*map(_WRITE, several)] or [b""]]


# -- answers -----------------------------------------------------------------------------------


def split(body: bytes, count: int) -> tuple[bytes, list[bytes]] | None:
    """Return an answer's head, and its items in the order of the inputs.

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
    """Return the head of an answer to inputs that were sent in several calls."""
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
    """Return the head of an answer for which nothing was sent."""
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
