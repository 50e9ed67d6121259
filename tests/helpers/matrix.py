"""The table of doors that the test run makes: printed at its end, and kept in the docs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.helpers.openai_doors import KINDS, SDK, cells

PAGE = Path(__file__).parents[2] / "docs" / "doors.md"
CHECKS = ("pays once", "then nothing", "equal", "100 at once pay once")
measured: dict[tuple[str, str], set[str]] = {}
"""By door and kind: the checks that held."""

_BEGIN, _END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


def note(cell, check):
    """Note that a check held for a cell."""
    measured.setdefault((cell.door, cell.kind), set()).add(check)


def held(door, kind):
    """Whether all that was to hold for a cell did."""
    return measured.get((door, kind)) == set(CHECKS)


def doors():
    """Return the doors of this SDK, in their order."""
    return list(dict.fromkeys(cell.door for cell in cells()))


def printed():
    """Return the table as text."""
    width = max(map(len, doors()))
    lines = [
        f"Doors on openai {SDK}.x: + is {', '.join(CHECKS)}",
        "  ".join(["".ljust(width), *KINDS]),
    ]
    for door in doors():
        marks = [
            ("+" if held(door, kind) else "FAILED" if (door, kind) in measured else "").ljust(
                len(kind)
            )
            for kind in KINDS
        ]
        lines.append("  ".join([door.ljust(width), *marks]).rstrip())
    return lines


def documented():
    """Return what the docs claim: by door and kind, the SDKs."""
    text = PAGE.read_text("utf-8")
    table = text.partition(_BEGIN)[2].partition(_END)[0]
    found = {}
    for line in table.splitlines()[2:]:
        door, *marks = (part.strip() for part in line.strip("|").split("|"))
        for kind, mark in zip(KINDS, marks, strict=True):
            found[door.strip("`"), kind] = set(re.findall(r"\d", mark))
    return found


def write():
    """Put what was measured on this SDK into the docs."""
    claims = documented()
    for door, kind in {(door, kind) for door in doors() for kind in KINDS} | claims.keys():
        sdks = claims.setdefault((door, kind), set())
        sdks.discard(SDK)
        if held(door, kind):
            sdks.add(SDK)
    order = list(dict.fromkeys([*(door for door, _ in claims), *doors()]))
    lines = ["| | " + " | ".join(KINDS) + " |", "|---|" + "---|" * len(KINDS)]
    for door in order:
        marks = [", ".join(sorted(claims.get((door, kind), ()))) for kind in KINDS]
        if any(marks):
            lines.append(f"| `{door}` | " + " | ".join(marks) + " |")
    text = PAGE.read_text("utf-8")
    before, after = text.partition(_BEGIN)[0], text.partition(_END)[2]
    PAGE.write_text(before + _BEGIN + "\n".join(lines) + "\n" + _END + after, "utf-8")


def wanted():
    """Whether this run is to write the docs: ``WRITE_DOORS=1``."""
    return os.environ.get("WRITE_DOORS") == "1"
