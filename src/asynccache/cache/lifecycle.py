"""A cache's life: opened and closed, in any number of event loops, threads and forks."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Final, Self
from weakref import WeakSet

from msgspec import Struct

from asynccache.cache.events import Observer
from asynccache.core.breaker import CircuitBreaker
from asynccache.core.calls import Mode, StoreIf, store_good
from asynccache.core.counters import Counters, Stats
from asynccache.core.engine import Engine
from asynccache.errors import CacheClosedError, StoreError, StoreRefusedError
from asynccache.keys.key import Namespace
from asynccache.runtime.background import held_loop
from asynccache.runtime.clock import Clock
from asynccache.runtime.loops import done_in
from asynccache.stores.base import Store

_REMOTE_TIMEOUT: Final = 1.0  # seconds: longer than any healthy answer, shorter than a model's
_FOREIGN_CLOSE: Final = 10.0  # seconds that another loop may take to end its flights
_LOCAL_TIMEOUT: Final = 10.0  # seconds: a disk under load is slow, not gone
_NO_LOOP: Final = (
    "no event loop of asyncio's runs here (trio's is none), and an AsyncCache needs one: use `with`"
    " instead of `async with`, in a thread of its own where another kind of loop runs"
)


class Settings(Struct, frozen=True, kw_only=True):
    """The options of a cache, checked. See `Cache` for what each means."""

    namespace: Namespace
    mode: Mode = "read_write"
    ttl: float | None = None
    ttl_jitter: float = 0.0
    store_if: StoreIf = store_good
    ignore: tuple[tuple[str, ...], ...] = ()
    ignore_headers: frozenset[str] = frozenset()
    rename_call_ids: bool = False
    keep_requests: bool = False
    max_entry_bytes: int = 32 * 2**20
    on_store_error: str = "continue"
    store_timeout: float | None = None
    lease_ttl: float = 5.0
    observer: Observer | None = None

    def timeout(self, *, remote: bool) -> float:
        """Return the seconds that a store may take: those asked for, or its kind's."""
        if self.store_timeout is not None:
            return self.store_timeout
        return _REMOTE_TIMEOUT if remote else _LOCAL_TIMEOUT


class _Turn:
    """A cache's opening or closing, one at a time over all loops.

    Not an asynchronous generator: those may not be begun any more where a loop is ending, and
    caches have to be closed there too.
    """

    __slots__ = ("_cache", "done", "loop")

    def __init__(self, cache: Lifecycle) -> None:
        self._cache = cache
        self.done: Future[None] = Future()
        try:
            self.loop: Final = asyncio.get_running_loop()
        except RuntimeError as exc:
            raise RuntimeError(_NO_LOOP) from exc

    async def __aenter__(self) -> None:
        cache = self._cache
        while True:
            with cache._lock:  # noqa: SLF001 - this module's own
                turn = cache._turn  # noqa: SLF001 - as above
                if turn is None:
                    cache._turn = self  # noqa: SLF001 - as above
                    return
            await asyncio.shield(asyncio.wrap_future(turn.done))

    async def __aexit__(self, *exc_info: object) -> None:
        cache = self._cache
        with cache._lock:  # noqa: SLF001 - this module's own
            cache._turn = None  # noqa: SLF001 - as above
        self.done.set_result(None)


class Lifecycle:
    """Opens and closes a store, and gives each event loop an engine of its own."""

    def __init__(self, store: Store, settings: Settings, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        strict = settings.on_store_error == "raise"
        self._guard = CircuitBreaker(type(store).__name__, clock, strict=strict)
        self._engines: dict[int, Engine] = {}
        self._past = Counters()  # of loops that are gone
        self._outside = Counters()  # of calls that met no engine
        self._opened = 0
        self._lock = threading.Lock()
        self._turn: _Turn | None = None  # of whoever is opening or closing
        self._leaked: object = None
        self._setting: set[asyncio.Future[None]] = set()

    async def _open_store(self) -> None:
        await self._store.open(read_only=self._settings.mode in {"read_only", "replay"})
        self._guard.prepare = None

    @property
    def is_open(self) -> bool:
        """Whether calls are served now."""
        return self._opened > 0

    async def open(self) -> Self:
        """Open the cache without making it the ambient one, for hosts with their own life cycle.

        A store that is down or full doesn't keep a cache from opening: calls go past it, and it is
        tried again later.

        Raises:
            StoreRefusedError: What is there isn't safe to use; the message says what to change.
            StoreError: The store can't be opened, and ``on_store_error`` is "raise".
            RuntimeError: No event loop of asyncio's runs here, e.g. as trio's does.
        """
        async with self._changing():
            if not self._opened:
                self._guard.reset()
                try:
                    await self._open_store()
                except StoreRefusedError:
                    raise
                except StoreError as exc:
                    if self._guard.strict:
                        raise
                    self._guard.note(exc, self._outside)
                    self._guard.prepare = self._open_store
            self._opened += 1
            _open_caches.add(self)
        return self

    async def aclose(self) -> None:
        """Close the cache once; the last time, wait for what is being stored.

        Who still waits for an answer sees `CacheClosedError`. Closing a closed cache is harmless.
        """
        async with self._changing():
            if self._opened != 1:
                self._opened = max(0, self._opened - 1)
                return
            # Also when closing is cancelled: nothing may stay open behind a closed cache.
            try:
                await asyncio.sleep(0)  # tasks begun in the block's last turn may have to store
                here = asyncio.get_running_loop()
                if under_way := [each for each in self._setting if each.get_loop() is here]:
                    await asyncio.wait(under_way)
            finally:
                await self._close()

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

    async def _close(self) -> None:
        self._opened = 0
        _open_caches.discard(self)
        with self._lock:
            engines, self._engines = list(self._engines.values()), {}
        try:
            for engine in engines:
                await self._close_engine(engine)
        finally:
            self._guard.prepare = None
            await self._store.aclose()

    async def _close_engine(self, engine: Engine) -> None:
        try:
            if engine.loop is asyncio.get_running_loop():
                await engine.aclose()
            else:
                # A loop that is held closes its own once it may go on.
                patience = 0 if engine.loop is held_loop() else _FOREIGN_CLOSE
                await done_in(engine.loop, engine.aclose, patience=patience)
        finally:
            self._past.add(engine.counters)

    def _changing(self) -> _Turn:
        """Let only one task of any loop open or close at a time."""
        return _Turn(self)

    def changing_in(self, loop: asyncio.AbstractEventLoop) -> bool:
        """For integrations: tell whether a task of that loop opens or closes the cache now."""
        turn = self._turn
        return turn is not None and turn.loop is loop

    def engine(self) -> Engine:
        """For integrations: return the running loop's engine.

        Raises:
            CacheClosedError: The cache isn't open.
            RuntimeError: No event loop of asyncio's runs here.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as exc:
            raise RuntimeError(_NO_LOOP) from exc
        engine = self._engines.get(id(loop))
        if engine is None or engine.loop is not loop:
            engine = self._new_engine(loop)
        return engine

    def _new_engine(self, loop: asyncio.AbstractEventLoop) -> Engine:
        if not self._opened:
            raise CacheClosedError("the cache isn't open: use it inside `async with cache:`")
        settings = self._settings
        engine = Engine(
            self._store,
            guard=self._guard,
            clock=self._clock,
            max_entry_bytes=settings.max_entry_bytes,
            store_timeout=settings.timeout(remote=self._store.capabilities.remote),
            lease_ttl=settings.lease_ttl,
            ttl_jitter=settings.ttl_jitter,
        )
        with self._lock:
            for name, old in list(self._engines.items()):
                if old.loop.is_closed():
                    self._past.add(self._engines.pop(name).counters)
            self._engines[id(loop)] = engine
        return engine

    def _leak(self) -> None:
        """Forget everything that belongs to the parent process, without touching it."""
        self._opened = 0
        self._lock = threading.Lock()  # a thread that only the parent has may hold the old one
        self._turn = None
        self._leaked = (self._engines, self._store)
        self._engines, self._setting = {}, set()

    def stats(self) -> Stats:
        """Return what this cache did so far, in all loops of this process."""
        total = Counters()
        for counters in (
            self._past,
            self._outside,
            *(engine.counters for engine in list(self._engines.values())),
        ):
            total.add(counters)
        return total.snapshot(
            breaker=self._guard.state,
            store={str(name): count for name, count in self._store.counters().items()},
        )


_open_caches: WeakSet[Lifecycle] = WeakSet()


def _after_fork() -> None:
    for cache in list(_open_caches):
        cache._leak()  # noqa: SLF001 - this module's own
    _open_caches.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
