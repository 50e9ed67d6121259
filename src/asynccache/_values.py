"""Any value of the user's as bytes and back, by msgspec; pydantic models by their own means."""

from __future__ import annotations

import enum
import inspect
from typing import Any, Final, Literal, TypeVar

import msgspec

T = TypeVar("T")


class Missing(enum.Enum):
    """Type of `MISSING`, which stands for "nothing is there" where None is a value.

    It has this one member, so that type checkers know what is left after ``is MISSING``.
    """

    MISSING = ...  # a value that can't be encoded, so that it can't be stored by mistake

    def __repr__(self) -> str:
        return "MISSING"

    __str__ = __repr__

    def __bool__(self) -> Literal[False]:
        return False


MISSING: Final = Missing.MISSING
CONTENT_TYPE: Final = "application/msgpack"


def encode_value(value: object) -> bytes:
    """Return a value's bytes.

    Raises:
        TypeError: msgspec can't encode it.
    """
    try:
        return _ENCODE(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise TypeError(
            f"a {type(value).__qualname__} can't be cached: {exc};"
            " return data that msgspec can encode"
        ) from exc


def check_type(type: Any) -> None:  # noqa: ANN401 - the public name; any type form
    """Refuse a type that values can't be built as, before anything is paid for one.

    Raises:
        TypeError: It can't, e.g. since its alternatives look alike in bytes.
    """
    try:
        msgspec.msgpack.Decoder(type, dec_hook=_from_plain)
    except TypeError as exc:
        raise TypeError(f"results can't be built as {type!r}: {exc}; annotate otherwise") from exc


def decode_value(data: bytes, type: Any = Any) -> Any:  # noqa: ANN401 - the public name; any value
    """Return the value of bytes, as ``type``.

    Raises:
        msgspec.ValidationError: It isn't of that type.
    """
    if type is Any or type is None or type is inspect.Signature.empty:
        return _DECODE(data)
    return msgspec.msgpack.decode(data, type=type, strict=True, dec_hook=_from_plain)


def _to_plain(value: Any) -> Any:  # noqa: ANN401 - msgspec's hook takes any
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json", by_alias=True, round_trip=True)
    raise TypeError(f"a {type(value).__qualname__} isn't plain data")


def _from_plain(kind: type, value: Any) -> Any:  # noqa: ANN401 - msgspec's hook takes any
    validate = getattr(kind, "model_validate", None)
    if callable(validate):
        return validate(value, strict=False)
    raise NotImplementedError(f"{kind.__qualname__} can't be decoded; name a type msgspec knows")


_ENCODE: Final = msgspec.msgpack.Encoder(enc_hook=_to_plain).encode
_DECODE: Final = msgspec.msgpack.Decoder().decode
