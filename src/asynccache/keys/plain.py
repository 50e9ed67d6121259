"""Records that become plain data for whoever asks: a dict, a JSON encoder, FastAPI, pydantic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct, to_builtins


class PlainData(Struct, frozen=True):
    """A record that is plain data by ``as_dict()`` or ``dict(it)``.

    FastAPI and pydantic take it as it is. For ``json.dumps`` and orjson pass ``default=dict``. For
    msgspec's encoders pass ``as_dict()``: they write the fields as they are stored here.
    """

    def as_dict(self) -> dict[str, Any]:
        """Return everything by name, as plain data that any JSON encoder takes; a new dict."""
        found: dict[str, Any] = to_builtins(self)
        return found

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self.as_dict().items())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:  # noqa: ANN401 - pydantic's
        from pydantic_core import core_schema

        shown = core_schema.plain_serializer_function_ser_schema(
            cls.as_dict, return_schema=core_schema.dict_schema()
        )
        return core_schema.is_instance_schema(cls, serialization=shown)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: object, handler: object) -> dict[str, Any]:
        return {"type": "object", "title": cls.__name__}
