"""Compares an object with the one that its bytes give back, part by part."""

# Any value passes through here, so that pyright can't know what is in it.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import copyreg
import dataclasses
import datetime as dt
import marshal
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

_SCALARS: Final = frozenset({bool, int, str, bytes, float, type(None)})
_BUILTINS: Final = frozenset({
    int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset,
})  # fmt: skip
_BUFFERS: Final = ((bytes,), (bytes, bytearray, memoryview))
_TIMES: Final = frozenset({dt.datetime, dt.time})
# Which of its fields a model of pydantic's was given is no part of its equality, and no value.
_NO_CONTENTS: Final = frozenset({"__pydantic_fields_set__", "__fields_set__"})
# The last of marshal's formats that writes equal data alike, whatever else refers to its parts.
_MARSHAL: Final = 2


def difference(one: Any, other: Any, *, typed: bool = False) -> str | None:  # noqa: ANN401 - any two
    """Return how an object differs from another, None if it doesn't.

    Types, private attributes and the order of keys count. What a class leaves out of copies of its
    objects doesn't.

    Args:
        one: The object as it was.
        other: The object that it became.
        typed: Whether a type says what it was to become. Then an int may have become an equal
            float, and an object of a class derived from a built-in one (e.g. from list) an object
            of that one. What was set on a pydantic model beside its fields, private attributes and
            extras doesn't count, as in the model's own equality.

    Raises:
        RecursionError: They are nested too deep.
        Exception: What their classes raise when they are copied.
    """
    kind: type[Any] = type(other)
    if type(one) is not kind and not (typed and _became(one, other)):
        return f"{type(one).__qualname__} becomes {kind.__qualname__}"
    if one is other:
        return None
    if kind is memoryview:
        same = one == other and one.readonly == other.readonly
    elif kind in _SCALARS or kind is bytearray:
        # Floats by their digits, as 0.0 equals -0.0, and nan nothing.
        same = repr(one) == repr(other) if type(one) is float else one == other
    elif typed and kind in _TIMES:
        same = _same_time(one, other)
    elif kind is set or kind is frozenset:
        if one == other:
            equals = {item: item for item in other}  # 1, 1.0 and True are equal
            return _of_sequences(list(one), [equals[item] for item in one], typed)
        same = False
    else:
        return _of_sequences(_parts(one, kind, typed), _parts(other, kind, typed), typed)
    return None if same else f"another {kind.__qualname__}"


def same_builtins(one: Any, other: Any) -> bool:  # noqa: ANN401 - any two values
    """Tell fast that two values made of nothing but built-in types are the same.

    False says nothing. What has the buffer protocol counts as the bytes in it: see `has_buffers`.
    """
    try:
        return marshal.dumps(one, _MARSHAL) == marshal.dumps(other, _MARSHAL)
    except ValueError:  # something else is in it, or it is nested too deep
        return False


def has_buffers(value: Any) -> bool:  # noqa: ANN401 - a value of built-in types
    """Tell fast whether there is a bytearray or memoryview in a value of built-in types."""
    as_text, as_it_is = (msgspec.to_builtins(value, builtin_types=kept) for kept in _BUFFERS)
    return bool(as_text != as_it_is)


def _became(one: Any, other: Any) -> bool:  # noqa: ANN401 - any two objects
    """Tell whether a type may have made one the other: see `difference`."""
    kind = type(other)
    return kind in _BUILTINS and (
        isinstance(one, kind) or (kind is float and type(one) is int and one == other)
    )


def _of_sequences(one: list[Any], other: list[Any], typed: bool) -> str | None:  # noqa: FBT001 - passed on
    if len(one) != len(other):
        return "another length"
    if _SCALARS.issuperset(map(type, [*one, *other])) and same_builtins(one, other):
        return None
    pairs = zip(one, other, strict=True)
    return next(filter(None, (difference(a, b, typed=typed) for a, b in pairs)), None)


def _parts(value: Any, kind: Any, typed: bool) -> list[Any]:  # noqa: ANN401, FBT001 - any object
    """Return what an object is made of, as far as it counts."""
    if kind is list or kind is tuple:
        return list(value)
    if kind is dict:
        return list(value.items())
    if typed and dataclasses.is_dataclass(kind):  # what else is kept on it was worked out of these
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(kind)]
    if typed and hasattr(kind, "__pydantic_validator__"):  # known by this: it isn't a dependency
        attributes = cast("dict[str, object]", vars(value))
        # A model that was made by `model_construct` may lack a field.
        fields = [(name, attributes[name]) for name in kind.model_fields if name in attributes]
        return [fields, value.__pydantic_private__, value.__pydantic_extra__]
    return _copied_parts(value)


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


def _copied_parts(value: Any) -> list[Any]:  # noqa: ANN401 - whatever it is
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
