"""Every client at once: the SDK's classes send cacheable calls to the cache in force.

What is patched asks first whether anything is to be done at all. Others may patch the same methods,
before or after: what stands on top of ours stays, with ours let through beneath it.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Awaitable, Callable
from types import MethodType, TracebackType
from typing import Any, Final, Self, cast

from msgspec import UNSET, Struct
from openai import AsyncOpenAI, OpenAI, _base_client
from openai.resources import chat, completions, embeddings, responses

from asynccache import _context
from asynccache._cache import AsyncCache
from asynccache._call import Mode, Status
from asynccache._entry import Entry
from asynccache._stats import Outcome
from asynccache.openai._asked import Asked
from asynccache.openai._door import Door
from asynccache.openai._endpoints import Endpoint
from asynccache.openai._exchange import Exchange
from asynccache.openai._net import Net, Wish, road_of
from asynccache.openai._sending import current_sending
from asynccache.openai._sync import SyncNet
from asynccache.openai._wrap import DOORS, EXCHANGE

_log = logging.getLogger("asynccache")

_FIRST: Final = 100  # calls after which it should show that something is served
_CLASSES: Final = {
    "chat.completions": chat.completions.AsyncCompletions,
    "responses": responses.AsyncResponses,
    "completions": completions.AsyncCompletions,
    "embeddings": embeddings.AsyncEmbeddings,
}


class _State:
    """What holds for the whole process."""

    def __init__(self) -> None:
        self.active = False
        self.cache: AsyncCache | None = None
        self.watch = _Watch()
        self.lock = threading.RLock()
        self.patched: list[_Patch] = []


class _Watch:
    """Says why nothing is served, if that is so: once in the life of a process."""

    def __init__(self) -> None:
        self.over = False
        self._calls = 0
        self._reason = ""
        self._lock = threading.Lock()

    def past(self, reason: str) -> None:
        """Count a call that no cache has served."""
        with self._lock:
            self._calls += 1
            self._reason = reason
            if self.over or self._calls < _FIRST:
                return
            self.over = True
        _log.warning(
            "openai is instrumented, but of its first %d calls no cache served any; the last one:"
            " %s",
            _FIRST,
            reason,
        )

    def served(self) -> None:
        """Note that all is well."""
        self.over = True


class _Patch(Struct, frozen=True):
    """One method of the SDK's that was replaced."""

    owner: type
    name: str
    original: Any
    ours: Any

    def is_there(self) -> bool:
        """Tell whether ours still stands there, maybe beneath what others have put on top."""
        found: Any = getattr(self.owner, self.name)
        while found is not None:
            if found is self.ours:
                return True
            found = getattr(found, "__wrapped__", None)
        return False

    def undo(self) -> bool:
        """Put the SDK's own back, if nothing stands on top; tell whether that was done."""
        if vars(self.owner).get(self.name) is not self.ours:
            return False
        setattr(self.owner, self.name, self.original)
        return True


_state: Final = _State()
_NO_CACHE: Final = (
    "there was no cache around it: open one with `async with` or `with` around the calls, or name"
    " one with set_default_cache or instrument_openai(cache)"
)


class _AmbientExchange(Exchange):
    """The way of a client that nobody wrapped through whatever cache is in force."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.doors: dict[Callable[..., Any], Callable[..., Awaitable[Any]]] = {}
        """By the method they stand in for: what was put beneath ours since then is another."""

    def in_force(self, options: _context.Options) -> AsyncCache | None:
        return _in_force(options)

    async def bypass(
        self,
        cache: AsyncCache,
        mode: Mode,
        reason: str | None,
        endpoint: str,
        call: Callable[[], Awaitable[Any]],
    ) -> Any:
        if not _state.watch.over:
            _state.watch.past(reason or f"{endpoint} in mode {mode}")
        return await super().bypass(cache, mode, reason, endpoint, call)

    def status(
        self, asked: Asked, entry: Entry, how: Outcome, parts: tuple[bytes, ...] = ()
    ) -> Status:
        _state.watch.served()
        return super().status(asked, entry, how, parts)


def _in_force(options: _context.Options) -> AsyncCache | None:
    if options.cache is not UNSET:
        return cast("AsyncCache | None", options.cache)
    return _context.current_cache() or _state.cache


def _to_do() -> bool:
    """Tell whether a call has anything to do with a cache, at the least cost where it hasn't."""
    return (
        _state.active
        and current_sending() is None
        and _in_force(_context.current_options()) is not None
    )


def _exchange_of(client: Any) -> _AmbientExchange:
    kept: dict[str, Any] = client.__dict__
    found: Any = kept.get(EXCHANGE)
    if isinstance(found, _AmbientExchange) and found.client is client:  # another's in copies
        return found
    made = kept[EXCHANGE] = _AmbientExchange(client)
    return made


# -- what stands in the place of the SDK's methods -----------------------------------------------


def _patched_door(
    endpoint: Endpoint, name: str, door: type[Door], original: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _to_do():
            return await original(self, *args, **kwargs)
        exchange = _exchange_of(self._client)
        made = exchange.doors.get(original)
        if made is None:
            bound = MethodType(original, self)
            made = door(exchange, endpoint, name, bound, latest=False).method()
            exchange.doors[original] = made
        return await made(*args, **kwargs)

    return method


def _patched_request(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def request(
        self: Any, cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
    ) -> Any:
        if isinstance(self, AsyncOpenAI) and not _passes(options):
            exchange, wish = _exchange_of(self), Wish(cast_to, options, stream, stream_cls)
            road = road_of(exchange, wish)
            if road is not None:
                return await Net(exchange, MethodType(original, self)).send(wish, road)
        return await original(self, cast_to, options, stream=stream, stream_cls=stream_cls)

    return request


def _patched_sync_request(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def request(
        self: Any, cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
    ) -> Any:
        if isinstance(self, OpenAI) and not _passes(options):
            exchange, wish = _exchange_of(self), Wish(cast_to, options, stream, stream_cls)
            road = road_of(exchange, wish)
            if road is not None:
                return SyncNet(exchange, MethodType(original, self)).send(wish, road)
        return original(self, cast_to, options, stream=stream, stream_cls=stream_cls)

    return request


def _passes(options: Any) -> bool:
    """Tell whether a request is none of ours; one that is being sent for an entry is looked at."""
    sending = current_sending()
    if sending is not None:
        sending.note(options)
        return True
    if _to_do():
        return False
    if _state.active and not _state.watch.over:
        _state.watch.past(_NO_CACHE)
    return True


def _put(owner: type, name: str, made: Callable[[Any], Any]) -> None:
    original = vars(owner).get(name)
    if original is not None:  # older SDKs lack some
        ours = made(original)
        setattr(owner, name, ours)
        _state.patched.append(_Patch(owner, name, original, ours))


def _patch_all() -> None:
    _state.patched[:] = [patch for patch in _state.patched if patch.is_there()]
    there = {(patch.owner, patch.name) for patch in _state.patched}
    places: list[tuple[type, str, Callable[[Any], Any]]] = [
        (
            _CLASSES[endpoint.resource],
            name,
            functools.partial(_patched_door, endpoint, name, door),
        )
        for endpoint, name, door in DOORS
    ]
    places.append((_base_client.AsyncAPIClient, "request", _patched_request))
    places.append((_base_client.SyncAPIClient, "request", _patched_sync_request))
    for owner, name, made in places:
        if (owner, name) not in there:
            _put(owner, name, made)


# -- switching on and off ------------------------------------------------------------------------


class Instrumentation:
    """The SDK as it is instrumented; as a context manager, until the block is left."""

    def __init__(self, before: tuple[bool, AsyncCache | None]) -> None:
        self._before = before

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        active, cache = self._before
        with _state.lock:
            _state.cache = cache
            if not active:
                uninstrument()


def instrument(cache: AsyncCache | None) -> Instrumentation:
    """Do what `asynccache.instrument_openai` says."""
    with _state.lock:
        before = (_state.active, _state.cache)
        if cache is not None:
            _state.cache = cache
        _patch_all()
        _state.active = True
    return Instrumentation(before)


def uninstrument() -> None:
    """Do what `asynccache.uninstrument_openai` says."""
    with _state.lock:
        _state.active = False
        _state.cache = None
        _state.patched[:] = [patch for patch in _state.patched if not patch.undo()]
