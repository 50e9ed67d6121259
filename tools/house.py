"""Measure how easy the source is to find one's way in: sizes, import circles, and two calls' ways.

    python tools/house.py                    # this checkout
    python tools/house.py --tree ../before   # another one
    python tools/house.py --json --no-walk   # only what can be read without running it

What is counted, for a checkout whose package lies in `src/asynccache`:

files, lines
    All `.py` files of the package.
code lines
    Lines that hold a token of code. Blank lines, comments and the docstrings of modules, classes
    and functions are none.
modules at the top
    `.py` files that lie directly in the package, `__init__.py` aside.
import circles
    Groups of modules that import each other (strongly connected components of more than one
    module). `from package import name` is an import of the submodule of that name, if there is
    one, else of the package's `__init__`. Imports for type checkers count, except in an
    `__init__`, which only names there what it loads later. Imports inside functions are left out
    of the first number and part of the second.
public class names used twice
    Classes at the top of a module, without a leading underscore, whose name another module of the
    package uses as well.
a hit, a miss
    `chat.completions.create` of a wrapped `AsyncOpenAI`, with `Cache.disk` in a new folder, and
    answers that come from the HTTP library's own `MockTransport`. All is warm: other requests were
    missed and hit before. The hit is one that was hit before, too; the miss lasts until its entry
    is written and its lease given back. Counted are the functions of the package that run in the
    loop's thread, where each time a coroutine goes on is another run, as `sys.setprofile` reports
    it.
files
    In how many files these functions lie.
moves
    How often the next function to run lies in another file than the one before. Going back to
    the caller is no move of its own.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import io
import json
import os
import subprocess
import sys
import tempfile
import tokenize
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

PACKAGE = "asynccache"
HERE = Path(__file__).resolve().parent.parent
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENCODING, tokenize.ENDMARKER,
}  # fmt: skip
PAUSE = 0.02  # seconds, within which a row is written

Kind = Literal["eager", "typing", "lazy"]


@dataclass(frozen=True)
class Import:
    """One import statement's claim on one module."""

    importer: str
    """The dotted name of the module that imports."""
    imported: str
    """The dotted name of a module of the package, or of a stranger as it is written."""
    kind: Kind
    """`eager` when the module is loaded, `typing` for type checkers, `lazy` in a function."""
    line: int


class House:
    """The source of one checkout."""

    def __init__(self, tree: Path = HERE) -> None:
        """Read every file of the package below `tree`."""
        self.source = tree / "src" / PACKAGE
        self.paths = {
            _dotted(path.relative_to(self.source.parent)): path
            for path in sorted(self.source.rglob("*.py"))
        }
        self.texts = {name: path.read_text("utf-8") for name, path in self.paths.items()}
        self.trees = {name: ast.parse(text) for name, text in self.texts.items()}

    def is_package(self, name: str) -> bool:
        """Return whether a module is the `__init__` of a package."""
        return self.paths[name].name == "__init__.py"

    def sizes(self) -> dict[str, int]:
        """Return the numbers of files, lines and lines of code."""
        return {
            "files": len(self.paths),
            "lines": sum(len(text.splitlines()) for text in self.texts.values()),
            "code": sum(_code_lines(self.texts[name], self.trees[name]) for name in self.paths),
        }

    def top_modules(self) -> list[str]:
        """Return the modules that lie directly in the package."""
        return [
            name
            for name, path in self.paths.items()
            if path.parent == self.source and not self.is_package(name)
        ]

    def imports(self, importer: str) -> Iterator[Import]:
        """Return what one module imports, from the package and from elsewhere."""
        package = importer if self.is_package(importer) else importer.rpartition(".")[0]
        for node, kind in _import_nodes(self.trees[importer].body, "eager"):
            for imported in self._resolve(node, package):
                yield Import(importer, imported, kind, node.lineno)

    def _resolve(self, node: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            return
        home = node.module or ""
        if node.level:
            parts = package.split(".")[: len(package.split(".")) - node.level + 1]
            home = ".".join([*parts, home] if home else parts)
        found = {
            name if (name := f"{home}.{alias.name}") in self.paths else home for alias in node.names
        }
        yield from sorted(found)

    def graph(self, *, lazy: bool = False) -> dict[str, set[str]]:
        """Return which modules of the package each of them imports."""
        edges: dict[str, set[str]] = {name: set() for name in self.paths}
        for importer in self.paths:
            for found in self.imports(importer):
                kept = found.kind == "eager" or (
                    lazy if found.kind == "lazy" else not self.is_package(importer)
                )
                if kept and found.imported in self.paths and found.imported != importer:
                    edges[importer].add(found.imported)
        return edges

    def circles(self, *, lazy: bool = False) -> list[list[str]]:
        """Return the groups of modules that import each other."""
        return circles(self.graph(lazy=lazy))

    def public_classes(self) -> dict[str, list[str]]:
        """Return the modules that define each public class name at their top."""
        homes: dict[str, list[str]] = defaultdict(list)
        for name, tree in self.trees.items():
            for node in _statements(tree.body):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    homes[node.name].append(name)
        return dict(sorted(homes.items()))

    def shared_class_names(self) -> dict[str, list[str]]:
        """Return the public class names that more than one module defines."""
        return {name: homes for name, homes in self.public_classes().items() if len(homes) > 1}


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one node (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            component, stack[at:] = sorted(stack[at:]), []
            if len(component) > 1:
                found.append(component)

    for node in edges:
        if node not in index:
            visit(node)
    return sorted(found)


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _code_lines(text: str, tree: ast.Module) -> int:
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            said = node.body[0]
            lines.difference_update(range(said.lineno, (said.end_lineno or 0) + 1))
    return len(lines)


def _import_nodes(
    body: list[ast.stmt], kind: Kind
) -> Iterator[tuple[ast.Import | ast.ImportFrom, Kind]]:
    """Return the import statements below some statements, and when each of them runs."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, kind
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _import_nodes(node.body, "typing" if kind == "typing" else "lazy")
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _import_nodes(node.body, "typing")
            yield from _import_nodes(node.orelse, kind)
        else:
            yield from _import_nodes(list(_below(node)), kind)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Return statements, and those in their branches; not those of classes and functions."""
    for node in body:
        yield node
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _statements(list(_below(node)))


def _below(node: ast.stmt) -> Iterator[ast.stmt]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            yield from child.body


class Walk:
    """Which files a call passes: to be set with `sys.setprofile`."""

    def __init__(self, source: str) -> None:
        """Notice the functions that lie below the folder `source`."""
        self.source = source
        self.files: list[str] = []
        self.steps: list[str] = []
        """Each file that was moved to, in order, with the function that was run there."""
        self._last = ""

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        """Take one event."""
        if event != "call" or not (name := frame.f_code.co_filename).startswith(self.source):
            return
        if name != self._last:
            self._last = name
            short = name.removeprefix(self.source).lstrip("/")
            self.steps.append(f"{short}: {frame.f_code.co_qualname}")
            if short not in self.files:
                self.files.append(short)

    def told(self) -> dict[str, object]:
        """Return what was noticed."""
        return {
            "files": len(self.files),
            "moves": max(len(self.steps) - 1, 0),
            "order": self.files,
            "steps": self.steps,
        }


async def walks() -> dict[str, dict[str, object]]:
    """Return the ways of a hit and of a miss, in the package that this process imports."""
    import openai

    import asynccache

    source = str(Path(asynccache.__file__).parent)
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-4o",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello!", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }
    http = sys.modules[openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]]
    transport = http.MockTransport(lambda _: http.Response(200, json=answer))
    told: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with (
            openai.AsyncOpenAI(
                api_key="sk-none",
                base_url="http://localhost/v1",
                http_client=http.AsyncClient(transport=transport),
            ) as client,
            asynccache.Cache.disk(cache_path_root=folder) as cache,
        ):
            wrapped = cache.wrap(client)

            async def ask(question: str, *, noticing: bool, writes: bool) -> Walk:
                stored = cache.stats().stored + writes
                walk = Walk(source)
                done = False
                sys.setprofile(walk if noticing else None)
                await wrapped.chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": question}]
                )
                while writes and not done:
                    sys.setprofile(None)  # asking how far it is isn't part of the way
                    done = cache.stats().stored >= stored
                    sys.setprofile(walk if noticing else None)
                    await asyncio.sleep(PAUSE)  # once more when done: the lease is given back
                sys.setprofile(None)
                await asyncio.sleep(PAUSE)  # what is still to be done isn't counted for the next
                return walk

            for warming in ("one", "two", "three"):
                await ask(warming, noticing=False, writes=True)
                await ask(warming, noticing=False, writes=False)
            told["hit"] = (await ask("three", noticing=True, writes=False)).told()
            told["miss"] = (await ask("four", noticing=True, writes=True)).told()
    return told


def walked(tree: Path) -> dict[str, dict[str, object]]:
    """Return what `walks` says of the package of another checkout, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    done = subprocess.run(  # noqa: S603
        [sys.executable, __file__, "--walks"],
        env=environment, stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    told: dict[str, dict[str, object]] = json.loads(done.stdout)
    return told


def measured(tree: Path, *, walk: bool = True) -> dict[str, object]:
    """Return every number of one checkout."""
    house = House(tree)
    return {
        **house.sizes(),
        "top_modules": house.top_modules(),
        "circles": house.circles(),
        "circles_lazy": house.circles(lazy=True),
        "shared_class_names": house.shared_class_names(),
        **(walked(tree) if walk else {}),
    }


def show(figures: dict[str, object], *, verbose: bool) -> None:
    """Print the numbers for people."""
    titles = {
        "files": "source files",
        "lines": "lines",
        "code": "lines of code",
        "top_modules": "modules at the top",
        "circles": "import circles",
        "circles_lazy": "  with imports in functions",
        "shared_class_names": "class names used twice",
    }
    for key, title in titles.items():
        value = figures[key]
        count = value if isinstance(value, int) else len(value)  # type: ignore[arg-type]
        print(f"{title:<30}{count:>8,}")
        if verbose and not isinstance(value, int):
            named = value.items() if isinstance(value, dict) else enumerate(value, 1)  # type: ignore[arg-type]
            for name, members in named:
                listed = members if isinstance(members, str) else ", ".join(members)
                print(f"    {name}: {listed}")
    for call in ("hit", "miss"):
        if isinstance(way := figures.get(call), dict):
            print(f"{'a ' + call + ': files':<30}{way['files']:>8,}")
            print(f"{'a ' + call + ': moves':<30}{way['moves']:>8,}")
            if verbose:
                for number, name in enumerate(way["order"], 1):
                    print(f"    {number:>2} {name}")


def main() -> None:
    """Read the command line, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tree", type=Path, default=HERE, help="a checkout (default: this one)")
    parser.add_argument("--json", action="store_true", help="print JSON, with every step")
    parser.add_argument("--verbose", action="store_true", help="name what is counted")
    parser.add_argument("--no-walk", action="store_true", help="only read the source")
    parser.add_argument("--walks", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.walks:
        print(json.dumps(asyncio.run(walks())))
        return
    figures = measured(args.tree.resolve(), walk=not args.no_walk)
    if args.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures, verbose=args.verbose)


if __name__ == "__main__":
    main()
