"""The cache itself: one interface over any store, for every event loop of a process."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Never, ParamSpec, Self, TypeVar, overload

from asynccache.cache import in_force, memoize
from asynccache.cache.clients import wrap_client
from asynccache.cache.computing import compute, not_awaited
from asynccache.cache.lifecycle import Settings
from asynccache.cache.values import Values
from asynccache.core.calls import Status, status_of
from asynccache.entries.return_types import usual_type
from asynccache.keys.key import key_of
from asynccache.runtime.clock import SYSTEM_CLOCK, Clock
from asynccache.stores.base import Store

if TYPE_CHECKING:
    from asynccache.cache.sync import SyncCache

_log = logging.getLogger("asynccache")


P = ParamSpec("P")
T = TypeVar("T")


class AsyncCache(Values):
    """A cache of finished answers. Made by `Cache`, opened by ``async with`` or `open`.

    ``with`` opens it too, for code that can't await, and gives a `SyncCache`.

    One object works in several event loops and threads at once, and may be opened again after it
    was closed. Opening counts: it closes when it was closed as often as it was opened.

    Methods said to be for integrations serve those in `asynccache.integrations` and
    `asynccache.openai`: they may change in any version.
    """

    def __init__(self, store: Store, settings: Settings, *, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(store, settings, clock)
        self._frames: list[in_force.ScopeFrame[AsyncCache]] = []
        self._told: set[tuple[str, str]] = set()
        self._face: SyncCache | None = None  # one, however often it is entered
        self.url: str | None = None
        """What `Cache.from_url` made it of, where that says it all; it may hold a password."""

    async def __aenter__(self) -> Self:
        await self.open()
        self._frames.append(in_force.enter(self))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        in_force.leave(self, self._frames)
        await self.aclose()

    def __enter__(self) -> SyncCache:
        from asynccache.cache.sync import SyncCache

        with self._lock:
            face = self._face = self._face or SyncCache(self)
        return face.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._face is not None:
            self._face.__exit__(exc_type, exc, traceback)

    def __repr__(self) -> str:
        state = "open" if self._opened else "closed"
        return f"<AsyncCache {type(self._store).__name__} {self.settings.namespace.text} {state}>"

    # -- calls -------------------------------------------------------------------------------

    @overload
    async def get_or_create(
        self,
        key: object,
        create: Callable[[], Awaitable[object]],
        *,
        ttl: float | timedelta | None = None,
        type: type[T],
    ) -> T: ...
    @overload
    async def get_or_create(
        self,
        key: object,
        create: Callable[[], Awaitable[T]],
        *,
        ttl: float | timedelta | None = None,
    ) -> T: ...
    @overload
    async def get_or_create(
        self,
        key: object,
        create: Callable[[], Awaitable[object]],
        *,
        ttl: float | timedelta | None = None,
        type: Any,  # noqa: ANN401 - as for `get`
    ) -> Any: ...  # noqa: ANN401 - any value
    async def get_or_create(
        self,
        key: object,
        create: Callable[[], Awaitable[Any]],
        *,
        ttl: float | timedelta | None = None,
        type: Any = Any,
    ) -> Any:
        """Return the value stored under a key, or make it once, however many ask at the same time.

        Args:
            key: Anything with a canonical form; one that has none is neither cached nor shared.
            create: Makes the value: a coroutine function. Where it asks for the same key itself,
                that call goes past the cache.
            ttl: Seconds or timedelta until it expires; None leaves the cache's own.
            type: Build the value as this type; else as the return annotation of ``create`` says,
                else as plain data. Made or found, it is built from the stored bytes, so that every
                caller has an object of their own. A value that wouldn't come back as it was is
                delivered and not stored (see `stats`), and told once in the log.

        Raises:
            ReplayMiss: In mode "replay", nothing is stored.
            CacheClosedError: The cache was closed while this waited, or isn't open in mode
                "replay". In other modes a closed cache is gone past.
            TypeError: ``create`` isn't a coroutine function, or ``type`` is none that values can be
                built as.
            Exception: What ``create`` raised; it is shared with all who waited, and not stored.
        """
        if not callable(create):
            raise not_awaited(create)
        if type is Any:
            type = usual_type(create, awaited=True)
        return await compute(self, "value", key, create, ttl=in_force.seconds_of(ttl), type=type)

    def memoize(
        self,
        *bare: Never,
        ttl: float | timedelta | None = None,
        ignore: Sequence[str] = (),
        version: str | int | None = None,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
        """Cache an async function in this cache; see `asynccache.memoize`."""
        return memoize.memoize(*bare, ttl=ttl, ignore=ignore, version=version, cache=self)

    def wrap(self, client: T, *, upstream: str | None = None) -> T:
        """Return a client of the same type whose cacheable calls go through this cache.

        Args:
            client: An ``AsyncOpenAI`` or ``OpenAI``, or of a subclass. It stays as it is; the two
                share connections.
            upstream: A name for the server, where its address changes from run to run: it takes
                the address' place in the key.

        Raises:
            TypeError: Nobody knows how to wrap such a client.
        """
        return wrap_client(client, cache=self, upstream=upstream)

    def bind(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return a function that runs with this cache in force, also in a plain thread.

        Threads and executors don't inherit what is in force around those who start them.
        """
        return in_force.bind(self, function)

    async def forget(self, response: object = None, *, key: str | bytes | None = None) -> bool:
        """Remove the entry that an answer came from, as it was bad; tell if there was one.

        Args:
            response: What came from a cache, or its `asynccache.status`.
            key: Instead, the entry's key, as a `Status` or `CallEvent` names it (64 hexadecimal
                digits, or 32 bytes), in the namespace in force. Not that of embeddings, whose
                entries have keys of their own: give the response or its status.

        Raises:
            ValueError: The response didn't come from a cache, or the key isn't one.
            TypeError: Both were given.
            StoreError: The entry may still be there.
        """
        if key is not None:
            if response is not None:
                raise TypeError("forget takes a response or a key, not both")
            namespace = in_force.current_options().namespace(self.settings.namespace)
            return await self._delete(self.engine(), namespace, key_of(key))
        status = response if isinstance(response, Status) else status_of(response)
        if status is None:
            raise ValueError(
                "this response has no entry: it didn't come through a cache; to remove one by what"
                " Status.key or CallEvent.key say, call forget(key=...)"
            )
        keys = status.parts or (status.digest,)
        return await self._delete(self.engine(), status.namespace, *keys)

    # -- what happened -----------------------------------------------------------------------

    def note_bypass(self, reason: str | None) -> None:
        """For integrations: count a call that goes past the cache; log each reason once."""
        self._outside.bypassed += 1
        if reason is not None:
            self.tell_once("not cached, further ones are only counted: %s", reason)

    def tell_once(self, what: str, reason: str) -> None:
        """Log something, once for each reason."""
        if (what, reason) not in self._told:
            self._told.add((what, reason))
            _log.warning(what, reason)

    def note_lookup(self, *, hit: bool) -> None:
        """For integrations: count a call that a framework makes itself if nothing is found."""
        if hit:
            self._outside.hits += 1
        else:
            self._outside.misses += 1

    def note_replay_miss(self) -> None:
        """For integrations: count a call that may not be made, as mode "replay" found nothing."""
        self._outside.replay_misses += 1

    def now(self) -> int:
        """For integrations: return what the cache's clock says, in microseconds since the epoch."""
        return self._clock.time_us()
