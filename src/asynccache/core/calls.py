"""What one caller asks for, what upstream gave, and what a response says of itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from asynccache.core.counters import Outcome
from asynccache.core.flight import Caller, ErrorScope, Flight
from asynccache.core.modes import Mode
from asynccache.entries.entry import Entry, Meta
from asynccache.keys.key import Namespace


class Answer(Struct, frozen=True, kw_only=True):
    """A whole answer from upstream, as ``store_if`` sees it."""

    meta: Meta
    chunks: tuple[bytes, ...]
    error: bool = False
    """It carries an error, whatever its status."""
    filtered: bool = False
    """A content filter ended it."""
    complete: bool = True
    """It came to its proper end. One that didn't is never stored, whatever ``store_if`` says."""
    private: bool = False
    """It repeats a secret of its request, so that it is never stored either."""

    @property
    def body(self) -> bytes:
        """The body's bytes; for a stream, its events as they came."""
        return b"".join(self.chunks)

    def json(self) -> Any:  # noqa: ANN401 - any JSON
        """Return what a JSON body or a cached value stands for.

        Raises:
            ValueError: It is a stream, or not what it says to be.
        """
        if self.meta.kind == "value":
            return msgspec.msgpack.decode(self.body)
        return msgspec.json.decode(self.body)


StoreIf = Callable[[Answer], bool]


def store_good(answer: Answer) -> bool:
    """Say yes to answers worth keeping: status 2xx, no error, not ended by a content filter.

    An answer that a token limit cut off is kept too, as the same request would be cut off again.
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
    waiting: Callable[[], None] | None = None
    """Told that the flight has to wait for a lease that is held elsewhere."""


class Fetched(Struct, frozen=True):
    """An answer on its way to one caller."""

    entry: Entry
    outcome: Outcome
    original: object = UNSET
    """A value that its bytes don't give back, for this caller alone; then the entry is empty."""


class Status(Struct, frozen=True):
    """Where a response came from."""

    outcome: Outcome
    digest: bytes
    """The entry's key; empty for none."""
    recorded: int
    """Microseconds since the epoch when the answer was whole; 0 if it wasn't yet."""
    served: int
    """Microseconds since the epoch when this response was made of it."""
    namespace: Namespace
    parts: tuple[bytes, ...] = ()
    """Keys of the entries, where an answer was put together from several."""

    @property
    def key(self) -> str:
        """64 hexadecimal digits, as in the store."""
        return self.digest.hex()

    @property
    def age(self) -> float:
        """Seconds since the answer was recorded, when it was served."""
        return max(0, self.served - self.recorded) / 1_000_000 if self.recorded else 0.0

    def __repr__(self) -> str:
        return f"Status(outcome={self.outcome!r}, key={self.key!r}, age={self.age!r})"


def status_of(response: object) -> Status | None:
    """Return where a response came from: outcome, key, age. None if no cache was involved."""
    found = getattr(response, "_asynccache_status", None)
    return found if isinstance(found, Status) else None
