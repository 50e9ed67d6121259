"""Making a value once, however many ask: the work of `get_or_create` and `memoize`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET, Struct, ValidationError

from asynccache.cache import events, in_force
from asynccache.core.calls import Answer, CallRequest, Fetched, Mode
from asynccache.core.engine import Engine
from asynccache.core.flight import Caller, Flight, NotSharedError, Scope
from asynccache.entries.entry import Meta
from asynccache.entries.values import CONTENT_TYPE, check_type, decode_value, encode_exactly
from asynccache.errors import NotCanonicalError, ReplayMiss
from asynccache.keys.key import Namespace, value_key
from asynccache.runtime.background import CallerGoneError

if TYPE_CHECKING:
    from asynccache.cache.cache import AsyncCache

_ANYBODY: Final = Caller()
_MISTYPED: Final = (ValidationError, TypeError, NotImplementedError)
_WRONG: Final = "create must be a coroutine function (for a SyncCache, a plain one)"
_INEXACT: Final = "delivered but not stored, further ones are only counted: %s"
VALUE_META: Final = Meta("value", content_type=CONTENT_TYPE)


class _Making:
    """A value that is being made, as known to whatever makes it."""

    __slots__ = ("cache", "key", "over", "refreshing")

    def __init__(self, cache: AsyncCache, key: bytes, *, refreshing: bool) -> None:
        self.cache: Final = cache
        self.key: Final = key
        self.refreshing: Final = refreshing
        self.over = False


_under_way: Final[ContextVar[tuple[_Making, ...]]] = ContextVar("asynccache_making", default=())


async def compute(
    cache: AsyncCache,
    purpose: str,
    key: object,
    create: Callable[[], Awaitable[Any]],
    *,
    name: str | None = None,
    ttl: float | None,
    type: Any,  # noqa: ANN401 - any type form
) -> Any:  # noqa: ANN401 - of that type
    """Return the value stored under a key, or make it; keys of two purposes never meet.

    ``name`` is that of what makes the value, for the log; None is that of ``create``.
    """
    watch = events.watch(cache.settings.observer, purpose)
    try:
        value, told = await computed(cache, purpose, key, create, name=name, ttl=ttl, type=type)
    except BaseException as exc:
        if watch is not None:
            watch.failed(exc)
        raise
    if watch is not None:
        if isinstance(told, Fetched):
            watch.served(told.outcome, told.entry, cache.now())
        else:
            watch.passed(told)
    return value


async def computed(
    cache: AsyncCache,
    purpose: str,
    key: object,
    create: Callable[[], Awaitable[Any]],
    *,
    name: str | None = None,
    ttl: float | None,
    type: Any,  # noqa: ANN401 - any type form
) -> tuple[Any, Fetched | str | None]:
    """Do as `compute` does, telling nobody; return also where the value came from.

    That is why it went past the cache, if it did.
    """
    options = in_force.current_options()
    mode = cache.settings.mode if options.mode is UNSET else options.mode
    if mode == "off" or (not cache.is_open and mode != "replay"):
        reason = "the cache isn't open" if mode != "off" else None
        cache.note_bypass(reason)
        return await _made(create), reason
    engine = cache.engine()
    if engine.pacer.spent():
        await engine.pacer.slot()
    namespace = options.namespace(cache.settings.namespace)
    try:
        digest = _key(options, namespace, purpose, key)
    except NotCanonicalError as exc:
        if mode == "replay":
            raise ReplayMiss(f"this call can't be cached: {exc}") from exc
        reason = f"{name or name_of(create)}: {exc}"
        cache.note_bypass(reason)
        return await _made(create), reason
    entry = engine.inline(mode, namespace, digest)
    mistyped: Exception | None = None
    if entry is not None:
        try:
            value = decode_value(entry.body, type)
        except _MISTYPED as exc:
            mistyped = exc
        else:
            engine.count_hit(entry)
            return value, Fetched(entry, "hit")
    check_type(type)
    name = name or name_of(create)
    work = _Work(cache, namespace, digest, create, name, ttl, type)
    if mistyped is not None:
        return await _anew(engine, work, mode, mistyped)
    return await _fetched(engine, work, mode)


class _Work(Struct, frozen=True):
    """What is to be made, for one caller."""

    cache: AsyncCache
    namespace: Namespace
    key: bytes
    create: Callable[[], Awaitable[Any]]
    name: str
    ttl: float | None
    type: Any

    def is_beneath_itself(self, mode: Mode) -> bool:
        """Tell whether the caller is part of what it would wait for."""
        return any(
            making.key == self.key
            and making.cache is self.cache
            and not making.over
            and (making.refreshing or mode != "refresh")
            for making in _under_way.get()
        )

    def call(self, mode: Mode) -> CallRequest:
        """Return the wish for it."""
        shared = True

        async def upstream(flight: Flight) -> Answer:
            nonlocal shared
            making = _Making(self.cache, self.key, refreshing=mode == "refresh")
            # In the flight's own context, and in that of whatever is started from here.
            _under_way.set((*(one for one in _under_way.get() if not one.over), making))
            try:
                value = await _made(self.create)
            finally:
                making.over = True
            try:
                flight.add(encode_exactly(value, self.type))
            except TypeError as exc:
                self.cache.tell_once(_INEXACT, f"{self.name}: {exc}")
                flight.originals = [value]
                try:
                    # Before anybody has it, and may change it.
                    flight.originals += [deepcopy(value) for _ in range(flight.caller_count - 1)]
                except Exception:  # noqa: BLE001 - what it holds can't be copied: one has it then
                    shared = False
            return Answer(meta=VALUE_META, chunks=tuple(flight.chunks))

        return CallRequest(
            namespace=self.namespace,
            key=self.key,
            mode=mode,
            upstream=upstream,
            scope=_scope,
            ttl=self.cache.ttl_in_force(self.ttl),
            store_if=self.cache.rule_in_force(),
            unchanged=lambda: shared,
        )


async def _fetched(engine: Engine, work: _Work, mode: Mode) -> tuple[Any, Fetched | str | None]:
    if mode != "replay" and work.is_beneath_itself(mode):
        return await _past(work, f"{work.name} asks for the value that it is making")
    try:
        flight = engine.join(mode, work.key)
        fetched = None if flight is None else await engine.ride(flight, _ANYBODY)
        if fetched is None:
            fetched = await engine.fetch(work.call(mode))
    except NotSharedError:
        return await _past(work, f"{work.name}: its value can't be copied for all who wait")
    if fetched.original is not UNSET:
        return fetched.original, fetched
    try:
        return decode_value(fetched.entry.body, work.type), fetched
    except _MISTYPED as exc:
        return await _anew(engine, work, mode, exc)


async def _anew(
    engine: Engine, work: _Work, mode: Mode, mistyped: Exception
) -> tuple[Any, Fetched | str | None]:
    """Make a value where the one that was found is another type's."""
    engine.counters.flaws["mistyped"] += 1
    if mode == "replay":
        raise mistyped
    if mode == "read_write":
        return await _fetched(engine, work, "refresh")
    return await _past(work, f"{work.name}: what is found for it is of another type")


async def _past(work: _Work, reason: str | None) -> tuple[Any, str | None]:
    work.cache.note_bypass(reason)
    return await _made(work.create), reason


async def _made(create: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - any value
    making = create()
    if not inspect.isawaitable(making):
        raise TypeError(f"{_WRONG}; {name_of(create)} returned a {type(making).__qualname__}")
    return await making


def plainly(create: Callable[[], Any]) -> Any:  # noqa: ANN401 - any value
    """CallRequest a plain function.

    Raises:
        TypeError: What it returns is to be awaited, and never will be.
    """
    made = create()
    if inspect.iscoroutine(made):
        made.close()
        raise not_plain(create)
    return made


def not_plain(create: object) -> TypeError:
    """Return what says that something is no plain function."""
    if callable(create):
        return TypeError("create must be a plain function: give coroutine functions to AsyncCache")
    return TypeError(f"create must be a plain function, uncalled, not a {name_of(type(create))}")


def not_awaited(create: object) -> TypeError:
    """Return what says that something is no coroutine function; a coroutine is closed."""
    if inspect.iscoroutine(create):
        create.close()
    return TypeError(f"{_WRONG}, uncalled, not a {name_of(type(create))}")


def name_of(function: object) -> str:
    """Return the name of a function, for messages."""
    named: str = getattr(function, "__qualname__", None) or type(function).__qualname__
    return named


def _key(options: in_force.Options, namespace: Namespace, purpose: str, key: object) -> bytes:
    digest = value_key(namespace, purpose, key)
    sample = options.sample if options.samples is None else options.samples.next(digest)
    return value_key(namespace, purpose, key, sample) if sample else digest


def _scope(error: BaseException) -> Scope:
    """Share a function's error with all, but not that its thread was interrupted."""
    return "own" if isinstance(error, CallerGoneError) else "all"
