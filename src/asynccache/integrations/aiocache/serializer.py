"""Values of aiocache's users as bytes that hold data alone."""
# pyright: reportMissingTypeStubs=false, reportIncompatibleMethodOverride=false
# aiocache has no types, and says str where it takes bytes, too.

from __future__ import annotations

from typing import Any

from aiocache.serializers import BaseSerializer

from asynccache.entries.values import decode_value, encode_value


class ValueSerializer(BaseSerializer):  # type: ignore[misc] # aiocache has no types
    """Anything that msgspec can encode, and pydantic models, as msgpack; read as plain data."""

    DEFAULT_ENCODING = None

    def dumps(self, value: object) -> bytes:
        """Return a value's bytes; TypeError if it can't be encoded."""
        return encode_value(value)

    def loads(self, value: bytes | None) -> Any:  # noqa: ANN401 - any value
        """Return the value of bytes; None for nothing."""
        return None if value is None else decode_value(value)
