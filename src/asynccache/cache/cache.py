"""The two views of a cache: `AsyncCache` for code that awaits, `SyncCache` for code that can't.

A `SyncCache` makes every call in the background loop, where the cache is one more loop's, while the
calling thread waits.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Never, ParamSpec, Self, TypeVar, overload
from weakref import WeakSet

from asynccache.cache import computing, function_keys, in_force, objects
from asynccache.cache.clients import wrap_client
from asynccache.cache.in_force import ScopeFrame
from asynccache.cache.lifecycle import Lifecycle, behind
from asynccache.cache.settings import Settings, seconds_of
from asynccache.cache.values import Values, packed
from asynccache.core.calls import Status, status_of
from asynccache.core.counters import Stats
from asynccache.entries.return_types import usual_type
from asynccache.entries.values import MISSING, decode_value
from asynccache.keys.key import key_of
from asynccache.runtime import background
from asynccache.runtime.background import waited
from asynccache.runtime.clock import SYSTEM_CLOCK, Clock
from asynccache.runtime.forks import at_fork
from asynccache.stores.base import Store

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")


class AsyncCache:
    """A cache of finished answers. Made by `Cache`, opened by ``async with`` or `open`.

    ``with`` opens it too, for code that can't await, and gives a `SyncCache`.

    One object works in several event loops and threads at once, and may be opened again after it
    was closed. Opening counts: it closes when it was closed as often as it was opened.
    """

    def __init__(self, store: Store, settings: Settings, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._lifecycle: Lifecycle = Lifecycle(store, settings, clock)
        self._values: Final = Values(self._lifecycle)
        self._frames: list[ScopeFrame[Any]] = []
        self._sync_view: SyncCache | None = None  # one, however often it is entered
        self._lock = threading.Lock()
        self.settings: Final = settings
        """The cache's options, checked."""
        self.url: str | None = None
        """What `Cache.from_url` made it of, where that says it all; it may hold a password."""

    # -- life --------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether calls are served now."""
        return self._lifecycle.is_open

    async def open(self) -> Self:
        """Open the cache without making it the ambient one, for hosts with their own life cycle.

        A store that is down or full doesn't keep a cache from opening: calls go past it, and it is
        tried again later.

        Raises:
            StoreRefusedError: What is there isn't safe to use; the message says what to change.
            StoreError: The store can't be opened, and ``on_store_error`` is "raise".
            RuntimeError: No event loop of asyncio's runs here, e.g. as trio's does.
        """
        await self._lifecycle.open()
        return self

    async def aclose(self) -> None:
        """Close the cache once; the last time, wait for what is being stored.

        Who still waits for an answer sees `CacheClosedError`. Closing a closed cache is harmless.
        """
        await self._lifecycle.aclose()

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
        with self._lock:
            view = self._sync_view = self._sync_view or SyncCache(self)
        return view.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._sync_view is not None:
            self._sync_view.__exit__(exc_type, exc, traceback)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        store = type(self._lifecycle.store).__name__
        return f"<AsyncCache {store} {self.settings.namespace.text} {state}>"

    # -- values ------------------------------------------------------------------------------

    @overload
    async def get(self, key: object, default: D, *, type: type[T]) -> T | D: ...
    @overload
    async def get(self, key: object, default: None = None, *, type: type[T]) -> T | None: ...
    @overload
    async def get(
        self,
        key: object,
        default: object = None,
        *,
        type: Any = Any,  # noqa: ANN401 - forms that `type[T]` doesn't take, such as unions
    ) -> Any: ...  # noqa: ANN401 - any value
    async def get(self, key: object, default: object = None, *, type: Any = Any) -> Any:
        """Return the value stored under a key.

        Args:
            key: Anything with a canonical form (see `asynccache.canonical_value`).
            default: Returned for nothing; pass `asynccache.MISSING` where None may be stored.
            type: Build the value as this type; else as plain data.

        Raises:
            NotCanonicalError: The key has no canonical form.
            msgspec.ValidationError: What is stored isn't of that type.
            CacheClosedError: The cache isn't open.
        """
        entry = await self._values.find(key)
        return default if entry is None else decode_value(entry.body, type)

    @overload
    async def get_many(
        self, keys: Sequence[object], default: D, *, type: type[T]
    ) -> list[T | D]: ...
    @overload
    async def get_many(
        self, keys: Sequence[object], default: None = None, *, type: type[T]
    ) -> list[T | None]: ...
    @overload
    async def get_many(
        self,
        keys: Sequence[object],
        default: object = None,
        *,
        type: Any = Any,  # noqa: ANN401 - as for `get`
    ) -> list[Any]: ...
    async def get_many(
        self,
        keys: Sequence[object],
        default: object = None,
        *,
        type: Any = Any,
    ) -> list[Any]:
        """Return the values stored under keys, in order, with ``default`` for those that aren't."""
        found = await self._values.find_many(keys)
        return [default if entry is None else decode_value(entry.body, type) for entry in found]

    async def set(
        self, key: object, value: object, *, ttl: float | timedelta | None = None
    ) -> bool:
        """Store a value under a key, and return once it is as safe as the store makes it.

        Args:
            key: Anything with a canonical form.
            value: Anything that msgspec can encode, or a pydantic model that its data gives back as
                it was: none with a `SecretStr`, fields that are left out, or objects of classes
                derived from those that its fields name. Of the others set what
                ``value.model_dump()`` gives, if that says enough.
            ttl: Seconds or timedelta until it expires; None leaves the cache's own.

        Returns:
            Whether it was stored: not in mode "off", "read_only" or "replay", nor if it is larger
            than `max_entry_bytes` or the store failed (see `stats`).

        Raises:
            NotCanonicalError: The key has no canonical form.
            TypeError: The value can't be encoded, or a model in it would come back as another.
            CacheClosedError: The cache isn't open.
        """
        return all(await self.set_many([(key, value)], ttl=ttl))

    async def set_many(
        self,
        items: Mapping[Any, object] | Sequence[tuple[object, object]],
        *,
        ttl: float | timedelta | None = None,
    ) -> list[bool]:
        """Store several values as `set` does; pairs, as not every key can be a dict's."""
        return await self._values.put(items, packed, ttl=ttl)

    async def contains(self, key: object) -> bool:
        """Tell whether something sound is stored under a key."""
        return await self.get(key, MISSING) is not MISSING

    async def delete(self, key: object) -> bool:
        """Remove the value stored under a key of one's own; return whether there was one.

        That is the ``key`` of `set` and `get_or_create`. What a `Status` or `CallEvent` calls so
        is a digest, also of answers and memoized results: ``forget(key=...)`` takes that.

        A call under way for it still answers its callers, and stores nothing.

        Raises:
            StoreError: It may still be there.
            CacheClosedError: The cache isn't open.
        """
        return await self._values.delete(key)

    async def clear(self) -> int:
        """Remove every entry of this namespace and of no other; return how many there were.

        Raises:
            StoreError: Some may still be there.
            CacheClosedError: The cache isn't open.
        """
        return await self._values.clear()

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
            raise computing.not_awaited(create)
        if type is Any:
            type = usual_type(create, awaited=True)
        return await computing.compute(self, "value", key, create, ttl=seconds_of(ttl), type=type)

    def memoize(
        self,
        *bare: Never,
        ttl: float | timedelta | None = None,
        ignore: Sequence[str] = (),
        version: str | int | None = None,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
        """Cache an async function in this cache; see `asynccache.memoize`."""
        return function_keys.memoizing(self, bare, ttl=ttl, ignore=ignore, version=version)

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
            return await self._values.remove(namespace, key_of(key))
        status = response if isinstance(response, Status) else status_of(response)
        if status is None:
            raise ValueError(
                "this response has no entry: it didn't come through a cache; to remove one by what"
                " Status.key or CallEvent.key say, call forget(key=...)"
            )
        keys = status.parts or (status.digest,)
        return await self._values.remove(status.namespace, *keys)

    def stats(self) -> Stats:
        """Return what this cache did so far, in all loops of this process."""
        return self._lifecycle.stats()

    def __getattr__(self, name: str) -> Any:  # TRANSITION
        from asynccache.core import transition

        return transition.of_cache(self, name)


def values_of(cache: AsyncCache) -> Values:
    """Return the values behind a cache, which integrations use."""
    return cache._values  # noqa: SLF001 - the one place where integrations reach it


class SyncCache:
    """An `AsyncCache` for code that can't await. ``with Cache.disk() as cache:`` gives it.

    Use it from any number of threads, while coroutines use the same cache. It may be entered again,
    also where it is open: AutoGen does so around each single call. A thread whose event loop is
    running may use it too, and holds that loop up meanwhile.

    Raises:
        RuntimeError: From any method that waits, called in the background loop itself.
    """

    __slots__ = (
        "__weakref__",
        "_cache",
        "_entered",
        "_frames",
        "_lifecycle",
        "_lock",
        "_opened",
        "_values",
    )

    def __init__(self, cache: AsyncCache) -> None:
        self._cache: Final = cache
        self._lifecycle: Final = behind(cache)
        self._values: Final = values_of(cache)
        self._frames: list[ScopeFrame[Any]] = []
        self._lock = threading.Lock()
        self._entered = 0
        self._opened = False  # this view has opened the cache, and not closed it
        _views.add(self)

    @property
    def asynchronous(self) -> AsyncCache:
        """The cache itself, for code that awaits."""
        return self._cache

    @property
    def settings(self) -> Settings:
        """The cache's options."""
        return self._cache.settings

    @property
    def is_open(self) -> bool:
        """Whether calls are served now."""
        return self._cache.is_open

    def __repr__(self) -> str:
        return f"<SyncCache of {self._cache!r}>"

    # -- life --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._enter()
        with self._lock:
            self._frames.append(in_force.enter(self._cache))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            if self._frames:
                in_force.leave(self._cache, self._frames)
        self._leave()

    def _enter(self) -> None:
        if self._would_hang():
            raise RuntimeError(
                "can't wait for the event loop of this very thread, which is opening or closing the"
                " cache: use `async with` there, or `with` in another thread"
            )
        with self._lock:
            # After a fork the cache is closed although its blocks aren't left.
            if not self._opened or not self._cache.is_open:
                waited(self._cache.open)
                self._opened = True
            self._entered += 1

    def _leave(self) -> None:
        if self._would_hang():  # then somebody else waits
            from anyio import to_thread

            background.start(to_thread.run_sync, self._leave)
            return
        with self._lock:
            self._entered = max(0, self._entered - 1)
            if not self._entered:
                self._close()

    def _would_hang(self) -> bool:
        if background.in_background_loop():
            return True
        try:
            return self._lifecycle.changing_in(asyncio.get_running_loop())
        except RuntimeError:
            return False

    def close(self) -> None:
        """Close the cache, whatever blocks of this kind it is still in.

        Where coroutines have it open as well, it stays open for them. Closing twice is harmless.
        """
        with self._lock:
            self._entered = 1
        self._leave()

    def _close(self) -> None:
        opened, self._opened = self._opened, False
        if opened and self._cache.is_open:
            waited(self._cache.aclose)

    # -- values ------------------------------------------------------------------------------

    @overload
    def get(self, key: object, default: D, *, type: type[T]) -> T | D: ...
    @overload
    def get(self, key: object, default: None = None, *, type: type[T]) -> T | None: ...
    @overload
    def get(
        self,
        key: object,
        default: object = None,
        *,
        type: Any = Any,  # noqa: ANN401 - forms that `type[T]` doesn't take, such as unions
    ) -> Any: ...  # noqa: ANN401 - any value
    def get(self, key: object, default: object = None, *, type: Any = Any) -> Any:
        """Return the value stored under a key, as `AsyncCache.get` does.

        An answer of the OpenAI SDK's, or of AG2's own clients, that `set` was given comes back as
        the object it was.
        """
        return objects.value_of(waited(self._values.find, key), default, type)

    @overload
    def get_many(self, keys: Sequence[object], default: D, *, type: type[T]) -> list[T | D]: ...
    @overload
    def get_many(
        self, keys: Sequence[object], default: None = None, *, type: type[T]
    ) -> list[T | None]: ...
    @overload
    def get_many(
        self,
        keys: Sequence[object],
        default: object = None,
        *,
        type: Any = Any,  # noqa: ANN401 - as for `get`
    ) -> list[Any]: ...
    def get_many(self, keys: Sequence[object], default: object = None, *, type: Any = Any) -> Any:
        """Return the values stored under keys, in order, with ``default`` for those that aren't."""
        found = waited(self._values.find_many, keys)
        return [objects.value_of(entry, default, type) for entry in found]

    def set(self, key: object, value: object, *, ttl: float | timedelta | None = None) -> bool:
        """Store a value under a key, as `AsyncCache.set` does; tell whether it was stored.

        Of an answer of the OpenAI SDK's, what was set on it beside its fields is kept too, but for
        what is no data, such as functions. Any other object that AutoGen stores isn't stored:
        counted as bypassed, and logged once. AutoGen would find plain data in its place.

        Raises:
            TypeError: The value can't be encoded, or a model in it would come back as another.
        """
        pack = functools.partial(objects.packed_for, key)
        try:
            return all(waited(self._values.put, [(key, value)], pack, ttl=ttl))
        except objects.LostObjectError as exc:
            self._lifecycle.note_bypass(str(exc))
            return False

    def set_many(
        self,
        items: Mapping[Any, object] | Sequence[tuple[object, object]],
        *,
        ttl: float | timedelta | None = None,
    ) -> list[bool]:
        """Store several values as `set` does; pairs, as not every key can be a dict's."""
        return waited(self._values.put, items, objects.packed, ttl=ttl)

    def contains(self, key: object) -> bool:
        """Tell whether something sound is stored under a key."""
        return waited(self._cache.contains, key)

    def delete(self, key: object) -> bool:
        """Remove the value that was `set` under a key, as `AsyncCache.delete` does."""
        return waited(self._cache.delete, key)

    def clear(self) -> int:
        """Remove every entry of this namespace and of no other; return how many there were."""
        return waited(self._cache.clear)

    # -- calls -------------------------------------------------------------------------------

    @overload
    def get_or_create(
        self,
        key: object,
        create: Callable[[], object],
        *,
        ttl: float | timedelta | None = None,
        type: type[T],
    ) -> T: ...
    @overload
    def get_or_create(
        self, key: object, create: Callable[[], T], *, ttl: float | timedelta | None = None
    ) -> T: ...
    @overload
    def get_or_create(
        self,
        key: object,
        create: Callable[[], object],
        *,
        ttl: float | timedelta | None = None,
        type: Any,  # noqa: ANN401 - as for `get`
    ) -> Any: ...  # noqa: ANN401 - any value
    def get_or_create(
        self,
        key: object,
        create: Callable[[], Any],
        *,
        ttl: float | timedelta | None = None,
        type: Any = Any,
    ) -> Any:
        """Return the value stored under a key, or make it once, however many ask at the same time.

        Args:
            key: As for `AsyncCache.get_or_create`, whose calls for the same key are shared.
            create: A plain function. It runs in the calling thread.
            ttl: Seconds or timedelta until it expires; None leaves the cache's own.
            type: As for `AsyncCache.get_or_create`.

        Raises:
            ReplayMiss: In mode "replay", nothing is stored.
            CacheClosedError: As from `AsyncCache.get_or_create`.
            TypeError: ``create`` isn't a plain function, or ``type`` is none that values can be
                built as.
            Exception: What ``create`` raised; it is shared with all who waited, and not stored. An
                interrupt is not: one of those who wait calls its own function then.
        """
        if inspect.iscoroutinefunction(create) or not callable(create):
            raise computing.not_plain(create)
        if type is Any:
            type = usual_type(create, awaited=False)
        name, seconds = computing.name_of(create), seconds_of(ttl)
        return self._computed("value", key, create, name=name, ttl=seconds, type=type)

    def _computed(
        self,
        purpose: str,
        key: object,
        create: Callable[[], Any],
        **options: Any,  # noqa: ANN401 - those of `compute`
    ) -> Any:  # noqa: ANN401 - any value
        guest = background.BlockedCaller()
        plain = functools.partial(computing.plainly, create)

        async def work() -> Any:  # noqa: ANN401 - as above
            made = functools.partial(guest.run, plain)
            return await computing.compute(self._cache, purpose, key, made, **options)

        return waited(work, guest=guest)

    def memoize(
        self,
        *bare: Never,
        ttl: float | timedelta | None = None,
        ignore: Sequence[str] = (),
        version: str | int | None = None,
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Cache a plain function in this cache by its name and arguments.

        It runs in the calling thread; the rest is as in `asynccache.memoize`.
        """
        function_keys.refuse_bare(bare)
        seconds = seconds_of(ttl)

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            keys = function_keys.FunctionKeys(function, ignore, version)
            if inspect.iscoroutinefunction(function):
                raise TypeError(f"{keys.name} is async: use asynccache.memoize")

            @functools.wraps(function)
            def memoized(*args: P.args, **kwargs: P.kwargs) -> T:
                result: T = self._computed(
                    "memoize",
                    keys.key(args, kwargs),
                    functools.partial(function, *args, **kwargs),
                    name=keys.name,
                    ttl=seconds,
                    type=keys.returns(),
                )
                return result

            return memoized

        return decorate

    def wrap(self, client: T, *, upstream: str | None = None) -> T:
        """Return a client of the same type whose calls go through this cache."""
        return self._cache.wrap(client, upstream=upstream)

    def bind(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return a function that runs with this cache in force, also in another thread."""
        return self._cache.bind(function)

    def forget(self, response: object = None, *, key: str | bytes | None = None) -> bool:
        """Remove the entry that an answer came from, as `AsyncCache.forget` does."""
        return waited(self._cache.forget, response, key=key)

    def stats(self) -> Stats:
        """Return what this cache did so far, for coroutines too."""
        return self._cache.stats()


_views: Final[WeakSet[SyncCache]] = WeakSet()


def _after_fork() -> None:
    for view in list(_views):
        # A thread that only the parent has may hold the old one.
        view._lock = threading.Lock()  # noqa: SLF001 - this module's own


at_fork(after_in_child=_after_fork)
