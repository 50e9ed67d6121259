"""The wrapper's calls for code that can't await: the same ones, made in the background loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, TypeVar, cast, overload

from openai import Stream
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from asynccache.core.calls import status_of
from asynccache.openai.client.replay import mark
from asynccache.openai.wrapper.types import NotedChatCompletion, NotedCompletion
from asynccache.openai.wrapper.usage import CountedStream
from asynccache.runtime.background import waited

T = TypeVar("T")

_END: Final = object()


class SyncStream(Stream[T]):
    """A stream of the wrapper's for code that can't await: same events, one after another.

    Leave it by ``close`` or a block of its own, or read it to its end.

    Args:
        stream: What is read, in the background loop.
    """

    pass_filter = True

    def __init__(self, stream: CountedStream[T]) -> None:
        # Not the base's own __init__, which would read the response beside the stream.
        self._counted = stream
        status = status_of(stream)
        if status is not None:
            mark(self, status)

    @property
    def config_id(self) -> int:
        """The number of the entry that gave it."""
        return self._counted.config_id

    @property
    def cost(self) -> float:
        """What its events have told so far, at ``price``."""
        return self._counted.cost

    @property
    def response(self) -> Any:  # type: ignore[override]  # an attribute in the base
        """The HTTP response, made or recorded."""
        return self._counted.response

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        found = waited(self._next)
        if found is _END:
            raise StopIteration
        return cast("T", found)

    async def _next(self) -> object:
        return await anext(self._counted, _END)

    def close(self) -> None:
        """Stop reading. The call upstream ends if nobody else reads it."""
        waited(self._counted.close)


SyncResponse: TypeAlias = (
    NotedChatCompletion | NotedCompletion | SyncStream[ChatCompletionChunk] | SyncStream[Completion]
)


class SyncCalls:
    """The part of `OpenAIWrapper` for code that can't await."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the clients that `create` has made. The wrapper may be used again.

        Clients that were handed in, and caches, are left open. At the program's end it happens
        anyway.
        """
        waited(self.aclose)

    @overload
    def create(
        self,
        *,
        messages: Iterable[Mapping[str, Any]],
        stream: Literal[False] | None = None,
        **config: Any,
    ) -> NotedChatCompletion: ...
    @overload
    def create(
        self, *, messages: Iterable[Mapping[str, Any]], stream: Literal[True], **config: Any
    ) -> SyncStream[ChatCompletionChunk]: ...
    @overload
    def create(
        self, *, prompt: object, stream: Literal[False] | None = None, **config: Any
    ) -> NotedCompletion: ...
    @overload
    def create(
        self, *, prompt: object, stream: Literal[True], **config: Any
    ) -> SyncStream[Completion]: ...
    @overload
    def create(self, **config: Any) -> SyncResponse: ...
    def create(self, **config: Any) -> SyncResponse:
        """Do as `acreate`, and wait for it.

        The call is made in the background loop, whose thread also calls ``filter_func`` and what
        templates there are. A thread that runs an event loop of its own may call it too, and holds
        that loop up meanwhile.

        Args:
            **config: As for `acreate`. ``cache`` may be what ``with`` gives or what ``async with``
                gives.

        Raises:
            RuntimeError: This is the background loop itself: await `acreate` there.
            Exception: As `acreate`.
        """
        response = waited(partial(self.acreate, **config))
        if isinstance(response, CountedStream):
            return SyncStream(cast("Any", response))
        return cast("SyncResponse", response)

    # What the class below has.

    async def acreate(self, **config: Any) -> Any:
        """See `OpenAIWrapper.acreate`."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """See `OpenAIWrapper.aclose`."""
        raise NotImplementedError
