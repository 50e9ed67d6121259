"""Batched reads of one open folder, on a worker: whole entries, envelopes, and pages of a scan."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

from asynccache.entries.entry import ENVELOPE_BYTES
from asynccache.stores.base import Page
from asynccache.stores.disk.bodies import read_body
from asynccache.stores.disk.database import entry_id
from asynccache.stores.disk.folder import Folder

BATCH: Final = 256  # keys per statement: fetched whole in a few milliseconds
_SIZES: Final = (1, 16, BATCH)  # padded to one of these, so that statements are compiled once
_PAGE: Final = 256  # envelopes per page of a scan
_TRIES: Final = 3  # a body's file replaced between row and file: the new row names another

T = TypeVar("T")

_COLUMNS: Final = "id, key, tenant, expires, size, file"
_HEAD: Final = f"coalesce(substr(value, 1, {ENVELOPE_BYTES}), x'')"  # substr makes NULL of nothing


def read_entries(
    folder: Folder, tenant: str | None, keys: Sequence[bytes], now: int, *, heads: bool = False
) -> list[bytes | None]:
    """Return the live entry of each key, or with ``heads`` its envelope alone."""
    found: dict[bytes, bytes] = {}
    wanted: Sequence[bytes] = keys
    with folder.reader() as connection:
        for _ in range(_TRIES):
            wanted = [
                key
                for batch in batches(wanted, BATCH)
                for key in _read_batch(connection, folder, tenant, batch, now, found, heads=heads)
            ]
            if not wanted:
                break
    if not heads:
        folder.touched.update((entry_id(tenant, key), None) for key in found)
    return [found.get(key) for key in keys]


def _read_batch(  # noqa: PLR0917 - of this module, called once
    connection: sqlite3.Connection,
    folder: Folder,
    tenant: str | None,
    keys: Sequence[bytes],
    now: int,
    found: dict[bytes, bytes],
    *,
    heads: bool,
) -> list[bytes]:
    """Add what is there to ``found``; return the keys whose file was gone."""
    gone: list[bytes] = []
    wanted = set(keys)
    rows = select_ids(
        connection,
        f"SELECT {_COLUMNS}, {_HEAD if heads else 'value'} FROM entries",  # noqa: S608 - both our own
        [entry_id(tenant, key) for key in keys],
    )
    for _, key, owner, expires, size, file, body in rows:
        if key not in wanted or owner != tenant or 0 < expires <= now:
            continue
        if file is not None:
            body = read_body(folder.bodies, file, size, ENVELOPE_BYTES if heads else None)  # noqa: PLW2901 - where it lies differs, nothing else
        if body is None:
            gone.append(key)
        else:
            found[key] = body
    return gone


def scan_page(folder: Folder, tenant: str | None, cursor: str | None, now: int) -> Page:
    """Return the envelopes of the next live rows, in the order of their ids."""
    owner = "tenant IS NULL" if tenant is None else "tenant = ?"
    after = "" if cursor is None else " AND id > ?"
    given = [each for each in (tenant, None if cursor is None else int(cursor)) if each is not None]
    with folder.reader() as connection:
        rows = connection.execute(
            f"SELECT {_COLUMNS}, {_HEAD} FROM entries"  # noqa: S608 - our own words
            f" WHERE {owner}{after} ORDER BY id LIMIT {_PAGE}",
            given,
        ).fetchall()
    envelopes: list[bytes] = []
    for _, _, _, expires, size, file, body in rows:
        if 0 < expires <= now:
            continue
        head = body if file is None else read_body(folder.bodies, file, size, ENVELOPE_BYTES)
        if head is not None:
            envelopes.append(head)
    return Page(envelopes=envelopes, cursor=str(rows[-1][0]) if len(rows) == _PAGE else None)


def select_ids(
    connection: sqlite3.Connection, select: str, ids: Sequence[int]
) -> list[tuple[Any, ...]]:
    """Return the rows with these ids, read to the end: a half-read cursor pins the log."""
    rows: list[tuple[Any, ...]] = []
    for batch in batches(ids, BATCH):
        size = next(size for size in _SIZES if size >= len(batch))
        marks = ",".join("?" * size)
        rows += connection.execute(
            f"{select} WHERE id IN ({marks})", (*batch, *[batch[-1]] * (size - len(batch)))
        ).fetchall()
    return rows


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into pieces of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
