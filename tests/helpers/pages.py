"""The examples on the project's pages, to be run as they stand."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
"""Written by `tools/reference.py`, and in no commit."""
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if REFERENCE not in page.parents
)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
# An example, and what it prints, which may follow after a line on how to run it.
_BLOCK = re.compile(
    r"^```(\w+)\n(.*?)^```$(?:\n\n(?:Run [^\n]*\n\n)?```text\n(.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
_FILE = re.compile(r"# (\w+\.py)\n")


class Block:
    """One example."""

    def __init__(self, page, found):
        text = page.read_text(encoding="utf-8")
        self.page = page
        self.source = found.group(2)
        self.output = found.group(3)
        """What the page says that it prints, if it does."""
        named = _FILE.match(self.source)
        self.file = named and named[1]
        """The file that the reader is told to write it to, if it is one."""
        self.line = text.count("\n", 0, found.start(2))
        self.heading = [h.group(1) for h in _HEADING.finditer(text, 0, found.start())][-1]

    async def run(self, namespace):
        """Run it, so that a traceback shows its line on the page."""
        pending = begun("\n" * self.line + self.source, namespace, str(self.page))
        if inspect.iscoroutine(pending):
            await pending


def begun(source, namespace, name="<example>"):
    """Run code as a notebook does; return a coroutine if it awaits."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return eval(compile(source, name, "exec", flags=flags, dont_inherit=True), namespace)


def blocks_of(page, language="python"):
    """Return a page's examples; those in "py" need something that they don't show."""
    text = page.read_text(encoding="utf-8")
    return [Block(page, found) for found in _BLOCK.finditer(text) if found.group(1) == language]
