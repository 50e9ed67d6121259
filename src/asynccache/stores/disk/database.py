"""SQLite as the disk store uses it: schemas, connections, careful opening, errors mapped."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import sqlite3
import struct
import time
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from asynccache.errors import (
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreRefusedError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from asynccache.stores.disk.files import LOGGER, check_file, make_file, on_network

_VERSION: Final = 1
BUSY_SECONDS: Final = 5.0  # a writer of another process commits in milliseconds; beyond is stuck
_OPEN_SECONDS: Final = 10.0  # how long to retry where SQLite ignores its own busy timeout
_RETRY_SECONDS: Final = 0.02  # between two such tries at most, so that processes fall out of step
_WAL_LIMIT: Final = 64 * 2**20  # bytes: what a burst may leave behind in the -wal file
CACHE_KIB: Final = 16 * 1024  # holds the inner pages of a million entries

Mode = Literal["rw", "ro", "immutable"]


class Schema(Struct, frozen=True):
    """What one of our database files must hold, exactly."""

    application_id: int
    objects: dict[str, str]
    """Each table's or index' name, and the statement that makes it."""


# The value stands last: SQLite then reads the other columns without walking its pages. The first
# 64 bits of the digest as row id make one B-tree of what would be a table and an index.
ENTRIES: Final = Schema(
    0x61796331,
    {
        "entries": (
            "CREATE TABLE entries (id INTEGER PRIMARY KEY, key BLOB NOT NULL, tenant TEXT,"
            " size INTEGER NOT NULL, expires INTEGER NOT NULL, used INTEGER NOT NULL,"
            " file TEXT, value BLOB)"
        ),
        "entries_used": "CREATE INDEX entries_used ON entries (used)",
        "entries_expires": "CREATE INDEX entries_expires ON entries (expires) WHERE expires > 0",
        "entries_file": "CREATE INDEX entries_file ON entries (file, size) WHERE file IS NOT NULL",
        "entries_tenant": (
            "CREATE INDEX entries_tenant ON entries (tenant) WHERE tenant IS NOT NULL"
        ),
    },
)
LEASES: Final = Schema(
    0x61796C31,
    {
        "leases": (
            "CREATE TABLE leases (id INTEGER PRIMARY KEY, token BLOB NOT NULL,"
            " renewals INTEGER NOT NULL, touched INTEGER NOT NULL)"
        ),
    },
)

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


def prepare(path: Path, schema: Schema) -> bool:
    """Make a database file ours if it is new or empty; return whether it is in WAL mode.

    The caller holds the folder's lock; where there are no locks, retries with jitter do.

    Raises:
        StoreRefusedError: It is somebody else's, newer, or holds what ours never hold.
        sqlite3.Error, OSError: It can't be opened or written.
    """
    if not os.path.lexists(path):
        # What is left of a deleted database would be taken for part of the new one.
        for suffix in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):
            make_file(path)
    until = time.monotonic() + _OPEN_SECONDS
    while True:
        try:
            inspect(path, schema)
            return _prepare(path, schema)
        except sqlite3.OperationalError as exc:
            if not is_busy(exc) or time.monotonic() > until:
                raise
        time.sleep(random.uniform(0, _RETRY_SECONDS))  # noqa: S311 - jitter, not a secret


def inspect(path: Path, schema: Schema, mode: Mode | None = None) -> None:
    """Look at a database without changing it.

    Raises:
        StoreRefusedError: It isn't ours to use. Empty files are: nobody's yet.
    """
    check_file(path)
    if not path.stat().st_size:
        return
    # Read-only connections leave a -wal and a -shm behind, writing ones clear away (by writing
    # into the database) what somebody else left: each is right where the other is not.
    pending = any(path.with_name(path.name + suffix).exists() for suffix in ("-wal", "-journal"))
    connection = connect(path, mode or ("ro" if pending else "rw"))
    try:
        connection.execute("PRAGMA query_only = ON")
        application_id, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        )
        found = {
            name: (kind, sql)
            for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master")
            if not name.startswith("sqlite_")
        }
    except sqlite3.DatabaseError as exc:
        if exc.sqlite_errorcode & 0xFF in _DAMAGED:
            raise StoreRefusedError(
                f"{path} is damaged or no SQLite database: move it away."
            ) from exc
        raise
    finally:
        connection.close()
    if not found and not application_id and not version:
        return
    if application_id != schema.application_id:
        raise StoreRefusedError(f"{path} was not made by asynccache: move it away.")
    if version > _VERSION:
        raise StoreRefusedError(
            f"{path} was made by a newer asynccache (format {version}, this one knows {_VERSION}):"
            " upgrade, or use another folder."
        )
    for name, (kind, sql) in found.items():
        if schema.objects.get(name) != sql:
            raise StoreRefusedError(
                f"{path} holds a {kind} {name!r} that asynccache never made: move it away."
            )
    if missing := schema.objects.keys() - found.keys():
        raise StoreRefusedError(f"{path} lacks {min(missing)!r}: move it away.")


def _prepare(path: Path, schema: Schema) -> bool:
    wanted = "delete" if on_network(path.parent) else "wal"
    connection = connect(path, "rw")
    try:
        mode = str(connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0]).lower()
        connection.execute("BEGIN IMMEDIATE")
        if not connection.execute("PRAGMA user_version").fetchone()[0]:
            for statement in schema.objects.values():
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {schema.application_id}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")
    finally:
        connection.close()
    if mode != "wal":
        _say_slow(path.parent)
    return mode == "wal"


@lru_cache(maxsize=64)
def _say_slow(folder: Path) -> None:  # cached: said once
    LOGGER.warning(
        "%s can't use SQLite's write-ahead log (a network file system?): the cache works, but"
        " slower; a local folder is better",
        folder,
    )


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


_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
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
        if code & 0xFF in _DAMAGED:
            return StoreRefusedError(f"The cache's database is damaged: move it away. ({exc})")
    return StoreUnavailableError(f"The cache's database failed: {exc!r}")


def _code(exc: sqlite3.Error) -> int:
    """Return SQLite's extended code; the module's own complaints have none, and are misuse."""
    return int(getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_MISUSE))
