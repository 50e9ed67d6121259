"""Making a value once, however many ask: the work of `get_or_create` and `memoize`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from copy import deepcopy
from functools import partial
from typing import Any, Final, TypeAlias

from msgspec import Struct

from asynccache.cache import events
from asynccache.cache.lifecycle import Bypass, Cached, Lifecycle, Scope, behind, resolve
from asynccache.core.calls import Answer, CallRequest, Fetched
from asynccache.core.flight import Caller, Fate, Flight, NotSharedError
from asynccache.core.modes import Mode
from asynccache.entries.entry import Entry, Meta
from asynccache.entries.values import CONTENT_TYPE, check_type, decode_value, encode_exactly
from asynccache.errors import NotCanonicalError, described
from asynccache.keys.key import value_key
from asynccache.runtime.background import CallerGoneError

_ANYBODY: Final = Caller()
_WRONG: Final = "create must be a coroutine function (for a SyncCache, a plain one)"
_INEXACT: Final = "delivered but not stored, further ones are only counted: %s"
VALUE_META: Final = Meta("value", content_type=CONTENT_TYPE)

_Result: TypeAlias = tuple[Any, Fetched | str | None]


class _Making(Struct, eq=False):
    """A value that is being made. Whatever makes it sees this in its context."""

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
    """Return the value stored under a key, or make it. Keys of two purposes never meet.

    Args:
        cache: The cache.
        purpose: What the key is of, and the endpoint that watchers see.
        key: Anything. Without a canonical form, the call goes past the cache.
        create: Makes the value.
        name: What makes the value, for the log; None for the name of ``create``.
        ttl: Seconds until the value expires; None for the scope's own.
        type: What to build the value as.
    """
    watch = events.watch(behind(cache).settings, purpose)
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
) -> _Result:
    """Do as `compute` does, but tell no watcher. Return the value and where it came from.

    For a call that went past the cache, that is the reason.
    """
    scope = resolve(cache)
    if isinstance(scope, Bypass):
        return await _past(scope, create)
    engine, mode = scope.engine, scope.mode
    if engine.pacer.spent():
        await engine.pacer.slot()
    try:
        digest = value_key(scope.namespace, purpose, key)
        if sample := scope.sample(digest):
            digest = value_key(scope.namespace, purpose, key, sample)
    except NotCanonicalError as exc:
        return await _past(Bypass(scope.cache, mode, f"{name or name_of(create)}: {exc}"), create)
    entry = engine.peek(mode, scope.namespace, digest)
    mistyped: Exception | None = None
    if isinstance(entry, Entry):
        try:
            value = decode_value(entry.body, type)
        except Exception as exc:  # noqa: BLE001 - of a class that is built, which may raise anything
            mistyped = exc
        else:
            engine.count_hit(entry)
            return value, Fetched(entry, "hit")
    check_type(type)
    work = _Work(scope, digest, create, name or name_of(create), ttl, type)
    return await (work.fetched(mode) if mistyped is None else work.anew(mode, mistyped))


class _Work(Struct, frozen=True, eq=False):
    """The value that one caller asks for."""

    scope: Scope
    key: bytes
    create: Callable[[], Awaitable[Any]]
    name: str
    ttl: float | None
    type: Any

    async def fetched(self, mode: Mode) -> _Result:
        """Return the value and where it came from."""
        if mode != "replay" and self._is_beneath_itself(mode):
            return await self._past(mode, " asks for the value that it is making")
        try:
            fetched = await self.scope.engine.fetch(
                mode, self.key, _ANYBODY, lambda: self._request(mode)
            )
        except NotSharedError:
            return await self._past(mode, ": its value can't be copied for all who wait")
        if fetched.original is not None:
            return fetched.original[0], fetched
        try:
            return decode_value(fetched.entry.body, self.type), fetched
        except Exception as exc:  # noqa: BLE001 - as above
            return await self.anew(mode, exc)

    async def anew(self, mode: Mode, mistyped: Exception) -> _Result:
        """Make the value again, because the stored one is of another type."""
        self.scope.engine.counters.flaws["mistyped"] += 1
        if mode == "replay":
            raise mistyped
        if mode == "read_write":
            return await self.fetched("refresh")
        return await self._past(mode, ": what is found for it is of another type")

    async def _past(self, mode: Mode, reason: str) -> _Result:
        return await _past(Bypass(self.scope.cache, mode, self.name + reason), self.create)

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
        return CallRequest(
            namespace=self.scope.namespace,
            key=self.key,
            mode=mode,
            upstream=partial(self._made, mode),
            scope=lambda error: "own" if isinstance(error, CallerGoneError) else "all",
            ttl=self.scope.ttl if self.ttl is None else self.ttl,
            store_if=self.scope.store_if,
        )

    async def _made(self, mode: Mode, flight: Flight) -> Answer:
        cache = self.scope.cache
        making = _Making(cache, self.key, mode == "refresh")
        # In the flight's own context, and in that of whatever is started from here.
        _under_way.set((*(one for one in _under_way.get() if not one.over), making))
        try:
            value = await _created(self.create)
        finally:
            making.over = True
        try:
            flight.add(encode_exactly(value, self.type))
        except TypeError as exc:
            cache.tell_once(_INEXACT, f"{self.name}: {exc}")
            flight.originals = [value]
            try:  # before a caller has it, and may change it
                flight.originals += [deepcopy(value) for _ in range(flight.caller_count - 1)]
            except Exception:  # noqa: BLE001 - it can't be copied, so that only one caller has it
                flight.worsen(Fate.PRIVATE)
        return Answer(meta=VALUE_META, chunks=tuple(flight.chunks))


async def _past(bypass: Bypass, create: Callable[[], Awaitable[Any]]) -> _Result:
    bypass.note()
    return await _created(create), bypass.reason


async def _created(create: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - any value
    making = create()
    if not inspect.isawaitable(making):
        raise TypeError(f"{_WRONG}; {name_of(create)} returned {described(making)}")
    return await making


def plainly(create: Callable[[], Any]) -> Any:  # noqa: ANN401 - any value
    """Call a plain function.

    Raises:
        TypeError: It returns a coroutine, which nobody would await.
    """
    made = create()
    if inspect.iscoroutine(made):
        made.close()
        raise not_plain(create)
    return made


def not_plain(create: object) -> TypeError:
    """Return the error for what isn't a plain function."""
    if callable(create):
        return TypeError("create must be a plain function: give coroutine functions to AsyncCache")
    return TypeError(f"create must be a plain function, uncalled, not {described(create)}")


def not_awaited(create: object) -> TypeError:
    """Return the error for what can't be called, and close it if it is a coroutine."""
    if inspect.iscoroutine(create):
        create.close()
    return TypeError(f"{_WRONG}, uncalled, not {described(create)}")


def name_of(function: object) -> str:
    """Return the name of a function, for messages."""
    named: str = getattr(function, "__qualname__", None) or type(function).__qualname__
    return named
