"""The cache itself: one interface over any store, for every event loop of a process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, overload

from msgspec import UNSET

from asynccache import _context, _memoize
from asynccache._call import Mode, status_of
from asynccache._clock import SYSTEM_CLOCK, Clock
from asynccache._compute import VALUE_META, compute
from asynccache._engine import Engine
from asynccache._entry import Entry, encode_entry
from asynccache._key import Namespace, value_key
from asynccache._lifetime import Lifetime, Settings
from asynccache._recorder import expiry
from asynccache._shelf import Asked, all_found
from asynccache._values import MISSING, decode_value, encode_value
from asynccache._wrappers import wrap_client
from asynccache.stores._base import Record, Store, Unknown

_log = logging.getLogger("asynccache")

_LARGE: Final = 64 * 1024  # bytes: above, a value is packed off the loop
_FOREIGN_SETTLE: Final = 10.0  # seconds that another loop may take to write what it has begun

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")


class AsyncCache(Lifetime):
    """A cache of finished answers. Made by `Cache`, opened by ``async with`` or `open`.

    One object works in several event loops and threads at once, and may be opened again after it
    was closed. Opening counts: it closes when it was closed as often as it was opened.
    """

    def __init__(self, store: Store, settings: Settings, *, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(store, settings, clock)
        self.settings: Final = settings
        self._frames: list[_context.Frame[AsyncCache]] = []
        self._told: set[str] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        self._frames.append(_context.enter(self))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _context.leave(self, self._frames)
        await self.aclose()

    def __repr__(self) -> str:
        state = "open" if self._opened else "closed"
        return f"<AsyncCache {type(self._store).__name__} {self.settings.namespace.text} {state}>"

    # -- values ------------------------------------------------------------------------------

    def _now(self, key: object) -> tuple[Engine, Namespace, Mode, bytes]:
        options = _context.current_options()
        namespace = options.namespace(self.settings.namespace)
        mode = self.settings.mode if options.mode is UNSET else options.mode
        return self.engine(), namespace, mode, value_key(namespace, "value", key, options.sample)

    async def paced(self) -> None:
        """Go on in a turn of the loop that has time left."""
        pacer = self.engine().pacer
        if pacer.spent():
            await pacer.slot()

    @overload
    async def get(self, key: object, default: object) -> Any: ...  # noqa: ANN401 - any value
    @overload
    async def get(self, key: object, default: D, *, type: type[T]) -> T | D: ...
    @overload
    async def get(self, key: object, default: None = None, *, type: type[T]) -> T | None: ...
    @overload
    async def get(self, key: object) -> Any: ...  # noqa: ANN401 - any value
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
        await self.paced()
        engine, namespace, mode, digest = self._now(key)
        if mode in {"off", "refresh"}:
            return default
        shelf = engine.shelf
        entry = engine.pending(digest) or shelf.peek(namespace, digest)
        if isinstance(entry, Unknown):
            entry = await shelf.found(digest, shelf.ask(namespace, digest))
        return decode_value(entry.body, type) if isinstance(entry, Entry) else default

    async def get_many(
        self,
        keys: Sequence[object],
        default: object = None,
        *,
        type: Any = Any,  # noqa: ANN401 - any type form
    ) -> list[Any]:
        """Return the values stored under keys, in order, with ``default`` for those that aren't."""
        await self.paced()
        found: list[Any] = []
        asked: list[Asked] = []
        for at, key in enumerate(keys):
            engine, namespace, mode, digest = self._now(key)
            entry = None
            if mode not in {"off", "refresh"}:
                entry = engine.pending(digest) or engine.shelf.peek(namespace, digest)
                if entry is not None and not isinstance(entry, Entry):
                    asked.append((at, engine.shelf, digest, engine.shelf.ask(namespace, digest)))
                    entry = None
            found.append(entry)
        for at, entry in await all_found(asked):
            found[at] = entry
        return [default if entry is None else decode_value(entry.body, type) for entry in found]

    async def set(
        self, key: object, value: object, *, ttl: float | timedelta | None = None
    ) -> bool:
        """Store a value under a key, and return once it is as safe as the store makes it.

        Args:
            key: Anything with a canonical form.
            value: Anything that msgspec can encode, or a pydantic model.
            ttl: Seconds or timedelta until it expires; None leaves the cache's own.

        Returns:
            Whether it was stored: not in mode "off", "read_only" or "replay", nor if the store
            failed (see `stats`).

        Raises:
            NotCanonicalError: The key has no canonical form.
            TypeError: The value can't be encoded.
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
        pairs = list(items.items()) if isinstance(items, Mapping) else list(items)
        kept = self.ttl_in_force(_context.seconds_of(ttl))
        await self.paced()
        now = self._clock.time_us()
        expires = expiry(kept, now, self.settings.ttl_jitter)
        records: list[tuple[Engine, Namespace, Record]] = []
        for key, value in pairs:
            engine, namespace, mode, digest = self._now(key)
            if mode not in {"read_write", "refresh"}:
                continue
            entry = Entry(digest, now, expires, VALUE_META, (encode_value(value),))
            if len(entry.body) > _LARGE:  # compressing and summing it would hold the loop
                body = await asyncio.to_thread(encode_entry, entry)
            else:
                body = encode_entry(entry)
            record = Record(key=digest, body=body, expires=expires)
            records.append((engine, namespace, record))
        await self._settle({record.key for _, _, record in records})
        writing = [e.shelf.lane(namespace).set(record) for e, namespace, record in records]
        written = [await writing[0]] if len(writing) == 1 else await asyncio.gather(*writing)
        self._outside.stored += sum(written)
        return written or [False] * len(pairs)

    async def contains(self, key: object) -> bool:
        """Tell whether something sound is stored under a key."""
        return await self.get(key, MISSING) is not MISSING

    async def delete(self, key: object) -> bool:
        """Remove the value stored under a key; return whether there was one.

        A call under way for it still answers its callers, and stores nothing.

        Raises:
            StoreError: It may still be there.
            CacheClosedError: The cache isn't open.
        """
        engine, namespace, _, digest = self._now(key)
        return await self._delete(engine, namespace, digest)

    async def forget(self, response: object) -> bool:
        """Remove the entry that a response came from, as the answer was bad; tell if there was one.

        Raises:
            ValueError: The response didn't come from a cache.
            StoreError: The entry may still be there.
        """
        status = status_of(response)
        if status is None:
            raise ValueError("this response has no entry: it didn't come through a cache")
        return await self._delete(self.engine(), status.namespace, status.digest)

    async def _delete(self, engine: Engine, namespace: Namespace, digest: bytes) -> bool:
        await self._settle([digest])
        store = self._store
        removed: int = await engine.shelf.lane(namespace).insist(
            lambda: store.delete_many(namespace, [digest])
        )
        return removed > 0

    async def clear(self) -> int:
        """Remove every entry of this namespace and of no other; return how many there were.

        Raises:
            StoreError: Some may still be there.
            CacheClosedError: The cache isn't open.
        """
        engine = self.engine()
        namespace = _context.current_options().namespace(self.settings.namespace)
        await self._settle(None)
        store, lane = self._store, engine.shelf.lane(namespace)
        removed: int = await lane.insist(lambda: store.clear(namespace), bounded=False)
        return removed

    async def _settle(self, keys: Collection[bytes] | None) -> None:
        """Keep calls under way for keys (None: all) from storing; wait for what is being stored.

        Then what goes to the store at once, before anything is awaited, comes last.
        """
        mine = self.engine()
        others = [engine for engine in list(self._engines.values()) if engine is not mine]
        if others:
            settling = [
                asyncio.wrap_future(
                    asyncio.run_coroutine_threadsafe(engine.settle(keys), engine.loop)
                )
                for engine in others
                if engine.loop.is_running()
            ]
            if settling:
                await asyncio.wait(settling, timeout=_FOREIGN_SETTLE)
        await mine.settle(keys)

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
            create: Makes the value, e.g. a coroutine function.
            ttl: Seconds or timedelta until it expires; None leaves the cache's own.
            type: Build the value as this type; else as plain data. Made or found, it is built from
                the stored bytes, so that every caller has an object of their own.

        Raises:
            ReplayMiss: In mode "replay", nothing is stored.
            CacheClosedError: The cache was closed, or isn't open.
            TypeError: The value can't be encoded.
            Exception: What ``create`` raised; it is shared with all who waited, and not stored.
        """
        return await compute(self, "value", key, create, ttl=_context.seconds_of(ttl), type=type)

    def memoize(
        self,
        *,
        ttl: float | timedelta | None = None,
        ignore: Sequence[str] = (),
        version: str | int | None = None,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
        """Cache an async function in this cache; see `asynccache.memoize`."""
        return _memoize.memoize(ttl=ttl, ignore=ignore, version=version, cache=self)

    def wrap(self, client: T, *, upstream: str | None = None) -> T:
        """Return a client of the same type whose cacheable calls go through this cache.

        Args:
            client: An ``AsyncOpenAI`` or a subclass. It stays as it is; the two share connections.
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
        return _context.bind(self, function)

    def ttl_in_force(self, asked: float | None) -> float | None:
        """Return the seconds that an answer is kept: as asked, or the block's, or the cache's."""
        if asked is not None:
            return asked
        optional = _context.current_options().ttl
        return self.settings.ttl if optional is UNSET else optional

    # -- what happened -----------------------------------------------------------------------

    def note_bypass(self, reason: str | None) -> None:
        """Count a call that goes past the cache; log each reason once."""
        self._outside.bypassed += 1
        if reason is not None and reason not in self._told:
            self._told.add(reason)
            _log.warning("not cached, further ones are only counted: %s", reason)

    def now(self) -> int:
        """Return what the cache's clock says, in microseconds since the epoch."""
        return self._clock.time_us()
