"""Everything that can be told of what the SDK returns, to be compared with `==`."""

from __future__ import annotations

import openai
from pydantic import BaseModel


def described(value):
    """Return everything that can be told of a result, types and extra fields included.

    Of the fields that were set only declared ones: pydantic counts extra ones in, the SDK doesn't.
    """
    if isinstance(value, BaseModel):
        members = {name: described(getattr(value, name)) for name in type(value).model_fields}
        return {
            "type": type(value),
            "members": members,
            "extra": described(value.model_extra),
            "set": value.model_fields_set & set(type(value).model_fields),
            "request id": getattr(value, "_request_id", None),
            "repr": repr(value),
        }
    if isinstance(value, dict):
        return {name: described(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [type(value), *(described(item) for item in value)]
    return type(value), repr(value)


def dumped(value):
    """Return the dumps that users make of results."""
    if not isinstance(value, openai.BaseModel):
        return value
    dumps = []
    for dump in (value.model_dump, value.to_dict, value.to_json, value.model_dump_json):
        try:
            dumps.append(repr(dump()))
        except Exception as exc:  # noqa: BLE001 - a lone surrogate can't be dumped by anybody
            dumps.append(repr(type(exc)))
    return dumps
