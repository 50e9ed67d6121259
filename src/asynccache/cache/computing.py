"""Making a value once, however many ask: the work of `get_or_create` and `memoize`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from copy import deepcopy
from typing import Any, Final

from msgspec import UNSET, Struct, ValidationError

from asynccache.cache import events
from asynccache.cache.lifecycle import Bypass, Cached, Lifecycle, Scope, behind, resolve
from asynccache.core.calls import Answer, CallRequest, Fetched
from asynccache.core.flight import Caller, ErrorScope, Fate, Flight, NotSharedError
from asynccache.core.modes import Mode
from asynccache.entries.entry import Entry, Meta
from asynccache.entries.values import CONTENT_TYPE, check_type, decode_value, encode_exactly
from asynccache.errors import NotCanonicalError, ReplayMiss
from asynccache.keys.key import value_key
from asynccache.runtime.background import CallerGoneError

_ANYBODY: Final = Caller()
_MISTYPED: Final = (ValidationError, TypeError, NotImplementedError)
_WRONG: Final = "create must be a coroutine function (for a SyncCache, a plain one)"
_INEXACT: Final = "delivered but not stored, further ones are only counted: %s"
VALUE_META: Final = Meta("value", content_type=CONTENT_TYPE)


class _Making(Struct, eq=False):
    """A value that is being made, as known to whatever makes it."""

    cache: Lifecycle
    key: bytes
    refreshing: bool
    over: bool = False


_under_way: Final[ContextVar[tuple[_Making, ...]]] = ContextVar("asynccache_making", default=())


async def compute(
    cache: Cached,
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
    watch = events.watch(behind(cache).settings.observer, purpose)
    try:
        value, told = await computed(cache, purpose, key, create, name=name, ttl=ttl, type=type)
    except BaseException as exc:
        if watch is not None:
            watch.failed(exc)
        raise
    if watch is not None:
        if isinstance(told, Fetched):
            watch.served(told.outcome, told.entry, behind(cache).now())
        else:
            watch.passed(told)
    return value


async def computed(
    cache: Cached,
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
    scope = resolve(cache)
    if isinstance(scope, Bypass):
        return await _past(scope, create)
    engine = scope.engine
    if engine.pacer.spent():
        await engine.pacer.slot()
    try:
        digest = value_key(scope.namespace, purpose, key)
        if sample := scope.sample(digest):
            digest = value_key(scope.namespace, purpose, key, sample)
    except NotCanonicalError as exc:
        if scope.mode == "replay":
            raise ReplayMiss(f"this call can't be cached: {exc}") from exc
        reason = f"{name or name_of(create)}: {exc}"
        return await _past(Bypass(scope.cache, scope.mode, reason), create)
    entry = engine.peek(scope.mode, scope.namespace, digest)
    mistyped: Exception | None = None
    if isinstance(entry, Entry):
        try:
            value = decode_value(entry.body, type)
        except _MISTYPED as exc:
            mistyped = exc
        else:
            engine.count_hit(entry)
            return value, Fetched(entry, "hit")
    check_type(type)
    work = _Work(scope, digest, create, name or name_of(create), ttl, type)
    return await (work.fetched() if mistyped is None else work.anew(mistyped))


class _Work(Struct, frozen=True, eq=False):
    """What is to be made, for one caller."""

    scope: Scope
    key: bytes
    create: Callable[[], Awaitable[Any]]
    name: str
    ttl: float | None
    type: Any

    async def fetched(self, mode: Mode | None = None) -> tuple[Any, Fetched | str | None]:
        """Return the value and where it came from, in the scope's mode or another."""
        mode = mode or self.scope.mode
        if mode != "replay" and self._is_beneath_itself(mode):
            return await self._past(f"{self.name} asks for the value that it is making")
        try:
            fetched = await self.scope.engine.fetch(
                mode, self.key, _ANYBODY, lambda: self._request(mode)
            )
        except NotSharedError:
            return await self._past(f"{self.name}: its value can't be copied for all who wait")
        if fetched.original is not UNSET:
            return fetched.original, fetched
        try:
            return decode_value(fetched.entry.body, self.type), fetched
        except _MISTYPED as exc:
            return await self.anew(exc, mode)

    async def anew(
        self, mistyped: Exception, mode: Mode | None = None
    ) -> tuple[Any, Fetched | str | None]:
        """Make a value where the one that was found is another type's."""
        mode = mode or self.scope.mode
        self.scope.engine.counters.flaws["mistyped"] += 1
        if mode == "replay":
            raise mistyped
        if mode == "read_write":
            return await self.fetched("refresh")
        return await self._past(f"{self.name}: what is found for it is of another type")

    async def _past(self, reason: str) -> tuple[Any, str | None]:
        return await _past(Bypass(self.scope.cache, self.scope.mode, reason), self.create)

    def _is_beneath_itself(self, mode: Mode) -> bool:
        """Tell whether the caller is part of what it would wait for."""
        return any(
            making.key == self.key
            and making.cache is self.scope.cache
            and not making.over
            and (making.refreshing or mode != "refresh")
            for making in _under_way.get()
        )

    def _request(self, mode: Mode) -> CallRequest:
        scope = self.scope

        async def upstream(flight: Flight) -> Answer:
            making = _Making(scope.cache, self.key, mode == "refresh")
            # In the flight's own context, and in that of whatever is started from here.
            _under_way.set((*(one for one in _under_way.get() if not one.over), making))
            try:
                value = await _made(self.create)
            finally:
                making.over = True
            try:
                flight.add(encode_exactly(value, self.type))
            except TypeError as exc:
                scope.cache.tell_once(_INEXACT, f"{self.name}: {exc}")
                flight.originals = [value]
                try:
                    # Before anybody has it, and may change it.
                    flight.originals += [deepcopy(value) for _ in range(flight.caller_count - 1)]
                except Exception:  # noqa: BLE001 - what it holds can't be copied: one has it then
                    flight.worsen(Fate.PRIVATE)
            return Answer(meta=VALUE_META, chunks=tuple(flight.chunks))

        return CallRequest(
            namespace=scope.namespace,
            key=self.key,
            mode=mode,
            upstream=upstream,
            scope=_scope_of,
            ttl=scope.ttl if self.ttl is None else self.ttl,
            store_if=scope.store_if,
        )


async def _past(bypass: Bypass, create: Callable[[], Awaitable[Any]]) -> tuple[Any, str | None]:
    bypass.note()
    return await _made(create), bypass.reason


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


def _scope_of(error: BaseException) -> ErrorScope:
    """Share a function's error with all, but not that its thread was interrupted."""
    return "own" if isinstance(error, CallerGoneError) else "all"
