"""What a wrapper's answers have used and cost."""

from __future__ import annotations

import functools
import logging
from threading import get_ident
from typing import Any, Final

from asynccache.openai.wrapper.config import Price

_log = logging.getLogger("asynccache")

_COLUMNS: Final = ("cost", "prompt_tokens", "completion_tokens", "total_tokens")
_THOUSAND: Final = 1000  # prices are for so many tokens, as AutoGen has them
_DIGITS: Final = 5  # of a printed cost, as AutoGen has it

Figures = tuple[float, ...]
"""Cost, prompt tokens, completion tokens, all tokens."""


def figures_of(response: object, price: Price | None) -> Figures:
    """Return what an answer, or an event of a stream, says that it has used."""
    usage = getattr(response, "usage", None)
    prompt, completion, total = [_count(usage, name) for name in _COLUMNS[1:]]
    if price is None:
        _warn_unpriced(model_of(response))
        price = (0.0, 0.0)
    cost = (price[0] * prompt + price[1] * completion) / _THOUSAND
    return cost, prompt, completion, total


def _count(usage: object, name: str) -> int:
    # Servers answer with the oddest things here: what isn't a number counts as none.
    count = getattr(usage, name, None)
    return count if type(count) is int else 0


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
        sums = self._sums.setdefault((model_of(response), get_ident()), [0.0, 0, 0, 0])
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
