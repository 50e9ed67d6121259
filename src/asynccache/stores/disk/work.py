"""Sets, deletes and clears as SQL within a transaction that somebody else begins and commits."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from asynccache.stores.disk.bodies import BodyFile
from asynccache.stores.disk.database import entry_id
from asynccache.stores.disk.read import select_ids

CLEAR_ROWS: Final = 1000  # per transaction, so that other writers get in between

Row = tuple[int, bytes, str | None, int, int, int, str | None, bytes]
"""Id, key, tenant, size, expires, used, file, and the value (empty if it is in a file)."""

_REPLACE: Final = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
# What has expired, and another key of the same first 64 bits, counts as absent.
_INSERT: Final = (
    "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
    " key = excluded.key, tenant = excluded.tenant, size = excluded.size,"
    " expires = excluded.expires, used = excluded.used, file = excluded.file,"
    " value = excluded.value"
    " WHERE entries.expires BETWEEN 1 AND excluded.used OR entries.key <> excluded.key"
    " OR entries.tenant IS NOT excluded.tenant"
)


class Transaction:
    """What is done within one transaction, and the files to remove once it is committed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.removed: list[str] = []
        self._files: bool | None = None

    def run(self, works: Sequence[Work]) -> list[Any]:
        """Do works in their order, runs of plain sets as one statement; return their results."""
        results: list[Any] = []
        rows: list[Row] = []
        for work in works:
            if isinstance(work, Put) and work.plain:
                rows += work.rows
                results.append([True] * len(work.rows))
            else:
                self._replace(rows)
                rows = []
                results.append(work.do(self))
        self._replace(rows)
        return results

    def files(self, ids: Sequence[int]) -> list[str]:
        """Return the files that rows name; nearly always there are none at all."""
        if self._files is None:
            self._files = bool(
                self.connection.execute(
                    "SELECT 1 FROM entries WHERE file IS NOT NULL LIMIT 1"
                ).fetchall()
            )
        if not self._files:
            return []
        rows = select_ids(self.connection, "SELECT file FROM entries", ids)
        return [file for (file,) in rows if file is not None]

    def delete(self, ids: Sequence[int]) -> None:
        """Remove rows and, after the commit, their files."""
        self.removed += self.files(ids)
        self.connection.executemany("DELETE FROM entries WHERE id = ?", [(id_,) for id_ in ids])

    def insert(self, row: Row, *, if_absent: bool) -> bool:
        """Write one row; return whether it was written."""
        replaced = self.files([row[0]])
        if self.connection.execute(_INSERT if if_absent else _REPLACE, row).rowcount < 1:
            return False
        self.removed += replaced
        if row[6] is not None:
            self._files = True
        return True

    def _replace(self, rows: list[Row]) -> None:
        if rows:
            self.removed += self.files([row[0] for row in rows])
            self.connection.executemany(_REPLACE, rows)


class Put:
    """Rows to be written.

    Args:
        seed: The folder's.
        rows: What is written, in order.
        if_absent: Positions of those that must not replace a live one.
        bodies: Files of rows, by position, that no row names before the commit.
    """

    __slots__ = ("bodies", "if_absent", "plain", "rows", "seed")

    def __init__(
        self, seed: str, rows: list[Row], if_absent: Sequence[int], bodies: dict[int, BodyFile]
    ) -> None:
        self.seed, self.rows, self.if_absent, self.bodies = seed, rows, if_absent, bodies
        self.plain = not if_absent and not bodies

    def do(self, transaction: Transaction) -> list[bool]:
        """Write the rows one by one; return which were."""
        return [
            transaction.insert(row, if_absent=position in self.if_absent)
            for position, row in enumerate(self.rows)
        ]

    def settle(self, written: Sequence[bool]) -> None:
        """Keep the files of rows that were committed, remove the others; ``()`` is none."""
        for position, body in self.bodies.items():
            if written and written[position]:
                body.keep()
            else:
                body.discard()


class Delete:
    """Keys to be removed; the result is how many live ones were there."""

    __slots__ = ("_keys", "_now", "_tenant", "seed")

    def __init__(self, seed: str, tenant: str | None, keys: Sequence[bytes], now: int) -> None:
        self.seed, self._tenant, self._keys, self._now = seed, tenant, keys, now

    def do(self, transaction: Transaction) -> int:
        """Remove what is there."""
        keys = set(self._keys)
        ours = [
            (row_id, expires)
            for row_id, key, tenant, expires in select_ids(
                transaction.connection,
                "SELECT id, key, tenant, expires FROM entries",
                [entry_id(self._tenant, key) for key in keys],
            )
            if key in keys and tenant == self._tenant
        ]
        transaction.delete([row_id for row_id, _ in ours])
        return sum(not 0 < expires <= self._now for _, expires in ours)


class Clear:
    """One step of a clear; the result is how many live rows went, and where to go on, or None."""

    __slots__ = ("_after", "_now", "_tenant", "seed")

    def __init__(self, seed: str, tenant: str | None, after: int | None, now: int) -> None:
        self.seed, self._tenant, self._after, self._now = seed, tenant, after, now

    def do(self, transaction: Transaction) -> tuple[int, int | None]:
        """Remove the next rows in the order of their ids."""
        owner = "tenant IS NULL" if self._tenant is None else "tenant = ?"
        after = "" if self._after is None else " AND id > ?"
        rows = transaction.connection.execute(
            f"SELECT id, expires FROM entries WHERE {owner}{after}"  # noqa: S608 - our own words
            f" ORDER BY id LIMIT {CLEAR_ROWS}",
            [each for each in (self._tenant, self._after) if each is not None],
        ).fetchall()
        transaction.delete([row_id for row_id, _ in rows])
        live = sum(not 0 < expires <= self._now for _, expires in rows)
        return live, rows[-1][0] if len(rows) == CLEAR_ROWS else None


Work = Put | Delete | Clear
