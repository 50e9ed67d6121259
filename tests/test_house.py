"""The house is in order: public names, lazy imports."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import asynccache
import asynccache.openai
import asynccache.stores
import asynccache.testing

SOURCE = Path(asynccache.__file__).parent
DRIVERS = (
    "aiocache", "aiofiles", "autogen_core", "azure", "langchain_core", "langgraph", "litellm",
    "openai", "redis", "sqlite3",
)  # fmt: skip


@pytest.mark.parametrize(
    "package", [asynccache, asynccache.openai, asynccache.stores, asynccache.testing]
)
def test_public_names_are_sorted_and_there(package):
    """`__all__` is sorted, and each name in it can be imported."""
    assert package.__all__ == sorted(package.__all__, key=_sorting)
    assert all(hasattr(package, name) for name in package.__all__)


def _sorting(name):
    """Sort as ruff does: constants, then classes, then the rest."""
    return (not name.isupper(), not name[0].isupper(), name)


def test_public_names_say_what_they_are():
    """Every public name has a docstring of its own."""
    undocumented = [
        name
        for name in asynccache.__all__
        if not name.isupper()
        and not name.startswith("Mode")
        and not getattr(asynccache, name).__doc__
    ]
    assert undocumented == []


def test_import_loads_no_driver():
    """Importing every public name loads no driver, no database, no compressor, and not pytest."""
    heavy = [
        *DRIVERS,
        "httpx",
        "httpx2",
        "pydantic",
        "pytest",
        "backports.zstd",
        "compression.zstd",
    ]
    script = (
        "import sys; from asynccache import *; from asynccache import AsyncCache, Cache;"
        f" print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_typed_marker_is_there():
    """Type checkers are told that the package is typed."""
    assert (SOURCE / "py.typed").exists()


def test_version_is_the_distributions():
    """The version is that of what is installed, and isn't looked up before it is asked for."""
    assert asynccache.__version__ == importlib.metadata.version("asynccache")
    script = "import sys, asynccache; print('importlib.metadata' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(SOURCE.parent)},
    )
    assert done.stdout.strip() == "False"
