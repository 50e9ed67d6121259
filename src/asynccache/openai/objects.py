"""The SDK's answers as data and back, for caches that are handed objects, as AutoGen's is."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, cast

from openai import BaseModel

from asynccache.entries.values import encode_value

_HOMES: Final = {
    "ChatCompletion": "openai.types.chat",
    "Completion": "openai.types",
    "Response": "openai.types.responses",
}
"""The answers there are, and where: what a store names is looked up here and nowhere else."""


def plain(value: object) -> tuple[str, dict[str, Any]] | None:
    """Return the name of an answer's class, and its data; None if it isn't one.

    What was set on it is data like its fields, but for what can't be stored: functions mostly,
    which whoever set them sets anew. Its fields are all kept: without one it isn't the answer.
    """
    if not isinstance(value, BaseModel):
        return None
    kind = _kind(type(value))
    if kind is None:
        return None
    beside = {**vars(value), **(value.model_extra or {})}
    left_out = {
        field
        for field, held in beside.items()
        if field not in kind.model_fields and not _storable(held)
    }
    data = value.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=left_out)
    for field, held in (value.model_extra or {}).items():
        if field not in left_out:
            data.setdefault(field, held)
    return kind.__name__, data


def _kind(kind: type) -> type[BaseModel] | None:
    """Return which of the SDK's answers a class is one of."""
    for base in kind.__mro__:
        name = base.__name__
        if name in _HOMES and getattr(import_module(_HOMES[name]), name) is base:
            return cast("type[BaseModel]", base)
    return None


def _storable(held: object) -> bool:
    if isinstance(held, BaseModel):
        return True
    try:
        encode_value(held)
    except TypeError:
        return False
    return True


def living(name: str, data: Any) -> Any:
    """Return the object that data was made of; the data itself if nothing is known by that name."""
    home = _HOMES.get(name)
    if home is None or not isinstance(data, dict):
        return data
    kind: Any = getattr(import_module(home), name)
    return kind.construct(**data)  # as the SDK builds what a server sends, odd or not
