"""From recorded bytes to the objects that the SDK would have built, on a miss as on a hit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from asynccache.cache.facade import ChunkSource, Reader, Status
from asynccache.entries.entry import Entry, Meta
from asynccache.openai.client import sdk, sdk_responses
from asynccache.openai.client.call import KeyedCall
from asynccache.openai.client.parsing import Parsing, mark, note_parsing
from asynccache.openai.client.stream import ReplayedStream, StreamBody
from asynccache.openai.client.sync_stream import SyncStreamBody
from asynccache.providers.answers import Received

_REQUEST_ID: Final = "x-request-id"
FINISH: Final = "_asynccache_finish"
"""Where a response that the SDK will process has the function that its answer goes through."""

Finish = Callable[[Any], Any]


def built(
    client: Any,
    call: KeyedCall,
    entry: Entry,
    status: Status,
    *,
    reader: Reader | None,
    received: Received | None,
    retries: int,
) -> Any:
    """Return an answer as its caller wants it, marked for `asynccache.status`.

    Args:
        client: The SDK's.
        call: What was asked for, and in which form it is wanted.
        entry: The answer, or its head where a reader has the rest.
        status: What becomes the result's.
        reader: Of a stream that is still coming.
        received: What came with the answer; None for a recorded one.
        retries: How many of its own the caller has made.
    """
    form = call.form
    finish, parsing = form.finish, None
    if finish is not None or call.streaming:
        parsing = Parsing(call.scope, entry, status, reader)
        finish = finish and parsing.watched(finish)
    result: Any
    if form.raw:
        response = _response(client, call, entry, reader, received)
        result = _raw(client, call, response, _marking(finish, status), retries)
    elif form.strange:
        result = _response(client, call, entry, reader, received)
        setattr(result, FINISH, finish)
        note_parsing(result, parsing)
    elif call.streaming:
        result = ReplayedStream[Any](
            client=client,
            cast_to=form.event,
            respond=functools.partial(
                sdk_responses.made_response, call.address.url, entry.meta, received=received
            ),
            source=_source(call, entry, reader),
            pacer=call.scope.engine.pacer,
        )
        note_parsing(result, parsing)
    else:
        result = _typed(client, call, entry, finish, received)
    mark(result, status)
    return result


def _source(call: KeyedCall, entry: Entry, reader: Reader | None) -> ChunkSource:
    url = call.address.url
    return ChunkSource(reader or entry.chunks, functools.partial(sdk.reading_error, url))


def _response(
    client: Any,
    call: KeyedCall,
    entry: Entry,
    reader: Reader | None,
    received: Received | None,
) -> Any:
    """Return an answer as the HTTP response it came with."""
    url = call.address.url
    content: Any = entry.body
    if call.streaming:
        body = SyncStreamBody if sdk.is_sync(client) else StreamBody
        content = body(_source(call, entry, reader))
    return sdk_responses.made_response(
        url, entry.meta, content, raw=call.form.raw, received=received
    )


def _marking(finish: Finish | None, status: Status) -> Finish:
    def parsed(result: Any) -> Any:
        if finish is not None:
            result = finish(result)
        mark(result, status)
        return result

    return parsed


def _raw(client: Any, call: KeyedCall, response: Any, parsed: Finish, retries: int) -> Any:
    form = call.form
    return sdk_responses.raw_response(
        client,
        response,
        form.result,
        form.stream_cls if call.streaming else None,
        sdk.with_parser(form.options, parsed),
        retries=retries,
    )


def _typed(
    client: Any,
    call: KeyedCall,
    entry: Entry,
    finish: Finish | None,
    received: Received | None,
) -> Any:
    """Return the object of a JSON body.

    Strict validation builds it straight from the bytes, and equals what the SDK builds whenever it
    succeeds, down to the dumps; only ``model_fields_set`` names unknown members too, as pydantic
    has it. Ill-typed answers, other content types and strict clients are left to the SDK itself.
    """
    cast_to, meta = call.form.result, entry.meta
    found: Any = None
    if is_buildable(client, meta):
        try:
            body = entry.chunks[0] if len(entry.chunks) == 1 else entry.body
            found = cast_to.model_validate_json(body, strict=True)
        except ValidationError:
            pass  # the SDK is lenient where we are strict: it decides below
        else:
            if finish is None:
                object.__setattr__(found, "_request_id", request_id(meta))  # where the SDK keeps it
                return found
    if found is None:
        response = _response(client, call, entry, None, received)
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
