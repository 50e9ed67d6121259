"""The inputs of an embeddings request, and each one's key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

from asynccache.keys.canonical import canonical_json, without_paths
from asynccache.keys.denied import DENIED_MEMBERS
from asynccache.openai.client.call import KeyedCall
from asynccache.providers.bodies import keyed_form

_APART: Final = DENIED_MEMBERS | {"input"}
ENCODE: Final = msgspec.json.Encoder(order="sorted").encode
"""Writes an input as canonical JSON does."""


def inputs_of(given: object) -> Sequence[Any]:
    """Return the inputs of a request: a text or a list of tokens is one, any other list several."""
    if isinstance(given, list):
        several = cast("list[object]", given)
        if several and type(several[0]) is not int:
            return several
    return [given]


def keys_of(call: KeyedCall, inputs: Sequence[Any]) -> list[bytes]:
    """Return each input's key: that of a request for it alone, in a list, marked as an input's."""
    settings, key, sample = call.scope.cache.settings, call.prefix.key, call.sample
    none = inputs == [[]] and not call.data["input"]  # which isn't an empty one
    several: Sequence[Any] = () if none else inputs
    if settings.normalize is not None:
        mark = settings.normalize.mark + b"#"
        given: list[list[Any]] = [[one] for one in several] or [[]]
        return [key(mark + _alone(call, one), sample) for one in given]
    rest = without_paths(
        {name: value for name, value in call.data.items() if name not in _APART}, settings.ignore
    )
    before = canonical_json({name: value for name, value in rest.items() if name < "input"})[:-1]
    after = canonical_json({name: value for name, value in rest.items() if name > "input"})[1:]
    # No request's body begins with the mark: what is stored for an input is no answer to a request.
    left = b"#" + before + (b',"input":[' if len(before) > 1 else b'"input":[')
    right = b"]" + (b"," if len(after) > 1 else b"") + after
    return [key(left + one + right, sample) for one in [*map(ENCODE, several)] or [b""]]


def _alone(call: KeyedCall, given: list[Any]) -> bytes:
    """Return what of a request for one of its inputs is in its key."""
    settings, operation = call.scope.cache.settings, call.endpoint.operation
    alone = {**call.data, "input": given}
    return keyed_form(
        alone,
        canonical_json(alone),
        operation=operation,
        ignore=settings.ignore,
        normalize=settings.normalize,
    )[0]


def shares_of(total: int, sizes: Sequence[int]) -> list[int]:
    """Return a number split in proportion to sizes; the parts sum up to it."""
    whole = sum(sizes)
    shares: list[int] = []
    seen = given = 0
    for size in sizes:
        seen += size
        upto = total * seen // whole
        shares.append(upto - given)
        given = upto
    return shares
