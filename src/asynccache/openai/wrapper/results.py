"""What a wrapper's calls return, and what that has used and cost."""

from __future__ import annotations

import functools
import logging
from operator import attrgetter
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from openai import AsyncStream, Stream
from openai.types import Completion
from openai.types.chat import ChatCompletion

from asynccache.cache.facade import status_of
from asynccache.openai.wrapper.config import Price
from asynccache.runtime.background import call

T = TypeVar("T")

_log = logging.getLogger("asynccache")

_COLUMNS: Final = ("cost", "prompt_tokens", "completion_tokens", "total_tokens")
_counts = attrgetter(*(f"usage.{name}" for name in _COLUMNS[1:]))
_THOUSAND: Final = 1000  # prices are for so many tokens, as AutoGen has them
_DIGITS: Final = 5  # of a printed cost, as AutoGen has it

Figures = tuple[float, ...]
"""Cost, prompt tokens, completion tokens, all tokens."""
_NOTHING: Final[Figures] = (0.0, 0, 0, 0)


def figures_of(response: object, price: Price | None) -> Figures:
    """Return what an answer, or an event of a stream, says that it has used.

    What isn't three numbers counts as nothing: servers answer with the oddest things here.
    """
    try:
        prompt, completion, total = _counts(response)
    except AttributeError:
        return _NOTHING
    if not type(prompt) is type(completion) is type(total) is int:
        return _NOTHING
    if price is None:
        _warn_unpriced(model_of(response))
        return 0.0, prompt, completion, total
    cost = (price[0] * prompt + price[1] * completion) / _THOUSAND
    return cost, prompt, completion, total


def model_of(response: object) -> str:
    """Return the name of the model that a server says has answered."""
    return str(getattr(response, "model", None))


@functools.cache  # once for each model
def _warn_unpriced(model: str) -> None:
    _log.warning(
        "%s has no price, its cost counts as 0; the entry of config_list may say"
        " price=[per_1k_prompt_tokens, per_1k_completion_tokens]",
        model,
    )


class UsageTotals:
    """Sums of figures by model.

    Each thread adds to sums of its own, so that none needs a lock, and none is lost.
    """

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[tuple[str, int], list[float]] = {}

    def add(self, response: object, figures: Figures) -> None:
        """Add what an answer has used."""
        place = (model_of(response), get_ident())
        sums = self._sums.get(place) or self._sums.setdefault(place, list(_NOTHING))
        for column, number in enumerate(figures):
            sums[column] += number

    def clear(self) -> None:
        """Begin anew."""
        self._sums.clear()

    def summary(self) -> dict[str, Any] | None:
        """Return the sums in AutoGen's form, None if nothing was used."""
        found: dict[str, Any] = {}
        for (model, _), figures in list(self._sums.items()):
            sums = found.setdefault(model, dict.fromkeys(_COLUMNS, 0))
            for name, number in zip(_COLUMNS, figures, strict=True):
                sums[name] += number
        if not found:
            return None
        return {"total_cost": sum(sums["cost"] for sums in found.values()), **found}

    def text(self) -> str:
        """Return the sums to print."""
        found = self.summary()
        if found is None:
            return "nothing"
        lines = [f"cost {round(found.pop('total_cost'), _DIGITS)}"]
        lines += [
            f"  {model}: cost {round(sums['cost'], _DIGITS)}, {sums['prompt_tokens']} prompt +"
            f" {sums['completion_tokens']} completion = {sums['total_tokens']} tokens"
            for model, sums in found.items()
        ]
        return "\n".join(lines)


if TYPE_CHECKING:

    class Noted:
        """Says which entry gave an answer, whether it passed the filter, and its cost."""

        config_id: int
        pass_filter: bool
        cost: float

    class NotedChatCompletion(Noted, ChatCompletion):
        """A chat completion with the wrapper's notes."""

    class NotedCompletion(Noted, Completion):
        """A text completion with the wrapper's notes."""

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
        self._told = _NOTHING

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
        told = _NOTHING
        if getattr(event, "usage", None) is not None:
            told = figures_of(event, self._price)
        if told is not _NOTHING:
            # Some servers tell with every event what was used so far.
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
        self._iterator = iter(lambda: call(anext, stream, None), None)

    @property
    def cost(self) -> float:
        """What its events have told so far, at ``price``."""
        return self._counted.cost

    @property
    def response(self) -> Any:  # type: ignore[override]  # an attribute in the base
        """The HTTP response, made or recorded."""
        return self._counted.response

    def close(self) -> None:
        """Stop reading. The call upstream ends if nobody else reads it."""
        call(self._counted.close)
