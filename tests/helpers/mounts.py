"""File systems that tests mount, where this machine lets them."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager

import pytest

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def mount(*args):
    """Mount something; return what kept it from working, nothing if it worked."""
    if not ROOT:
        return "only root may mount"
    done = subprocess.run(
        ["mount", *map(str, args)], check=False, capture_output=True, text=True
    )  # fmt: skip
    return (done.stderr.strip() or f"mount ended with {done.returncode}") if done.returncode else ""


def unmount(place):
    """Take off what was mounted."""
    subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def island(place, *, size):
    """Make a small file system of its own; the test is skipped where nothing may be mounted."""
    place.mkdir(0o700)
    if wrong := mount("-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", place):
        pytest.skip(
            "a file system that is full or read-only has to be mounted, as root, in a container"
            f" with CAP_SYS_ADMIN: {wrong}"
        )
    try:
        yield place
    finally:
        unmount(place)
