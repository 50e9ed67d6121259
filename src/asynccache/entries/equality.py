"""Compares an object with the one that its bytes give back, part by part."""

# Any value passes through here, so that pyright can't know what is in it.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import copyreg
import dataclasses
import datetime as dt
import io
import marshal
import pickle
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, Final, cast

from msgspec import inspect

from asynccache.keys.canonical import is_cached

_SCALARS: Final = frozenset({bool, int, str, bytes, float, type(None)})
_BUILTINS: Final = frozenset({
    int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset,
})  # fmt: skip
_TIMES: Final = frozenset({dt.datetime, dt.time})
# Which of its fields a model of pydantic's was given is no part of its equality, and no value.
_NO_CONTENTS: Final = frozenset({"__pydantic_fields_set__", "__fields_set__"})
_ANYTHING: Final = (inspect.AnyType(), inspect.CustomType(object))
_SOMETHING: Final = object()  # a type of which no more is known, nor of what is in its values
_BESIDE: Final = (_SOMETHING, _SOMETHING)  # a model's private attributes and its extras
_FORMS: Final[dict[type, tuple[type, ...]]] = {
    list: (inspect.ListType,),
    dict: (inspect.DictType, inspect.TypedDictType),
    tuple: (inspect.TupleType, inspect.VarTupleType),
    set: (inspect.SetType,),
    frozenset: (inspect.FrozenSetType,),
}
# The last of marshal's formats that writes equal data alike, whatever else refers to its parts.
_MARSHAL: Final = 2
_PICKLE: Final = 4  # the last of pickle's that writes this name before each bytearray


def difference(one: Any, other: Any, named: Any = None) -> str | None:  # noqa: ANN401 - any two
    """Return how an object differs from another, None if it doesn't.

    Types, private attributes and the order of keys count. What a class leaves out of copies of its
    objects doesn't.

    Args:
        one: The object as it was.
        other: The object that it became.
        named: What `named_by` makes of the type that the other object was built as. Where that
            names a type, an int may have become an equal float, and an object of a class derived
            from a built-in one (e.g. from list) an object of that one. What was set on a pydantic
            model beside its fields, private attributes and extras doesn't count, as in the model's
            own equality.

    Raises:
        RecursionError: They are nested too deep.
        Exception: What their classes raise when they are copied.
    """
    kind: type[Any] = type(other)
    if isinstance(named, inspect.UnionType):
        named = _alternative(named, kind)
    typed = named is not None
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
            return _of_sequences(list(one), [equals[item] for item in one], _inner(named, kind))
        same = False
    else:
        parts, others = (_parts(each, kind, typed) for each in (one, other))
        return _of_sequences(parts, others, _inner(named, kind, parts))
    return None if same else f"another {kind.__qualname__}"


def same_builtins(one: Any, other: Any) -> bool:  # noqa: ANN401 - any two values
    """Tell fast that two values made of nothing but built-in types are the same.

    False says nothing. What has the buffer protocol counts as the bytes in it: `may_have_buffers`
    tells whether that matters.
    """
    try:
        return marshal.dumps(one, _MARSHAL) == marshal.dumps(other, _MARSHAL)
    except ValueError:  # something else is in it, or it is nested too deep
        return False


def may_have_buffers(value: Any) -> bool:  # noqa: ANN401 - a value of built-in types
    """Tell fast whether there may be a bytearray or memoryview in a value of built-in types."""
    written = io.BytesIO()
    pickler = pickle.Pickler(written, _PICKLE)
    pickler.fast = True  # it notes no part that it has met, which costs more than the rest
    try:
        pickler.dump(value)
    except TypeError:  # pickle takes no memoryview
        return True
    return b"bytearray" in written.getvalue()


def _became(one: Any, other: Any) -> bool:  # noqa: ANN401 - any two objects
    """Tell whether a type may have made one the other: see `difference`."""
    kind = type(other)
    return kind in _BUILTINS and (
        isinstance(one, kind) or (kind is float and type(one) is int and one == other)
    )


def named_by(type: Any) -> Any:  # noqa: ANN401 - the public name; any type form
    """Return what a type says of values and of what is in them; None for nothing, as Any does."""
    try:
        return _node(inspect.type_info(type))
    except Exception:  # noqa: BLE001 - of names that aren't there, or types that msgspec doesn't know
        return _SOMETHING


def _node(info: Any) -> Any:  # noqa: ANN401 - msgspec's, or one of ours
    return None if info in _ANYTHING else info


def _alternative(union: inspect.UnionType, kind: type) -> Any:  # noqa: ANN401 - as above
    """Return the member of a union that a value is of, as far as it matters what is in it."""
    if any(member in _ANYTHING for member in union.types):
        return None
    forms = _FORMS.get(kind, ())
    return next(
        (
            member
            for member in union.types
            if isinstance(member, forms) or getattr(member, "cls", None) is kind
        ),
        _SOMETHING,
    )


def _inner(named: Any, kind: Any, parts: Sequence[Any] = ()) -> Iterable[Any]:  # noqa: ANN401 - as above
    """Return what a type says of each part of a value of its."""
    if named is None:
        return repeat(None)
    if isinstance(named, tuple):
        return named
    if isinstance(named, inspect.TupleType):
        return map(_node, named.item_types)
    if isinstance(named, inspect.DictType):
        return repeat((_node(named.key_type), _node(named.value_type)))
    if hasattr(named, "item_type"):
        return repeat(_node(named.item_type))
    known = _fields(named) if kind is dict else _fields_by_class(kind)
    if _is_model(kind):
        return (tuple((_SOMETHING, known[name]) for name, _ in parts[0]), *_BESIDE)
    if not known:
        return repeat(_SOMETHING)
    if kind is not dict and issubclass(kind, tuple):
        return known.values()
    return [(_SOMETHING, known.get(name, _SOMETHING)) for name, _ in parts]


def _fields(named: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    """Return what the fields of a class or a typed dict are, as far as that is known."""
    return {field.name: _node(field.type) for field in getattr(named, "fields", ())}


@lru_cache(maxsize=1024)
def _fields_by_class(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a class
    if _is_model(kind):
        return {name: named_by(field.annotation) for name, field in kind.model_fields.items()}
    return _fields(named_by(kind))


def _is_model(kind: Any) -> bool:  # noqa: ANN401 - a class
    """Tell whether a class is a model of pydantic's: known by this, as it isn't a dependency."""
    return hasattr(kind, "__pydantic_validator__") and not dataclasses.is_dataclass(kind)


def _of_sequences(one: list[Any], other: list[Any], named: Iterable[Any]) -> str | None:
    if len(one) != len(other):
        return "another length"
    if _SCALARS.issuperset(map(type, [*one, *other])) and same_builtins(one, other):
        return None
    each = zip(one, other, named, strict=False)
    return next(filter(None, (difference(a, b, type) for a, b, type in each)), None)


def _parts(value: Any, kind: Any, typed: bool) -> list[Any]:  # noqa: ANN401, FBT001 - any object
    """Return what an object is made of, as far as it counts."""
    if kind is list or kind is tuple or (typed and issubclass(kind, tuple)):
        return list(value)
    if kind is dict:
        return list(value.items())
    # What else is kept on it was worked out of these.
    if typed and (names := getattr(kind, "__struct_fields__", None)) is not None:
        return [(name, getattr(value, name)) for name in names]
    if typed and dataclasses.is_dataclass(kind):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(kind)]
    if typed and _is_model(kind):
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
    attributes = _by_name(state, value.__class__)
    return [function, arguments, attributes, [*(items or ())], [*(pairs or ())], _fixed(value)]


def _by_name(state: object, kind: type) -> object:
    """Return an object's attributes in an order that doesn't depend on when they were set.

    What a `cached_property` keeps is left out, as it was worked out of the rest.
    """
    if isinstance(state, tuple):
        return tuple(_by_name(part, kind) for part in cast("tuple[object, ...]", state))
    if not isinstance(state, Mapping):
        return state
    named = cast("Mapping[str, object]", state)
    return {
        name: _by_name(part, kind) if name == "__dict__" else part
        for name, part in sorted(named.items())
        if name not in _NO_CONTENTS and not is_cached(kind, name)
    }


def _fixed(value: Any) -> bool | None:  # noqa: ANN401 - whatever it is
    """Tell whether an array may be changed; None for what is none."""
    try:
        with memoryview(value) as view:
            return view.readonly
    except TypeError:
        return None
