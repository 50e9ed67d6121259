"""File systems that tests mount, where this machine lets them."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager

import pytest

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def mount(*args):
    """Mount something; return whether that worked."""
    return ROOT and not subprocess.run(
        ["mount", *map(str, args)], check=False, capture_output=True
    ).returncode  # fmt: skip


def unmount(place):
    """Take off what was mounted."""
    subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def island(place, *, size):
    """Make a small file system of its own; the test is skipped where nothing may be mounted."""
    place.mkdir(0o700)
    if not mount("-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", place):
        pytest.skip(
            "a file system that is full or read-only has to be mounted, which this user may not:"
            " be root, in a container with CAP_SYS_ADMIN"
        )
    try:
        yield place
    finally:
        unmount(place)
