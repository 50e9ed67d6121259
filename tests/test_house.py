"""The house is in order: floors, public names, lazy imports, file sizes."""

from __future__ import annotations

import ast
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
LONGEST = 350  # lines

# A file imports only from floors below its own; on floors 0 to 3 also from its own, without cycles.
FLOORS = {
    0: ["_canonical", "_clock", "_entry", "_errors", "_exact", "_key", "_returns", "_stats",
        "_values"],
    1: ["_batch", "_board", "_call", "_convoy", "_engine", "_flight", "_gate", "_guard", "_lane",
        "_leases", "_loops", "_pacer", "_pilot", "_portal", "_reader", "_recorder", "_shelf",
        "stores._base", "stores"],
    2: ["stores.*"],
    3: ["_cache", "_compute", "_contents", "_context", "_events", "_factory", "_instrument",
        "_lifetime", "_memoize", "_objects", "_options", "_recipe", "_urls", "_wrappers"],
    4: ["", "integrations", "integrations.*", "openai", "openai.*", "sync", "testing", "testing.*"],
}  # fmt: skip
DRIVERS = {
    "aiocache": ("integrations.aiocache", "stores.aiocache"),
    "aiofiles": "stores.",
    "autogen_core": ("integrations.autogen", "integrations._autogen_"),
    "azure": ("stores.cosmos", "stores._cosmos_"),
    "langchain_core": "integrations.langchain",
    "langgraph": "integrations.langgraph",
    "litellm": ("integrations.litellm", "integrations._litellm_"),
    "openai": "openai",
    "redis": ("stores.redis", "stores._redis_"),
    "sqlite3": "stores.",
}
PURE = ("asyncio", "socket", "time", "threading")  # what floor 0 does without, but for the clock


def modules():
    """Return each source file by its dotted name below the package."""
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


def floor_of(name):
    """Return a module's floor: named exactly, or by its package."""
    for floor, names in FLOORS.items():
        if name in names:
            return floor
    package = name.rpartition(".")[0] or name
    while package:
        for floor, names in FLOORS.items():
            if f"{package}.*" in names:
                return floor
        package = package.rpartition(".")[0]
    raise AssertionError(f"{name} is on no floor: add it to FLOORS")


def imports(path, *, everywhere=True):
    """Return the modules that a file imports; type checkers' imports aside."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    nodes = ast.walk(tree) if everywhere else tree.body
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            yield node.module
            if node.module == "asynccache" or node.module.startswith("asynccache."):
                yield from (
                    f"{node.module}.{alias.name}"
                    for alias in node.names
                    if (
                        SOURCE
                        / node.module.replace("asynccache", ".").replace(".", "/").lstrip("/")
                        / f"{alias.name}.py"
                    ).exists()
                )


@pytest.mark.parametrize(
    ("name", "path"), list(modules()), ids=lambda value: str(value) or "__init__"
)
def test_file_stands_on_its_floor(name, path):
    """A file imports from its floor or those below, drivers where they belong, and isn't long."""
    floor = floor_of(name)
    lazy_up = {("_cache", "sync")} | {
        ("_factory", f"stores.{name}")
        for name in ("aiocache", "cosmos", "disk", "_local", "memory", "redis")
    }
    for imported in imports(path):
        top, _, rest = imported.partition(".")
        if top == "asynccache" and rest and (name, rest) not in lazy_up:
            assert floor_of(rest) <= floor, f"{name} imports {imported} from a floor above"
        if top in DRIVERS:
            assert name.startswith(DRIVERS[top]), f"{name} imports the driver {top}"
        if floor == 0 and name != "_clock":
            assert top not in PURE, f"{name} is pure and imports {top}"
    assert len(path.read_text().splitlines()) <= LONGEST


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
