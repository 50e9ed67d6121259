"""Which cache and which options are in force around a caller."""

from __future__ import annotations

import functools
import inspect
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, ParamSpec, TypeVar, cast

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from asynccache.core.calls import MODES, Mode, StoreIf
from asynccache.keys.key import Namespace

if TYPE_CHECKING:
    from asynccache.cache.cache import AsyncCache
    from asynccache.cache.sync import SyncCache

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

    __slots__ = ("_kept", "_lock", "_seen")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: Counter[bytes] = Counter()
        self._kept: dict[tuple[bytes, int], list[tuple[int, object]]] = {}

    def next(self, key: bytes) -> int:
        """Return how often this key was asked for before in the block."""
        with self._lock:
            number = self._seen[key]
            self._seen[key] = number + 1
        return number

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
    cache_seed: int | str | UnsetType = UNSET
    sample: int = 0
    samples: Samples | None = None
    """Set for ``sample="each"``."""
    store_if: StoreIf | UnsetType = UNSET
    cache: Any = UNSET
    """An `AsyncCache`, None for no cache, or unset."""

    def namespace(self, own: Namespace) -> Namespace:
        """Return the namespace in force, given the cache's own."""
        if self.cache_seed is UNSET:
            return own
        return Namespace.of(self.cache_seed, own.tenant)


NO_OPTIONS: Final = Options()
_ambient: Final[ScopeStack[AsyncCache]] = ScopeStack("asynccache_ambient")
_options: Final[ScopeStack[Options]] = ScopeStack("asynccache_options")
_default: AsyncCache | None = None


def seconds_of(ttl: float | timedelta | None) -> float | None:
    """Return a ttl in seconds.

    Raises:
        TypeError: It is neither a number nor a timedelta nor None.
        ValueError: It isn't above zero.
    """
    if ttl is None:
        return None
    if isinstance(ttl, timedelta):
        ttl = ttl.total_seconds()
    if isinstance(ttl, bool) or not isinstance(ttl, int | float):
        raise TypeError(f"ttl must be seconds, a timedelta or None, not {type(ttl).__name__}")
    if not 0 < ttl < float("inf"):
        raise ValueError(f"ttl must be above zero and finite, not {ttl}; None keeps for ever")
    return float(ttl)


def mode_of(mode: str) -> Mode:
    """Return a mode that was checked.

    Raises:
        ValueError: There is no such mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    return mode


def rule_of(store_if: StoreIf) -> StoreIf:
    """Return a rule for storing that was checked.

    Raises:
        TypeError: It isn't a plain function.
    """
    if inspect.iscoroutinefunction(store_if) or not callable(store_if):
        raise TypeError("store_if must be a plain function of an Answer")
    return store_if


@contextmanager
def options(
    *,
    mode: Mode | UnsetType = UNSET,
    ttl: float | timedelta | UnsetType | None = UNSET,
    cache_seed: int | str | UnsetType = UNSET,
    sample: int | Literal["each"] | UnsetType = UNSET,
    store_if: StoreIf | UnsetType = UNSET,
    cache: AsyncCache | SyncCache | UnsetType | None = UNSET,
) -> Generator[None]:
    """Set options for every cached call in a block, and in tasks started inside it to their end.

    Args:
        mode: As the cache's ``mode``.
        ttl: Seconds or timedelta until answers stored in the block expire; None is never.
        cache_seed: Use this namespace of the same store.
        sample: Ask for the n-th independent answer to the same request (0, the default, is the
            first); ``"each"`` gives the k-th identical request of the block sample k.
        store_if: Whether to store an `Answer`: a plain function of it. Callers who join a call
            that is under way leave that to whoever started it.
        cache: Use this cache instead of the one in force, also in wrapped clients; None uses none.

    Raises:
        ValueError: An option has no such value.
        TypeError: An option has the wrong type.

    What isn't named stays as the surrounding block has it.
    """
    found = _options.top()
    changed = found.value if found is not None else NO_OPTIONS
    if mode is not UNSET:
        changed = replace(changed, mode=mode_of(mode))
    if ttl is not UNSET:
        changed = replace(changed, ttl=seconds_of(ttl))
    if cache_seed is not UNSET:
        Namespace.of(cache_seed)
        changed = replace(changed, cache_seed=cache_seed)
    if sample == "each":
        changed = replace(changed, sample=0, samples=Samples())
    elif sample is not UNSET:
        if type(sample) is not int or sample < 0:
            raise ValueError(f'sample must be a number from 0 on, or "each", not {sample!r}')
        changed = replace(changed, sample=sample, samples=None)
    if store_if is not UNSET:
        changed = replace(changed, store_if=rule_of(store_if))
    if cache is not UNSET:
        changed = replace(changed, cache=asynchronous(cache))
    with under(changed):
        yield


def current_options() -> Options:
    """Return the options in force around the caller."""
    frame = _options.top()
    return NO_OPTIONS if frame is None else frame.value


@contextmanager
def under(value: Options) -> Generator[None]:
    """Put options in force that were so elsewhere, and no others."""
    with _options.block(value):
        yield


def enter(cache: AsyncCache) -> ScopeFrame[AsyncCache]:
    """Make a cache the ambient one until the returned frame is marked dead."""
    return _ambient.push(cache)


def leave(cache: AsyncCache, frames: list[ScopeFrame[AsyncCache]]) -> None:
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


def asynchronous(cache: object) -> AsyncCache | None:
    """Return the cache that is behind either of its faces, None for None.

    Raises:
        TypeError: It is no cache.
    """
    from asynccache.cache.cache import AsyncCache

    found: object = getattr(cache, "asynchronous", cache)
    if found is None or isinstance(found, AsyncCache):
        return found
    raise TypeError(
        "cache must be an AsyncCache, a SyncCache or None, not"
        f" {cache.__name__ if isinstance(cache, type) else type(cache).__qualname__}:"
        " pass what Cache.disk() or Cache.from_url(...) returns"
    )


def set_default_cache(cache: AsyncCache | SyncCache | None) -> None:
    """Name the cache for code that runs in no block of any: web handlers, workers, threads.

    Args:
        cache: The process-wide default; None for none. It has to be opened by somebody.

    Raises:
        TypeError: It is no cache.
    """
    global _default  # noqa: PLW0603 - process-wide is what it is for
    _default = asynchronous(cache)


def current_cache() -> AsyncCache | None:
    """Return the cache in force around the caller: option, ambient, default, or None."""
    cache = current_options().cache
    if cache is not UNSET:
        return cast("AsyncCache | None", cache)
    frame = _ambient.top()
    return _default if frame is None else frame.value


def bind(cache: AsyncCache, function: Callable[P, T]) -> Callable[P, T]:
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
