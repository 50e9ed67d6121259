"""Folders and files of a disk store: made private, checked before use, locked with flock."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from asynccache.errors import StoreRefusedError, StoreUnavailableError

try:
    import fcntl
except ImportError:  # Windows: no advisory locks, so ages stand in for them
    fcntl = None  # type: ignore[assignment] # a module that may be missing

LOGGER: Final = logging.getLogger("asynccache")

_FOLDER_MODE: Final = 0o700  # ours alone: bodies hold prompts and answers
_FILE_MODE: Final = 0o600
_LOOK_SECONDS: Final = 0.005  # between two looks whether another process has done so
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHERS: Final = (
    "{} belongs to another user (uid {}): choose a folder of your own."
    ' With mode="read_only" or "replay" it can be read.'
)
_NETWORK: Final = frozenset({
    "9p", "afs", "ceph", "cifs", "fuse.sshfs", "gfs2", "glusterfs", "lustre", "nfs", "nfs4",
    "ocfs2", "smb3", "smbfs", "virtiofs",
})  # fmt: skip
"""File systems whose hosts don't share memory, which SQLite's WAL is coordinated through."""


def make_folder(path: Path) -> bool:
    """Make a folder and its missing parents private, or check the one that is there.

    Returns:
        Whether it was made.

    Raises:
        StoreRefusedError: It is there and unsafe.
        OSError: It can't be made.
    """
    made = False
    if not os.path.lexists(path):
        if not path.parent.exists():
            make_folder(path.parent)
        with contextlib.suppress(FileExistsError):  # another process was faster
            path.mkdir(_FOLDER_MODE)
            path.chmod(_FOLDER_MODE)  # the umask may have taken the owner's bits
            made = True
    check_folder(path)
    return made


def make_file(path: Path, content: bytes = b"") -> None:
    """Make a private file that isn't there yet."""
    with os.fdopen(create_file(path), "wb") as file:
        file.write(content)


def create_file(path: Path) -> int:
    """Make a private file that isn't there yet, and return it open for writing."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
    fd = os.open(path, flags, _FILE_MODE)
    if hasattr(os, "fchmod"):
        os.fchmod(fd, _FILE_MODE)  # the umask may have taken the owner's bits
    return fd


def ignore_in_git(folder: Path) -> None:
    """Keep a folder that was made just now out of version control."""
    with contextlib.suppress(FileExistsError):
        make_file(folder / ".gitignore", b"*\n")


def check_folder(path: Path) -> None:
    """Refuse a folder that others can put their own answers into.

    Raises:
        StoreRefusedError: It is a link, no folder, somebody else's, or others may write to it.
    """
    found = plain_folder(path)
    if is_others(found):
        raise StoreRefusedError(_OTHERS.format(path, found.st_uid))
    if _others_write(found):
        mode = stat.S_IMODE(found.st_mode)
        raise StoreRefusedError(
            f"Others may write to {path} (mode {mode:o}): run `chmod -R go-w {path}`,"
            ' or choose a folder of your own. With mode="read_only" or "replay" it can be read.'
        )


def check_file(path: Path) -> None:
    """Refuse a database file that isn't plainly ours.

    Raises:
        StoreRefusedError: It is a link, no regular file, or somebody else's.
    """
    found = plain_file(path)
    if is_others(found):
        raise StoreRefusedError(_OTHERS.format(path, found.st_uid))


def plain_folder(path: Path) -> os.stat_result:
    """Return what a folder is, whoever's.

    Raises:
        StoreRefusedError: It is a link, or no folder.
    """
    found = _unlinked(path)
    if not stat.S_ISDIR(found.st_mode):
        raise StoreRefusedError(f"{path} is not a folder: move it away, or choose another one.")
    return found


def plain_file(path: Path) -> os.stat_result:
    """Return what a file is, whoever's.

    Raises:
        StoreRefusedError: It is a link, or no regular file.
    """
    found = _unlinked(path)
    if not stat.S_ISREG(found.st_mode):
        raise StoreRefusedError(f"{path} is not a regular file: move it away.")
    return found


def is_ours(found: os.stat_result) -> bool:
    """Return whether nobody else may have changed what is in a file or folder."""
    return not is_others(found) and not _others_write(found)


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from one that took its place, None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - asked once per group, and twice as fast as Path.stat
    except OSError:
        return None
    return found.st_dev, found.st_ino


def on_network(folder: Path) -> bool:
    """Return whether a folder lies on a file system that several hosts may share."""
    device = folder.stat().st_dev
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            mount, _, kind = line.partition(" - ")
            if mount.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                return kind.split()[0] in _NETWORK
    return False


@contextlib.contextmanager
def locked(folder: Path, seconds: float) -> Generator[None, None, None]:
    """Hold a folder against every other process that prepares or removes its databases.

    Args:
        folder: The folder.
        seconds: How long to wait for another process.

    Raises:
        StoreUnavailableError: Another holds it for longer than preparing takes.
    """
    if fcntl is None:
        yield
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + seconds
        while try_lock(fd) is False:
            if time.monotonic() > until:
                raise StoreUnavailableError(f"Another process has begun to prepare {folder}.")
            time.sleep(_LOOK_SECONDS)
        yield
    finally:
        os.close(fd)


def try_lock(fd: int) -> bool | None:
    """Lock what is open against other processes.

    Returns:
        Whether it is ours now; None where there are no locks: the retries or an age must do.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        return None
    return True


def sync_folder(folder: Path) -> None:
    """Make names given in a folder survive a power loss, where the system can."""
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _unlinked(path: Path) -> os.stat_result:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise StoreRefusedError(f"{path} is a symbolic link: give the place it points to instead.")
    return found


def is_others(found: os.stat_result) -> bool:
    """Return whether a file or folder belongs to another user, root excepted."""
    return os.name == "posix" and found.st_uid not in (0, os.geteuid())


def _others_write(found: os.stat_result) -> bool:
    return os.name == "posix" and bool(found.st_mode & _OTHERS_WRITE)
