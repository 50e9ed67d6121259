"""Transactions of one database kind, a connection per seed, that survive a deleted database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Protocol, TypeVar

from asynccache.errors import StoreUnavailableError
from asynccache.stores.disk.folder import Folder

_TRIES: Final = 3  # a database deleted while it is written to; thrice in a row is no accident

T = TypeVar("T")


class FolderOf(Protocol):
    """Returns a seed's open folder, or one in place of ``stale``."""

    def __call__(self, seed: str, stale: Folder | None = None) -> Folder: ...


class Transactions:
    """Used by one thread only.

    Args:
        folder_of: Where seeds are.
        connect: Opens the connection that changes the database.
    """

    def __init__(
        self, folder_of: FolderOf, connect: Callable[[Folder], sqlite3.Connection]
    ) -> None:
        self._folder_of, self._connect = folder_of, connect
        self._open: dict[str, tuple[Folder, sqlite3.Connection]] = {}

    def run(self, seed: str, do: Callable[[sqlite3.Connection], T]) -> tuple[Folder, T]:
        """Do something within a transaction; return its committed result and where it is.

        Raises:
            Exception: What ``do`` or SQLite raised; nothing was changed.
        """
        for _ in range(_TRIES):
            folder, connection = self.open(seed)
            try:
                connection.execute("BEGIN IMMEDIATE")
                result = do(connection)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.rollback()
                if not folder.moved():
                    raise
            else:
                # Asked after the commit: what went into a deleted file is written once more.
                if not folder.moved():
                    return folder, result
            self._folder_of(seed, folder)
        raise StoreUnavailableError(f"The database of {seed!r} is replaced again and again.")

    def open(self, seed: str) -> tuple[Folder, sqlite3.Connection]:
        """Return the seed's folder and connection."""
        folder = self._folder_of(seed)
        found = self._open.get(seed)
        if found is not None:
            if found[0] is folder:
                return found
            del self._open[seed]
            found[1].close()
        found = self._open[seed] = folder, self._connect(folder)
        return found

    def opened(self) -> Iterator[tuple[str, Folder, sqlite3.Connection]]:
        """Return what is open now."""
        yield from [(seed, folder, found) for seed, (folder, found) in self._open.items()]

    def leak(self) -> list[sqlite3.Connection]:
        """Hand over the connections, in a fork, to be kept and never closed."""
        leaked = [connection for _, connection in self._open.values()]
        self._open = {}
        return leaked

    def close(self) -> None:
        """Close all connections."""
        while self._open:
            self._open.popitem()[1][1].close()
