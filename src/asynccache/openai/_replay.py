"""From recorded bytes to the objects that the SDK would have built, the same on a miss and on a hit."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from openai import APIError, AsyncStream
from openai._models import add_request_id
from pydantic import BaseModel, ValidationError

from asynccache._call import Status
from asynccache._entry import Meta
from asynccache._flight import Reader
from asynccache._gate import WaitedTooLongError
from asynccache._pacer import Pacer
from asynccache.openai import _sdk
from asynccache.openai._sse import event_data

T = TypeVar("T", bound=BaseModel)

_REQUEST_ID: Final = "x-request-id"
_DONE: Final = b"[DONE]"
_BREATH: Final = 32  # events, some 0.2 ms of decoding, between two looks at the turn's time


def mark(response: object, status: Status) -> None:
    """Note on a response where it came from, for `asynccache.status`."""
    object.__setattr__(response, "_asynccache_status", status)


def typed(client: Any, url: str, meta: Meta, body: bytes, cast_to: type[T]) -> T:  # noqa: ANN401 - the SDK's client
    """Return the object of a JSON body.

    Strict validation builds it straight from the bytes, and equals what the SDK builds whenever it
    succeeds; ill-typed answers, other content types and strict clients are left to the SDK itself.
    """
    if meta.content_type.startswith("application/json") and not client._strict_response_validation:  # noqa: SLF001 - the SDK offers no other way
        try:
            found = cast_to.model_validate_json(body, strict=True)
        except ValidationError:
            pass  # the SDK is lenient where we are strict: it decides below
        else:
            add_request_id(found, request_id(meta))  # type: ignore[arg-type]  # the SDK's own base model
            return found
    headers = [("content-type", meta.content_type), *meta.headers]
    response = _sdk.made_response(url, meta.status, headers, body)
    parsed: T = _sdk.parsed_by_sdk(client, response, cast_to)
    return parsed


def request_id(meta: Meta) -> str | None:
    """Return the id that the server gave the recorded request."""
    for name, value in meta.headers:
        if name == _REQUEST_ID:
            return value
    return None


class ReplayedStream(AsyncStream[T]):
    """The SDK's stream over recorded or arriving events: whole from the start, each caller its own.

    Args:
        client: The SDK's client, whose way of reading odd events is used.
        url: Where the request went, for errors.
        cast_to: The type of an event.
        meta: The answer's head.
        source: Recorded events, or a reader of a flight.
        pacer: The loop's, so that a long recorded stream doesn't hold it.
    """

    def __init__(  # noqa: PLR0913 - what a stream consists of
        self,
        *,
        client: Any,  # noqa: ANN401 - the SDK's client
        url: str,
        cast_to: type[T],
        meta: Meta,
        source: tuple[bytes, ...] | Reader,
        pacer: Pacer,
    ) -> None:
        # Not the base's own __init__, which wants the HTTP response that `response` makes on demand.
        self._client = client
        self._url = url
        self._cast_to = cast_to
        self._meta = meta
        self._reader = source if isinstance(source, Reader) else None
        self._events = () if isinstance(source, Reader) else source
        self._at = 0
        self._pacer = pacer
        self._ended = False
        self._made: Any = None
        self._decoder = client._make_sse_decoder()
        self._iterator = self  # type: ignore[assignment]  # an async iterator too

    @property
    def response(self) -> Any:  # type: ignore[override]  # noqa: ANN401 - an attribute in the base; httpx's or httpx2's
        """An HTTP response with the recorded status and headers, and no body."""
        if self._made is None:
            headers = [("content-type", self._meta.content_type), *self._meta.headers]
            self._made = _sdk.made_response(self._url, self._meta.status, headers, b"")
        return self._made

    def __aiter__(self) -> ReplayedStream[T]:  # type: ignore[override]  # an iterator needs no generator around it
        return self

    async def __anext__(self) -> T:
        while not self._ended:
            event = await self._next()
            if event is None:
                break
            data = event_data(event)
            if data is None:
                continue
            if data.startswith(_DONE):
                break
            return self._typed(data)
        await self.close()
        raise StopAsyncIteration

    async def _next(self) -> bytes | None:
        at = self._at
        self._at += 1
        if not at % _BREATH and self._pacer.spent():
            await self._pacer.slot()
        if self._reader is None:
            return self._events[at] if at < len(self._events) else None
        event = self._reader.next_ready()
        if event is not None:
            return event
        try:
            return await self._reader.next()
        except WaitedTooLongError:
            await self.close()
            raise _sdk.timed_out(self._url) from None

    def _typed(self, data: bytes) -> T:
        if b'"error"' in data:
            self._raise_if_error(data)
        try:
            return self._cast_to.model_validate_json(data, strict=True)
        except ValidationError:
            # As the SDK would read it: leniently, or with an error of its own.
            found: T = self._client._process_response_data(
                data=msgspec.json.decode(data), cast_to=self._cast_to, response=self.response
            )
            return found

    def _raise_if_error(self, data: bytes) -> None:
        found = msgspec.json.decode(data)
        error = found.get("error") if isinstance(found, dict) else None
        if not error:
            return
        message = error.get("message") if isinstance(error, dict) else None
        if not message or not isinstance(message, str):
            message = "An error occurred during streaming"
        self._let_go()
        raise APIError(message=message, request=self.response.request, body=error)

    async def close(self) -> None:
        """Stop reading. The call upstream ends if nobody else reads it."""
        self._let_go()

    def _let_go(self) -> None:
        self._ended = True
        if self._reader is not None:
            self._reader.close()
