"""Whether an object that was built anew is what it was made of, for caches of objects."""

from __future__ import annotations

import copyreg
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

_ATOMS: Final = frozenset({bool, int, str, bytes, bytearray})
# Which of its fields a model of pydantic's was given is no part of its equality, and no value.
_NO_CONTENTS: Final = frozenset({"__pydantic_fields_set__", "__fields_set__"})


def difference(one: object, other: object) -> str | None:
    """Return how an object differs from another, None if it doesn't.

    Types count, and so do private attributes and the order of keys. What a class leaves out of
    copies of its objects is not looked at; what can't be copied differs.

    Raises:
        RecursionError: They are nested too deep.
        Exception: What their classes raise when they are copied.
    """
    kind = type(one)
    if kind is not type(other):
        return f"{kind.__qualname__} becomes {type(other).__qualname__}"
    if one is other:
        return None
    if kind in _ATOMS:
        return None if one == other else f"another {kind.__qualname__}"
    if kind is float:  # by their digits, as 0.0 equals -0.0, and nan nothing
        return None if repr(one) == repr(other) else "another float"
    if kind is list or kind is tuple:
        return _of_sequences(cast("list[Any]", one), cast("list[Any]", other))
    if kind is dict:
        items = (list(cast("dict[Any, Any]", value).items()) for value in (one, other))
        return _of_sequences(*items)
    if kind is set or kind is frozenset:
        return _of_sets(cast("set[Any]", one), cast("set[Any]", other))
    return _of_sequences(_contents(one), _contents(other))


def _of_sequences(one: list[Any], other: list[Any]) -> str | None:
    if len(one) != len(other):
        return "another length"
    return _first(map(difference, one, other))


def _of_sets(one: set[Any], other: set[Any]) -> str | None:
    if one != other:
        return "another set"
    equals = {item: item for item in other}  # 1, 1.0 and True are equal
    return _first(difference(item, equals[item]) for item in one)


def _first(differences: Iterable[str | None]) -> str | None:
    return next((found for found in differences if found is not None), None)


def _contents(value: Any) -> list[Any]:  # noqa: ANN401 - whatever it is
    """Return what a copy of an object would be made of, as the protocol of `copy` has it."""
    reduce = copyreg.dispatch_table.get(value.__class__)
    parts: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
    if isinstance(parts, str):
        return [parts]
    function, arguments = parts[:2]
    state, items, pairs = (*parts[2:5], None, None, None)[:3]
    return [function, arguments, _by_name(state), [*(items or ())], [*(pairs or ())], _fixed(value)]


def _by_name(state: object) -> object:
    """Return an object's attributes in an order that doesn't depend on when they were set."""
    if isinstance(state, tuple):
        return tuple(map(_by_name, cast("tuple[object, ...]", state)))
    if not isinstance(state, Mapping):
        return state
    named = cast("Mapping[str, object]", state)
    return {
        name: _by_name(part) if name == "__dict__" else part
        for name, part in sorted(named.items())
        if name not in _NO_CONTENTS
    }


def _fixed(value: Any) -> bool | None:  # noqa: ANN401 - whatever it is
    """Tell whether an array may be changed; None for what is none."""
    try:
        with memoryview(value) as view:
            return view.readonly
    except TypeError:
        return None
