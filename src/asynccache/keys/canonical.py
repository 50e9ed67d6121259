"""Canonical forms: one sequence of bytes for one meaning, on every platform and in every process.

Two languages are spoken. A request is canonicalised as JSON, since JSON is what travels: there a
tuple and a list are one thing. Python values are written with a type tag and a length before each
part, since there ``1``, ``True``, ``1.0`` and ``"1"`` are four things.
"""

# Any JSON and any Python value pass through here, so that pyright can't know what is in them.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import math
import os
import pathlib
import struct
import sys
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from asynccache.errors import NotCanonicalError

_JSON_ENCODE: Final = msgspec.json.Encoder(order="sorted").encode
_SCALARS: Final = frozenset({str, int, bool, type(None)})
_LONG: Final = 16  # items: from here on, looking at the set of types is cheaper than at each item
_MAX_DEPTH: Final = 200  # levels: far beyond any request, well below Python's recursion limit
SCRIPTS: Final = frozenset({"__main__", "__mp_main__", "<run_path>"})
"""Names of a module that is run. Every program's is called so."""
_CACHED: Final = frozenset({
    "cachedproperty", "lazyproperty", "memoizedproperty", "reify", "undercachedproperty",
})  # fmt: skip
"""What libraries call a property whose value is kept on its object, in lower case and one word."""
# Which of its fields a model of pydantic's was given is no part of its equality.
_NO_CONTENTS: Final = frozenset({"__pydantic_fields_set__"})
_ABSENT: Final = object()


def absolute(path: str | os.PathLike[str]) -> pathlib.Path:
    """Return an absolute path, whose links are not resolved.

    `os.path.abspath` does the same, but detectors of blocking calls refuse it where a loop runs.
    """
    here = "" if os.path.isabs(path) else os.fsdecode(os.getcwdb())  # noqa: PTH109, PTH117 - as above
    return pathlib.Path(os.path.normpath(os.path.join(here, path)))  # noqa: PTH118 - as above


def canonical_json(body: Any) -> bytes:  # noqa: ANN401 - any JSON
    """Return the canonical JSON of plain data: keys sorted, no spaces, UTF-8.

    Args:
        body: ``dict`` with ``str`` keys, ``list``, ``str``, ``int``, finite ``float``, ``bool`` or
            None, to any depth. Subclasses and look-alikes (tuples, enums, numpy scalars) are not
            plain: send them through `json_of` first, as their wire form may differ.

    Raises:
        NotCanonicalError: Something in it isn't plain, so that two bodies could look the same.
    """
    # Encoding comes first because it ends at a body that holds itself, which a walk would not. It
    # alone would not do, as it writes NaN as null, bytes as base64 and an enum as its value.
    try:
        encoded = _JSON_ENCODE(body)
    except (TypeError, ValueError, RecursionError) as exc:  # keys that aren't str, lone surrogates
        raise NotCanonicalError(f"no canonical JSON form: {exc}") from exc
    # Messages, three levels deep and mostly text, are looked at here; the rest below.
    rest: list[Any] = []
    item: Any
    for item in body.values() if type(body) is dict else (body,):
        kind = type(item)
        if kind is list and item and type(item[0]) is dict:
            for part in item:
                if type(part) is dict:
                    for value in part.values():
                        if type(value) is not str:
                            rest.append(value)  # noqa: PERF401 - nearly never
                else:
                    rest.append(part)
        elif kind not in _SCALARS:
            rest.append(item)
    if rest:
        _refuse_odd(rest)
    return encoded


def _refuse_odd(items: list[Any]) -> None:
    """Raise for anything that isn't plain, in a list of lists that grows while it is walked."""
    pending: list[Collection[Any]] = [items]
    for group in pending:
        for item in group:
            kind = type(item)
            if kind is str:
                continue
            if kind is dict:
                pending.append(item.values())
            elif kind is list:
                if len(item) <= _LONG or not _SCALARS.issuperset(map(type, item)):
                    pending.append(item)
            elif kind not in _SCALARS and (kind is not float or item - item != 0.0):
                # Infinity and NaN, less themselves, are not zero.
                raise NotCanonicalError(f"{_shown(item)} has no canonical JSON form")


def json_of(wire: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return the data that JSON text stands for, refusing what canonical JSON could not tell apart.

    Raises:
        NotCanonicalError: It isn't JSON, or an object names a key twice.
    """
    import json

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(found := dict(pairs)) != len(pairs):
            raise NotCanonicalError("a JSON object names the same key twice")
        return found

    try:
        return json.loads(wire, object_pairs_hook=unique)
    except (ValueError, RecursionError) as exc:
        raise NotCanonicalError("the request body isn't JSON, or too deep") from exc


def without_paths(body: Any, paths: Sequence[tuple[str, ...]]) -> Any:  # noqa: ANN401 - any JSON
    """Return ``body`` less the named paths; parts that change are copied, the rest is shared.

    Args:
        body: Plain data.
        paths: Each a tuple of keys; ``"*"`` stands for every item of a list or object.
    """
    for path in paths:
        body = _without(body, path)
    return body


def _without(node: Any, path: tuple[str, ...]) -> Any:  # noqa: ANN401 - any JSON
    head, rest = path[0], path[1:]
    kept = [
        (name, _without(value, rest) if chosen else value)
        for name, value in _members(node)
        if not (chosen := head in {"*", name}) or rest
    ]
    if isinstance(node, dict):
        return dict(kept)
    return [value for _, value in kept] if isinstance(node, list) else node


def _members(node: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - any JSON
    """Return what an object or list holds by name or index, nothing for a scalar."""
    if isinstance(node, dict):
        named: dict[str, Any] = node
        return list(named.items())
    if isinstance(node, list):
        items: list[Any] = node
        return [(str(at), item) for at, item in enumerate(items)]
    return []


def canonical_value(value: object) -> bytes:
    """Return the canonical form of a Python value: tagged by type, so that no two types meet.

    Taken are None, bool, int, float, complex, str, bytes, tuple, list, set, frozenset, dict (in any
    order), the types of `datetime`, Decimal, UUID, pure paths, enums, dataclasses, msgspec structs
    and pydantic models, each by its qualified name and contents.

    Raises:
        NotCanonicalError: Anything else, with the path to it.
    """
    out: list[bytes] = []
    try:
        _write(value, out, 0)
    except RecursionError as exc:
        raise NotCanonicalError("nested too deeply to make a key of") from exc
    return b"".join(out)


def _write(value: object, out: list[bytes], depth: int) -> None:
    writer = _WRITERS.get(type(value))
    if writer is not None:
        tag, text = writer(value)
        out.append(b"%b%d:%b" % (tag, len(text), text))
        return
    if depth > _MAX_DEPTH:
        raise NotCanonicalError("nested too deeply (or within itself) to make a key of")
    tag, parts = _parts(value, depth)
    out.append(b"%b%d(" % (tag, len(parts)))
    out.extend(parts)


def _parts(value: object, depth: int) -> tuple[bytes, list[bytes]]:
    """Return the tag of a container and the canonical forms of what it holds."""
    kind = type(value)
    if kind is tuple or kind is list:
        return (b"t" if kind is tuple else b"l"), [_one(item, depth) for item in value]  # type: ignore[attr-defined]  # both iterate
    if kind is dict:
        return b"d", _pairs(value, depth)  # type: ignore[arg-type]  # kind says it is a dict
    if kind is set or kind is frozenset:
        tag = b"s" if kind is set else b"z"
        return tag, sorted(_one(item, depth) for item in value)  # type: ignore[attr-defined]  # both iterate
    name = _one(class_name(kind), depth)
    if isinstance(value, enum.Enum):
        return b"E", [name, *_member(value, depth)]
    if isinstance(value, pathlib.PurePath):
        beside = _own(kind, getattr(value, "__dict__", {}))  # of a derived class
        return b"P", [name, _one(str(value), depth), *_pairs(beside, depth)]
    if isinstance(value, dt.date | dt.time | dt.timedelta):  # subclasses: another type's meaning
        raise NotCanonicalError(f"{_shown(value)} has no canonical form")
    fields = _fields(value)
    if fields is None:
        raise NotCanonicalError(
            f"{_shown(value)} has no canonical form: leave it out with ignore=, or pass plain data"
        )
    return b"O", [name, *_pairs(fields, depth)]


def class_name(kind: type[Any]) -> str:
    """Return a class's full name, which is the same in each process of a program."""
    module, name = kind.__module__, kind.__qualname__
    if module == "pathlib._local":  # Python 3.13 alone calls the module of its paths so
        module = "pathlib"
    elif module in SCRIPTS:
        home = sys.modules.get(module)
        spec = getattr(home, "__spec__", None)  # of `python -m`, where imports know another name
        # Pickled by value, a class may be of another process's script.
        defined = getattr(getattr(home, name.partition(".")[0], None), "__module__", None) == module
        module = spec.name if spec is not None and defined else "__main__"
    return f"{module}.{name}"


def _member(value: enum.Enum, depth: int) -> list[bytes]:
    """Return a member's name, its value, and its attributes, as far as these can be told."""
    # Names like `_value_` are Python's own.
    own = {
        name: told[0]
        for name, part in _own(type(value), vars(value)).items()
        if name[0] + name[-1] != "__" and (told := _told(part, depth))
    }
    return [_one(part, depth) for part in (value._name_, _told(value._value_, depth), own)]


def _told(value: object, depth: int) -> tuple[object, ...]:
    """Return a value, or plain data that stands for it, if it can be told from others."""
    with suppress(Exception):  # of a class that tells what its objects are made of
        told = _outline(value, depth)
        _one(told, depth)
        return (told,)
    return ()


def _outline(value: Any, depth: int) -> object:  # noqa: ANN401 - any value
    """Return a value if it has a form, else what it is made of, by the protocol of `pickle`.

    Raises:
        NotCanonicalError: It, or what is in it, has no name that it keeps.
        Exception: What its class raises when it is taken apart.
    """
    if depth > _MAX_DEPTH:
        raise NotCanonicalError("nested too deeply (or within itself)")
    with suppress(NotCanonicalError):
        _one(value, depth)
        return value
    kind: Any = type(value)
    if kind is tuple or kind is list:
        return kind(_outline(item, depth + 1) for item in value)
    if kind is dict:
        return {name: _outline(item, depth + 1) for name, item in value.items()}
    if isinstance(value, type):
        return ("class", class_name(value))
    if callable(value) and "<" not in getattr(value, "__qualname__", "<"):
        return ("function", value.__module__, value.__qualname__)
    made = value.__reduce_ex__(2)
    if isinstance(made, str):
        return ("global", class_name(kind), made)
    function, arguments, state, items, pairs = (*made, None, None, None)[:5]
    states = [
        _own(kind, part or {}) if isinstance(part, dict | None) else part
        for part in (state if isinstance(state, tuple) else (state,))
    ]
    parts = [function, arguments, states, list(items or ()), list(pairs or ())]
    return ("made", _outline(parts, depth + 1))


def _fields(value: object) -> Mapping[object, object] | None:
    kind: Any = type(value)
    if isinstance(value, msgspec.Struct):
        names = kind.__struct_fields__
    elif _has_contents(kind):
        return None
    elif dataclasses.is_dataclass(kind):
        names = tuple(field.name for field in dataclasses.fields(kind))
    elif hasattr(kind, "__pydantic_validator__"):  # known by this: it isn't a dependency
        # Not model_dump(): it leaves out what is excluded, and what a subclass adds. The last two
        # can't be names of fields.
        names = (*kind.model_fields, "__pydantic_extra__", "__pydantic_private__")
    else:
        return None
    fields = {name: getattr(value, name, _ABSENT) for name in names}
    found: dict[object, object] = {
        name: part for name, part in fields.items() if part is not _ABSENT
    }
    # What an instance carries beside its fields may matter to its methods as much as they do.
    state: Any = object.__getstate__(value)  # also what is in slots
    for beside in state if isinstance(state, tuple) else (state,):
        if beside:
            found.update(_own(type(value), beside, fields.keys()))
    return found


def _has_contents(kind: type) -> bool:
    """Tell whether objects hold what is no attribute, as lists and exceptions do."""
    makers = (vars(base).get("__new__") for base in kind.__mro__)
    return next(new for new in makers if type(new) is type(object.__new__)) is not object.__new__


def _own(
    kind: type, attributes: Mapping[str, object], fields: Collection[str] = ()
) -> dict[str, object]:
    """Return an object's attributes beside its fields, less what was worked out of the rest."""
    return {
        name: part
        for name, part in attributes.items()
        if name not in fields and name not in _NO_CONTENTS and not is_cached(kind, name)
    }


def is_cached(kind: type, name: str) -> bool:
    """Tell whether an attribute is what a `cached_property`, whoever's, keeps."""
    found = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
    return any(base.__name__.lower().replace("_", "") in _CACHED for base in type(found).__mro__)


def _one(value: object, depth: int) -> bytes:
    out: list[bytes] = []
    _write(value, out, depth + 1)
    return b"".join(out)


def _pairs(mapping: Mapping[Any, object], depth: int) -> list[bytes]:
    return sorted(_one(key, depth) + _one(value, depth) for key, value in mapping.items())


def _float(value: float) -> bytes:
    # The bits, so that -0.0 and 0.0 differ; every NaN is one, whatever its payload.
    return b"nan" if value != value else struct.pack(">d", value)  # noqa: PLR0124 - the test for NaN


def _moment(value: Any) -> bytes:  # noqa: ANN401 - datetime or time, which share these
    zone = value.tzinfo
    return f"{value.isoformat()};{value.fold};{'' if zone is None else _zone(zone)}".encode()


def _zone(zone: Any) -> str:  # noqa: ANN401 - a time zone, its offset known or not
    """Return a time zone's name, as the same instant in two zones answers other questions."""
    kind: Any = type(zone)
    if kind is dt.timezone:
        name = zone.tzname(None)
        usual = dt.timezone(zone.utcoffset(None)).tzname(None)
        return "" if name == usual else f"={name}"
    if kind.__module__.partition(".")[0] == "zoneinfo":
        with suppress(Exception):  # one that was made of a file may have any name: it isn't pickled
            return str(zone.__reduce__()[1][0])
    raise NotCanonicalError(f"time zone {_shown(zone)} has no name to make a key of")


def _bits(value: float) -> bytes:
    return struct.pack(">d", math.nan if value != value else value)  # noqa: PLR0124 - as above


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


_WRITERS: Final[dict[type, Callable[[Any], tuple[bytes, bytes]]]] = {
    type(None): lambda _: (b"N", b""),
    bool: lambda v: (b"B", b"1" if v else b"0"),
    int: lambda v: (b"I", b"%x" % v if v >= 0 else b"-%x" % -v),
    float: lambda v: (b"F", _float(v)),
    complex: lambda v: (b"C", _bits(v.real) + b"," + _bits(v.imag)),
    str: lambda v: (b"S", _text(v)),
    bytes: lambda v: (b"Y", v),
    bytearray: lambda v: (b"A", bytes(v)),
    dt.datetime: lambda v: (b"T", _moment(v)),
    dt.date: lambda v: (b"D", v.isoformat().encode()),
    dt.time: lambda v: (b"H", _moment(v)),
    dt.timedelta: lambda v: (b"G", b"%d,%d,%d" % (v.days, v.seconds, v.microseconds)),
    decimal.Decimal: lambda v: (b"M", str(v).encode()),
    uuid.UUID: lambda v: (b"U", v.bytes),
}


def _shown(value: object) -> str:
    """Name a value by its type alone: values may be secret, and errors are logged."""
    return f"a value of type {type(value).__module__}.{type(value).__qualname__}"
