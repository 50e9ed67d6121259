"""AG2's own answers as data and back: what its ``_v2`` clients give to caches."""

from __future__ import annotations

import sys
from enum import Enum
from importlib import import_module
from typing import Any, Final

from asynccache.entries.values import decode_value, encode_value

_HOME: Final = "autogen.llm_clients.models"
_NAME: Final = "UnifiedResponse"
_ENUMS: Final = "enum_roles"  # beside an answer's fields: which messages name their role by an enum


def plain(value: object) -> tuple[str, dict[str, Any]] | None:
    """Return the name of an answer's class, and its data; None if it can't be had back exactly."""
    home = sys.modules.get(_HOME)
    if home is None or type(value) is not getattr(home, _NAME, None):
        return None
    found: Any = value
    try:
        data = found.model_dump(mode="json")
        data["cost"] = found.cost  # may be an int, which the dump makes a float
        data[_ENUMS] = [at for at, m in enumerate(found.messages) if isinstance(m.role, Enum)]
        back = living(_NAME, decode_value(encode_value(data)))
    except (AttributeError, TypeError, ValueError):  # it is no data, or of a version to come
        return None
    # By their looks as well: an enum's member equals its text, and 1 equals 1.0.
    return (_NAME, data) if back == found and repr(back) == repr(found) else None


def living(name: str, data: Any) -> Any:  # noqa: ANN401 - whatever was stored
    """Return the object that data was made of; the data itself where there is no such class.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: Another version of AG2 has made it.
    """
    if name != _NAME:
        return data
    try:
        home: Any = import_module(_HOME)
    except ImportError:
        return data
    found = getattr(home, _NAME).model_validate(data)
    found.cost = data["cost"]
    for at in data[_ENUMS]:
        found.messages[at].role = home.normalize_role(found.messages[at].role)
    return found
