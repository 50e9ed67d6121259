"""The generations of one database's keys: each key's last change has a number.

A generation is the last number that was given when it was read. A key has it still unless the key,
or its whole tenant, was changed later. Each database begins at a random number, so that a
generation read from a database that was deleted isn't taken for one of its successor.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Collection
from typing import Final

from asynccache.stores.base import Record
from asynccache.stores.disk.database import entry_id, select_ids

TABLE: Final = (
    "CREATE TABLE generations (id INTEGER PRIMARY KEY, number INTEGER NOT NULL,"
    " changed INTEGER NOT NULL)"
)
# Rows beside those of keys and tenants, whose ids are the first 64 bits of digests and `ALL`.
_LAST: Final = 0  # the number given last
_LEAST: Final = 1  # the least that can still be told from a changed one
_KEPT_US: Final = 24 * 3600 * 10**6  # no call takes a day
_SELECT: Final = "SELECT id, number FROM generations"
ALL: Final = b"\xff" * 32
"""Stands for all keys of a tenant."""


def begin(connection: sqlite3.Connection) -> None:
    """Give a new database its first number."""
    first = secrets.randbits(48)
    rows = [(_LAST, first), (_LEAST, first)]
    connection.executemany("INSERT INTO generations VALUES (?, ?, 0)", rows)


def read(connection: sqlite3.Connection) -> bytes:
    """Return the generation that every key has now."""
    number: int = connection.execute(_SELECT + f" WHERE id = {_LAST}").fetchall()[0][1]
    return b"%d" % number


def forget_old(connection: sqlite3.Connection, now: int, most: int | None = None) -> None:
    """Forget the changes of more than a day ago; generations from before them are refused then.

    Args:
        connection: To the database.
        now: The time, in microseconds since the epoch.
        most: How many of the latest changes to keep at most; None for all of a day.
    """
    least = connection.execute(
        "DELETE FROM generations WHERE (changed < ? OR number <= ?) AND id NOT IN (?, ?)"
        " RETURNING number",
        (now - _KEPT_US, 0 if most is None else int(read(connection)) - most, _LAST, _LEAST),
    ).fetchall()
    connection.execute(
        "UPDATE generations SET number = max(number, ?) WHERE id = ?",
        (max(least, default=(0,))[0], _LEAST),
    )


class Generations:
    """The generations of some keys within a transaction.

    Args:
        connection: In the middle of the transaction.
        tenant_keys: The keys by their tenants.
        now: The time of the changes, in microseconds since the epoch.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        tenant_keys: Collection[tuple[str | None, bytes]],
        now: int,
    ) -> None:
        ids = {entry_id(*each) for each in tenant_keys}
        ids.update(entry_id(tenant, ALL) for tenant in {tenant for tenant, _ in tenant_keys})
        self._numbers: dict[int, int] = dict(select_ids(connection, _SELECT, [_LAST, _LEAST, *ids]))
        self._connection, self._now = connection, now
        self._changed: set[int] = set()

    def allows(self, tenant: str | None, record: Record) -> bool:
        """Return whether a record may be written; one without a generation renews its key's."""
        if record.generation is None:
            self.renew(tenant, record.key)
            return True
        number, numbers = int(record.generation), self._numbers
        changed = [numbers.get(entry_id(tenant, key), 0) for key in (record.key, ALL)]
        return max(numbers[_LEAST], *changed) <= number <= numbers[_LAST]

    def renew(self, tenant: str | None, key: bytes = ALL) -> bytes:
        """Give a key, or a whole tenant, a new generation, and return it."""
        number = self._numbers[_LAST] + 1
        row_id = entry_id(tenant, key)
        self._numbers[_LAST] = self._numbers[row_id] = number
        self._changed |= {_LAST, row_id}
        return b"%d" % number

    def write(self) -> None:
        """Note the changes in the database."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO generations VALUES (?, ?, ?)",
            [(row_id, self._numbers[row_id], self._now) for row_id in self._changed],
        )
