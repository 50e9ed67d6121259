"""Opens a seed's folder: makes or finds it, and refuses what isn't plainly ours or not usable."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from functools import lru_cache
from pathlib import Path
from typing import Final

from msgspec import Struct

from asynccache.errors import StoreRefusedError
from asynccache.runtime.bounded import BoundedDict
from asynccache.runtime.clock import Clock
from asynccache.stores.disk import generations
from asynccache.stores.disk.bodies import sweep
from asynccache.stores.disk.database import Mode, connect, is_busy, is_damaged, is_full
from asynccache.stores.disk.files import (
    LOGGER,
    check_file,
    check_folder,
    ignore_in_git,
    is_others,
    is_ours,
    locked,
    make_file,
    make_folder,
    on_network,
    plain_file,
    plain_folder,
)
from asynccache.stores.disk.folder import Folder
from asynccache.stores.disk.room import BODIES, DATABASE, LEASES_DATABASE

_VERSION: Final = 3  # of the schemas below: raised with every change to them
_PREPARING_SECONDS: Final = 10.0  # preparing a folder takes milliseconds
_OPEN_SECONDS: Final = 10.0  # how long to retry where SQLite ignores its own busy timeout
_RETRY_SECONDS: Final = 0.02  # between two such tries at most, so that processes fall out of step


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
        "generations": generations.TABLE,
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


def open_folder(
    root: Path,
    seed: str,
    clock: Clock,
    touched: dict[int, None],
    *,
    read_only: bool,
    gitignore: bool,
) -> Folder | None:
    """Make or find a seed's folder and return it open; None if read-only and there is none.

    Args:
        root: The folder of all seeds.
        seed: The seed's name.
        clock: For expiry and rests.
        touched: Where the folder notes what is read, if the store may write.
        read_only: Make and change nothing.
        gitignore: Keep what is made here out of version control.

    Raises:
        StoreRefusedError: What is there isn't safe to use.
        sqlite3.Error, OSError: It can't be opened.
    """
    path = root / seed
    # What can't be written can still be read; each write then says so.
    if not read_only and os.path.lexists(path / DATABASE) and not os.access(path, os.W_OK):
        LOGGER.warning("%s can't be written: the cache only reads there", path)
        read_only = True
        for place in filter(os.path.lexists, (root, path, path / BODIES)):
            check_folder(place)
        check_file(path / DATABASE)
    if read_only:
        return _open_read_only(root, path, clock)
    made = [folder for folder in (root, path) if make_folder(folder)]
    if gitignore and made:
        ignore_in_git(made[0])
    wal = prepare(path / DATABASE, ENTRIES)
    if not wal:
        _say_slow(path)
    if os.path.lexists(path / LEASES_DATABASE):
        check_file(path / LEASES_DATABASE)
    make_folder(path / BODIES)
    folder = Folder(path, clock, touched, mode="rw", wal=wal)
    with folder.reader() as connection:
        naming = "SELECT 1 FROM entries WHERE file = ?"
        sweep(folder.bodies, lambda file: bool(connection.execute(naming, (file,)).fetchall()))
    return folder


def _open_read_only(root: Path, path: Path, clock: Clock) -> Folder | None:
    database = path / DATABASE
    folders = [folder for folder in (root, path, path / BODIES) if os.path.lexists(folder)]
    ours = all(map(is_ours, list(map(plain_folder, folders))))
    if not os.path.lexists(database) or not plain_file(database).st_size:
        return None
    beside = [path / f"{DATABASE}{suffix}" for suffix in ("-wal", "-shm", "-journal")]
    files = [plain_file(file) for file in (database, *beside) if os.path.lexists(file)]
    ours = ours and not any(map(is_others, files))
    log = os.path.lexists(beside[0]) and beside[0].lstat().st_size > 0
    if log and not ours:
        LOGGER.warning("%s isn't read, since others may have written it", beside[0])
    # What others may have written is read as it stands, without the log and the shared memory that
    # belong to it, and nothing is left there. So is a database with nothing in its log, where
    # SQLite may not make its shared-memory file; no one can change it there.
    still = not ours or (not os.access(path, os.W_OK) and not log)
    mode: Mode = "immutable" if still else "ro"
    try:
        wal = inspect(database, ENTRIES, mode)
    except sqlite3.OperationalError as exc:
        if log or not is_full(exc):
            raise
        mode, wal = "immutable", True  # a full volume has no room for shared memory
        inspect(database, ENTRIES, mode)
    return Folder(path, clock, BoundedDict(1), mode=mode, wal=mode == "immutable" or bool(wal))


def prepare(path: Path, schema: Schema) -> bool:
    """Make a database file ours if it is new or empty; return whether it is in WAL mode.

    One that is ready is only looked at: another process may hold it, and may stand still.

    Raises:
        StoreRefusedError: It is somebody else's, newer, or holds what ours never hold.
        sqlite3.Error, OSError: It can't be opened or written.
    """
    journal = on_network(path.parent)
    # What is refused here may be half made by another process: it is looked at again below.
    with contextlib.suppress(FileNotFoundError, sqlite3.OperationalError, StoreRefusedError):
        wal = inspect(path, schema)
        if wal is not None and wal is not journal:
            return wal
    # One process at a time: several making one new file is the classic "database is locked".
    with locked(path.parent, _PREPARING_SECONDS):
        return _make(path, schema, journal=journal)


def _make(path: Path, schema: Schema, *, journal: bool) -> bool:
    if not os.path.lexists(path):
        remove(path)  # what is left of it would be taken for part of the new one
        with contextlib.suppress(FileExistsError):
            make_file(path)
    until = time.monotonic() + _OPEN_SECONDS
    while True:
        try:
            inspect(path, schema)
            return _prepare(path, schema, journal=journal)
        except sqlite3.OperationalError as exc:
            if not is_busy(exc) or time.monotonic() > until:
                raise
        time.sleep(random.uniform(0, _RETRY_SECONDS))  # noqa: S311 - jitter, not a secret


def remove(path: Path) -> None:
    """Remove a database, then its log, without which nobody could read what is there."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def remove_whole(database: Path) -> None:
    """Remove a folder's database and bodies; whoever has it open opens a new one."""
    with locked(database.parent, _PREPARING_SECONDS):
        remove(database)
        for body in database.with_name(BODIES).iterdir():
            body.unlink(missing_ok=True)


def remove_damaged(path: Path, schema: Schema) -> bool:
    """Remove a database that is damaged and holds nothing but the schema's tables.

    Returns:
        Whether one that isn't damaged can be made or used there now.

    Raises:
        StoreRefusedError: It is no plain file of ours.
        sqlite3.Error, OSError: It can't be opened.
    """
    with locked(path.parent, _PREPARING_SECONDS):
        if not os.path.lexists(path) or _is_sound(path, schema):
            return True  # another process was faster
        if not holds_nothing_else(path, schema):
            return False
        remove(path)
        return True


def _is_sound(path: Path, schema: Schema) -> bool:
    try:
        inspect(path, schema)
        with contextlib.closing(connect(path, "ro")) as connection:
            return connection.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
    except StoreRefusedError:
        return False
    except sqlite3.DatabaseError as exc:
        if is_damaged(exc):
            return False
        raise


def holds_nothing_else(path: Path, schema: Schema) -> bool:
    """Return whether a file that was refused is damaged, or has no table but the schema's.

    Raises:
        StoreRefusedError: It is no plain file of ours.
        sqlite3.Error, OSError: It can't be opened.
    """
    check_file(path)
    try:
        with contextlib.closing(connect(path, "ro")) as connection:
            names = connection.execute("SELECT name FROM sqlite_master").fetchall()
    except sqlite3.DatabaseError as exc:
        if is_damaged(exc):
            return True
        raise
    return {name for (name,) in names} <= schema.objects.keys()


def inspect(path: Path, schema: Schema, mode: Mode | None = None) -> bool | None:
    """Look at a database without changing it.

    Returns:
        Whether it is in WAL mode; None if it is empty, and nobody's yet.

    Raises:
        StoreRefusedError: It isn't ours to use.
        FileNotFoundError: There is none.
    """
    # In the mode immutable, a database is read whoever's it is.
    (plain_file if mode == "immutable" else check_file)(path)
    if not path.stat().st_size:
        return None
    # Read-only connections leave a -wal and a -shm behind, writing ones clear away (by writing
    # into the database) what somebody else left: each is right where the other is not.
    pending = any(path.with_name(path.name + suffix).exists() for suffix in ("-wal", "-journal"))
    connection = connect(path, mode or ("ro" if pending else "rw"))
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")  # all is read of one state, whoever makes it meanwhile
        application_id, version, journal = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version", "journal_mode")
        )
        found = {
            name: (kind, sql)
            for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master")
            if not name.startswith("sqlite_")
        }
    except sqlite3.DatabaseError as exc:
        if is_damaged(exc):
            raise StoreRefusedError(
                f"{path} is damaged or no SQLite database: move it away."
            ) from exc
        raise
    finally:
        connection.close()
    if not found and not application_id and not version:
        return None
    if application_id != schema.application_id:
        raise StoreRefusedError(f"{path} was not made by asynccache: move it away.")
    if version != _VERSION:
        age, advice = (
            ("a newer", "upgrade asynccache, or choose another folder")
            if version > _VERSION
            else ("an older", "delete it, and its entries are made anew, or choose another folder")
        )
        raise StoreRefusedError(
            f"{path.parent} was written by {age} version of asynccache (format {version}, this one"
            f" has {_VERSION}): {advice}."
        )
    for name, (kind, sql) in found.items():
        if schema.objects.get(name) != sql:
            raise StoreRefusedError(
                f"{path} holds what asynccache never made ({kind} {name!r}): move it away."
            )
    if missing := schema.objects.keys() - found.keys():
        raise StoreRefusedError(f"{path} lacks {min(missing)!r}: move it away.")
    return bool(journal == "wal")


def _prepare(path: Path, schema: Schema, *, journal: bool) -> bool:
    wanted = "delete" if journal else "wal"
    with contextlib.closing(connect(path, "rw")) as connection, connection:
        # What is deleted makes the file shorter, in the same transaction. It has to be said before
        # there is anything in the file.
        connection.execute("PRAGMA auto_vacuum = FULL")
        mode = str(connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0]).lower()
        connection.execute("BEGIN IMMEDIATE")
        if not connection.execute("PRAGMA user_version").fetchone()[0]:
            for statement in schema.objects.values():
                connection.execute(statement)
            if schema is ENTRIES:
                generations.begin(connection)
            connection.execute(f"PRAGMA application_id = {schema.application_id}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
    return mode == "wal"


@lru_cache(maxsize=64)
def _say_slow(folder: Path) -> None:  # cached: said once
    LOGGER.warning(
        "%s can't use SQLite's write-ahead log (a network file system?): the cache works, but"
        " slower; a local folder is better",
        folder,
    )
