"""The keys of one namespace: read, changed where nobody else has changed them, and listed."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias, TypeVar, cast

from azure.core import MatchConditions

from asynccache.errors import StoreError, StoreUnavailableError
from asynccache.keys.key import Namespace
from asynccache.stores.base import Record
from asynccache.stores.cosmos.account import CosmosContainer
from asynccache.stores.cosmos.items import (
    LARGE,
    CosmosItem,
    EntryText,
    GenerationText,
    LeaseText,
    document,
    envelope_of,
    id_of,
    item_content,
    pack,
    part_content,
    part_ids,
    prefix_of,
    read,
    unpack,
)
from asynccache.stores.cosmos.link import CosmosAnswer, CosmosLink

T = TypeVar("T")
_log = logging.getLogger("asynccache")
Wanted: TypeAlias = tuple[EntryText | None, LeaseText | None, GenerationText | None]
Step: TypeAlias = Callable[[CosmosItem], Awaitable[Wanted | None]]

_TOGETHER: Final = 8  # keys: from here on a query costs fewer request units than point reads
_PATIENT: Final = 10  # timeouts: for writes, which no caller waits for
_RACES: Final = 100  # times that others may change an item while we do
_PAGE: Final = 1000  # rows of a query
_SELECT: Final = (
    "SELECT c.id, c._etag, c.lease, c.generation,"
    ' {"head": c.entry.head, "expires": c.entry.expires, "parts": c.entry.parts} AS entry'
    " FROM c WHERE "
)
_ENTRIES: Final = "IS_DEFINED(c.entry)"
_KEY: Final = re.compile(r"[0-9a-f]{64}")


class CosmosKeys:
    """The keys of a namespace, on the running loop's link."""

    def __init__(self, link: CosmosLink, container: CosmosContainer, namespace: Namespace) -> None:
        self.link = link
        self.expires = container.expires
        """The container ends what is past its ``ttl``."""
        self._path = container.path
        self._namespace = namespace

    def now(self) -> int:
        """Return microseconds since the epoch."""
        return self.link.clock.time_us()

    def nothing(self, key: bytes) -> CosmosItem:
        """Return the item of a key that nothing is kept for."""
        return CosmosItem(id=self._id(key))

    def remembered(self, key: bytes, token: bytes) -> CosmosItem | None:
        """Return what was noted of the item of one's own lease, and forget it."""
        return self.link.own.pop((self._id(key), token), None)

    def _id(self, key: bytes) -> str:
        return id_of(self._namespace, key)

    # -- reading -------------------------------------------------------------------------------

    async def read(self, key: bytes) -> CosmosItem:
        """Return a key's item."""
        found = await self._document(self._id(key))
        return self.nothing(key) if found is None else read(found)

    async def _document(self, name: str) -> Any:  # noqa: ANN401 - JSON
        return (await self._ask("read_item", name, name)).result

    async def bodies(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the encoded entry of each key."""
        if len(keys) < _TOGETHER:
            items = await asyncio.gather(*map(self.read, keys))
        else:
            pairs = [(name, name) for name in map(self._id, keys)]
            answer = await self._ask("read_items", pairs)
            found = {item.id: item for item in map(read, answer.result)}
            items = [found.get(name) or CosmosItem(id=name) for name, _ in pairs]
        bodies: list[bytes | None] = []
        for key, item in zip(keys, items, strict=True):
            if item.lease is not None:
                self.link.held[item.id] = None
            bodies.append(await self.body(key, item))
        return bodies

    async def body(self, key: bytes, item: CosmosItem) -> bytes | None:
        """Return the encoded entry that an item holds, wherever its parts are."""
        for _ in range(_RACES):
            entry = item.live(self.now())
            if entry is None:
                return None
            if not entry.parts:
                if len(entry.body) > LARGE:
                    return await asyncio.to_thread(unpack, entry)
                return unpack(entry)
            names = part_ids(self._namespace, entry)
            parts = await asyncio.gather(*map(self._document, names))
            if None not in parts:
                return await asyncio.to_thread(unpack, entry, [part["part"] for part in parts])
            again = await self.read(key)  # overwritten while we read? then there is a new one
            if again.etag == item.etag:
                return None
            item = again
        return None

    async def heads(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the envelopes of those keys that have an entry."""
        names = {self._id(key): key for key in keys}
        heads: dict[bytes, bytes] = {}
        cursor: str | None = ""
        while cursor is not None:
            found, cursor = await self._query(
                f"ARRAY_CONTAINS(@given, c.id) AND {_ENTRIES}", list(names), cursor
            )
            heads.update((names[item.id], head) for item, head in self.envelopes(found))
        return heads

    def envelopes(self, items: Iterable[CosmosItem]) -> list[tuple[CosmosItem, bytes]]:
        """Return those items that hold a live entry, with its envelope."""
        now = self.now()
        return [(item, envelope_of(entry)) for item in items if (entry := item.live(now))]

    async def page(
        self, cursor: str | None, where: str = f" AND {_ENTRIES}"
    ) -> tuple[list[CosmosItem], str | None]:
        """Return a page of the items with an entry, without bodies; of all for no condition."""
        return await self._query(
            f"STARTSWITH(c.id, @given){where}", prefix_of(self._namespace), cursor
        )

    async def _query(
        self, where: str, given: object, cursor: str | None
    ) -> tuple[list[CosmosItem], str | None]:
        parameters = [{"name": "@given", "value": given}]

        async def call(container: Any, hook: Any) -> tuple[list[Any], str | None]:  # noqa: ANN401 - the SDK's
            pages = container.query_items(
                _SELECT + where, parameters=parameters, max_item_count=_PAGE, response_hook=hook
            ).by_page(cursor or None)
            async for page in pages:
                items = [read({name: row[name] for name in row if row[name] != {}})
                         async for row in page]  # fmt: skip
                return items, pages.continuation_token
            return [], None

        answer = await self.link.ask(call, times=_PATIENT)
        return answer.result or ([], None)

    # -- changing ------------------------------------------------------------------------------

    async def change(
        self, key: bytes, step: Step, guess: CosmosItem | None = None
    ) -> tuple[CosmosItem, str | None]:
        """Change a key's item; whenever others have changed it meanwhile, begin anew.

        Args:
            key: Whose item it is.
            step: Given the item, returns the entry, the lease and the generation that it shall
                hold; None to leave it as it is.
            guess: How the item is likely to stand: it need not be read then.

        Returns:
            The item as it was before, and its new etag; None where it was left as it is.

        Raises:
            StoreError: It couldn't be changed.
        """
        for _ in range(_RACES):
            item = await self.read(key) if guess is None else guess
            guess = None
            wanted = await step(item)
            if wanted is None:
                return item, None
            answer = await self._swap(key, item, *wanted)
            if not answer.status:
                return item, answer.etag
        raise StoreUnavailableError("others change this item faster than it can be changed")

    async def _swap(
        self,
        key: bytes,
        item: CosmosItem,
        entry: EntryText | None,
        lease: LeaseText | None,
        generation: GenerationText | None,
    ) -> CosmosAnswer:
        """Put something in the place of an item, if that is unchanged yet."""
        if entry is None and lease is None and generation is None:
            if not item.etag:
                return CosmosAnswer()
            match = _unchanged(item.etag)
            return await self._ask("delete_item", item.id, item.id, times=_PATIENT, **match)
        content = item_content(key, entry, lease, generation, self.now())
        made = document(item.id, self._namespace, self._path, content)
        times = 1 if entry is None else _PATIENT  # for leases somebody waits
        if not item.etag:
            return await self._ask("create_item", made, times=times, no_response=True)
        return await self._ask(
            "replace_item", item.id, made, times=times, no_response=True, **_unchanged(item.etag)
        )

    async def _ask(self, method: str, *args: object, times: int = 1, **how: Any) -> CosmosAnswer:  # noqa: ANN401 - the SDK's
        """Call a method of the SDK's container."""
        return await self.link.ask(
            lambda container, hook: getattr(container, method)(*args, response_hook=hook, **how),
            times=times,
        )

    # -- entries -------------------------------------------------------------------------------

    async def put(self, record: Record) -> bool:
        """Write an entry and give back the lease it names; False where that isn't allowed."""
        if 0 < record.expires <= self.now():  # it would be gone at once
            return await self._put(record, None)
        arguments = (record.body, record.expires, record.meta)
        if len(record.body) > LARGE:
            entry, texts = await asyncio.to_thread(pack, *arguments)
        else:
            entry, texts = pack(*arguments)
        if not texts:
            return await self._put(record, entry)
        # A caller that is cancelled doesn't stop it: what others may see must be whole.
        return await asyncio.shield(self.link.spawn(self._put_split(record, entry, texts)))

    async def _put_split(self, record: Record, entry: EntryText, texts: Sequence[str]) -> bool:
        parts = zip(part_ids(self._namespace, entry), texts, strict=True)
        try:
            await all_of(self._put_part(name, text, entry.expires) for name, text in parts)
            return await self._put(record, entry)
        except BaseException:  # cancelled, too
            self.link.spawn(self._drop_parts(entry))
            raise

    async def _put_part(self, name: str, text: str, expires: int) -> None:
        content = part_content(text, expires, self.now())
        made = document(name, self._namespace, self._path, content)
        # It may be there already: then an answer was lost.
        await self._ask("create_item", made, times=_PATIENT, no_response=True)

    async def _put(self, record: Record, entry: EntryText | None) -> bool:
        token = b"" if record.lease is None else record.lease.token
        new = GenerationText()

        async def step(item: CosmosItem) -> Wanted | None:
            ours = item.held_by(token) is not None
            there = item.live(self.now())
            # The same entry without our lease: it was written, and the answer was lost.
            if there is not None and ((there == entry and not ours) or record.if_absent):
                return None
            if record.generation is None:
                generation = new
            elif item.has(record.generation):
                generation = GenerationText(record.generation.decode())
            else:
                return None
            return entry, None if ours else item.lease, None if entry is None else generation

        guess = self.remembered(record.key, token)
        if guess is None and entry is not None and record.generation is None:
            guess = self.nothing(record.key)
        before, etag = await self.change(record.key, step, guess)
        if etag is None and before.entry == entry:
            return True
        await self._drop_later(entry if etag is None else before.entry)
        return etag is not None

    async def remove(self, key: bytes, guess: CosmosItem | None = None) -> bool:
        """Remove an entry with its parts, and the generation; return whether it was there."""

        async def step(item: CosmosItem) -> Wanted | None:
            if item.lease is None:
                return (None, None, None) if item.etag else None
            unchanged = item.entry is None and item.generation is None
            return None if unchanged else (None, item.lease, None)

        before, etag = await self.change(key, step, guess)
        if etag is None:
            return False
        live = before.live(self.now()) is not None
        await self._drop_later(before.entry)
        return live

    async def generation(self, key: bytes, *, renew: bool) -> bytes:
        """Return a key's generation, a new one if asked or if it has none."""
        new = GenerationText(keep=True)

        async def step(item: CosmosItem) -> Wanted | None:
            if item.generation is not None and not renew:
                return None
            return item.live(self.now()), item.lease, new

        before, etag = await self.change(key, step)
        found = before.generation if etag is None else new
        return b"" if found is None else found.name.encode()

    async def remove_listed(self, item: CosmosItem) -> bool:
        """Remove what a page has shown; return whether it was a live entry."""
        name = item.id.removeprefix(prefix_of(self._namespace))
        if name.startswith("+"):
            await self._drop_part(item.id)
        return bool(_KEY.fullmatch(name)) and await self.remove(bytes.fromhex(name), item)

    async def _drop_later(self, entry: EntryText | None) -> None:
        """Remove the parts of an entry that is gone, also if the caller is cancelled meanwhile."""
        if entry is not None and entry.parts:
            await asyncio.shield(self.link.spawn(self._drop_parts(entry)))

    async def _drop_parts(self, entry: EntryText) -> None:
        try:
            await all_of(map(self._drop_part, part_ids(self._namespace, entry)))
        except StoreError as exc:
            _log.debug("parts of a removed entry stay until the cache is cleared: %s", exc)

    async def _drop_part(self, name: str) -> None:
        await self._ask("delete_item", name, name, times=_PATIENT)


def _unchanged(etag: str) -> dict[str, Any]:
    return {"etag": etag, "match_condition": MatchConditions.IfNotModified}


async def all_of(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Return the results of calls that are made at once.

    Raises:
        BaseException: What one of them raised, when all others are done.
    """
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("list[T]", results)
