"""What a cache counts. Each event loop has counters of its own; readers add them up."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from msgspec import field

from asynccache.entries.entry import Meta
from asynccache.keys.plain import PlainData

Outcome = Literal["hit", "joined", "miss", "bypass"]


class Stats(PlainData, frozen=True, kw_only=True):
    """What a cache has done since it was made, as a snapshot."""

    hits: int = 0
    """Calls that were answered from the store, or by an answer on its way into the store."""
    joined: int = 0
    """Calls that waited for the same call of another caller, here or in another process."""
    misses: int = 0
    """Calls that went upstream themselves."""
    bypassed: int = 0
    """Calls that went past the cache: not cacheable, mode "off", or the cache is closed."""
    upstream_calls: int = 0
    """Calls that this cache has made upstream, failed ones included, bypassed ones not."""
    upstream_errors: int = 0
    """Those of them that failed."""
    abandoned: int = 0
    """Calls upstream that were cancelled because no caller waited for them any more."""
    replay_misses: int = 0
    """Calls that raised `ReplayMiss`."""
    stored: int = 0
    """Answers and values that were stored."""
    not_stored: dict[str, int] = field(default_factory=dict)
    """Answers that were delivered but not stored, by reason."""
    cut: int = 0
    """Stored answers that a token limit had ended early."""
    unusable: int = 0
    """Stored answers that aren't what their requests demand: only mode "replay" gives them."""
    unread_schemas: int = 0
    """Schemas of requests that couldn't be read. Whatever answers them counts as usable."""
    flaws: dict[str, int] = field(default_factory=dict)
    """Entries that could not be used, by reason. Each was a miss."""
    store_errors: dict[str, int] = field(default_factory=dict)
    """Failures of the store, by name. They fail no call that only wants an answer."""
    store: dict[str, int] = field(default_factory=dict)
    """What the store did by itself: evicted, expired, dropped."""
    breaker: Literal["closed", "open", "probing"] = "closed"
    """The state of the circuit breaker before the store."""
    tokens_paid: int = 0
    """Input and output tokens of answers that came from upstream."""
    tokens_saved: int = 0
    """Input and output tokens of hits and joined calls."""
    cache_read_tokens: int = 0
    """Of the tokens paid, those of input that the provider read from its own cache of prompts."""
    cache_write_tokens: int = 0
    """Of the tokens paid, those of input that the provider wrote to it."""
    seconds_paid: float = 0.0
    """Seconds spent upstream, summed over calls."""
    seconds_saved: float = 0.0
    """Seconds that hits and joined calls would have spent upstream, one by one."""

    @property
    def calls(self) -> int:
        """The number of all calls that came to the cache."""
        return self.hits + self.joined + self.misses + self.bypassed

    @property
    def hit_rate(self) -> float:
        """The share of cacheable calls that were hits or joined, from 0 to 1."""
        cacheable = self.hits + self.joined + self.misses
        return (self.hits + self.joined) / cacheable if cacheable else 0.0

    def as_dict(self) -> dict[str, int | float | str | dict[str, int]]:
        """Return all figures by name, ``calls`` and ``hit_rate`` included, as plain data.

        The dict suits ``json.dumps``, a web handler or a metrics client. It is a new one each time.
        """
        return {**super().as_dict(), "calls": self.calls, "hit_rate": self.hit_rate}


_SUMMED = (
    "hits", "joined", "misses", "bypassed", "upstream_calls", "upstream_errors", "abandoned",
    "replay_misses", "stored", "cut", "unusable", "unread_schemas", "tokens_paid", "tokens_saved",
    "cache_read_tokens", "cache_write_tokens", "seconds_paid", "seconds_saved",
)  # fmt: skip
_COUNTED = ("not_stored", "flaws", "store_errors")


class Counters:
    """The counters of one event loop. Only its thread changes them."""

    __slots__ = (*_SUMMED, *_COUNTED)

    hits: int
    joined: int
    misses: int
    bypassed: int
    upstream_calls: int
    upstream_errors: int
    abandoned: int
    replay_misses: int
    stored: int
    cut: int
    unusable: int
    unread_schemas: int
    tokens_paid: int
    tokens_saved: int
    cache_read_tokens: int
    cache_write_tokens: int
    seconds_paid: float
    seconds_saved: float
    not_stored: Counter[str]
    flaws: Counter[str]
    store_errors: Counter[str]

    def __init__(self) -> None:
        for name in _SUMMED:
            setattr(self, name, 0)
        for name in _COUNTED:
            setattr(self, name, Counter())

    def count_paid(self, meta: Meta) -> None:
        """Count the tokens of an answer that came from upstream."""
        self.tokens_paid += meta.input_tokens + meta.output_tokens
        self.cache_read_tokens += meta.cache_read_tokens
        self.cache_write_tokens += meta.cache_write_tokens

    def add(self, other: Counters) -> None:
        """Add another loop's figures to these."""
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _COUNTED:
            getattr(self, name).update(getattr(other, name).copy())

    def snapshot(
        self, *, breaker: Literal["closed", "open", "probing"], store: dict[str, int]
    ) -> Stats:
        """Return these figures, frozen."""
        figures: dict[str, Any] = {name: getattr(self, name) for name in _SUMMED}
        figures.update({name: dict(getattr(self, name)) for name in _COUNTED})
        return Stats(**figures, breaker=breaker, store=store)
