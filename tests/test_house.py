"""The house is in order: what may import what, where things are said once, and how large they are.

`pytest tests/test_house.py` takes seconds. Each rule is a function that returns what breaks it.
"""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import asynccache
import asynccache.http
import asynccache.normalizers
import asynccache.openai
import asynccache.stores
import asynccache.testing
from tools.house import House

SOURCE = Path(asynccache.__file__).parent
HOUSE = House(SOURCE.parent.parent)

# What each package may import besides itself. Whatever is at the top is named by its file.
ORDER = {
    "": set(),  # only type checkers see what it imports
    "errors": set(),
    "keys": {"errors"},
    "normalizers": {"errors", "keys"},
    "entries": {"errors", "keys"},
    "runtime": {"errors"},
    "stores": {"errors", "keys", "entries", "runtime"},
    "core": {"errors", "keys", "entries", "runtime", "stores"},
    "cache": {"errors", "keys", "normalizers", "entries", "runtime", "stores", "core"},
    "providers": {"errors", "keys", "entries"},
    "http": {"errors", "keys", "entries", "runtime", "core", "cache", "providers"},
    "openai": {"errors", "keys", "entries", "runtime", "core", "cache", "providers"},
    "integrations": {"errors", "keys", "entries", "runtime", "core", "cache", "providers"},
    "testing": {"errors", "keys", "entries", "runtime", "stores", "core", "cache"},
}
# Of the stores, the packages beside them know the contract alone; `cache` loads the rest lazily.
CONTRACT = "stores.base"
# The ways into `core` and `cache` for the packages above them.
OUTER = ("http", "openai", "integrations")
FACADE = {"cache.facade"}
# Each part of these packages is for itself; modules that all parts share are named.
SHARED = {
    "stores": {"base", "links", "memory", "near"},  # who changes a store tells near caches
    # `client` is the floor that `embeddings` and `instrument` stand on, and imports neither.
    "openai": {"client", "objects", "version", "wrapping"},
}
# Imports inside functions, of modules of ours.
LAZY = {
    ("cache.factory", "cache.urls"): "few programs name a cache by its URL",
    ("cache.factory", "stores"): "a program loads the store that it uses, and its driver, alone",
    ("http.wrapping", "http.aiohttp_session"): "aiohttp is there when a session of its is wrapped",
    ("testing", "testing.contract"): "the contract needs pytest, which others than testers lack",
}
# Modules that are named in strings, to be imported when they are needed.
NAMED = {
    ("", "*"): "`import asynccache` costs nothing until a name is used",
    ("cache.clients", "openai"): "the SDK is there when a client of its is wrapped",
    ("cache.clients", "http"): "as for the SDK",
    ("cache.clients", "http.wrapping"): "as for the SDK",
    ("cache.instrument", "http.aiohttp_patches"): "the library is there when it is served",
    ("cache.instrument", "http.httpx_patches"): "the library is there when its clients are served",
    ("cache.instrument", "http.sdk_patches"): "as above",
    ("cache.instrument", "openai.instrument.patches"): "as for httpx",
    ("cache.objects", "integrations.ag2"): "AG2 is there when an object of its is kept",
    ("cache.objects", "openai.objects"): "the SDK is there when an object of its is kept",
    ("testing", "*"): "pytest rewrites the asserts of the contract, once it is told so",
}
DRIVERS = {
    "aiocache": ("integrations.aiocache", "stores.aiocache"),
    "aiofiles": ("stores.",),
    "aiohttp": ("http.aiohttp",),
    "autogen_core": ("integrations.autogen",),
    "azure": ("stores.cosmos",),
    "httpx": ("http.httpx",),
    "httpx2": ("http.httpx", "openai"),
    "langchain_core": ("integrations.langchain",),
    "langgraph": ("integrations.langgraph",),
    "litellm": ("integrations.litellm",),
    "openai": ("openai",),
    "redis": ("stores.redis",),
    "sqlite3": ("stores.disk",),
}
PURE = ("keys", "normalizers", "entries", "providers")
IMPURE = {"asyncio", "anyio", "socket", "time", "threading"}
# Names that occur in one module alone.
ONE_PLACE = {"register_at_fork": "runtime.forks", "call_soon_threadsafe": "runtime.loops"}
# Headers that are never in a key stand in one module of `keys`.
HEADERS = {
    "api-key", "authorization", "cookie", "openai-organization", "openai-project",
    "proxy-authorization", "traceparent", "tracestate", "x-amz-security-token", "x-api-key",
    "x-goog-api-key",
}  # fmt: skip
HEADERS_ELSEWHERE = {
    "openai.client.sdk": "Azure's client adds its key only when it sends",
    "openai.client.upstream": "`openai-organization` is kept of responses",
    "providers.openai": "as in `openai.client.upstream`",
    "http.request": "`authorization` may be a signature of the body",
    "providers.wire": "`cookie` counts where nothing else says whose a request is",
    "providers.secrets": "`authorization` is a member of bodies there",
}
# Methods of the store contract that nothing calls yet.
UNCALLED = {"scan", "head_many"}
LONGEST_FUNCTION = 60  # lines, without the docstring
MOST_ARGUMENTS = 7  # of a constructor


def short(name):
    """Return a module's name below the package, "" for the package itself."""
    return name.removeprefix("asynccache").removeprefix(".")


def room(name):
    """Return the package, or the file at the top, that a module belongs to."""
    return name.partition(".")[0]


def part(name):
    """Return the part of its package that a module belongs to, "" if it is the package's own."""
    return name.split(".")[1] if "." in name else ""


def imports():
    """Return each import of a module of ours: by whom, of what, and of which kind."""
    for name in HOUSE.paths:
        for found in HOUSE.imports(name):
            if found.imported in HOUSE.paths:
                yield short(name), short(found.imported), found.kind


def lazily_allowed(importer, imported):
    """Return whether an import inside a function is on the list."""
    return any(
        importer == name and (imported == package or imported.startswith(f"{package}."))
        for name, package in LAZY
    )


def order_of_packages():
    """Return imports that go up; those for type checkers count, except in an `__init__`."""
    for importer, imported, kind in imports():
        if importer == "" and kind == "typing":
            continue
        upper, lower = room(importer), room(imported)
        if kind == "lazy" and lazily_allowed(importer, imported):
            continue
        if upper != lower and lower not in ORDER[upper]:
            yield f"{importer} imports {imported}"
        if upper in {"core", "cache"} and lower == "stores" and imported != CONTRACT:
            yield f"{importer} imports {imported}"


def import_circles():
    """Return the modules that import each other, for type checkers alone or not."""
    for circle in HOUSE.circles():
        yield from map(short, circle)


def lazy_imports():
    """Return imports inside functions, and modules named in strings, that are on no list."""
    for importer, imported, kind in imports():
        if kind == "lazy" and not lazily_allowed(importer, imported):
            yield f"{importer} imports {imported}"
    for name, tree in HOUSE.trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value in HOUSE.paths:
                importer, named = short(name), short(node.value)
                if named and not {(importer, named), (importer, "*")} & {*NAMED}:
                    yield f"{importer} names {named}"


def siblings():
    """Return imports of one part of a package by another."""
    for importer, imported, _ in imports():
        package = room(importer)
        if package in SHARED and room(imported) == package:
            of, to = part(importer), part(imported)
            if of and to and of != to and not {of, to} & SHARED[package]:
                yield f"{package}.{of} imports {package}.{to}"


def facade():
    """Return the modules of `core` and `cache` that packages above them import one by one."""
    for importer, imported, _ in imports():
        inner = room(imported) in {"core", "cache"} and imported not in FACADE
        if room(importer) in OUTER and inner:
            yield f"{room(importer)} imports {imported}"


def class_names():
    """Return public class names that mean two things."""
    yield from HOUSE.shared_class_names()


def one_place():
    """Return modules that use what is to be used in one place alone."""
    for name, tree in HOUSE.trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute | ast.Name):
                used = node.attr if isinstance(node, ast.Attribute) else node.id
                if used in ONE_PLACE and short(name) != ONE_PLACE[used]:
                    yield f"{short(name)} uses {used}"


def headers():
    """Return modules that name a credential's header, but for one of `keys`."""
    naming = {
        short(name)
        for name, tree in HOUSE.trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.lower() in HEADERS
    }
    homes = sorted(name for name in naming if room(name) == "keys")
    yield from (f"{name} names some" for name in homes[1:])
    yield from (f"{name} names some" for name in naming - {*homes, *HEADERS_ELSEWHERE})


def store_contract():
    """Return methods of the store contract that nothing calls outside stores and tests."""
    used = {
        node.attr
        for name, tree in HOUSE.trees.items()
        if room(short(name)) not in {"stores", "testing"}
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("store")
    }
    for node in ast.walk(HOUSE.trees[f"asynccache.{CONTRACT}"]):
        if isinstance(node, ast.ClassDef) and node.name == "Store":
            for method in node.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                    name = method.name
                    if not name.startswith("_") and (name in used) is (name in UNCALLED):
                        yield name


def drivers():
    """Return imports of drivers outside their own folders."""
    for name in HOUSE.paths:
        for found in HOUSE.imports(name):
            top = found.imported.partition(".")[0]
            if top in DRIVERS and not short(name).startswith(DRIVERS[top]):
                yield f"{short(name)} imports {top}"


def purity():
    """Return imports by which a pure package would know of loops, threads and clocks."""
    for name in HOUSE.paths:
        for found in HOUSE.imports(name):
            top = found.imported.partition(".")[0]
            if room(short(name)) in PURE and top in IMPURE:
                yield f"{short(name)} imports {top}"


def functions():
    """Return functions, with their names, and the module that each of them is in."""
    for name, tree in HOUSE.trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield short(name), node


def long_functions():
    """Return functions that are longer than a reader keeps in mind."""
    for name, node in functions():
        first = node.body[0]
        lines = node.end_lineno - node.lineno + 1
        if ast.get_docstring(node, clean=False) is not None:
            lines -= first.end_lineno - first.lineno + 1
        if lines > LONGEST_FUNCTION:
            yield f"{name}: {node.name}"


def constructors():
    """Return the constructors that take too much."""
    for name, tree in HOUSE.trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    asked = method.args
                    named = [*asked.posonlyargs, *asked.args, *asked.kwonlyargs][1:]
                    if len([*named, *filter(None, (asked.vararg, asked.kwarg))]) > MOST_ARGUMENTS:
                        yield f"{short(name)}: {node.name}"


RULES = (
    order_of_packages, import_circles, lazy_imports, siblings, facade, class_names, one_place,
    headers, store_contract, drivers, purity, long_functions, constructors,
)  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule):
    """Nothing breaks the rule."""
    broken = {*rule()}
    assert not broken, "\n".join(sorted(broken))


def test_every_package_has_its_place():
    """Each package, and each file at the top, is in the order."""
    assert {room(short(name)) for name in HOUSE.paths} == {*ORDER}


def test_lists_of_exceptions_are_needed():
    """What is on a list of exceptions is there, so that no list grows old."""
    lazy = {(of, to) for of, to, kind in imports() if kind == "lazy"}
    for importer, package in LAZY:
        assert any(of == importer and to.startswith(package) for of, to in lazy)
    for importer, named in NAMED:
        text = HOUSE.texts[f"asynccache.{importer}".rstrip(".")]
        assert named == "*" or f"asynccache.{named}" in text
    for name in HEADERS_ELSEWHERE:
        assert f"asynccache.{name}" in HOUSE.paths


@pytest.mark.parametrize(
    "package",
    [
        asynccache,
        asynccache.http,
        asynccache.normalizers,
        asynccache.openai,
        asynccache.stores,
        asynccache.testing,
    ],
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
        "pydantic",
        "pytest",
        "backports.zstd",
        "compression.zstd",
    ]
    script = (
        "import sys; from asynccache import *; from asynccache import AsyncCache, Cache;"
        " import asynccache.http;"
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
