"""The two views of a cache: `AsyncCache` for code that awaits, `SyncCache` for code that can't.

A `SyncCache` makes every call in the background loop, where the cache is one more loop's, while the
calling thread waits.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Never, ParamSpec, Self, TypeVar, overload
from weakref import WeakSet

from asynccache.cache import computing, function_keys, in_force, objects
from asynccache.cache.clients import transport_over, wrap_client
from asynccache.cache.in_force import ScopeFrame
from asynccache.cache.lifecycle import Lifecycle, behind
from asynccache.cache.settings import Settings, seconds_of
from asynccache.cache.values import Values, packed
from asynccache.core.calls import Status, status_of
from asynccache.core.counters import Stats
from asynccache.entries.return_types import usual_type
from asynccache.entries.values import decode_value
from asynccache.keys.key import key_of
from asynccache.runtime import background
from asynccache.runtime.clock import SYSTEM_CLOCK, Clock
from asynccache.runtime.forks import at_fork
from asynccache.stores.base import Store

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")

_ONE: Final = (
    "a cache can't be copied or pickled, as it stands for open files and connections: pass the"
    " object itself, and make another one for another process"
)


def _truth(_: object) -> bool:
    """Return true, as objects have it, but refuse to be the store of AutoGen's own cache.

    AutoGen calls its store's methods without awaiting them, and asks for its truth before.

    Raises:
        TypeError: It is AutoGen that asks.
    """
    if str(sys._getframe(1).f_globals.get("__name__")).startswith("autogen_ext."):  # noqa: SLF001 - CPython's
        raise TypeError(
            "an asynccache cache can't be the store of AutoGen's ChatCompletionCache, which awaits"
            " nothing and leaves the model out of its keys. Write"
            " asynccache.integrations.autogen.CachedChatCompletionClient(client, cache) instead"
        )
    return True


class AsyncCache:
    """A cache of finished answers. `Cache` makes it; ``async with`` or `open` opens it.

    ``with`` opens it for code that can't await, and gives a `SyncCache`.

    One object works in several event loops and threads at once. It can be opened again after it was
    closed. It counts how often it was opened, and closes when it was closed as often.
    """

    _sync_view: SyncCache | None = None  # one, however often it is entered

    def __init__(self, store: Store, settings: Settings, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._lifecycle: Lifecycle = Lifecycle(store, settings, clock)
        self._values: Final = Values(self._lifecycle)
        self._frames: list[ScopeFrame[Any]] = []
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
        """Open the cache without making it the current one.

        Use it in hosts with a life cycle of their own, such as web servers. If the store is down or
        full, the cache opens all the same: calls go past it, and it tries the store again later. So
        does one whose store takes more than ten seconds to open (or ``store_timeout``, if longer).

        Raises:
            StoreRefusedError: What the store holds isn't safe to use. The message says what to do.
            StoreError: The store can't be opened, and ``on_store_error`` is "raise".
            RuntimeError: No asyncio event loop is running. Under trio use ``with`` in a thread.
        """
        await self._lifecycle.open()
        return self

    async def aclose(self) -> None:
        """Close the cache once. The last close waits until all answers are stored.

        A caller that still waits for an answer gets `CacheClosedError`. Closing a closed cache does
        nothing. If this is cancelled, it closes the cache first. Each step of it has a deadline.
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
        # In one step: threads share one view, and no lock stays held in the child of a fork.
        view: SyncCache = vars(self).setdefault("_sync_view", SyncCache(self))
        return view.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._sync_view is not None:
            self._sync_view.__exit__(exc_type, exc, traceback)

    __bool__ = _truth

    def __reduce__(self) -> Never:
        raise TypeError(_ONE)

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
            key: Any value with a canonical form (see `asynccache.canonical_value`).
            default: What to return if nothing is stored. Pass `asynccache.MISSING` if None may be a
                stored value.
            type: The type to build the value as. Without it you get plain data.

        Raises:
            NotCanonicalError: The key has no canonical form.
            msgspec.ValidationError: The stored value isn't of that type.
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
        """Return the values stored under several keys, in the order of the keys.

        Args:
            keys: As for `get`.
            default: What stands for each key that has no value.
            type: As for `get`, for all values.

        Raises:
            Exception: As from `get`.
        """
        return await self._values.read_many(
            keys, lambda entry: default if entry is None else decode_value(entry.body, type)
        )

    async def set(
        self,
        key: object,
        value: object,
        *,
        ttl: float | timedelta | None = None,
        type: Any = Any,  # noqa: ANN401 - as for `get`
    ) -> bool:
        """Store a value under a key, and return when the store has made it safe.

        Args:
            key: Any value with a canonical form.
            value: What comes back as it was: plain data (None, bool, int, float, str, bytes, list
                and dict), or anything that can be built again as ``type``.
            ttl: Seconds or timedelta until the value expires. None means the cache's own ``ttl``.
            type: The type that `get` is to build the value as. Pass it to `get` as well.

        Returns:
            Whether the value was stored. It isn't in mode "off", "read_only" or "replay", if it is
            larger than ``max_entry_bytes``, or if the store failed (see `stats`).

        Raises:
            NotCanonicalError: The key has no canonical form.
            TypeError: The value can't be encoded, or would come back as another. It often helps to
                name its type, or to store e.g. the ``model_dump()`` of a model.
            CacheClosedError: The cache isn't open.
        """
        return all(await self.set_many([(key, value)], ttl=ttl, type=type))

    async def set_many(
        self,
        items: Mapping[Any, object] | Sequence[tuple[object, object]],
        *,
        ttl: float | timedelta | None = None,
        type: Any = Any,  # noqa: ANN401 - as for `get`
    ) -> list[bool]:
        """Store several values at once, and return for each whether it was stored.

        Args:
            items: A mapping of keys to values, or pairs of both where a key can't be hashed.
            ttl: As for `set`, for all values.
            type: As for `set`, for each value.

        Raises:
            Exception: As from `set`.
        """
        return await self._values.put(items, packed, ttl=ttl, type=type)

    async def contains(self, key: object) -> bool:
        """Return whether a usable value is stored under a key. Raises what `get` raises."""
        return await self._values.find(key) is not None

    async def delete(self, key: object) -> bool:
        """Remove the value stored under a key, and return whether there was one.

        ``key`` is the one that `set` and `get_or_create` take. The key of a `Status` or a
        `CallEvent` is a digest; pass that to ``forget(key=...)``.

        A call that is under way for the key still answers its callers, but stores nothing.

        Raises:
            StoreError: The store failed, so the value may still be there.
            CacheClosedError: The cache isn't open.
        """
        return await self._values.delete(key)

    async def clear(self) -> int:
        """Remove all entries of the namespace in force, and return how many there were.

        Raises:
            StoreError: The store failed, so some entries may still be there.
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
        """Return the value stored under a key, or make it. Callers that ask at once share one call.

        Args:
            key: Any value with a canonical form. A call with any other key goes past the cache.
            create: The coroutine function that makes the value. If it asks for the same key itself,
                that inner call goes past the cache.
            ttl: Seconds or timedelta until the value expires. None means the cache's own ``ttl``.
            type: The type to build the value as. The default is the return annotation of
                ``create``; without one you get plain data. A value is always built from its bytes,
                so each caller has an object of its own. A value that can't be built again is
                returned but not stored; `stats` counts it, and the log says so once.

        Raises:
            ReplayMiss: The mode is "replay" and nothing is stored.
            CacheClosedError: The cache was closed while this call waited, or it isn't open and the
                mode is "replay". In other modes a call goes past a closed cache.
            TypeError: ``create`` isn't a coroutine function, or values can't be built as ``type``.
            Exception: What ``create`` raised. All callers that waited get it; it isn't stored.
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
            client: A client of openai, httpx, httpx2 or aiohttp, or of an SDK that stands on one of
                them, such as ``AsyncAnthropic``. It stays as it is. The two clients share
                connections, so that closing one closes these.
            upstream: A name for the server. It replaces the address in keys. Give one if the
                address changes from run to run.

        Raises:
            TypeError: This kind of client can't be wrapped.
        """
        return wrap_client(client, cache=self, upstream=upstream)

    def transport(self, inner: object = None, *, upstream: str | None = None) -> Any:  # noqa: ANN401 - of httpx or httpx2
        """Return a transport for a client of httpx or httpx2 that answers from this cache.

        What isn't a cacheable request to a model provider is sent as it comes.

        Args:
            inner: The transport that sends what isn't answered: an asynchronous or a synchronous
                one of either library. None is an asynchronous one of httpx2 or, where that isn't
                installed, of httpx.
            upstream: As for `wrap`.

        Raises:
            TypeError: ``inner`` is no transport.
            ImportError: Neither library is installed.

        Example::

            http = httpx2.AsyncClient(transport=cache.transport())
        """
        return transport_over(inner, cache=self, upstream=upstream, is_sync=False)

    def bind(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return a function that uses this cache as the current one, in any thread.

        Plain threads and executors don't inherit the current cache of the code that starts them.
        """
        return in_force.bind(self, function)

    async def forget(self, response: object = None, *, key: str | bytes | None = None) -> bool:
        """Remove the entry of a bad answer, and return whether there was one.

        Args:
            response: What a cached call returned, or its `asynccache.status`.
            key: The entry's key instead, as a `Status` or a `CallEvent` has it: 64 hexadecimal
                digits or 32 bytes. It is looked for in the namespace in force. Embeddings have an
                entry for each input: pass the response or its status.

        Raises:
            ValueError: The response didn't come from a cache, or ``key`` isn't a key.
            TypeError: Both were given.
            StoreError: The store failed, so the entry may still be there.
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
        """Return what this cache has done in this process so far, in all event loops."""
        return self._lifecycle.stats()


def values_of(cache: AsyncCache) -> Values:
    """Return the values behind a cache, which integrations use."""
    return cache._values  # noqa: SLF001 - the one place where integrations reach it


class SyncCache:
    """An `AsyncCache` for code that can't await. ``with Cache.disk() as cache:`` gives it.

    Any number of threads can use it while coroutines use the same cache. It can be entered while
    it is open: AutoGen enters it around each call. A thread that runs an event loop can use it too,
    but blocks that loop meanwhile.

    Raises:
        RuntimeError: A method that waits was called in the cache's own background loop.
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

    __bool__ = _truth

    def __reduce__(self) -> Never:
        raise TypeError(_ONE)

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
                background.call(self._cache.open)
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
        loop = background.loop_here()
        return loop is not None and self._lifecycle.changing_in(loop)

    def close(self) -> None:
        """Close the cache, even inside ``with`` blocks of it.

        It stays open for coroutines that have opened it. Closing it twice does nothing.
        """
        with self._lock:
            self._entered = 1
        self._leave()

    def _close(self) -> None:
        opened, self._opened = self._opened, False
        if opened and self._cache.is_open:
            background.call(self._cache.aclose)

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

        Answers of the OpenAI SDK and of AG2's own clients come back as objects of their classes.
        What AutoGen looks up counts as a call.
        """
        entry = background.call(self._values.find, key)
        value = objects.value_of(entry, default, type)
        if objects.is_request(key):
            bypass = self._lifecycle.bypass(in_force.current_options())
            if bypass is not None:
                with bypass.watched("autogen"):
                    pass
            else:
                used = None if value is default else entry
                self._lifecycle.note_lookup("autogen", lambda: self._values.digest(key), used)
        return value

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
        """Return the values stored under several keys, as `AsyncCache.get_many` does."""
        found = background.call(self._values.find_many, keys)
        return [objects.value_of(entry, default, type) for entry in found]

    def set(
        self,
        key: object,
        value: object,
        *,
        ttl: float | timedelta | None = None,
        type: Any = Any,  # noqa: ANN401 - as for `get`
    ) -> bool:
        """Store a value under a key, as `AsyncCache.set` does, and return whether it was stored.

        An answer of the OpenAI SDK is stored with the attributes that were set on it, except those
        that are no data, such as functions. Other objects that AutoGen wants to store are not
        stored, because AutoGen would get plain data back. They count as bypassed and are logged
        once.

        Raises:
            TypeError: As from `AsyncCache.set`.
        """
        pack = functools.partial(objects.packed_for, key)
        try:
            return all(background.call(self._values.put, [(key, value)], pack, ttl=ttl, type=type))
        except objects.LostObjectError as exc:
            self._lifecycle.note_bypass(str(exc))
            return False

    def set_many(
        self,
        items: Mapping[Any, object] | Sequence[tuple[object, object]],
        *,
        ttl: float | timedelta | None = None,
        type: Any = Any,  # noqa: ANN401 - as for `get`
    ) -> list[bool]:
        """Store several values, as `AsyncCache.set_many` does."""
        return background.call(self._values.put, items, objects.packed, ttl=ttl, type=type)

    def contains(self, key: object) -> bool:
        """Return whether a usable value is stored under a key."""
        return background.call(self._cache.contains, key)

    def delete(self, key: object) -> bool:
        """Remove the value stored under a key, and return whether there was one.

        ``key`` is the one that `set` and `get_or_create` take; see `AsyncCache.delete`.
        """
        return background.call(self._cache.delete, key)

    def clear(self) -> int:
        """Remove all entries of the namespace in force, and return how many there were."""
        return background.call(self._cache.clear)

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
        """Return the value stored under a key, or make it. Callers that ask at once share one call.

        Args:
            key: As for `AsyncCache.get_or_create`. Calls of both for one key are shared.
            create: A plain function. It runs in the calling thread.
            ttl: Seconds or timedelta until the value expires. None means the cache's own ``ttl``.
            type: As for `AsyncCache.get_or_create`.

        Raises:
            ReplayMiss: The mode is "replay" and nothing is stored.
            CacheClosedError: As from `AsyncCache.get_or_create`.
            TypeError: ``create`` isn't a plain function, or values can't be built as ``type``.
            Exception: What ``create`` raised. All callers that waited get it; it isn't stored. If
                the thread was interrupted, one of the others calls its own function instead.
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
        caller = background.BlockedCaller()
        plain = functools.partial(computing.plainly, create)

        async def work() -> Any:  # noqa: ANN401 - as above
            made = functools.partial(caller.run, plain)
            return await computing.compute(self._cache, purpose, key, made, **options)

        return caller.call(work)

    def memoize(
        self,
        *bare: Never,
        ttl: float | timedelta | None = None,
        ignore: Sequence[str] = (),
        version: str | int | None = None,
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Cache a plain function in this cache, by its name and arguments.

        The function runs in the calling thread. See `asynccache.memoize` for the rest.
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

    def transport(self, inner: object = None, *, upstream: str | None = None) -> Any:  # noqa: ANN401 - as there
        """Return a transport as `AsyncCache.transport` does; for None a synchronous one."""
        return transport_over(inner, cache=self._cache, upstream=upstream, is_sync=True)

    def bind(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return a function that uses this cache as the current one, in any thread."""
        return self._cache.bind(function)

    def forget(self, response: object = None, *, key: str | bytes | None = None) -> bool:
        """Remove the entry that an answer came from, as `AsyncCache.forget` does."""
        return background.call(self._cache.forget, response, key=key)

    def stats(self) -> Stats:
        """Return what this cache has done in this process so far, for coroutines too."""
        return self._cache.stats()


_views: Final[WeakSet[SyncCache]] = WeakSet()


def _after_fork() -> None:
    for view in list(_views):
        # A thread that only the parent has may hold the old one.
        view._lock = threading.Lock()  # noqa: SLF001 - this module's own


at_fork(after_in_child=_after_fork)
