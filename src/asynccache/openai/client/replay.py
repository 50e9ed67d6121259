"""From recorded bytes to the objects that the SDK would have built, on a miss as on a hit."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec
from msgspec import Struct
from pydantic import ValidationError

from asynccache.core.calls import Status
from asynccache.entries.entry import Entry, Meta
from asynccache.openai.client import sdk, sdk_responses
from asynccache.openai.client.address import RequestAddress

_REQUEST_ID: Final = "x-request-id"


def mark(response: object, status: Status) -> None:
    """Note on a response where it came from, for `asynccache.status`."""
    try:  # noqa: SIM105 - suppress() would cost as much as all the rest
        object.__setattr__(response, "_asynccache_status", status)
    except (AttributeError, TypeError):  # text and null, from servers that answer so
        pass


def typed(
    client: Any,
    address: RequestAddress,
    entry: Entry,
    cast_to: Any,
    finish: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the object of a JSON body.

    Strict validation builds it straight from the bytes, and equals what the SDK builds whenever it
    succeeds, down to the dumps; only ``model_fields_set`` names unknown members too, as pydantic
    has it. Ill-typed answers, other content types and strict clients are left to the SDK itself.

    Args:
        client: The SDK's client.
        address: Where the request went.
        entry: The answer.
        cast_to: The type of the SDK's that it is built as.
        finish: What the SDK makes of the object in the end: parses it, for one.
    """
    meta = entry.meta
    found: Any = None
    if is_buildable(client, meta):
        try:
            found = cast_to.model_validate_json(entry.body, strict=True)
        except ValidationError:
            pass  # the SDK is lenient where we are strict: it decides below
        else:
            if finish is None:
                object.__setattr__(found, "_request_id", request_id(meta))  # where the SDK keeps it
                return found
    if found is None:
        response = sdk_responses.made_response(
            address.url, meta.status, headers_of(meta), entry.body
        )
        found = sdk_responses.parsed_by_sdk(client, response, cast_to)
    if finish is not None:
        found = finish(found)
        sdk_responses.note_request_id(found, request_id(meta))
    return found


def lenient(cast_to: Any, body: bytes) -> Any:
    """Return the object of a JSON body as far as it is one, for somebody to look at.

    Raises:
        ValueError: It isn't JSON.
    """
    try:
        return cast_to.model_validate_json(body)
    except ValidationError:
        found: Any = msgspec.json.decode(body)
        return cast_to.construct(**found) if isinstance(found, dict) else found


def is_buildable(client: Any, meta: Meta) -> bool:
    """Tell whether an answer's object may be built without the SDK's own way of reading it."""
    strict: bool = client._strict_response_validation
    return not strict and meta.content_type.startswith("application/json")


def request_id(meta: Meta) -> str | None:
    """Return the id that the server gave the recorded request."""
    for name, value in meta.headers:
        if name == _REQUEST_ID:
            return value
    return None


def headers_of(meta: Meta) -> list[tuple[str, str]]:
    """Return the headers of the response that an answer came with, as far as they are kept."""
    content_type = [("content-type", meta.content_type)] if meta.content_type else []
    return [*content_type, *meta.headers]


class _Typed(Struct):
    type: str = ""


_TYPE_OF: Final = msgspec.json.Decoder(_Typed).decode


@functools.cache
def event_builder(event: Any) -> Callable[[bytes], Any]:
    """Return what builds an event of a stream from its JSON, by strict validation.

    Args:
        event: A model, or a union of models that are told apart by their ``type``.

    The returned function raises ``ValidationError`` for what it can't build.
    """
    if sdk.is_typed(event):
        return functools.partial(event.model_validate_json, strict=True)
    models: dict[str, Any] = {}
    for model in _members_of(event):
        name = sdk.is_typed(model) and model.model_fields.get("type")
        for value in get_args(name.annotation) if name else ():
            models[value] = model

    def build(data: bytes) -> Any:
        try:
            model = models[_TYPE_OF(data).type]
        except (msgspec.MsgspecError, ValueError, KeyError) as exc:
            raise ValidationError.from_exception_data("an event of no known type", []) from exc
        return model.model_validate_json(data, strict=True)

    return build


def _members_of(union: Any) -> tuple[Any, ...]:
    if get_origin(union) is Annotated:
        return _members_of(get_args(union)[0])
    if get_origin(union) in {Union, types.UnionType}:
        return tuple(member for part in get_args(union) for member in _members_of(part))
    return (union,)
