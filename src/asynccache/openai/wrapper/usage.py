"""What the answers of a wrapper have used and cost, plain and streamed."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final, Literal, TypeVar, cast

from openai import AsyncStream

from asynccache.core.calls import status_of
from asynccache.openai.client.replay import mark

_log = logging.getLogger("asynccache")

T = TypeVar("T")
Price = tuple[float, float]
Mode = Literal["actual", "total"]
_THOUSAND: Final = 1000  # prices are for so many tokens, as AutoGen has them
_DIGITS: Final = 5  # of a printed cost, as AutoGen has it
_unpriced: Final[set[str]] = set()  # models that were warned of


class UsageTotals:
    """Sums by model: cost, prompt tokens, completion tokens, total tokens."""

    __slots__ = ("models",)

    def __init__(self) -> None:
        self.models: dict[str, list[float]] = {}

    def add(self, response: Any, price: Price | None, *, beyond: Any = None) -> float:
        """Add what an answer says that it has used; return its cost.

        Args:
            response: An answer, or an event of a stream.
            price: Of a thousand prompt tokens, and of a thousand completion tokens.
            beyond: An earlier event of that stream, whose figures this one's include: some servers
                tell with every event what was used so far.
        """
        model, prompt, completion, total = _figures(response)
        cost = 0.0
        if price is not None:
            cost = (price[0] * prompt + price[1] * completion) / _THOUSAND
        elif model not in _unpriced:
            _warn_of(model)
        sums = self.models.get(model)
        if sums is None:
            sums = self.models[model] = [0.0, 0, 0, 0]
        sums[0] += cost
        sums[1] += prompt
        sums[2] += completion
        sums[3] += total
        if beyond is not None:
            _, prompt, completion, total = _figures(beyond)
            if price is not None:
                sums[0] -= (price[0] * prompt + price[1] * completion) / _THOUSAND
            sums[1] -= prompt
            sums[2] -= completion
            sums[3] -= total
        return cost


class Usage:
    """What was used in one event loop: in all, and that part of it that was paid for."""

    __slots__ = ("actual", "total")

    def __init__(self) -> None:
        self.actual = UsageTotals()
        self.total = UsageTotals()

    def absorb(self, other: Usage) -> None:
        """Add what was used in another loop."""
        for mine, others in ((self.actual, other.actual), (self.total, other.total)):
            for model, numbers in others.models.items():
                before = mine.models.get(model, [0.0, 0, 0, 0])
                mine.models[model] = [sum(pair) for pair in zip(before, numbers, strict=True)]

    def clear(self) -> None:
        """Begin anew."""
        self.actual.models.clear()
        self.total.models.clear()


def _figures(response: Any) -> tuple[str, int, int, int]:
    """Return model, prompt tokens, completion tokens and all tokens.

    Answers are as odd as the servers that give them: what isn't a number counts as none.
    """
    try:
        model, usage = response.model, response.usage
        if usage is None:
            return model, 0, 0, 0
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        total = usage.total_tokens
        if type(prompt) is type(completion) is type(total) is int and type(model) is str:
            return model, prompt, completion, total
    except AttributeError:
        pass
    usage = getattr(response, "usage", None)
    return (
        str(getattr(response, "model", None)),
        _number(usage, "prompt_tokens"),
        _number(usage, "completion_tokens"),
        _number(usage, "total_tokens"),
    )


def _number(usage: object, name: str) -> int:
    found = getattr(usage, name, None)
    return found if type(found) is int else 0


def _warn_of(model: str) -> None:
    _unpriced.add(model)
    _log.warning(
        "%s has no price, its cost counts as 0; the entry of config_list may say"
        " price=[per_1k_prompt_tokens, per_1k_completion_tokens]",
        model,
    )


def summary(sums: Iterable[UsageTotals]) -> dict[str, Any] | None:
    """Return sums in AutoGen's form, None if nothing was used."""
    found: dict[str, Any] = {}
    cost = 0.0
    for spent in sums:
        for model, numbers in list(spent.models.items()):
            cost += numbers[0]
            part: dict[str, Any] = found.setdefault(
                model,
                {"cost": 0.0, "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            )
            for name, number in zip(part, numbers, strict=True):
                part[name] += number
    return {"total_cost": cost, **found} if found else None


def printed(
    actual: dict[str, Any] | None, total: dict[str, Any] | None, modes: Iterable[Mode]
) -> str:
    """Return summaries as text."""
    parts: list[str] = []
    for mode in modes:
        heading = {"actual": "Paid for", "total": "Used, cached answers included"}[mode]
        parts.append(_printed(heading, actual if mode == "actual" else total))
    return "\n".join(parts)


def _printed(heading: str, found: dict[str, Any] | None) -> str:
    if found is None:
        return f"{heading}: nothing"
    lines = [f"{heading}: cost {round(found['total_cost'], _DIGITS)}"]
    lines += [
        f"  {model}: cost {round(part['cost'], _DIGITS)}, {part['prompt_tokens']} prompt +"
        f" {part['completion_tokens']} completion = {part['total_tokens']} tokens"
        for model, part in found.items()
        if model != "total_cost"
    ]
    return "\n".join(lines)


class CountedStream(AsyncStream[T]):
    """The stream that a call gave, read through: its usage is counted as its events tell it.

    Args:
        stream: The SDK's, or one replayed; closed with this one.
        price: Of a thousand prompt tokens and of a thousand completion tokens.
        spent: Where to count.
    """

    config_id: int
    """The number of the entry that gave it."""
    pass_filter = True
    cost: float
    """What its events have told so far, at ``price``."""

    def __init__(
        self, stream: AsyncStream[T], price: Price | None, spent: list[UsageTotals]
    ) -> None:
        # Not the base's own __init__, which would read the response beside the stream.
        self._stream = stream
        self._price = price
        self._spent = spent
        self._told: object = None
        self.cost = 0.0
        status = status_of(stream)
        if status is not None:
            mark(self, status)

    @property
    def response(self) -> Any:  # type: ignore[override]  # an attribute in the base
        """The HTTP response, made or recorded."""
        return self._stream.response

    def __aiter__(self) -> CountedStream[T]:
        return self

    async def __anext__(self) -> T:
        event = await anext(cast("Any", self._stream))
        if getattr(event, "usage", None) is not None:
            self._count(event)
        found: T = event
        return found

    def _count(self, event: object) -> None:
        for spent in self._spent:
            self.cost = spent.add(event, self._price, beyond=self._told)
        self._told = event

    async def close(self) -> None:
        """Stop reading. The call upstream ends if nobody else reads it."""
        await self._stream.close()
