"""What happened to each call, for people: `record` around a block, `observer=` on a cache."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Final, Literal

from msgspec import Struct

from asynccache.cache.in_force import is_watched, recorders
from asynccache.core.counters import Outcome
from asynccache.entries.entry import Entry
from asynccache.runtime.logs import warn_of


class CallEvent(Struct, frozen=True, kw_only=True):
    """One call that came to a cache, once it is over; a stream's, once it was read or closed."""

    outcome: Outcome | Literal["error"]
    """As in `asynccache.status`, "bypass", or "error" for a call that raised."""
    endpoint: str
    """Path below the base URL, e.g. ``/chat/completions``; "value" or "memoize" for functions, and
    the framework's name, e.g. "langchain", where one looks up and makes the call itself."""
    key: str = ""
    """64 hexadecimal digits; empty for a bypass, a function that raised, or if none is known."""
    model: str = ""
    """As the answer names it; for want of an answer, as the request does."""
    age: float = 0.0
    """Seconds since the answer was recorded."""
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    """How long the answer took, or once took, upstream; for bypass and error, how long it took."""
    reason: str = ""
    """Why it was a bypass, or the name of the error."""

    @property
    def tokens(self) -> int:
        """Input and output tokens together, as the answer states them."""
        return self.input_tokens + self.output_tokens


Observer = Callable[[CallEvent], None]


class SafeObserver:
    """A user's observer: what it raises breaks no call, and is told once per kind of error.

    Args:
        observer: The user's.
    """

    __slots__ = ("_observer", "_told")

    def __init__(self, observer: Observer) -> None:
        self._observer: Final = observer
        self._told: set[type[Exception]] = set()

    def __call__(self, event: CallEvent) -> None:
        """Tell the user's of an event."""
        try:
            self._observer(event)
        except Exception as exc:  # noqa: BLE001 - the user's function; no call is lost over it
            if type(exc) not in self._told:
                self._told.add(type(exc))
                warn_of(exc, f"an observer failed, and calls go on, told once: {exc!r}")


class Recording:
    """What `record` returns: a context manager for one block."""

    def __enter__(self) -> list[CallEvent]:
        self._frame = recorders.push([])
        return self._frame.value

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._frame.dead = True


def record() -> Recording:
    """List every call that caches see under a block, also those that frameworks make and hide.

    Calls of tasks that were started inside count too; those of plain threads don't (see
    `AsyncCache.bind`). Blocks may be nested: each has its own list.

    Returns:
        A context manager that gives a list of `CallEvent`, in the order in which the calls ended.

    Example:
        >>> with record() as calls:
        ...     pass
        >>> [(call.outcome, call.model, call.tokens) for call in calls]
        []
    """
    return Recording()


class CallWatch:
    """Who is to be told of one call, and how long it takes.

    Made only where somebody watches (`watch`), so that other calls pay nothing for it.
    """

    __slots__ = ("_began", "_frames", "_observer", "endpoint", "key", "model")

    def __init__(self, observer: Observer | None, endpoint: str, model: object, key: bytes) -> None:
        self._observer = observer
        self._frames = list(recorders.alive())
        self._began = perf_counter()
        self.endpoint = endpoint
        self.model = model if isinstance(model, str) else ""
        self.key = key

    def served(self, outcome: Outcome, entry: Entry, now: int) -> None:
        """Tell of an answer; ``now`` is microseconds since the epoch."""
        meta = entry.meta
        self._tell(CallEvent(
            outcome=outcome,
            endpoint=self.endpoint,
            key=entry.key.hex(),
            model=meta.model or self.model,
            age=max(0, now - entry.created) / 1_000_000 if entry.created else 0.0,
            input_tokens=meta.input_tokens,
            output_tokens=meta.output_tokens,
            seconds=meta.seconds,
        ))  # fmt: skip

    def passed(self, reason: str | None) -> None:
        """Tell of a call that went past the cache."""
        self._tell(self._plain("bypass", reason or ""))

    def failed(self, error: BaseException) -> None:
        """Tell of a call that raised."""
        self._tell(self._plain("error", type(error).__name__))

    def _plain(self, outcome: Literal["bypass", "error"], reason: str) -> CallEvent:
        return CallEvent(
            outcome=outcome,
            endpoint=self.endpoint,
            key=self.key.hex(),
            model=self.model,
            seconds=perf_counter() - self._began,
            reason=reason,
        )

    def _tell(self, event: CallEvent) -> None:
        for frame in self._frames:
            if not frame.dead:
                frame.value.append(event)
        if self._observer is not None:
            self._observer(event)


def watch(
    observer: Observer | None, endpoint: str, model: object = "", key: bytes = b""
) -> CallWatch | None:
    """Return who is to be told of a call that begins now, None if nobody is."""
    if not is_watched(observer):
        return None
    return CallWatch(observer, endpoint, model, key)
