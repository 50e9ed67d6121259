"""What a cache holds, by key: values put in and taken out, by whoever knows the key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

from asynccache.cache.computing import VALUE_META
from asynccache.cache.in_force import current_options
from asynccache.cache.lifecycle import Lifecycle, Scope
from asynccache.cache.settings import seconds_of
from asynccache.core.engine import Engine
from asynccache.core.writer import expiry
from asynccache.entries.entry import Entry, Meta, encode_entry
from asynccache.entries.values import check_type, encode_exactly
from asynccache.keys.key import Namespace, value_key
from asynccache.runtime.background import blocked_loop
from asynccache.runtime.loops import done_in
from asynccache.stores.base import UNKNOWN, Record, Unknown

_AT_ONCE: Final = 512  # keys that are looked up, or values that are written, together
_LARGE: Final = 64 * 1024  # bytes: above, a value is packed off the loop
_FOREIGN_SETTLE: Final = 10.0  # seconds that another loop may take to write what it has begun
_UNREAD: Final = frozenset({"off", "refresh"})  # modes in which nothing is looked up
_WRITING: Final = frozenset({"read_write", "refresh"})

T = TypeVar("T")

Pack = Callable[[object, Any], tuple[Meta, bytes]]
"""Makes bytes of a value that is built as a type, and says what they are."""


def packed(value: object, type: Any) -> tuple[Meta, bytes]:  # noqa: ANN401 - a type form
    """Return the bytes that a value is built from as a type.

    Raises:
        TypeError: It can't be encoded, or another would be built.
    """
    return VALUE_META, encode_exactly(value, type)


class Values:
    """Finds, stores and removes values in the cache and the namespace in force.

    Methods raise what those of `AsyncCache` raise.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle: Final = lifecycle

    def digest(self, key: object) -> bytes:
        """Return a value's digest, in the namespace and sample in force."""
        options = current_options()
        namespace = options.namespace(self._lifecycle.settings.namespace)
        return value_key(namespace, "value", key, options.sample)

    async def _scope(self) -> Scope:
        """Return the scope in force, in a turn of the loop that has time left."""
        scope = self._lifecycle.scope(current_options())
        pacer = scope.engine.pacer
        if pacer.spent():
            await pacer.slot()
        return scope

    async def find(self, key: object) -> Entry | None:
        """Return the entry of a value, None for nothing."""
        scope = await self._scope()
        digest = value_key(scope.namespace, "value", key, scope.options.sample)
        if scope.mode in _UNREAD:
            return None
        client = scope.client
        replayed = scope.mode == "replay"
        if (storing := scope.engine.storing(digest)) is not None:
            await scope.engine.stored([storing])
        entry = client.peek(digest, replayed=replayed)
        if isinstance(entry, Unknown):
            entry = await client.found(digest, client.look_up(digest), replayed=replayed)
        return entry if isinstance(entry, Entry) else None

    async def find_many(self, keys: Sequence[object]) -> list[Entry | None]:
        """Return the entries of values, None for each that isn't there."""
        scope, keys = await self._scope(), list(keys)
        found: list[Entry | None] = []
        for start in range(0, len(keys), _AT_ONCE):
            found += await self._find_some(scope, keys[start : start + _AT_ONCE])
        return found

    async def read_many(self, keys: Sequence[object], read: Callable[[Entry | None], T]) -> list[T]:
        """Return what is read of each entry that `find_many` returns."""
        found: list[T] = []
        pacer = self._engine().pacer
        for at, entry in enumerate(await self.find_many(keys)):
            if pacer.is_due(at):
                await pacer.slot()
            found.append(read(entry))
        return found

    async def _find_some(self, scope: Scope, keys: Sequence[object]) -> list[Entry | None]:
        client, engine, sample = scope.client, scope.engine, scope.options.sample
        replayed = scope.mode == "replay"
        found: list[Entry | None] = []
        unknown: list[tuple[int, bytes]] = []
        storing: list[asyncio.Task[None]] = []
        for at, key in enumerate(keys):
            if engine.pacer.is_due(at):
                await engine.pacer.slot()
            digest = value_key(scope.namespace, "value", key, sample)
            entry: Entry | Unknown | None = None
            if scope.mode not in _UNREAD:
                if (task := engine.storing(digest)) is not None:
                    storing.append(task)
                entry = UNKNOWN if task is not None else client.peek(digest, replayed=replayed)
            if isinstance(entry, Unknown):
                unknown.append((at, digest))
                entry = None
            found.append(entry)
        if storing:
            await engine.stored(storing)
        looked_up = [(at, digest, client.look_up(digest)) for at, digest in unknown]
        for at, entry in await client.all_found(looked_up, replayed=replayed):
            found[at] = entry
        return found

    async def put(
        self,
        items: Mapping[Any, object] | Sequence[tuple[object, object]],
        pack: Pack,
        *,
        ttl: float | timedelta | None = None,
        type: Any = Any,  # noqa: ANN401 - any type form
    ) -> list[bool]:
        """Store several values by what makes bytes of them and names these."""
        pairs = list(items.items()) if isinstance(items, Mapping) else list(items)
        seconds = seconds_of(ttl)
        check_type(type)
        with self._lifecycle.setting():
            return await self._put(pairs, lambda value: pack(value, type), seconds)

    async def _put(
        self,
        pairs: list[tuple[Any, object]],
        pack: Callable[[object], tuple[Meta, bytes]],
        ttl: float | None,
    ) -> list[bool]:
        stored = [False] * len(pairs)
        scope = await self._scope()
        settings, outside = scope.settings, self._lifecycle.outside
        now = scope.now()
        expires = expiry(scope.ttl if ttl is None else ttl, now, settings.ttl_jitter)
        records: list[tuple[int, Record]] = []
        for at, (key, value) in enumerate(pairs):  # all, so that nothing is stored if one can't be
            if scope.engine.pacer.is_due(at):
                await scope.engine.pacer.slot()
            digest = value_key(scope.namespace, "value", key, scope.options.sample)
            if scope.mode not in _WRITING:
                continue
            meta, data = pack(value)
            if len(data) > settings.max_entry_bytes:
                outside.not_stored["oversized"] += 1
                continue
            entry = Entry(digest, now, expires, meta, (data,))
            if len(data) > _LARGE:  # compressing and summing it would hold the loop
                body = await asyncio.to_thread(encode_entry, entry)
            else:
                body = encode_entry(entry)
            records.append((at, Record(key=digest, body=body, expires=expires)))
            outside.unusable += meta.unusable
        for at, done in await self._written(scope, records):
            stored[at] = done
        outside.stored += sum(stored)
        return stored

    async def _written(
        self, scope: Scope, records: Sequence[tuple[int, Record]]
    ) -> list[tuple[int, bool]]:
        """Write records, each with its place among others; return with it whether it was."""
        pacer = scope.engine.pacer
        writing: list[asyncio.Future[list[bool | None]]] = []
        for start in range(0, len(records), _AT_ONCE):
            if start:
                await pacer.slot()
            some = [record for _, record in records[start : start + _AT_ONCE]]
            await self._settle(scope.namespace, {record.key for record in some})
            writing.append(asyncio.gather(*map(scope.client.set, some)))
        each = [await writing[0]] if len(writing) == 1 else await asyncio.gather(*writing)
        places, found = iter(records), list[tuple[int, bool]]()
        for written in each:
            if found:
                await pacer.slot()
            found += [(at, bool(done)) for done, (at, _) in zip(written, places, strict=False)]
        return found

    async def delete(self, key: object) -> bool:
        """Remove a value; return whether there was one."""
        scope = self._lifecycle.scope(current_options())
        digest = value_key(scope.namespace, "value", key, scope.options.sample)
        return await self.remove(scope.namespace, digest)

    async def remove(self, namespace: Namespace, *digests: bytes) -> bool:
        """Remove entries by their digests; return whether there were any."""
        engine = self._engine()
        await self._settle(namespace, digests)
        store = self._lifecycle.store
        removed: int = await engine.client(namespace).insist(
            lambda: store.delete_many(namespace, digests)
        )
        return removed > 0

    async def clear(self) -> int:
        """Remove every entry of the namespace in force; return how many there were."""
        scope = self._lifecycle.scope(current_options())
        await self._settle(scope.namespace, None)
        store, namespace = self._lifecycle.store, scope.namespace
        removed: int = await scope.client.insist(lambda: store.clear(namespace), bounded=False)
        return removed

    def _engine(self) -> Engine:
        return self._lifecycle.scope(current_options()).engine

    async def _settle(self, namespace: Namespace, keys: Collection[bytes] | None) -> None:
        """Keep calls for keys (None: all of a namespace) from storing; wait for what is stored.

        Then what goes to the store at once, before anything is awaited, comes last.
        """
        mine = self._engine()
        others = [each for each in self._lifecycle.engines_to_settle() if each is not mine]
        if others:
            await asyncio.gather(*(_settle_elsewhere(engine, namespace, keys) for engine in others))
        await mine.settle(namespace, keys)


async def _settle_elsewhere(
    engine: Engine, namespace: Namespace, keys: Collection[bytes] | None
) -> None:
    patience = _FOREIGN_SETTLE
    if engine.loop is blocked_loop():  # it settles once it may go on, which is too late
        engine.supersede(namespace, keys)
        patience = 0
    await done_in(engine.loop, lambda: engine.settle(namespace, keys), patience=patience)
