"""Digests of the parts of a request, by which a miss can be explained although no prompt is kept.

They form a tree like the request's own, three levels deep: ``messages``, ``0``, ``content``. Each
digest is a CRC-32: enough to tell two values apart, and at most four bytes of what one was.
"""

# Any JSON passes through here, so that pyright can't know what is in it.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any, Final
from zlib import crc32

import msgspec
from msgspec import Raw

_DEPTH: Final = 3  # parts: "messages.0.content" is as deep as an explanation needs to go
_WIDTH: Final = 512  # items: a longer list (tokens, embeddings) is summed up in one digest
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_ITEMS: Final = msgspec.json.Decoder(list[Raw]).decode
_OBJECTS: Final = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_BRACE, _BRACKET = b"{["


def path_digests(canonical: bytes) -> Any:  # noqa: ANN401 - a tree of dicts, lists and digests
    """Return the tree of digests of a canonical JSON body.

    The body's parts are slices of it, none of which is decoded any further than needed.
    """
    try:
        return _tree(canonical, _DEPTH)
    except RecursionError:  # nested almost too deeply to have been written
        return crc32(canonical)


def _tree(part: Any, depth: int) -> Any:  # noqa: ANN401 - bytes or Raw
    first = memoryview(part)[0]
    if depth and first == _BRACE:
        members = _OBJECT(part)
        if 0 < len(members) < _WIDTH:
            return {name: _tree(value, depth - 1) for name, value in members.items()}
    elif depth and first == _BRACKET:
        if depth > 1 and memoryview(part)[1] == _BRACE:
            try:
                objects = _OBJECTS(part)  # messages and tools: all at once, as they are many
            except msgspec.ValidationError:
                pass  # something else is among them
            else:
                if len(objects) < _WIDTH and depth == 2 and all(map(_is_narrow, objects)):  # noqa: PLR2004 - the level above the last
                    return [{n: crc32(v) for n, v in each.items()} for each in objects]
        items = _ITEMS(part)
        if 0 < len(items) < _WIDTH:
            return [_tree(item, depth - 1) for item in items]
    return crc32(part)


def _is_narrow(members: dict[str, Raw]) -> bool:
    return 0 < len(members) < _WIDTH


def flat_paths(tree: Any, path: str = "") -> dict[str, int]:  # noqa: ANN401 - as above
    """Return a tree's digests by their paths, e.g. ``messages.0.content``."""
    if isinstance(tree, int):
        return {path: tree}
    named = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found: dict[str, int] = {}
    for name, part in named:
        found |= flat_paths(part, f"{path}.{name}" if path else str(name))
    return found
