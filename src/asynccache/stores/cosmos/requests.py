"""Single requests about the items of one namespace: counted, bounded and mapped by their link."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from azure.core import MatchConditions
from msgspec import Struct, field

from asynccache.keys.key import Namespace
from asynccache.runtime.clock import Clock
from asynccache.stores.cosmos.held import Held
from asynccache.stores.cosmos.items import (
    EntryText,
    Form,
    Item,
    LeaseText,
    Parts,
    id_of,
    read,
)
from asynccache.stores.cosmos.link import CosmosLink

PATIENT: Final = 10  # timeouts: for writes, which no caller waits for
_PAGE: Final = 1000  # rows


class Row(Struct, frozen=True, kw_only=True):
    """An item as a query shows it: without its body."""

    id: str
    etag: str = field(default="", name="_etag")
    head: str | None = None
    """None where it is a part of a split entry."""
    expires: int = 0
    parts: Parts | None = None
    leased: bool = False

    def is_live(self, now: int) -> bool:
        """Tell whether it is an entry whose time isn't over."""
        return self.head is not None and not 0 < self.expires <= now


class Requests:
    """What can be asked about a namespace's keys, on the running loop's link."""

    def __init__(
        self, link: CosmosLink, form: Form, namespace: Namespace, *, clock: Clock, held: Held
    ) -> None:
        self.clock = clock
        self.held = held
        self.link = link
        self.form = form
        self.namespace = namespace

    def name(self, key: bytes) -> str:
        """Return the id of a key's item."""
        return id_of(self.namespace, key)

    async def read(self, key: bytes) -> Item | None:
        """Return a key's item, None if there is none."""
        document = await self.read_named(self.name(key))
        return None if document is None else read(document)

    async def read_named(self, name: str) -> Any:  # noqa: ANN401 - JSON
        _, document = await self.link.ask(
            lambda container: container.read_item(name, name, response_hook=self.link.count)
        )
        return document

    async def create(
        self, key: bytes, *, entry: EntryText | None = None, lease: LeaseText | None = None
    ) -> tuple[int, str]:
        """Create a key's item; return zero and its etag, or the status that says why not."""
        document = self._item(key, entry, lease)
        return await self.write(
            lambda container, hook: container.create_item(
                document, no_response=True, response_hook=hook
            ),
            times=1 if entry is None else PATIENT,
        )

    async def replace(
        self,
        key: bytes,
        etag: str,
        *,
        entry: EntryText | None = None,
        lease: LeaseText | None = None,
    ) -> tuple[int, str]:
        """Replace a key's item, if it is unchanged yet; return as `create` does."""
        document = self._item(key, entry, lease)
        return await self.write(
            lambda container, hook: container.replace_item(
                document["id"], document, etag=etag, no_response=True, response_hook=hook,
                match_condition=MatchConditions.IfNotModified,
            ),
            times=1 if entry is None else PATIENT,
        )  # fmt: skip

    async def delete(self, key: bytes, etag: str) -> int:
        """Delete a key's item, if it is unchanged yet; return zero, or the status why not."""
        return await self.delete_named(self.name(key), etag)

    async def delete_named(self, name: str, etag: str | None = None) -> int:
        match: dict[str, Any] = {}
        if etag is not None:
            match = {"etag": etag, "match_condition": MatchConditions.IfNotModified}
        status, _ = await self.write(
            lambda container, hook: container.delete_item(name, name, response_hook=hook, **match),
            times=PATIENT,
        )
        return status

    async def write(
        self, call: Callable[[Any, Callable[..., None]], Awaitable[object]], *, times: int
    ) -> tuple[int, str]:
        etag = ""

        def hook(headers: Mapping[str, Any], _result: object = None) -> None:
            nonlocal etag
            etag = headers.get("etag", "")
            self.link.count(headers)

        status, _ = await self.link.ask(lambda container: call(container, hook), times=times)
        return status, etag

    def _item(self, key: bytes, entry: EntryText | None, lease: LeaseText | None) -> dict[str, Any]:
        now = self.clock.time_us()
        return self.form.item(self.namespace, key, entry=entry, lease=lease, now=now)

    async def query(
        self, query: str, parameters: dict[str, object], cursor: str | None
    ) -> tuple[list[Row], str | None]:
        given = [{"name": name, "value": value} for name, value in parameters.items()]

        async def call(container: Any) -> tuple[list[Any], str | None]:  # noqa: ANN401 - the SDK's
            pages = container.query_items(
                query, parameters=given, max_item_count=_PAGE, response_hook=self.link.count
            ).by_page(cursor)
            async for page in pages:
                return [row async for row in page], pages.continuation_token
            return [], None

        _, answer = await self.link.ask(call, times=PATIENT)
        rows, cursor = answer or ([], None)
        return [_row(row) for row in rows], cursor


def _row(row: Any) -> Row:  # noqa: ANN401 - JSON
    """Return what a query shows of an item; of a damaged one, an entry that is none."""
    try:
        return msgspec.convert(row, Row)
    except msgspec.ValidationError:
        return Row(id=row["id"], etag=row["_etag"], head="")
