"""Values that are objects of an SDK: stored as data, with the name of what they were beside it."""

from __future__ import annotations

import importlib
from typing import Any, Final

from asynccache._compute import VALUE_META
from asynccache._entry import Entry, Meta
from asynccache._values import decode_value, encode_value

_CLASS: Final = "; class="  # in the content type
_PACKAGE: Final = "openai"
_MODULE: Final = "asynccache.openai._live"  # told by name, so that no floor imports from above


def packed(value: object) -> tuple[Meta, bytes]:
    """Return a value's bytes, and what they are: the data of an SDK's object, or just data.

    Raises:
        TypeError: It can't be encoded.
    """
    if any(base.__module__.partition(".")[0] == _PACKAGE for base in type(value).__mro__):
        found = importlib.import_module(_MODULE).plain(value)
        if found is not None:
            name, data = found
            content_type = f"{VALUE_META.content_type}{_CLASS}{name}"
            return Meta(VALUE_META.kind, content_type=content_type), encode_value(data)
    return VALUE_META, encode_value(value)


def value_of(entry: Entry, type: Any) -> Any:  # noqa: ANN401 - any type form, any value
    """Return the value of an entry: as the type, if one is named, else the object it was.

    Raises:
        msgspec.ValidationError: It isn't of that type.
    """
    value = decode_value(entry.body, type)
    _, _, name = entry.meta.content_type.partition(_CLASS)
    if name and type is Any:
        return importlib.import_module(_MODULE).living(name, value)
    return value
