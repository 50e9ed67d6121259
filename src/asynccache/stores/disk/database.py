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
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreRefusedError,
    StoreTimeoutError,
    StoreUnavailableError,
)

BUSY_SECONDS: Final = 5.0  # a writer of another process commits in milliseconds; beyond is stuck
_WAL_LIMIT: Final = 64 * 2**20  # bytes: what a burst may leave behind in the -wal file
_IDS: Final = (1, 16, 256)  # of a statement, padded to one of these: so it is compiled once
CACHE_KIB: Final = 16 * 1024  # holds the inner pages of a million entries

Mode = Literal["rw", "ro", "immutable"]


_FIRST: Final = struct.Struct(">q").unpack_from


def entry_id(tenant: str | None, key: bytes) -> int:
    """Return the row id of a key: its first 64 bits, shifted so that tenants share no row."""
    first: int = _FIRST(key)[0]
    return first if tenant is None else first ^ _salt(tenant)


@lru_cache(maxsize=1024)
def _salt(tenant: str) -> int:
    salt: int = _FIRST(sha256(tenant.encode("utf-8", "surrogatepass")).digest())[0]
    return salt


def connect(path: Path, mode: Mode, *, timeout: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open a connection that runs nothing a schema could bring along.

    Any thread may use it, one at a time. Transactions are begun and ended by hand.
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
    except BaseException:
        connection.close()
        raise
    return connection


def connect_writer(path: Path, *, durable: bool) -> sqlite3.Connection:
    """Open the connection that changes a prepared database; ``durable`` outlives power loss."""
    connection = connect(path, "rw")
    try:
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        if durable:
            # Checkpoints cost two fsyncs: made between groups, nobody waits for them.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
    except BaseException:
        connection.close()
        raise
    return connection


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


DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
# SQLite hides the errno of a failed write; a quota or a limit on file sizes is the likeliest.
_FULL: Final = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
_FULL_ERRNO: Final = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_READ_ONLY_ERRNO: Final = (errno.EROFS, errno.EACCES, errno.EPERM)
_LOCAL: Final = (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG,
                 sqlite3.SQLITE_RANGE, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE)  # fmt: skip


def is_busy(exc: BaseException) -> bool:
    """Return whether another connection was in the way, so that trying again may help."""
    return isinstance(exc, sqlite3.Error) and _code(exc) & 0xFF in _BUSY


def is_local(exc: BaseException) -> bool:
    """Return whether an error may be the statement's own, so that others would have passed."""
    return not isinstance(exc, OSError | StoreError) and (
        not isinstance(exc, sqlite3.Error) or _code(exc) & 0xFF in _LOCAL
    )


def mapped(exc: BaseException) -> StoreError:
    """Return ours for what SQLite or the system raised, with that as its cause."""
    if isinstance(exc, StoreError):
        return exc
    error = _mapped(exc)
    error.__cause__ = exc
    return error


def _mapped(exc: BaseException) -> StoreError:
    if isinstance(exc, OSError):
        if exc.errno in _FULL_ERRNO:
            return StoreFullError(f"The disk has no room for the cache: {exc}")
        if exc.errno in _READ_ONLY_ERRNO:
            return StoreReadOnlyError(f"The cache's folder can't be written: {exc}")
    elif isinstance(exc, sqlite3.Error):
        code = _code(exc)
        if code in _FULL or code & 0xFF == sqlite3.SQLITE_FULL:
            return StoreFullError(f"The disk has no room for the cache: {exc}")
        if code & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return StoreReadOnlyError(f"The cache's database can't be written: {exc}")
        if code & 0xFF in _BUSY:
            return StoreTimeoutError(f"Another process holds the cache's database: {exc}")
        if code & 0xFF in DAMAGED:
            return StoreRefusedError(f"The cache's database is damaged: move it away. ({exc})")
    return StoreUnavailableError(f"The cache's database failed: {exc!r}")


def _code(exc: sqlite3.Error) -> int:
    """Return SQLite's extended code; the module's own complaints have none, and are misuse."""
    return int(getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_MISUSE))
