"""What is done to the keys of one namespace: read, put, removed, listed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from asynccache.errors import StoreUnavailableError
from asynccache.stores.base import Record
from asynccache.stores.cosmos.errors import NOT_FOUND
from asynccache.stores.cosmos.items import (
    LARGE,
    EntryText,
    Item,
    Parts,
    pack,
    part_ids,
    part_ttl,
    prefix_of,
    read,
    text_bytes,
    unpack,
)
from asynccache.stores.cosmos.requests import PATIENT, Requests, Row

_TOGETHER: Final = 8  # keys: from here on a query costs fewer request units than point reads
_RACES: Final = 100  # times that others may change an item while we do
_SELECT: Final = (
    "SELECT c.id, c._etag, c.entry.head, c.entry.expires, c.entry.parts,"
    " IS_DEFINED(c.lease) AS leased FROM c WHERE"
)
_ENTRIES: Final = "IS_DEFINED(c.entry)"
_ALL: Final = "(IS_DEFINED(c.entry) OR IS_DEFINED(c.part))"
_KEY: Final = re.compile(r"[0-9a-f]{64}")


class Keys(Requests):
    """The keys of a namespace: what takes more than one request, or a choice between them."""

    # -- reading -------------------------------------------------------------------------------

    async def bodies(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the encoded entry of each key."""
        if len(keys) < _TOGETHER:
            items = await asyncio.gather(*map(self.read, keys))
        else:
            names = {self.name(key): key for key in keys}
            pairs = [(name, name) for name in names]
            _, documents = await self.link.ask(
                lambda container: container.read_items(pairs, response_hook=self.link.count)
            )
            found = {item.id: item for item in map(read, documents or ())}
            items = [found.get(name) for name in names]
        bodies: list[bytes | None] = []
        for key, item in zip(keys, items, strict=True):
            if item is None:
                bodies.append(None)
                continue
            if item.lease is not None:
                self.held.see(item.id)
            bodies.append(await self.body(key, item))
        return bodies

    async def body(self, key: bytes, item: Item) -> bytes | None:
        """Return the encoded entry that an item holds, wherever its parts are."""
        for _ in range(_RACES):
            entry = item.live(self.clock.time_us())
            if entry is None:
                return None
            if entry.parts is None:
                if len(entry.body) > LARGE:
                    return await asyncio.to_thread(unpack, entry)
                return unpack(entry)
            names = part_ids(self.namespace, entry.parts)
            parts = await asyncio.gather(*map(self.read_named, names))
            texts = [part["part"] for part in parts if part is not None]
            if len(texts) == len(names):
                return await asyncio.to_thread(unpack, entry, texts)
            again = await self.read(key)  # overwritten while we read? then there is a new one
            if again is None or again.etag == item.etag:
                return None
            item = again
        return None

    async def heads(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the envelopes of those keys that have an entry."""
        names = {self.name(key): key for key in keys}
        now = self.clock.time_us()
        heads: dict[bytes, bytes] = {}
        cursor = None
        while True:
            rows, cursor = await self.query(
                f"{_SELECT} ARRAY_CONTAINS(@ids, c.id) AND {_ENTRIES}",
                {"@ids": list(names)},
                cursor,
            )
            heads.update((names[row.id], text_bytes(row.head)) for row in rows if row.is_live(now))
            if cursor is None:
                return heads

    async def page(self, cursor: str | None, *, parts: bool) -> tuple[list[Row], str | None]:
        """Return a page of all entries, and of parts where they are asked for, too."""
        return await self.query(
            f"{_SELECT} STARTSWITH(c.id, @prefix) AND {_ALL if parts else _ENTRIES}",
            {"@prefix": prefix_of(self.namespace)},
            cursor,
        )

    # -- writing -------------------------------------------------------------------------------

    async def put(self, record: Record) -> bool:
        """Write an entry and give back the lease it names; False where one had to be absent."""
        body = record.body
        if 0 < record.expires <= self.clock.time_us():  # it would be gone at once
            there = await self.remove(record.key, unless_live=record.if_absent)
            return there or not record.if_absent
        arguments = (body, record.expires, record.meta)
        if len(body) > LARGE:
            entry, texts = await asyncio.to_thread(pack, *arguments)
        else:
            entry, texts = pack(*arguments)
        if not texts:
            return await self._commit(record, entry)
        try:
            await self._put_parts(entry, texts)
        except BaseException:  # cancelled, too
            self.link.spawn(self._remove_parts(entry.parts))
            raise
        # From here on a cancelled caller doesn't stop it: what others may see must be whole.
        return await asyncio.shield(self.link.spawn(self._commit(record, entry)))

    async def _put_parts(self, entry: EntryText, texts: Sequence[str]) -> None:
        if entry.parts is None:
            return
        ttl = part_ttl(entry.expires, self.clock.time_us())
        names = part_ids(self.namespace, entry.parts)

        async def one(name: str, text: str) -> None:
            document = self.form.part(self.namespace, name, text, ttl)
            await self.write(  # one that is there already is ours: its answer was lost
                lambda container, hook: container.create_item(
                    document, no_response=True, response_hook=hook
                ),
                times=PATIENT,
            )

        async with asyncio.TaskGroup() as group:
            for name, text in zip(names, texts, strict=True):
                group.create_task(one(name, text))

    async def _commit(self, record: Record, entry: EntryText) -> bool:
        try:
            written, old = await self._put(record, entry)
        except BaseException:
            if entry.parts is not None:
                self.link.spawn(self._remove_parts(entry.parts))
            raise
        await self._later(self._remove_parts(old if written else entry.parts))
        return written

    async def _put(self, record: Record, entry: EntryText) -> tuple[bool, Parts | None]:
        key, lease = record.key, record.lease
        token = "" if lease is None else lease.token.hex()
        noted = self.held.take(token)
        if noted is not None:  # the item is our lease, if nobody has changed it
            status, _ = await self.replace(key, noted[0], entry=entry)
            if not status:
                return True, None
        else:
            status, _ = await self.create(key, entry=entry)
            if not status:
                return True, None
        for _ in range(_RACES):
            item = await self.read(key)
            if item is None:
                status, _ = await self.create(key, entry=entry)
                if not status:
                    return True, None
                continue
            there = item.live(self.clock.time_us())
            ours = item.lease is not None and item.lease.token == token
            if there is not None and there == entry and not ours:  # our answer was lost
                return True, None
            if there is not None and record.if_absent:
                return False, None
            kept = None if ours else item.lease
            status, _ = await self.replace(key, item.etag, entry=entry, lease=kept)
            if not status:
                return True, None if item.entry is None else item.entry.parts
        raise StoreUnavailableError("others change this item faster than it can be written")

    async def remove(self, key: bytes, *, unless_live: bool = False) -> bool:
        """Remove an entry, and the parts of it; return whether it was there and is gone."""
        for _ in range(_RACES):
            item = await self.read(key)
            if item is None or item.entry is None:
                return unless_live
            live = item.live(self.clock.time_us()) is not None
            if live and unless_live:
                return False
            if item.lease is None:
                status = await self.delete(key, item.etag)
            else:
                status, _ = await self.replace(key, item.etag, lease=item.lease)
            if status == NOT_FOUND:
                return unless_live
            if not status:
                await self._later(self._remove_parts(item.entry.parts))
                return live or unless_live
        raise StoreUnavailableError("others change this item faster than it can be removed")

    async def remove_row(self, row: Row) -> bool:
        """Remove what a page has shown; return whether it was a live entry."""
        name = row.id.removeprefix(prefix_of(self.namespace))
        if row.head is None:
            if name.startswith("+"):
                await self.delete_named(row.id)
            return False
        if row.leased or not _KEY.fullmatch(name):
            return bool(_KEY.fullmatch(name)) and await self.remove(bytes.fromhex(name))
        status = await self.delete_named(row.id, row.etag)
        if status and status != NOT_FOUND:  # overwritten since the page was made
            return await self.remove(bytes.fromhex(name))
        await self._later(self._remove_parts(row.parts))
        return not status and row.is_live(self.clock.time_us())

    async def _remove_parts(self, parts: Parts | None) -> None:
        if parts is not None:
            await asyncio.gather(*map(self.delete_named, part_ids(self.namespace, parts)))

    async def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what a cancelled caller must not leave half done."""
        await asyncio.shield(self.link.spawn(work))
