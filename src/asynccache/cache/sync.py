"""The same cache for code that can't await: plain functions, scripts, threads.

Every call is made in the background loop (`_portal`), where the cache is one more loop's, and the
calling thread waits for it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Never, ParamSpec, Self, TypeVar, overload
from weakref import WeakSet

from anyio import to_thread

from asynccache.cache import computing, in_force, objects
from asynccache.cache.cache import AsyncCache
from asynccache.cache.function_keys import FunctionKeys
from asynccache.cache.lifecycle import Settings
from asynccache.cache.memoize import refuse_bare
from asynccache.core.counters import Stats
from asynccache.entries.return_types import usual_type
from asynccache.runtime import background
from asynccache.runtime.background import waited

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")


class SyncCache:
    """An `AsyncCache` for code that can't await. ``with Cache.disk() as cache:`` gives it.

    Use it from any number of threads, while coroutines use the same cache. It may be entered again,
    also where it is open: AutoGen does so around each single call. A thread whose event loop is
    running may use it too, and holds that loop up meanwhile.

    Raises:
        RuntimeError: From any method that waits, called in the background loop itself.
    """

    __slots__ = ("__weakref__", "_cache", "_entered", "_frames", "_lock", "_opened")

    def __init__(self, cache: AsyncCache) -> None:
        self._cache: Final = cache
        self._frames: list[in_force.ScopeFrame[AsyncCache]] = []
        self._lock = threading.Lock()
        self._entered = 0
        self._opened = False  # this face has opened the cache, and not closed it
        _faces.add(self)

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
            background.start(to_thread.run_sync, self._leave)
            return
        with self._lock:
            self._entered = max(0, self._entered - 1)
            if not self._entered:
                self._close()

    def _would_hang(self) -> bool:
        if background.in_portal():
            return True
        try:
            return self._cache.changing_in(asyncio.get_running_loop())
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
        return objects.value_of(waited(self._cache.find, key), default, type)

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
        found = waited(self._cache.find_many, keys)
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
            return all(waited(self._cache.put, [(key, value)], pack, ttl=ttl))
        except objects.LostObjectError as exc:
            self._cache.note_bypass(str(exc))
            return False

    def set_many(
        self,
        items: Mapping[Any, object] | Sequence[tuple[object, object]],
        *,
        ttl: float | timedelta | None = None,
    ) -> list[bool]:
        """Store several values as `set` does; pairs, as not every key can be a dict's."""
        return waited(self._cache.put, items, objects.packed, ttl=ttl)

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
        name, seconds = computing.name_of(create), in_force.seconds_of(ttl)
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
        refuse_bare(bare)
        seconds = in_force.seconds_of(ttl)

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            recipe = FunctionKeys(function, ignore, version)
            if inspect.iscoroutinefunction(function):
                raise TypeError(f"{recipe.name} is async: use asynccache.memoize")

            @functools.wraps(function)
            def memoized(*args: P.args, **kwargs: P.kwargs) -> T:
                result: T = self._computed(
                    "memoize",
                    recipe.key(args, kwargs),
                    functools.partial(function, *args, **kwargs),
                    name=recipe.name,
                    ttl=seconds,
                    type=recipe.returns(),
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


_faces: Final[WeakSet[SyncCache]] = WeakSet()


def _after_fork() -> None:
    for face in list(_faces):
        # A thread that only the parent has may hold the old one.
        face._lock = threading.Lock()  # noqa: SLF001 - this module's own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
