"""A recorded stream, or one that is still coming, as the SDK's own stream type."""

from __future__ import annotations

import functools
import json
import types
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final, Generic, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Struct
from openai import APIConnectionError, APIError, AsyncStream
from pydantic import ValidationError

from asynccache.cache.facade import ChunkSource
from asynccache.openai.client import sdk, sdk_responses
from asynccache.providers.facts import DONE, members
from asynccache.providers.frames import EventReader
from asynccache.runtime.pacer import Pacer

T = TypeVar("T")


class StreamBody(sdk_responses.AsyncByteStream):
    """A stream's events as the body of an HTTP response: closing that closes the stream."""

    def __init__(self, source: ChunkSource) -> None:
        self._source = source

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while not self._source.closed and (event := await self._source.next()) is not None:
                yield event
        except APIConnectionError as exc:
            # Who reads the response itself sees the transport's error, as without a cache.
            raise sdk.transport_error(str(exc.request.url), exc) from None

    async def aclose(self) -> None:
        self._source.close()


Respond = Callable[[StreamBody], Any]


class _Reading(Generic[T]):
    """The events of a stream as the SDK's objects, one after the other.

    Knows nothing of its stream, which is collected at once when it is dropped.
    """

    def __init__(
        self, *, client: Any, cast_to: Any, respond: Respond, source: ChunkSource, pacer: Pacer
    ) -> None:
        self._client = client
        self._cast_to = cast_to
        self._respond = respond
        self._source = source
        self._pacer = pacer
        self._build = _event_builder(cast_to)
        self._lenient = not client._strict_response_validation
        self._count = 0
        self._events = EventReader()
        self._waiting: deque[bytes] = deque()  # data of a piece that held several events
        self._made: Any = None

    @property
    def response(self) -> Any:
        """An HTTP response with the answer's status and headers, and the rest of the events."""
        if self._made is None:
            self._made = self._respond(StreamBody(self._source))
        return self._made

    def __aiter__(self) -> _Reading[T]:
        return self

    async def __anext__(self) -> T:
        source = self._source
        try:
            while not source.closed:
                self._count += 1
                if self._pacer.is_due(self._count):
                    await self._pacer.slot()
                if self._waiting:
                    data = self._waiting.popleft()
                else:
                    event = source.ready() or await source.next()
                    if event is None:
                        break
                    found = self._events.read(event)
                    if len(found) != 1:
                        self._waiting.extend(found)
                        continue
                    data = found[0]
                if data.startswith(DONE):
                    break
                return self._typed(data)
        except BaseException as exc:
            # As after an error in the SDK's own generator: there is nothing more to read.
            source.close(exc)
            raise
        await self.aclose()
        raise StopAsyncIteration

    def _typed(self, data: bytes) -> T:
        if b'"error"' in data:
            self._raise_if_error(data)
        if self._lenient:
            try:
                built: T = self._build(data)
                return built
            except ValidationError:
                pass
        # As the SDK would read it: leniently, or with an error of its own.
        found: T = self._client._process_response_data(
            data=json.loads(data.decode()), cast_to=self._cast_to, response=self.response
        )
        return found

    def _raise_if_error(self, data: bytes) -> None:
        error = (members(json.loads(data.decode())) or {}).get("error")
        if not error:
            return
        message = (members(error) or {}).get("message")
        if not message or not isinstance(message, str):
            message = "An error occurred during streaming"
        raise APIError(message=message, request=self.response.request, body=error)

    async def aclose(self) -> None:
        """Stop reading, as the SDK's generator does."""
        self._source.close()
        if self._made is not None:
            await self._made.aclose()


class ReplayedStream(AsyncStream[T]):
    """The SDK's stream over events that were recorded, or that a flight is still recording.

    Closing it, reading it to its end, an error, and cancelling a read let go of the flight at once;
    after a bare ``break`` that happens when the stream is collected. A flight that nobody reads any
    more is ended, and stored only if its closing event had come.

    Args:
        client: The SDK's client, whose way of reading odd events is used.
        cast_to: The type of an event.
        respond: Makes the HTTP response around the events.
        source: The events.
        pacer: The loop's, so that a long recorded stream doesn't hold it.
    """

    def __init__(
        self, *, client: Any, cast_to: Any, respond: Respond, source: ChunkSource, pacer: Pacer
    ) -> None:
        # Not the base's own __init__: it wants the HTTP response that `response` makes on demand.
        self._client = client
        self._cast_to: Any = cast_to
        self._decoder = client._make_sse_decoder()
        self._reading: _Reading[T] = _Reading(
            client=client, cast_to=cast_to, respond=respond, source=source, pacer=pacer
        )
        # As in the SDK's streams, what is read from: tracing puts an iterator of its own over it.
        self._iterator: AsyncIterator[T] = self._reading

    @property
    def response(self) -> Any:  # type: ignore[override]  # an attribute in the base
        """An HTTP response with the answer's status and headers, and the rest of the events."""
        return self._reading.response

    def __aiter__(self) -> ReplayedStream[T]:
        return self

    async def __anext__(self) -> T:
        return await self._iterator.__anext__()

    async def close(self) -> None:
        """Stop reading. The call upstream ends if nobody else reads it."""
        await self._reading.aclose()

    async def aclose(self) -> None:
        """Do as `close`, under the name that 3.x of the SDK has for it too."""
        await self.close()


class _Kind(Struct):
    type: str = ""


_TYPE_OF: Final = msgspec.json.Decoder(_Kind).decode


@functools.cache
def _event_builder(event: Any) -> Callable[[bytes], Any]:
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
