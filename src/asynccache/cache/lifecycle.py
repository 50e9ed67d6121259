"""A cache's life: opened and closed, in any number of event loops, threads and forks.

`Lifecycle` is the object behind a cache. `Lifecycle.resolve` says where a call goes: to an engine,
in a namespace and a mode, or past the cache.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Final, Protocol
from weakref import ref

from msgspec import UNSET, Struct

from asynccache.cache.events import tell_store_error, watch
from asynccache.cache.in_force import NO_OPTIONS, Options, current_options
from asynccache.cache.settings import Settings
from asynccache.core.breaker import CircuitBreaker
from asynccache.core.calls import StoreIf
from asynccache.core.counters import Counters, Stats
from asynccache.core.engine import Engine
from asynccache.core.modes import Mode
from asynccache.core.store_client import StoreClient
from asynccache.entries.entry import Entry, Meta
from asynccache.errors import (
    CacheClosedError,
    ReplayMiss,
    StoreError,
    StoreRefusedError,
    StoreTimeoutError,
)
from asynccache.keys.key import Namespace, Prefix
from asynccache.runtime.background import blocked_loop
from asynccache.runtime.clock import Clock
from asynccache.runtime.forks import forget_in_child
from asynccache.runtime.loops import done_in
from asynccache.runtime.turns import Turn, Turns, Uncut
from asynccache.stores.base import Store

_log = logging.getLogger("asynccache")

_FOREIGN_CLOSE: Final = 10.0  # seconds that another loop may take to end its flights
_OPENING: Final = 10.0  # seconds that a store may take to open or to close, and its own if longer
_NOT_OPEN: Final = "the cache isn't open"
_OPEN_IT: Final = (
    f"{_NOT_OPEN}: call inside `async with cache:` or `with cache:`, or call"
    " `await cache.open()` first"
)
_NO_LOOP: Final = (
    "no event loop of asyncio's runs here, and an AsyncCache needs one: use `with` instead of"
    " `async with`; where another kind of loop runs (trio's), do so in a thread of its own"
)


class Scope(Struct, frozen=True, eq=False):
    """Where a call goes: which engine serves it, in which namespace and mode, by which options."""

    cache: Lifecycle
    engine: Engine
    namespace: Namespace
    mode: Mode
    options: Options

    @property
    def settings(self) -> Settings:
        """The cache's options."""
        return self.cache.settings

    @property
    def client(self) -> StoreClient:
        """The way to the store."""
        return self.engine.client(self.namespace)

    @property
    def ttl(self) -> float | None:
        """Seconds that an answer is kept: the block's, or the cache's."""
        ttl = self.options.ttl
        return self.cache.settings.ttl if ttl is UNSET else ttl

    @property
    def store_if(self) -> StoreIf:
        """The rule for storing an answer: the block's, or the cache's."""
        rule = self.options.store_if
        return self.cache.settings.store_if if rule is UNSET else rule

    def sample(self, key: bytes) -> int:
        """Return which of the independent answers to a request the caller asks for.

        Args:
            key: The request's key as the first sample. Blocks with ``sample="each"`` count by it.
        """
        options = self.options
        return options.sample if options.samples is None else options.samples.next(key)

    def keyed(self, prefix: Prefix, canonical: bytes) -> tuple[bytes, int, bytes]:
        """Return a request's key, which sample of it is asked for, and the key of the first one.

        Args:
            prefix: All of the request but its body.
            canonical: What of the body is in its key.
        """
        normalize, options = self.cache.settings.normalize, self.options
        if normalize is not None:
            canonical = normalize.mark + canonical
        first = prefix.key(canonical)
        if options.samples is None and not options.sample:
            return first, 0, first
        number = self.sample(first)
        return prefix.key(canonical, number), number, first

    def now(self) -> int:
        """Return what the cache's clock says, in microseconds since the epoch."""
        return self.cache.now()


class Bypass(Struct, frozen=True, eq=False):
    """A call that goes past the cache."""

    cache: Lifecycle
    mode: Mode
    reason: str | None
    """Why, where that is worth telling."""

    def note(self, what: str = "this call") -> None:
        """Count the call; log its reason once. ``what`` is never cached where there is no reason.

        Raises:
            ReplayMiss: In mode "replay", where nothing goes past the cache.
        """
        if self.mode == "replay":
            self.cache.note_replay_miss()
            reason = self.reason or f"{what} is never cached"
            raise ReplayMiss(f"this call can't be replayed: {reason}")
        self.cache.note_bypass(self.reason)

    @contextmanager
    def watched(
        self, endpoint: str, model: object = "", *, provider: str = "", what: str = "this call"
    ) -> Generator[None]:
        """Count the call that is made in this block, and tell whoever watches of it.

        Args:
            endpoint: What is asked.
            model: The model, where that is known.
            provider: Who is asked.
            what: As for `note`.

        Raises:
            ReplayMiss: In mode "replay".
        """
        watcher = watch(self.cache.settings, endpoint, model, provider=provider)
        try:
            self.note(what)
            yield
        except BaseException as exc:
            if watcher is not None:
                watcher.failed(exc)
            raise
        if watcher is not None:
            watcher.passed(self.reason)


class Cached(Protocol):
    """What has a lifecycle behind it: an `AsyncCache`."""

    _lifecycle: Lifecycle


def behind(cache: Cached) -> Lifecycle:
    """Return the object behind a cache, which integrations use."""
    return cache._lifecycle  # noqa: SLF001 - the one place where integrations reach it


def resolve(cache: Cached, options: Options | None = None) -> Scope | Bypass:
    """Return where a call to a cache goes, by the options in force unless others are given.

    Raises:
        CacheClosedError: The cache isn't open, in mode "replay".
        RuntimeError: No event loop of asyncio's runs here.
    """
    return cache._lifecycle.resolve(options or current_options())  # noqa: SLF001 - as above


_WITHOUT_GENERATIONS: Final[list[ref[Lifecycle]]] = []


class Lifecycle:
    """Opens and closes a store, and gives each event loop an engine of its own.

    The object behind a cache, for integrations too: they may rely on its public methods.
    """

    def __init__(self, store: Store, settings: Settings, clock: Clock) -> None:
        self.settings: Final = settings
        self.store = store
        self.clock: Final = clock
        strict = settings.on_store_error == "raise"
        name = type(store).__name__
        tell = partial(tell_store_error, settings, name)
        self._breaker = CircuitBreaker(name, clock, strict=strict, tell=tell)
        self._scopes: dict[int, Scope] = {}  # of calls without options, by the id of their loop
        self._past = Counters()  # of loops that are gone
        self.outside: Final = Counters()  # of calls that met no engine
        self._opened = 0
        self._lock = threading.Lock()
        self._turns: Final = Turns()  # of whoever is opening or closing
        self._attempts: Final = Turns()  # of whoever is opening a store that was down
        self._failure: StoreError | None = None  # of the last attempt to open a store that was down
        self._leaked: object = None
        self._setting: set[asyncio.Future[None]] = set()
        self._told: set[tuple[str, str]] = set()
        forget_in_child(self)
        if not store.capabilities.generations:
            _WITHOUT_GENERATIONS.append(ref(self, _WITHOUT_GENERATIONS.remove))

    # -- opening and closing -----------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether calls are served now."""
        return self._opened > 0

    async def open(self) -> None:
        """Open the store, or count once more that it is open; see `AsyncCache.open`."""
        turn = self._turn()
        await turn.begin()
        try:
            if not self._opened:
                await self._open_first()
            self._opened += 1
        finally:
            turn.end()

    async def _open_first(self) -> None:
        self._breaker.reset()
        try:
            await self._open_store()
        except StoreRefusedError:
            raise
        except StoreError as exc:
            if self._breaker.strict:
                raise
            self._breaker.prepare = self._open_later
            self._breaker.note(exc, self.outside)
        except asyncio.CancelledError:
            await self._close_store()  # nobody else would close what is half open
            raise

    async def _open_store(self) -> None:
        read_only = self.settings.mode in {"read_only", "replay"}
        await self._in_time(self.store.open(read_only=read_only), "open")

    async def _open_later(self) -> None:
        """Open a store that was down. Who waits for another's attempt doesn't make one, too."""
        failure, attempt = self._failure, Turn(self._attempts)
        await attempt.begin()
        try:
            if self._failure is not failure and self._failure is not None:
                raise type(self._failure)(*self._failure.args)
            if self._breaker.prepare is not None:  # else it is open, or the cache was closed
                try:
                    await self._open_store()
                except StoreError as exc:
                    self._failure = exc
                    raise
                self._breaker.prepare = self._failure = None
        finally:
            attempt.end()

    async def aclose(self) -> None:
        """Close the store when this was called as often as `open`; see `AsyncCache.aclose`.

        Closing is seen through also when it is cancelled. Each step of it has a deadline.
        """
        turn, uncut = self._turn(), Uncut()
        await uncut.do(turn.begin)
        try:
            if self._opened == 1:
                await uncut.do(self._wait_for_sets)
            if turn.lasts and self._opened == 1:
                await self._close(turn, uncut)
            else:
                self._opened = max(0, self._opened - 1)
        finally:
            turn.end()
        uncut.end()

    async def _wait_for_sets(self) -> None:
        await asyncio.sleep(0)  # tasks begun in the block's last turn may have to store
        here = asyncio.get_running_loop()
        if under_way := [each for each in self._setting if each.get_loop() is here]:
            await asyncio.wait(under_way, timeout=self._patience())

    async def _close(self, turn: Turn, uncut: Uncut) -> None:
        self._opened = 0
        with self._lock:
            scopes, self._scopes = list(self._scopes.values()), {}
        try:
            for scope in scopes:
                try:
                    await uncut.do(partial(self._close_engine, scope.engine))
                finally:
                    self._past.add(scope.engine.counters)
        finally:
            self._breaker.prepare = None
            if turn.lasts:
                await uncut.do(self._close_store)

    async def _close_engine(self, engine: Engine) -> None:
        if engine.loop is asyncio.get_running_loop():
            await engine.aclose()
        else:
            # A loop that is blocked closes its own once it may go on.
            patience = 0 if engine.loop is blocked_loop() else _FOREIGN_CLOSE
            await done_in(engine.loop, engine.aclose, patience=patience)

    async def _close_store(self) -> None:
        attempt = Turn(self._attempts)
        await attempt.begin()  # so that none ends behind a closed cache
        try:
            await self._in_time(self.store.aclose(), "close")
        except StoreError as exc:
            if self._breaker.strict:
                raise
            self._breaker.note(exc, self.outside)
        finally:
            attempt.end()

    async def _in_time(self, work: Awaitable[None], what: str) -> None:
        seconds = self._patience()
        try:
            async with asyncio.timeout(seconds):
                await work
        except TimeoutError as exc:
            raise StoreTimeoutError(f"it took over {seconds:g} s to {what}") from exc

    def _patience(self) -> float:
        """Return the seconds that the store may take to open or to close."""
        timeout = self.settings.timeout(remote=self.store.capabilities.remote)
        return min(timeout * 10, max(timeout, _OPENING))

    def _turn(self) -> Turn:
        _running_loop()
        return Turn(self._turns)

    @contextmanager
    def setting(self) -> Generator[None]:
        """Keep the cache from being closed in this loop while something is being set."""
        under_way: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._setting.add(under_way)
        try:
            yield
        finally:
            self._setting.discard(under_way)
            under_way.set_result(None)

    def changing_in(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Tell whether a task of that loop opens or closes the cache now."""
        turn = self._turns.current
        return turn is not None and turn.loop is loop

    # -- where a call goes -------------------------------------------------------------------

    def resolve(self, options: Options) -> Scope | Bypass:
        """Return where a call goes; see `asynccache.cache.lifecycle.resolve`."""
        return self.bypass(options) or self.scope(options)

    def bypass(self, options: Options) -> Bypass | None:
        """Return why a call goes past the cache, None if it doesn't. Works in any thread.

        Raises:
            CacheClosedError: The cache isn't open, in mode "replay".
        """
        mode = self.mode(options)
        if mode == "off":
            return Bypass(self, mode, None)
        if self._opened:
            return None
        if mode == "replay":
            raise CacheClosedError(f"nothing can be replayed: {_OPEN_IT}")
        return Bypass(self, mode, _NOT_OPEN)

    def scope(self, options: Options) -> Scope:
        """Return which engine serves a call that comes to the cache, in whichever mode.

        Raises:
            CacheClosedError: The cache isn't open.
            RuntimeError: No event loop of asyncio's runs here.
        """
        loop = _running_loop()
        scope = self._scopes.get(id(loop))
        if scope is None or scope.engine.loop is not loop:
            scope = self._new_scope(loop)
        if options is NO_OPTIONS:
            return scope
        namespace = options.namespace(self.settings.namespace)
        return Scope(self, scope.engine, namespace, self.mode(options), options)

    def mode(self, options: Options) -> Mode:
        """Return the mode in force."""
        return self.settings.mode if options.mode is UNSET else options.mode

    def _new_scope(self, loop: asyncio.AbstractEventLoop) -> Scope:
        if not self._opened:
            raise CacheClosedError(_OPEN_IT)
        settings = self.settings
        engine = Engine(
            self.store,
            breaker=self._breaker,
            clock=self.clock,
            limits=settings.limits(remote=self.store.capabilities.remote),
        )
        scope = Scope(self, engine, settings.namespace, settings.mode, NO_OPTIONS)
        with self._lock:
            for name, old in list(self._scopes.items()):
                if old.engine.loop.is_closed():
                    self._past.add(self._scopes.pop(name).engine.counters)
            self._scopes[id(loop)] = scope
        return scope

    def engines(self) -> list[Engine]:
        """Return the engines of all loops."""
        return [scope.engine for scope in list(self._scopes.values())]

    def engines_to_settle(self) -> list[Engine]:
        """Return the engines that may store what this cache deletes or overwrites.

        Where the store compares no generations, these are also the engines of all other caches of
        the process that have such a store, as it may be the same one.
        """
        if self.store.capabilities.generations:
            return self.engines()
        caches = [found for each in list(_WITHOUT_GENERATIONS) if (found := each())]
        return [engine for cache in caches for engine in cache.engines()]

    def stands_still(self, key: bytes) -> bool:
        """Tell whether a call for a key is made by the very loop that waits for the running task.

        That call goes on when the task has ended, so it is no use to wait for it.
        """
        loop = blocked_loop()
        return loop is not None and any(
            engine.loop is loop and engine.is_making(key) for engine in self.engines()
        )

    # -- what happened -----------------------------------------------------------------------

    def now(self) -> int:
        """Return what the cache's clock says, in microseconds since the epoch."""
        return self.clock.time_ns() // 1000

    def note_bypass(self, reason: str | None) -> None:
        """Count a call that goes past the cache; log each reason once."""
        self.outside.bypassed += 1
        if reason is not None:
            told = _OPEN_IT if reason == _NOT_OPEN else reason
            self.tell_once("not cached, further ones are only counted: %s", told)

    def note_lookup(self, endpoint: str, digest: Callable[[], bytes], entry: Entry | None) -> None:
        """Count what a framework has looked up, and tell who watches.

        A miss is told of now, without what the call costs that the framework makes next.

        Args:
            endpoint: What watchers are told that the call is.
            digest: Returns the key.
            entry: What was found; None is a miss.
        """
        if entry is None:
            self.outside.misses += 1
        else:
            self.outside.hits += 1
        if (watcher := watch(self.settings, endpoint)) is not None:
            known = entry or Entry(digest(), 0, 0, Meta("value"), ())
            watcher.served("miss" if entry is None else "hit", known, self.now())

    def note_replay_miss(self) -> None:
        """Count a call that may not be made, as mode "replay" found nothing."""
        self.outside.replay_misses += 1

    def tell_once(self, what: str, reason: str) -> None:
        """Log something, once for each reason."""
        if (what, reason) not in self._told:
            self._told.add((what, reason))
            _log.warning(what, reason)

    def stats(self) -> Stats:
        """Return what this cache did so far, in all loops of this process."""
        total = Counters()
        for counters in (
            self._past,
            self.outside,
            *(engine.counters for engine in self.engines()),
        ):
            total.add(counters)
        return total.snapshot(
            breaker=self._breaker.state,
            store={str(name): count for name, count in self.store.counters().items()},
        )

    def forget(self) -> None:
        """Forget, in a forked child, what belongs to the parent, without touching it."""
        self._opened = 0
        self._lock = threading.Lock()  # a thread that only the parent has may hold the old one
        self._turns.forget()
        self._attempts.forget()
        for engine in self.engines():
            engine.leave()
        self._leaked = (self._scopes, self.store, self._leaked)
        self._scopes, self._setting = {}, set()


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError as exc:
        raise RuntimeError(_NO_LOOP) from exc
