"""What is known of the SDK's inside, on the way back: responses, and what it makes of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from openai import BaseModel
from openai._legacy_response import LegacyAPIResponse
from openai._models import FinalRequestOptions, add_request_id
from openai._response import APIResponse, AsyncAPIResponse

from asynccache.entries.entry import Meta
from asynccache.openai.client import sdk
from asynccache.openai.client.call import ResultForm
from asynccache.providers.answers import Received

if TYPE_CHECKING:
    import httpx2 as httpx
else:
    httpx = sdk.httpx

AsyncByteStream = httpx.AsyncByteStream
SyncByteStream = httpx.SyncByteStream


def received(response: Any, asked: str) -> Received:
    """Return what came with an answer.

    Args:
        response: The HTTP response.
        asked: The kind of raw response that the caller asks for: "true", "stream" or "".
    """
    request = response.request
    request.headers.pop(sdk.RAW_HEADER, None)  # ours
    if asked:
        request.headers[sdk.RAW_HEADER] = asked
    return Received.of(response.headers.raw, response.extensions, request)


def made_response(
    url: str,
    meta: Meta,
    content: Any,
    *,
    raw: str = "",
    received: Received | None = None,
) -> Any:
    """Return an HTTP response as the SDK would have received it.

    Args:
        url: Where the request went.
        meta: Of the answer.
        content: The body, or the byte stream that its pieces are read from.
        raw: Kind of raw response that the request's header asked for: "true", "stream" or "".
        received: What came with the answer; None for a recorded one.
    """
    request: Any = received.request if received else None
    if request is None:
        request = httpx.Request("POST", url, headers={sdk.RAW_HEADER: raw} if raw else None)
    if isinstance(content, bytes) and raw == "stream":  # to be read by the caller
        content = httpx.ByteStream(content)
    whole = isinstance(content, bytes)
    response: Any = httpx.Response(
        meta.status,
        headers=_kept_headers(meta),
        content=content if whole else None,
        stream=None if whole else content,
        request=request,
        extensions=received.extensions if received else None,
    )
    response.elapsed = timedelta(seconds=meta.seconds)
    if received:
        response._get_content_decoder()  # before it sees headers: the body is decoded already
        response.headers = httpx.Headers(received.headers)
    return response


def _kept_headers(meta: Meta) -> list[tuple[str, str]]:
    content_type = [("content-type", meta.content_type)] if meta.content_type else []
    return [*content_type, *meta.headers]


def raw_response(
    client: Any, response: Any, cast_to: Any, stream_cls: Any, options: Any, *, retries: int
) -> Any:
    """Return the raw response of the kind that the response's request asks for."""
    legacy = response.request.headers.get(sdk.RAW_HEADER) == "true"
    kind: Any = APIResponse if sdk.is_sync(client) else AsyncAPIResponse
    if legacy:
        kind = LegacyAPIResponse
    return kind(
        raw=response,
        cast_to=cast_to,
        client=client,
        stream=stream_cls is not None,
        stream_cls=stream_cls,
        options=options,
        retries_taken=retries,
    )


async def processed(
    client: Any, response: Any, form: ResultForm, finish: Callable[[Any], Any] | None
) -> Any:
    """Return what the SDK itself makes of a response, however it was asked for."""
    options = form.options if finish is None else sdk.with_parser(form.options, finish)
    found = client._process_response(
        cast_to=form.result,
        options=options,
        response=response,
        stream=form.stream_cls is not None,
        stream_cls=form.stream_cls,
    )
    return await found if inspect.isawaitable(found) else found


def parsed_by_sdk(client: Any, response: Any, cast_to: type[Any]) -> Any:
    """Return what the SDK itself makes of a response's body."""
    return LegacyAPIResponse(
        raw=response,
        cast_to=cast_to,
        client=client,
        stream=False,
        stream_cls=None,
        options=FinalRequestOptions.construct(method="post", url=""),
    ).parse()


def note_request_id(result: Any, request_id: str | None) -> None:
    """Note a request's id on what a caller gets, as the SDK does."""
    if isinstance(result, BaseModel):
        add_request_id(result, request_id)


def http_of(raw: Any) -> Any:
    """Return the HTTP response beneath a raw one.

    Or beneath a stream: a patch on the SDK's method may have made one of the raw response.
    """
    return raw.response if is_opened(raw) else raw.http_response


def is_opened(raw: Any) -> bool:
    """Tell whether what should be a raw response is a stream already."""
    return not hasattr(raw, "http_response")
