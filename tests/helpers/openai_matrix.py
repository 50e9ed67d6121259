"""What a run has measured of the OpenAI SDK's methods, as tables: for the terminal and the docs."""

from __future__ import annotations

import re
from pathlib import Path

import openai

from tests.helpers.matrix import Matrix

PAGE = Path(__file__).parent.parent.parent / "docs" / "supported-endpoints.md"
TITLE = f"SDK {openai.__version__.partition('.')[0]}.x"
MATRIX = Matrix(f"methods, openai {TITLE}", "method")
"""Methods by kinds, then methods by the ways of having a client or a method.

A mark for each check: first pays once, second nothing, equal, a hundred pay once.
"""


def in_docs():
    """Return the tables that the docs hold for this SDK, less methods that this version lacks."""
    found = _PART.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    there = {f"| `{row}` |" for rows, _ in MATRIX.tables for row in rows}
    lines = found[2].splitlines()
    return "\n".join(
        line for line in lines if line[:3] != "| `" or any(map(line.startswith, there))
    )


def write_docs():
    """Put what was measured into the docs."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        _PART.sub(lambda found: found[1] + MATRIX.markdown() + found[3], text), encoding="utf-8"
    )


_PART = re.compile(
    rf"(<!-- measured with {re.escape(TITLE)} -->\n)(.*?)(\n<!-- end -->)", re.DOTALL
)
