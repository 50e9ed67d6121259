"""What a run has measured of the doors, as tables: for the terminal and for the docs."""

from __future__ import annotations

import re
from pathlib import Path

import openai

PAGE = Path(__file__).parent.parent.parent / "docs" / "supported-endpoints.md"
TITLE = f"SDK {openai.__version__.partition('.')[0]}.x"
TABLES: list[tuple[list[str], list[str]]] = []
"""Rows and columns: doors by kinds, then doors by the ways of having a client or a method."""
NO_SUCH_THING = "-"
MEASURED: dict[tuple[str, str], str] = {}
"""By door and column: a mark for each check, nothing for what wasn't run."""


def mark(checks):
    """Return checks as marks: first pays once, second nothing, equal, a hundred pay once."""
    return "".join("✓" if passed else "✗" for passed in checks)


def tables():
    """Return what was measured as rows of cells, headings first."""
    for rows, columns in TABLES:
        yield [
            ["method", *columns],
            *([f"`{r}`", *(MEASURED.get((r, c), NO_SUCH_THING) for c in columns)] for r in rows),
        ]


def markdown():
    """Return what was measured for the docs."""
    parts = []
    for heading, *rows in tables():
        lines = [heading, ["---", *(":-:" for _ in heading[1:])], *rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


def in_docs():
    """Return the tables that the docs hold for this SDK, less doors that this version lacks."""
    found = _PART.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    there = {f"| `{row}` |" for rows, _ in TABLES for row in rows}
    lines = found[2].splitlines()
    return "\n".join(
        line for line in lines if line[:3] != "| `" or any(map(line.startswith, there))
    )


def write_docs():
    """Put what was measured into the docs."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        _PART.sub(lambda found: found[1] + markdown() + found[3], text), encoding="utf-8"
    )


_PART = re.compile(
    rf"(<!-- measured with {re.escape(TITLE)} -->\n)(.*?)(\n<!-- end -->)", re.DOTALL
)


def for_terminal():
    """Return the tables with aligned columns, None if nothing was measured."""
    if not any(MEASURED.values()):
        return None
    lines = []
    for table in tables():
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for line in table:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            lines.append("  ".join(cells).rstrip())
        lines.append("")
    return "\n".join(lines)
