"""From an entry to the result that a caller of the SDK's wants: parsed, raw, or as a stream."""

from __future__ import annotations

from typing import Any

from asynccache.core.calls import Status
from asynccache.core.flight import Reader
from asynccache.entries.entry import Entry
from asynccache.openai.client import sdk, sdk_responses
from asynccache.openai.client.lookup import Lookup, ResultForm
from asynccache.openai.client.replay import headers_of, mark, typed
from asynccache.openai.client.stream import EventSource, ReplayedStream, StreamBody
from asynccache.openai.client.sync_stream import SyncStreamBody


def built(
    client: Any,
    asked: Lookup,
    wanted: ResultForm,
    entry: Entry,
    *,
    status: Status,
    reader: Reader | None,
) -> Any:
    """Return an answer as its caller wants it, marked for `asynccache.status`.

    Args:
        client: The SDK's.
        asked: What was asked for.
        wanted: As what.
        entry: The answer, or its head where a reader has the rest.
        status: What becomes the result's.
        reader: Of a stream that is still coming.
    """
    result: Any
    if wanted.raw:
        response = _response(client, asked, wanted, entry, reader)
        result = _raw(client, wanted, response, status, stream=asked.streaming)
    elif wanted.strange:
        result = _response(client, asked, wanted, entry, reader)
    elif asked.streaming:
        url = asked.address.url
        result = ReplayedStream[Any](
            client=client,
            url=url,
            cast_to=wanted.event,
            meta=entry.meta,
            source=EventSource(reader or entry.chunks, url),
            pacer=asked.engine.pacer,
        )
    else:
        result = typed(client, asked.address, entry, wanted.result, wanted.finish)
    mark(result, status)
    return result


def _response(
    client: Any, asked: Lookup, wanted: ResultForm, entry: Entry, reader: Reader | None
) -> Any:
    """Return an answer as the HTTP response it came with."""
    url, meta = asked.address.url, entry.meta
    content: Any = entry.body
    if asked.streaming:
        body = SyncStreamBody if sdk.is_sync(client) else StreamBody
        content = body(EventSource(reader or entry.chunks, url))
    return sdk_responses.made_response(
        url, meta.status, headers_of(meta), content, raw=wanted.raw, seconds=meta.seconds
    )


def _raw(client: Any, wanted: ResultForm, response: Any, status: Status, *, stream: bool) -> Any:
    def parsed(result: Any) -> Any:
        if wanted.finish is not None:
            result = wanted.finish(result)
        mark(result, status)
        return result

    return sdk_responses.raw_response(
        client,
        response,
        wanted.result,
        wanted.stream_cls if stream else None,
        sdk.with_parser(wanted.options, parsed),
    )
