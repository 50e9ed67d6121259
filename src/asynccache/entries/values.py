"""Any value of the user's as bytes and back, by msgspec; pydantic models by their own means."""

from __future__ import annotations

import builtins
import enum
import functools
import inspect
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from asynccache.entries.equality import difference, may_have_buffers, named_by, same_builtins
from asynccache.errors import described


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
    """Return a value's bytes, from which it can be built again, given its type.

    Raises:
        TypeError: msgspec can't encode it, or a pydantic model in it would come back as another.
    """
    return _encoded(_ENCODE_MODELS, value)


def encode_exactly(value: object, type: Any) -> bytes:  # noqa: ANN401 - the public name; a type form
    """Return a value's bytes, from which the same value is built as ``type``.

    Raises:
        TypeError: It can't be encoded, or another would be built.
    """
    data = _encoded(_ENCODE, value)
    lost = _lost(value, data, type)
    if lost is not None:
        advice = "; name its type, by type= or a return annotation" if _is_open(type) else ""
        raise TypeError(f"{described(value)} wouldn't come back as it was ({lost}){advice}")
    return data


def _encoded(encode: Callable[[object], bytes], value: object) -> bytes:
    try:
        return encode(value)
    except Exception as exc:  # also what a model's own code raises
        # A model's errors show what is in it.
        text = str(exc) if isinstance(exc, _OWN_ERRORS) else builtins.type(exc).__name__
        raise TypeError(
            f"{described(value)} can't be cached: {text}; return data that msgspec can encode"
        ) from exc


def _lost(value: object, data: bytes, type: Any) -> str | None:  # noqa: ANN401 - the public name
    """Return what of a value doesn't come back from its bytes, None if all does."""
    try:
        back = decode_value(data, type)
        if same_builtins(value, back) and not (
            any(mark in data for mark in _BINARY)
            and (may_have_buffers(value) or may_have_buffers(back))
        ):
            return None
        return difference(value, back, None if _is_open(type) else named_by(type))
    except msgspec.ValidationError as exc:
        # What the code of a model's raises is in its text, and shows what is in the model.
        return str(exc) if exc.__cause__ is None else f"no {_shown(type)}"
    except Exception as exc:  # noqa: BLE001 - what classes raise where they are built or copied
        return f"{builtins.type(exc).__name__} where it is built as {_shown(type)}"


def check_type(type: Any) -> None:  # noqa: ANN401 - the public name; any type form
    """Refuse a type that values can't be built as, before anything is paid for one.

    Raises:
        TypeError: It can't, e.g. since its alternatives look alike in bytes.
        NameError: Something in it isn't there, or not yet.
    """
    try:
        msgspec.msgpack.Decoder(Any if _is_open(type) else type, dec_hook=_from_plain)
    except TypeError as exc:
        raise TypeError(
            f"results can't be built as {_shown(type)}: {exc}; annotate otherwise"
        ) from exc


def decode_value(data: bytes, type: Any = Any) -> Any:  # noqa: ANN401 - the public name; any value
    """Return the value of bytes, as ``type``.

    Raises:
        msgspec.ValidationError: It isn't of that type, or nested too deeply to be read here.
    """
    decode: Callable[[bytes], Any] = _DECODE
    if not _is_open(type):
        try:
            decode = _decoder(type)
        except TypeError:  # an annotation with something in it that has no hash, or none to build
            decode = msgspec.msgpack.Decoder(type, dec_hook=_from_plain).decode
    try:
        return decode(data)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, RecursionError) as exc:
        raise msgspec.ValidationError(f"it can't be read: {exc}") from exc


@functools.lru_cache(maxsize=256)
def _decoder(type: Any) -> Callable[[bytes], Any]:  # noqa: ANN401 - the public name; any type form
    return msgspec.msgpack.Decoder(type, strict=True, dec_hook=_from_plain).decode


def _is_open(type: Any) -> bool:  # noqa: ANN401 - the public name; any type form
    """Tell whether a type says nothing of a value."""
    return type is Any or type is None or type is object or type is inspect.Signature.empty


def _to_plain(value: Any) -> Any:  # noqa: ANN401 - msgspec's hook takes any
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        # By the names of the fields: an alias may be for writing alone, or for reading alone.
        return dump(mode="json", by_alias=False, round_trip=True)
    raise TypeError(f"{described(value)} isn't plain data")


def _to_plain_and_back(value: Any) -> Any:  # noqa: ANN401 - as above
    plain = _to_plain(value)
    lost = _lost(value, _ENCODE(plain), type(value))
    if lost is None:
        return plain
    raise TypeError(f"{described(value)} wouldn't come back as it was ({lost})")


def _from_plain(kind: type, value: Any) -> Any:  # noqa: ANN401 - msgspec's hook takes any
    validate = getattr(kind, "model_validate", None)
    if not callable(validate):
        raise NotImplementedError(
            f"{kind.__qualname__} can't be decoded; name a type msgspec knows"
        )
    if _validates_by_name(kind):
        return validate(value, strict=False, by_alias=False, by_name=True)
    return validate(value, strict=False)


@functools.lru_cache(maxsize=1024)
def _validates_by_name(kind: Any) -> bool:  # noqa: ANN401 - a model's class
    """Tell whether a model can be built by its fields' names: from pydantic 2.11 on."""
    return "by_name" in inspect.signature(kind.model_validate).parameters


def _shown(type: Any) -> str:  # noqa: ANN401 - the public name; any type form
    return getattr(type, "__qualname__", None) or repr(type)


_BINARY: Final = (b"\xc4", b"\xc5", b"\xc6")  # one of them is before all bytes in msgpack
_OWN_ERRORS: Final = (TypeError, OverflowError, RecursionError, UnicodeEncodeError)
_ENCODE: Final = msgspec.msgpack.Encoder(enc_hook=_to_plain).encode
_ENCODE_MODELS: Final = msgspec.msgpack.Encoder(enc_hook=_to_plain_and_back).encode
_DECODE: Final = msgspec.msgpack.Decoder().decode
