"""What a cache holds, by key: values put in and taken out, by whoever knows the key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar, overload

from msgspec import UNSET

from asynccache.cache import in_force
from asynccache.cache.computing import VALUE_META
from asynccache.cache.lifecycle import Lifecycle, Settings
from asynccache.core.calls import Mode, StoreIf
from asynccache.core.engine import Engine
from asynccache.core.shelf import Asked, all_found
from asynccache.core.writer import expiry
from asynccache.entries.entry import Entry, Meta, encode_entry
from asynccache.entries.values import MISSING, decode_value, encode_value
from asynccache.keys.key import Namespace, value_key
from asynccache.runtime.background import held_loop
from asynccache.runtime.clock import Clock
from asynccache.runtime.loops import done_in
from asynccache.stores.base import Record, Store, Unknown

_LARGE: Final = 64 * 1024  # bytes: above, a value is packed off the loop
_FOREIGN_SETTLE: Final = 10.0  # seconds that another loop may take to write what it has begun

T = TypeVar("T")
D = TypeVar("D")


class Values(Lifecycle):
    """The part of `AsyncCache` that stores and finds values, and removes what is stored."""

    def __init__(self, store: Store, settings: Settings, clock: Clock) -> None:
        super().__init__(store, settings, clock)
        self.settings: Final = settings

    def ttl_in_force(self, asked: float | None) -> float | None:
        """For integrations: return how many seconds an answer is kept.

        As asked, or as the block has it, or the cache.
        """
        if asked is not None:
            return asked
        optional = in_force.current_options().ttl
        return self.settings.ttl if optional is UNSET else optional

    def rule_in_force(self) -> StoreIf:
        """For integrations: return the rule for storing an answer: the block's, or the cache's."""
        optional = in_force.current_options().store_if
        return self.settings.store_if if optional is UNSET else optional

    def _now(self, key: object) -> tuple[Engine, Namespace, Mode, bytes]:
        options = in_force.current_options()
        namespace = options.namespace(self.settings.namespace)
        mode = self.settings.mode if options.mode is UNSET else options.mode
        return self.engine(), namespace, mode, value_key(namespace, "value", key, options.sample)

    def digest(self, key: object) -> bytes:
        """For integrations: return a value's digest, in the namespace and sample in force.

        Raises:
            NotCanonicalError: The key has no canonical form.
        """
        options = in_force.current_options()
        return value_key(options.namespace(self.settings.namespace), "value", key, options.sample)

    async def paced(self) -> None:
        """For integrations: go on in a turn of the loop that has time left."""
        pacer = self.engine().pacer
        if pacer.spent():
            await pacer.slot()

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
        entry = await self.find(key)
        return default if entry is None else decode_value(entry.body, type)

    async def find(self, key: object) -> Entry | None:
        """For integrations: return the entry of a value, None for nothing; raises as `get` does."""
        await self.paced()
        engine, namespace, mode, digest = self._now(key)
        if mode in {"off", "refresh"}:
            return None
        shelf = engine.shelf
        entry = engine.pending(digest) or shelf.peek(namespace, digest)
        if isinstance(entry, Unknown):
            entry = await shelf.found(digest, shelf.ask(namespace, digest))
        return entry if isinstance(entry, Entry) else None

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
        found = await self.find_many(keys)
        return [default if entry is None else decode_value(entry.body, type) for entry in found]

    async def find_many(self, keys: Sequence[object]) -> list[Entry | None]:
        """For integrations: return the entries of values, None for each that isn't there."""
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
        return found

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
        return await self.put(items, _packed, ttl=ttl)

    async def put(
        self,
        items: Mapping[Any, object] | Sequence[tuple[object, object]],
        pack: Callable[[object], tuple[Meta, bytes]],
        *,
        ttl: float | timedelta | None = None,
    ) -> list[bool]:
        """For integrations: store several values by what makes bytes of them and names these."""
        pairs = list(items.items()) if isinstance(items, Mapping) else list(items)
        kept = self.ttl_in_force(in_force.seconds_of(ttl))
        with self.setting():
            return await self._put(pairs, pack, kept)

    async def _put(
        self,
        pairs: list[tuple[Any, object]],
        pack: Callable[[object], tuple[Meta, bytes]],
        kept: float | None,
    ) -> list[bool]:
        await self.paced()
        now = self._clock.time_us()
        expires = expiry(kept, now, self.settings.ttl_jitter)
        records: list[tuple[Engine, Namespace, Record]] = []
        stored = [False] * len(pairs)
        places: list[int] = []
        for at, (key, value) in enumerate(pairs):
            engine, namespace, mode, digest = self._now(key)
            if mode not in {"read_write", "refresh"}:
                continue
            meta, data = pack(value)
            if len(data) > self.settings.max_entry_bytes:
                self._outside.not_stored["oversized"] += 1
                continue
            places.append(at)
            entry = Entry(digest, now, expires, meta, (data,))
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
        for at, done in zip(places, written, strict=True):
            stored[at] = done
        return stored

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
        engine, namespace, _, digest = self._now(key)
        return await self._delete(engine, namespace, digest)

    async def _delete(self, engine: Engine, namespace: Namespace, *keys: bytes) -> bool:
        await self._settle(keys)
        store = self._store
        removed: int = await engine.shelf.lane(namespace).insist(
            lambda: store.delete_many(namespace, keys)
        )
        return removed > 0

    async def clear(self) -> int:
        """Remove every entry of this namespace and of no other; return how many there were.

        Raises:
            StoreError: Some may still be there.
            CacheClosedError: The cache isn't open.
        """
        engine = self.engine()
        namespace = in_force.current_options().namespace(self.settings.namespace)
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
            await asyncio.gather(*(_settle_elsewhere(engine, keys) for engine in others))
        await mine.settle(keys)


async def _settle_elsewhere(engine: Engine, keys: Collection[bytes] | None) -> None:
    patience = 0 if engine.loop is held_loop() else _FOREIGN_SETTLE  # it does, once it may go on
    await done_in(engine.loop, lambda: engine.settle(keys), patience=patience)


def _packed(value: object) -> tuple[Meta, bytes]:
    return VALUE_META, encode_value(value)
