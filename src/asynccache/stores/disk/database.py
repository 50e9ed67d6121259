"""SQLite as the disk store uses it: row ids, connections, selects by id, errors mapped."""

from __future__ import annotations

import errno
import sqlite3
import struct
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

from asynccache.errors import (
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreRefusedError,
    StoreUnavailableError,
)

BUSY_SECONDS: Final = 5.0  # a writer of another process commits in milliseconds; beyond is stuck
_LOG_BYTES: Final = 4 * 2**20  # of the log that stay a file's, to be written over
_LONGEST: Final = 2**20  # bytes of a row that is read, checked before any are; ours have a quarter
_IDS: Final = (1, 16, 256)  # of a statement, padded to one of these: so it is compiled once
CACHE: Final = "PRAGMA cache_size = -16384"  # KiB: holds the inner pages of a million entries

Mode = Literal["rw", "ro", "immutable"]


FIRST_BITS: Final = struct.Struct(">q").unpack_from


def entry_id(tenant: str | None, key: bytes) -> int:
    """Return the row id of a key: its first 64 bits, shifted so that tenants share no row."""
    first: int = FIRST_BITS(key)[0]
    return first if tenant is None else first ^ _salt(tenant)


@lru_cache(maxsize=1024)
def _salt(tenant: str) -> int:
    salt: int = FIRST_BITS(sha256(tenant.encode()).digest())[0]
    return salt


def connect(
    path: Path, mode: Mode, *first: str, timeout: float = BUSY_SECONDS
) -> sqlite3.Connection:
    """Open a connection that runs nothing a schema could bring along.

    Any thread may use it, one at a time. Transactions are begun and ended by hand.

    Args:
        path: The database.
        mode: What may be done to it.
        first: Statements to run at once.
        timeout: How long to wait for another connection that is in the way.
    """
    query = "mode=ro&immutable=1" if mode == "immutable" else f"mode={mode}"
    connection = sqlite3.connect(
        f"{path.as_uri()}?{query}",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        if mode != "rw":
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        for statement in first:
            connection.execute(statement).fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def connect_writer(
    path: Path, *, durable: bool, timeout: float = BUSY_SECONDS
) -> sqlite3.Connection:
    """Open the connection that changes a prepared database.

    Args:
        path: The database.
        durable: What is committed outlives power loss.
        timeout: How long to wait for another connection that is in the way.
    """
    return connect(
        path,
        "rw",
        f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}",
        f"PRAGMA journal_size_limit = {_LOG_BYTES}",
        CACHE,
        # Checkpoints cost two fsyncs: made between groups, nobody waits for them.
        *(["PRAGMA wal_autocheckpoint = 0"] if durable else []),
        timeout=timeout,
    )


def fold(connection: sqlite3.Connection) -> None:
    """Copy the log into the database as far as readers and the disk allow, waiting for none."""
    (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.OperationalError as exc:
        if not is_full(exc):  # the database may be longer, once its log is in it
            raise
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience}")


def select_ids(
    connection: sqlite3.Connection, select: str, ids: Sequence[int]
) -> list[tuple[Any, ...]]:
    """Return the rows with these ids, read to the end: a half-read cursor pins the log."""
    rows: list[tuple[Any, ...]] = []
    for start in range(0, len(ids), _IDS[-1]):
        batch = ids[start : start + _IDS[-1]]
        size = next(size for size in _IDS if size >= len(batch))
        marks = ",".join("?" * size)
        rows += connection.execute(
            f"{select} WHERE id IN ({marks})", (*batch, *[batch[-1]] * (size - len(batch)))
        ).fetchall()
    return rows


def select_owned(
    connection: sqlite3.Connection, columns: str, tenant: str | None, after: int | None, limit: int
) -> tuple[list[tuple[Any, ...]], int | None]:
    """Return a tenant's next rows in the order of their ids, and where to go on, None at the end.

    Args:
        connection: To the entries.
        columns: What to select, the id first.
        tenant: Whose rows.
        after: The id after which to go on; None from the start.
        limit: How many rows at most.
    """
    owner = "tenant IS NULL" if tenant is None else "tenant = ?"
    beyond = "" if after is None else " AND id > ?"
    rows = connection.execute(
        f"SELECT {columns} FROM entries WHERE {owner}{beyond} ORDER BY id LIMIT {limit}",  # noqa: S608 - our own words
        [each for each in (tenant, after) if each is not None],
    ).fetchall()
    return rows, rows[-1][0] if len(rows) == limit else None


_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_NO_ROOM: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_NO_ROOM_ERRNO: Final = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
# SQLite hides the errno of a failed write; a quota or a limit on file sizes is the likeliest.
_FULL: Final = (*_NO_ROOM, sqlite3.SQLITE_IOERR_WRITE)
_FULL_ERRNO: Final = (*_NO_ROOM_ERRNO, errno.EFBIG)
_READ_ONLY: Final = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
_READ_ONLY_ERRNO: Final = (errno.EROFS, errno.EACCES, errno.EPERM)
_ERRORS: Final[tuple[tuple[type[StoreError], str, Sequence[int], Sequence[int]], ...]] = (
    (StoreFullError, "The disk has no room for the cache", _FULL, _FULL_ERRNO),
    (StoreReadOnlyError, "The cache can't be written", _READ_ONLY, _READ_ONLY_ERRNO),
    (StoreBusyError, "Another process holds the cache's database", _BUSY, ()),
    (StoreRefusedError, "The cache's database is damaged: move it away", _DAMAGED, ()),
)
"""Each of our errors: its words, SQLite's codes and the system's that it stands for."""
_LOCAL: Final = (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG,
                 sqlite3.SQLITE_RANGE, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE)  # fmt: skip


def is_busy(exc: BaseException) -> bool:
    """Return whether another connection was in the way, so that trying again may help."""
    return isinstance(exc, sqlite3.Error) and _code(exc) & 0xFF in _BUSY


def is_missing(exc: BaseException) -> bool:
    """Return whether there was no file to open: it may have been removed, as it was empty."""
    return isinstance(exc, sqlite3.Error) and _code(exc) & 0xFF == sqlite3.SQLITE_CANTOPEN


def is_full(exc: BaseException | None) -> bool:
    """Return whether the disk has no room left: less written than that may still find some."""
    if isinstance(exc, sqlite3.Error):
        return not {_code(exc), _code(exc) & 0xFF}.isdisjoint(_NO_ROOM)
    return isinstance(exc, OSError) and exc.errno in _NO_ROOM_ERRNO


def is_damaged(exc: BaseException) -> bool:
    """Return whether a file is no sound database."""
    return isinstance(exc, sqlite3.Error) and _code(exc) & 0xFF in _DAMAGED


def is_local(exc: BaseException) -> bool:
    """Return whether an error may be the statement's own, so that others would have passed."""
    return not isinstance(exc, OSError | StoreError) and (
        not isinstance(exc, sqlite3.Error) or _code(exc) & 0xFF in _LOCAL
    )


def mapped(exc: BaseException) -> StoreError:
    """Return ours for what SQLite or the system raised, with that as its cause."""
    if isinstance(exc, StoreError):
        return exc
    what = f"folder: {exc}" if isinstance(exc, OSError) else f"database: {exc!r}"
    error: StoreError = StoreUnavailableError(f"Can't use the cache's {what}")
    for kind, words, codes, errnos in _ERRORS:
        if (isinstance(exc, OSError) and exc.errno in errnos) or (
            isinstance(exc, sqlite3.Error) and not {_code(exc), _code(exc) & 0xFF}.isdisjoint(codes)
        ):
            error = kind(f"{words}: {exc}")
    error.__cause__ = exc
    return error


def _code(exc: sqlite3.Error) -> int:
    """Return SQLite's extended code; the module's own complaints have none, and are misuse."""
    return int(getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_MISUSE))
