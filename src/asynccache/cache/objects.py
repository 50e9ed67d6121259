"""Stores objects of some packages as data with the class's name, and builds them again."""

from __future__ import annotations

import importlib
from typing import Any, Final

from asynccache.cache.computing import VALUE_META
from asynccache.entries.entry import Entry, Meta
from asynccache.entries.values import decode_value, encode_exactly, encode_value
from asynccache.errors import described

_CLASS: Final = "; class="  # in the content type
_HOMES: Final = {
    "autogen": "asynccache.integrations.ag2",
    "openai": "asynccache.openai.objects",
}
"""The module that knows a package's objects, by its name: it is imported when one is met."""


class LostObjectError(TypeError):
    """A value would come back as one that its reader can't use. It never leaves `SyncCache`."""


def packed(value: object, type: Any) -> tuple[Meta, bytes]:  # noqa: ANN401 - a type form
    """Return a value's bytes, and what they are: the data of a package's object, or just data.

    Raises:
        TypeError: It can't be encoded, or another would be built as ``type``.
    """
    known = _known(value) if type is Any else None
    return known or (VALUE_META, encode_exactly(value, type))


def packed_for(key: object, value: object, type: Any) -> tuple[Meta, bytes]:  # noqa: ANN401 - as above
    """Do as `packed` does, but refuse an object that AutoGen would get back as plain data.

    AutoGen goes on with it as the object. It is recognised by what it stores: an object with a
    ``cost``, under the request as its key.

    Raises:
        LostObjectError: It is such an object, or one that can't be encoded.
        TypeError: Another's value can't be encoded.
    """
    if type is not Any or not (hasattr(value, "cost") and is_request(key)):
        return packed(value, type)
    reason = ""
    try:
        if (found := _known(value)) is not None:
            return found
    except TypeError as exc:
        reason = f" ({exc})"
    raise LostObjectError(
        f"AutoGen can't be given back {described(value)} as it was{reason}: let the model"
        " client return openai's ChatCompletion, or use it without cache="
    )


def _known(value: object) -> tuple[Meta, bytes] | None:
    packages = {base.__module__.partition(".")[0] for base in type(value).__mro__}
    for package in packages & _HOMES.keys():
        found = importlib.import_module(_HOMES[package]).plain(value)
        if found is not None:
            name, data = found
            content_type = f"{VALUE_META.content_type}{_CLASS}{package}.{name}"
            return Meta(VALUE_META.kind, content_type=content_type), encode_value(data)
    return None


def is_request(key: object) -> bool:
    """Tell whether a key is AutoGen's: AG2's is the request as a dict, AutoGen 0.2's as JSON."""
    if isinstance(key, str):
        return key.startswith("{") and ('"messages":' in key or '"prompt":' in key)
    return isinstance(key, dict) and ("messages" in key or "prompt" in key)


def value_of(
    entry: Entry | None,
    default: object,
    type: Any,  # noqa: ANN401 - any type form
) -> Any:  # noqa: ANN401 - any value
    """Return the value of an entry: built as the type if one is named, else the object it was.

    Return ``default`` if there is no entry, or its object's package has another version now.

    Raises:
        msgspec.ValidationError: It isn't of that type.
    """
    if entry is None:
        return default
    value = decode_value(entry.body, type)
    _, _, known = entry.meta.content_type.partition(_CLASS)
    package, _, name = known.partition(".")
    if package not in _HOMES or type is not Any:
        return value
    try:
        return importlib.import_module(_HOMES[package]).living(name, value)
    except (AttributeError, LookupError, TypeError, ValueError):
        return default
