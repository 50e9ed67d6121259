"""What happened to each call, for people: `record` around a block, `observer=` on a cache."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Literal, Protocol

from msgspec import field

from asynccache.cache.in_force import current_options, is_watched, recorders
from asynccache.core.calls import Fetched, plain
from asynccache.core.counters import Outcome
from asynccache.core.flight import Reader
from asynccache.entries.entry import Entry
from asynccache.errors import ReplayMiss
from asynccache.keys.key import Namespace
from asynccache.keys.plain import PlainData
from asynccache.runtime.logs import warn_of


class CallEvent(PlainData, frozen=True, kw_only=True):
    """One call that came to a cache, once it is over; a stream's, once it was read or closed.

    Or a failure of the store, of which observers are told too.
    """

    outcome: Outcome | Literal["error", "store_error"]
    """As in `asynccache.status`, "bypass", "error" for a call that raised, or "store_error" for a
    failure of the store."""
    endpoint: str
    """Path below the base URL, e.g. ``/chat/completions``; "value" or "memoize" for functions, and
    the framework's name, e.g. "langchain", where one looks up and makes the call itself. For a
    failure of the store the store's name."""
    namespace: Namespace
    """Where the call went: its ``cache_seed`` and tenant."""
    key: str = ""
    """64 hexadecimal digits; empty for a bypass, a function that raised, or if none is known."""
    model: str = ""
    """As the answer names it; for want of an answer, as the request does."""
    age: float = 0.0
    """Seconds since the answer was recorded."""
    provider: str = ""
    """Who was asked, e.g. "anthropic"; for a server that isn't known, the protocol that it speaks.
    Empty for functions, and where a framework makes the calls itself."""
    input_tokens: int = 0
    """All of them, those that the provider read from its own cache or wrote to it included."""
    output_tokens: int = 0
    cache_read_tokens: int = 0
    """Input tokens that the provider read from its own cache of prompts."""
    cache_write_tokens: int = 0
    """Input tokens that it wrote to it."""
    seconds: float = 0.0
    """How long the answer took, or once took, upstream; for bypass and error, how long it took."""
    waited: float = 0.0
    """Seconds that the caller itself spent on it; on a stream, until it was read or closed."""
    reason: str = ""
    """Why it was a bypass, or the name of the error."""
    paths: dict[str, int] = field(default_factory=dict)
    """For a request that nothing was stored for, a digest of each of its parts, if asked for by
    ``record(paths=True)`` or the option ``event_paths``. Two requests differ where these do."""

    @property
    def tenant(self) -> str | None:
        """Whose answers the call was about."""
        return self.namespace.tenant

    @property
    def tokens(self) -> int:
        """Input and output tokens together, as the answer states them."""
        return self.input_tokens + self.output_tokens

    def as_dict(self) -> dict[str, Any]:
        """Return everything by name, ``tokens`` and ``tenant`` included, as plain data."""
        return {**super().as_dict(), "tokens": self.tokens, "tenant": self.tenant}


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
            plain("observer", self._observer(event))
        except Exception as exc:  # noqa: BLE001 - the user's function; no call is lost over it
            if type(exc) not in self._told:
                self._told.add(type(exc))
                warn_of(exc, f"an observer failed, and calls go on, told once: {exc!r}")


class Recording:
    """What `record` returns: a context manager for one block.

    No `contextlib.contextmanager`: that would decorate a coroutine function, and record nothing.
    """

    def __init__(self, *, paths: bool) -> None:
        self.paths: Final = paths
        self.calls: Final[list[CallEvent]] = []

    def __enter__(self) -> list[CallEvent]:
        self._frame = recorders.push(self)
        return self.calls

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._frame.dead = True


def record(*, paths: bool = False) -> Recording:
    """List every call that caches see under a block, also those that frameworks make and hide.

    Calls of tasks that were started inside count too; those of plain threads don't (see
    `AsyncCache.bind`). Blocks may be nested: each has its own list.

    Args:
        paths: Give the events of misses a digest of each part of their requests.

    Returns:
        A context manager that gives a list of `CallEvent`, in the order in which the calls ended.

    Example:
        >>> with record() as calls:
        ...     pass
        >>> [(call.outcome, call.model, call.tokens) for call in calls]
        []
    """
    return Recording(paths=paths)


class CallWatch:
    """Who is to be told of one call, and how long it takes.

    Made only where somebody watches (`watch`), so that other calls pay nothing for it.
    """

    __slots__ = (
        "_began", "_frames", "_namespace", "_paths", "_settings", "endpoint", "key", "model",
        "provider",
    )  # fmt: skip

    def __init__(
        self,
        settings: WatchSettings,
        endpoint: str,
        model: object,
        key: bytes,
        paths: Paths | None,
        *,
        provider: str,
    ) -> None:
        self._settings = settings
        self._frames = list(recorders.alive())
        self._began = perf_counter()
        self._namespace = current_options().namespace(settings.namespace)
        self._paths = paths
        self.endpoint = endpoint
        self.model = model if isinstance(model, str) else ""
        self.key = key
        self.provider = provider

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
            cache_read_tokens=meta.cache_read_tokens,
            cache_write_tokens=meta.cache_write_tokens,
            provider=self.provider,
            seconds=meta.seconds,
            waited=perf_counter() - self._began,
            namespace=self._namespace,
            paths=self._asked_paths() if outcome == "miss" else {},
        ))  # fmt: skip

    def answered(self, fetched: Fetched, reader: Reader | None, now: Callable[[], int]) -> None:
        """Tell of an answer; of a stream once it was read or closed.

        Args:
            fetched: The answer.
            reader: Reads the rest of a stream; None for an answer that is whole.
            now: Returns microseconds since the epoch.
        """
        if reader is None:
            self.served(fetched.outcome, fetched.entry, now())
            return
        flight, before = reader.flight, reader.on_close

        def closed(error: BaseException | None) -> None:
            if before is not None:
                before(error)
            if (failure := error or flight.error) is not None:
                self.failed(failure)
            else:
                self.served(fetched.outcome, flight.entry or fetched.entry, now())

        reader.on_close = closed

    def passed(self, reason: str | None) -> None:
        """Tell of a call that went past the cache."""
        self._tell(self._plain("bypass", reason or ""))

    def failed(self, error: BaseException) -> None:
        """Tell of a call that raised."""
        paths = self._asked_paths() if isinstance(error, ReplayMiss) else {}
        name: str = getattr(error, "told_as", type(error).__name__)
        self._tell(self._plain("error", name, paths))

    def _asked_paths(self) -> dict[str, int]:
        asked = self._settings.event_paths or any(frame.value.paths for frame in self._frames)
        return self._paths() if asked and self._paths is not None else {}

    def _plain(
        self, outcome: Literal["bypass", "error"], reason: str, paths: dict[str, int] | None = None
    ) -> CallEvent:
        waited = perf_counter() - self._began
        return CallEvent(
            outcome=outcome,
            endpoint=self.endpoint,
            key=self.key.hex(),
            model=self.model,
            provider=self.provider,
            seconds=waited,
            waited=waited,
            namespace=self._namespace,
            reason=reason,
            paths=paths or {},
        )

    def _tell(self, event: CallEvent) -> None:
        for frame in self._frames:
            if not frame.dead:
                frame.value.calls.append(event)
        if self._settings.observer is not None:
            self._settings.observer(event)


Paths = Callable[[], dict[str, int]]
"""Makes digests of the parts of a request, by their paths."""


class WatchSettings(Protocol):
    """What is read of a cache's settings here."""

    @property
    def observer(self) -> Observer | None:
        """The cache's observer."""
        ...

    @property
    def namespace(self) -> Namespace:
        """The cache's own namespace."""
        ...

    @property
    def event_paths(self) -> bool:
        """Whether events of misses have the paths of their requests."""
        ...


def watch(
    settings: WatchSettings,
    endpoint: str,
    model: object = "",
    key: bytes = b"",
    paths: Paths | None = None,
    *,
    provider: str = "",
) -> CallWatch | None:
    """Return who is to be told of a call that begins now, None if nobody is."""
    if not is_watched(settings.observer):
        return None
    return CallWatch(settings, endpoint, model, key, paths, provider=provider)


def tell_store_error(settings: WatchSettings, store: str, name: str) -> None:
    """Tell the observer of a cache that its store has failed."""
    if settings.observer is not None:
        event = CallEvent(
            outcome="store_error", endpoint=store, namespace=settings.namespace, reason=name
        )
        settings.observer(event)
