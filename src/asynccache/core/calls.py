"""What one caller asks for, what upstream gave, and what a response says of itself."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from asynccache.core.counters import Outcome
from asynccache.core.flight import Caller, ErrorScope, Flight, Judging
from asynccache.core.modes import Mode
from asynccache.entries.entry import Entry, Meta
from asynccache.errors import described
from asynccache.keys.key import Namespace
from asynccache.keys.plain import PlainData

T = TypeVar("T")


class Answer(Struct, frozen=True, kw_only=True):
    """A whole answer from upstream. ``store_if`` gets it."""

    meta: Meta
    """What is known of the answer beside its body: status, headers, model, tokens."""
    chunks: tuple[bytes, ...]
    """The body: one chunk for JSON and values, one per server-sent event for a stream."""
    error: bool = False
    """The answer carries an error, whatever its status is."""
    filtered: bool = False
    """A content filter ended the answer."""
    complete: bool = True
    """The answer came to its proper end. Otherwise it is never stored."""
    private: bool = False
    """The answer repeats a secret of its request. Then it is never stored."""
    received: object = None
    """What came with the answer and isn't stored. Whoever waits for the answer gets it."""

    @property
    def body(self) -> bytes:
        """The bytes of the body. For a stream these are its events as they came."""
        return b"".join(self.chunks)

    def json(self) -> Any:  # noqa: ANN401 - any JSON
        """Return the data of a JSON body or of a cached value.

        Raises:
            ValueError: The answer is a stream, or its body can't be decoded.
        """
        if self.meta.kind == "value":
            return msgspec.msgpack.decode(self.body)
        return msgspec.json.decode(self.body)


StoreIf = Callable[[Answer], bool]


def plain(option: str, made: T) -> T:
    """Return what a plain function of the user's returned.

    Raises:
        TypeError: It has to be awaited, which nobody does. A coroutine is closed.
    """
    if inspect.isawaitable(made):
        if inspect.iscoroutine(made):
            made.close()
        raise TypeError(
            f"{option} must be a plain function, and returned {described(made)}: do in it only"
            " what needs no await"
        )
    return made


def store_good(answer: Answer) -> bool:
    """Return whether an answer is stored by default.

    It is if its status is 2xx, it carries no error, and no content filter ended it. An answer that
    a token limit ended is stored: the same request would end there again. A rule of your own takes
    its place; call it there to have both:

    Example:
        >>> def only_short(answer: Answer) -> bool:
        ...     return store_good(answer) and answer.meta.output_tokens < 1000
    """
    return 200 <= answer.meta.status < 300 and not answer.error and not answer.filtered  # noqa: PLR2004 - HTTP's own numbers


def for_all(_: BaseException) -> ErrorScope:
    """Share every error with all who asked for the same."""
    return "all"


class CallRequest(Struct, frozen=True, kw_only=True):
    """What one caller asks of the engine."""

    namespace: Namespace
    key: bytes
    mode: Mode
    upstream: Callable[[Flight], Awaitable[Answer]]
    """Makes the call: announces the head, adds chunks as they come, returns the whole."""
    scope: Callable[[BaseException], ErrorScope] = for_all
    caller: Caller = Caller()
    ttl: float | None = None
    """Seconds until the answer expires; None is never."""
    store_if: StoreIf = store_good
    canonical: bytes | None = None
    """The request's canonical body, for path digests; None keeps none."""
    facts: dict[str, int] = {}
    """Digests of the rest of the request, to be kept with them."""
    keep_request: bool = False
    unchanged: Callable[[], bool] | None = None
    """Tells whether the key still stands for what is sent, where that may change on the way."""
    alone: bool = True
    """The call is this flight's alone; else a `BulkCall` makes it, and counts it."""
    about: str = "this request"
    """What is asked for, to be read in an error."""
    judge: Callable[[Answer], Judging | None] | None = None
    """Returns what tells whether an answer is usable; None where there is nothing to judge."""
    waiting: Callable[[], None] | None = None
    """Told that the flight has to wait for a lease that is held elsewhere."""


class Fetched(Struct, frozen=True):
    """An answer on its way to one caller."""

    entry: Entry
    outcome: Outcome
    original: tuple[object] | None = None
    """A value that its bytes don't give back, for this caller alone; then the entry is empty."""
    received: object = None
    """What came with the answer and isn't stored; None for a hit."""


class Status(PlainData, frozen=True):
    """Where a response came from."""

    outcome: Outcome
    """``"hit"``, ``"joined"`` or ``"miss"``."""
    digest: bytes
    """The key of the entry. It is empty if there is none."""
    recorded: int
    """When the answer was complete, in microseconds since the epoch. 0: it was not yet."""
    served: int
    """When this response was made, in microseconds since the epoch."""
    namespace: Namespace
    """The namespace of the entry: its ``cache_seed`` and tenant."""
    parts: tuple[bytes, ...] = ()
    """The keys of the entries, if the answer was put together from several."""

    @property
    def key(self) -> str:
        """The key as 64 hexadecimal digits."""
        return self.digest.hex()

    @property
    def age(self) -> float:
        """How many seconds before this response the answer was recorded."""
        return max(0, self.served - self.recorded) / 1_000_000 if self.recorded else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return everything by name, keys in hexadecimal digits, as plain data; a new dict."""
        return {
            "outcome": self.outcome,
            "key": self.key,
            "age": self.age,
            "recorded": self.recorded,
            "served": self.served,
            "namespace": self.namespace.as_dict(),
            "parts": [part.hex() for part in self.parts],
        }

    def __repr__(self) -> str:
        return f"Status(outcome={self.outcome!r}, key={self.key!r}, age={self.age!r})"


def status_of(response: object) -> Status | None:
    """Return where a response came from, or None if it did not come through a cache.

    Args:
        response: What a cached call returned, or one of its raw responses or streams.
    """
    found = getattr(response, "_asynccache_status", None)
    return found if isinstance(found, Status) else None
