"""Whether an object that was built anew is what it was made of, for caches of objects."""

from __future__ import annotations

import copyreg
import dataclasses
import datetime as dt
import marshal
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

_SCALARS: Final = frozenset({bool, int, str, bytes, float, type(None)})
_BUILTINS: Final = frozenset({
    int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset,
})  # fmt: skip
_TIMES: Final = frozenset({dt.datetime, dt.time})
# Which of its fields a model of pydantic's was given is no part of its equality, and no value.
_NO_CONTENTS: Final = frozenset({"__pydantic_fields_set__", "__fields_set__"})
# The last of marshal's formats that writes equal data alike, whatever else refers to its parts.
_MARSHAL: Final = 2


def difference(one: object, other: object, *, typed: bool = False) -> str | None:
    """Return how an object differs from another, None if it doesn't.

    Types count, and so do private attributes and the order of keys. What a class leaves out of
    copies of its objects is not looked at; what can't be copied differs.

    Args:
        one: The object as it was.
        other: The object that it became.
        typed: It was to become what a type says: then an int may have become a float that equals
            it, and an object of a class derived from a built-in one, a list's for example, an
            object of that one; and what was set on a model of pydantic's beside its fields, private
            attributes and extras is not looked at, as its own equality doesn't.

    Raises:
        RecursionError: They are nested too deep.
        Exception: What their classes raise when they are copied.
    """
    return _difference(one, other, typed)


def same_builtins(one: Any, other: Any) -> bool:  # noqa: ANN401 - any two values
    """Tell fast that two values made of nothing but built-in types are the same.

    False says nothing. What has the buffer protocol, as an array, counts as the bytes in it.
    """
    try:
        return marshal.dumps(one, _MARSHAL) == marshal.dumps(other, _MARSHAL)
    except ValueError:  # something else is in it, or it is nested too deep
        return False


def _difference(one: object, other: object, typed: bool) -> str | None:  # noqa: FBT001 - passed on
    kind = type(one)
    if kind is not type(other):
        if typed and _became(one, other):
            return _of_contents(one, other, typed)
        return f"{kind.__qualname__} becomes {type(other).__qualname__}"
    if one is other:
        return None
    if kind in _SCALARS:  # floats by their digits, as 0.0 equals -0.0, and nan nothing
        same = repr(one) == repr(other) if kind is float else one == other
        return None if same else f"another {kind.__qualname__}"
    if kind in _BUILTINS:
        return _of_contents(one, other, typed)
    if typed and kind in _TIMES:
        return None if _same_time(one, other) else f"another {kind.__qualname__}"
    if typed and dataclasses.is_dataclass(kind):
        return _of_sequences(_named(one), _named(other), typed)
    if typed and hasattr(kind, "__pydantic_validator__"):  # known by this: it isn't a dependency
        return _of_sequences(_fields(one), _fields(other), typed)
    return _of_sequences(_contents(one), _contents(other), typed)


def _became(one: object, other: object) -> bool:
    """Tell whether a type may have made one the other: see `difference`."""
    kind = type(other)
    return kind in _BUILTINS and (
        isinstance(one, kind) or (kind is float and type(one) is int and one == other)
    )


def _of_contents(one: Any, other: Any, typed: bool) -> str | None:  # noqa: ANN401, FBT001 - any
    """Return how what a built-in object is or holds differs from another's, of the same type."""
    kind = cast("type[object]", type(other))
    if kind is list or kind is tuple:
        return _of_sequences(list(one), list(other), typed)
    if kind is dict:
        return _of_sequences(list(one.items()), list(other.items()), typed)
    if kind is set or kind is frozenset:
        return _of_sets(one, other, typed)
    return None if one == other else f"another {kind.__qualname__}"


def _of_sequences(one: list[Any], other: list[Any], typed: bool) -> str | None:  # noqa: FBT001 - passed on
    if len(one) != len(other):
        return "another length"
    if _SCALARS.issuperset(map(type, [*one, *other])) and same_builtins(one, other):
        return None
    return _first(_difference(a, b, typed) for a, b in zip(one, other, strict=True))


def _of_sets(one: set[Any], other: set[Any], typed: bool) -> str | None:  # noqa: FBT001 - passed on
    if one != other:
        return "another set"
    equals = {item: item for item in other}  # 1, 1.0 and True are equal
    return _first(_difference(item, equals[item], typed) for item in one)


def _first(differences: Iterable[str | None]) -> str | None:
    return next((found for found in differences if found is not None), None)


def _same_time(one: Any, other: Any) -> bool:  # noqa: ANN401 - times of day, with a date or without
    """Tell whether two times show and mean the same, by whichever class their offset is known."""
    zone = one.tzinfo
    if zone is not None and zone.utcoffset(None) is None and zone != other.tzinfo:
        return False  # its offset depends on the date, which a fixed one forgets
    return bool(
        one.replace(tzinfo=None) == other.replace(tzinfo=None)
        and one.utcoffset() == other.utcoffset()
        and one.fold == other.fold
    )


def _named(value: Any) -> list[Any]:  # noqa: ANN401 - a dataclass's object
    """Return the fields of an object: what else is kept on it was worked out of them."""
    return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]


def _fields(value: Any) -> list[Any]:  # noqa: ANN401 - a model of pydantic's
    """Return what counts in the equality of a model."""
    held = cast("dict[str, object]", vars(value))
    named = cast("dict[str, object]", cast("Any", type(value)).model_fields)
    # One of two that lacks a field differs, as one made by `model_construct` may.
    fields = [(name, held[name]) for name in named if name in held]
    return [fields, value.__pydantic_private__, value.__pydantic_extra__]


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
