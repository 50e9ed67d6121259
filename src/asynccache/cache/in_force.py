"""Which cache and which options are in force around a caller."""

from __future__ import annotations

import functools
import inspect
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

from msgspec import UNSET, Struct, UnsetType

from asynccache.core.calls import StoreIf
from asynccache.core.modes import Mode
from asynccache.keys.key import Namespace

P = ParamSpec("P")
T = TypeVar("T")
ValueT = TypeVar("ValueT")


class ScopeFrame(Generic[ValueT]):
    """One block's value, and the frame it was entered in."""

    __slots__ = ("below", "dead", "value")

    def __init__(self, value: ValueT, below: ScopeFrame[ValueT] | None) -> None:
        self.value = value
        self.below = below
        self.dead = False


class ScopeStack(Generic[ValueT]):
    """The values of the blocks around a caller, innermost first.

    A block is ended by marking its frame dead: readers skip the dead, so that it ends for the tasks
    started inside it, too, and may be ended in any task. A block that is only left ends for whoever
    leaves it.
    """

    __slots__ = ("_variable",)

    def __init__(self, name: str) -> None:
        self._variable: ContextVar[ScopeFrame[ValueT] | None] = ContextVar(name, default=None)

    def top(self) -> ScopeFrame[ValueT] | None:
        """Return the innermost frame that is alive."""
        frame = self._variable.get()
        while frame is not None and frame.dead:
            frame = frame.below
        return frame

    def is_empty(self) -> bool:
        """Tell, at the least cost, whether no block was ever entered around the caller."""
        return self._variable.get() is None

    def alive(self) -> Iterator[ScopeFrame[ValueT]]:
        """Return all frames around the caller that are alive, innermost first."""
        frame = self.top()
        while frame is not None:
            if not frame.dead:
                yield frame
            frame = frame.below

    def push(self, value: ValueT) -> ScopeFrame[ValueT]:
        """Enter a block; end it with ``frame.dead = True``."""
        frame = ScopeFrame(value, self.top())
        self._variable.set(frame)
        return frame

    @contextmanager
    def block(self, value: ValueT) -> Generator[None]:
        """Enter a block that the tasks started inside it stay in when it is left.

        Where blocks are left in another order, or in another context, it ends for all.
        """
        frame = ScopeFrame(value, self.top())
        token = self._variable.set(frame)
        try:
            yield
        finally:
            frame.dead = self._variable.get() is not frame
            try:
                if not frame.dead:
                    self._variable.reset(token)
            except ValueError:  # this is another context, a copy maybe: a task's that ends others'
                frame.dead = True


class Samples:
    """Numbers the identical requests of one block: 0, 1, 2 and on."""

    __slots__ = ("_kept", "_lock", "_returned", "_seen")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: Counter[bytes] = Counter()
        self._returned: dict[bytes, list[int]] = {}
        self._kept: dict[tuple[bytes, int], list[tuple[int, object]]] = {}

    def next(self, key: bytes) -> int:
        """Return how often this key was asked for before in the block."""
        with self._lock:
            if returned := self._returned.get(key):
                number = min(returned)
                returned.remove(number)
                return number
            number = self._seen[key]
            self._seen[key] = number + 1
        return number

    def give_back(self, key: bytes, number: int) -> None:
        """Let the next request have a number that came to nothing, as its caller tries again."""
        with self._lock:
            self._returned.setdefault(key, []).append(number)

    def keep(self, key: bytes, number: int, asker: object) -> None:
        """Keep a number for the same object to come back with: see `kept`."""
        with self._lock:
            self._kept.setdefault((key, id(asker)), []).append((number, asker))

    def kept(self, key: bytes, asker: object) -> int | None:
        """Return the number that was kept longest for an object, once; None for none."""
        with self._lock:
            waiting = self._kept.get((key, id(asker)))
            if waiting is None:
                return None
            number, _ = waiting.pop(0)
            if not waiting:
                del self._kept[key, id(asker)]
        return number


class Options(Struct, frozen=True, kw_only=True):
    """What a block of code asks of the caches under it; unset fields leave the cache's own."""

    mode: Mode | UnsetType = UNSET
    ttl: float | UnsetType | None = UNSET
    cache_seed: str | UnsetType = UNSET
    tenant: str | UnsetType | None = UNSET
    sample: int = 0
    samples: Samples | None = None
    """Set for ``sample="each"``."""
    store_if: StoreIf | UnsetType = UNSET
    cache: Any = UNSET
    """An `AsyncCache`, None for no cache, or unset."""

    def namespace(self, own: Namespace) -> Namespace:
        """Return the namespace in force, given the cache's own."""
        if self.cache_seed is UNSET and self.tenant is UNSET:
            return own
        return Namespace(
            own.seed if self.cache_seed is UNSET else self.cache_seed,
            own.tenant if self.tenant is UNSET else self.tenant,
        )


NO_OPTIONS: Final = Options()
_ambient: Final[ScopeStack[Any]] = ScopeStack("asynccache_ambient")
_options: Final[ScopeStack[Options]] = ScopeStack("asynccache_options")
recorders: Final[ScopeStack[Any]] = ScopeStack("asynccache_recorders")
"""The blocks of `asynccache.record`."""
_default: Any = None


def current_options() -> Options:
    """Return the options in force around the caller."""
    frame = _options.top()
    return NO_OPTIONS if frame is None else frame.value


@contextmanager
def under(value: Options) -> Generator[None]:
    """Put options in force that were so elsewhere, and no others."""
    with _options.block(value):
        yield


def enter(cache: object) -> ScopeFrame[Any]:
    """Make a cache the ambient one until the returned frame is marked dead."""
    return _ambient.push(cache)


def leave(cache: object, frames: list[ScopeFrame[Any]]) -> None:
    """End a cache's innermost frame around the caller, or its last one if it has none here.

    Several tasks may be inside blocks of one cache, and one may leave what another has entered.
    """
    frame = _ambient.top()
    while frame is not None and (frame.dead or frame.value is not cache):
        frame = frame.below
    if frame is None or frame not in frames:
        frame = frames[-1]
    frames.remove(frame)
    frame.dead = True


def is_watched(observer: object) -> bool:
    """Tell, at the least cost, whether anybody is to be told of the caller's calls."""
    return observer is not None or not (recorders.is_empty() or recorders.top() is None)


def set_default(cache: Any) -> None:  # noqa: ANN401 - an AsyncCache or None
    """Name the cache of code that runs in no block of any."""
    global _default  # noqa: PLW0603 - process-wide is what it is for
    _default = cache


def cache_in_force() -> Any:  # noqa: ANN401 - an AsyncCache or None
    """Return the cache in force around the caller: option, ambient, default, or None."""
    cache = current_options().cache
    if cache is not UNSET:
        return cache
    frame = _ambient.top()
    return _default if frame is None else frame.value


def bind(cache: object, function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that runs with a cache in force; see `AsyncCache.bind`."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def bound_async(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401 - T's own
            frame = enter(cache)
            try:
                return await function(*args, **kwargs)
            finally:
                frame.dead = True

        return cast("Callable[P, T]", bound_async)

    @functools.wraps(function)
    def bound(*args: P.args, **kwargs: P.kwargs) -> T:
        def inside() -> T:
            enter(cache)
            return function(*args, **kwargs)

        return copy_context().run(inside)

    return bound
