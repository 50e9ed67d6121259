"""What a wrapper's calls return: the SDK's objects and streams, with what is noted on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from openai import AsyncStream, Stream
from openai.types import Completion
from openai.types.chat import ChatCompletion

from asynccache.core.calls import status_of
from asynccache.openai.wrapper.config import Price
from asynccache.openai.wrapper.usage import Figures, UsageTotals, figures_of
from asynccache.runtime.background import waited

T = TypeVar("T")

_END: Final = object()

if TYPE_CHECKING:

    class NotedChatCompletion(ChatCompletion):
        """A chat completion that says which entry gave it, whether it is good, and its cost."""

        config_id: int
        pass_filter: bool
        cost: float

    class NotedCompletion(Completion):
        """A text completion that says the same."""

        config_id: int
        pass_filter: bool
        cost: float

else:  # of the SDK's own types, so that they equal what it builds
    NotedChatCompletion = ChatCompletion
    NotedCompletion = Completion


class CountedStream(AsyncStream[T]):
    """A stream of the SDK's that counts the usage which its events tell.

    Args:
        stream: The SDK's, or one replayed; closed with this one.
        config_id: The number of the entry that gave it.
        price: Of a thousand prompt tokens and of a thousand completion tokens.
        totals: Where to count.
    """

    pass_filter = True

    def __init__(
        self,
        stream: AsyncStream[T],
        config_id: int,
        price: Price | None,
        totals: list[UsageTotals],
    ) -> None:
        # Not the base's own __init__, which would read the response beside the stream.
        self.config_id = config_id
        self._asynccache_status = status_of(stream)
        self._stream = stream
        self._price = price
        self._totals = totals
        self._told: Figures = (0.0, 0, 0, 0)

    @property
    def cost(self) -> float:
        """What its events have told so far, at ``price``."""
        return self._told[0]

    @property
    def response(self) -> Any:  # type: ignore[override]  # an attribute in the base
        """The HTTP response, made or recorded."""
        return self._stream.response

    def __aiter__(self) -> CountedStream[T]:
        return self

    async def __anext__(self) -> T:
        event: T = await anext(cast("Any", self._stream))
        if getattr(event, "usage", None) is not None:
            # Some servers tell with every event what was used so far.
            told = figures_of(event, self._price)
            more = tuple([now - before for now, before in zip(told, self._told, strict=True)])
            for totals in self._totals:
                totals.add(event, more)
            self._told = told
        return event

    async def close(self) -> None:
        """Stop reading. The call upstream ends if nobody else reads it."""
        await self._stream.close()


class SyncStream(Stream[T]):
    """The same stream for code that can't await, read in the background loop.

    Leave it by ``close`` or a block of its own, or read it to its end.

    Args:
        stream: What is read.
    """

    pass_filter = True

    def __init__(self, stream: CountedStream[T]) -> None:
        # Not the base's own __init__, as above.
        self.config_id = stream.config_id
        self._asynccache_status = status_of(stream)
        self._counted = stream

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
        event = waited(self._next)
        if event is _END:
            raise StopIteration
        return cast("T", event)

    async def _next(self) -> object:
        return await anext(self._counted, _END)

    def close(self) -> None:
        """Stop reading. The call upstream ends if nobody else reads it."""
        waited(self._counted.close)
