"""The table of docs/frameworks/frameworks.md: each row as a run has measured it."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "frameworks" / "frameworks.md"
KINDS = ("plain", "tools", "structured", "streamed")
AGAIN, AT_ONCE = "second run pays nothing", "a thousand at once pay once"
WHERE = LOCAL, OFFICIAL = "local", "official"
"""The addresses: one of this machine, and OpenAI's own."""


class Row:
    """What a run has measured of one framework.

    Args:
        name: As it stands in the table.
        reasons: Why a column isn't tested, by column.
        dated: Write the day of the measurement, as it isn't made with the others.
    """

    def __init__(self, name, reasons, *, dated=False):
        self.name, self._reasons, self._dated = name, reasons, dated
        self._works: dict[tuple[str, str], bool] = {}
        self._again: dict[tuple[str, str], bool] = {}
        self._at_once: dict[str, bool] = {}

    @property
    def kinds(self):
        """The columns of kinds that are tested."""
        return [kind for kind in KINDS if kind not in self._reasons]

    def begin(self, kind, where):
        """Note that a kind is being measured: what ends before its time has failed."""
        self._works[kind, where] = self._again[kind, where] = False

    def end(self, kind, where, *, works, again):
        """Note what was found."""
        self._works[kind, where], self._again[kind, where] = works, again

    def at_once(self, where, *, passed):
        """Note whether a thousand paid once."""
        self._at_once[where] = passed

    def missing(self):
        """Return each column and address that wasn't run."""
        kinds = {(kind, where) for kind in self.kinds for where in WHERE} - self._works.keys()
        at_once = set() if AT_ONCE in self._reasons else {*WHERE} - self._at_once.keys()
        return sorted(kinds | {(AT_ONCE, where) for where in at_once})

    def markdown(self):
        """Return the row."""
        cells = [
            self._reasons.get(kind) or _mark({where: self._works[kind, where] for where in WHERE})
            for kind in KINDS
        ]
        again = {where: all(self._again[kind, where] for kind in self.kinds) for where in WHERE}
        cells.append(self._reasons.get(AGAIN) or _mark(again))
        cells.append(self._reasons.get(AT_ONCE) or _mark(self._at_once))
        return f"| {self.name} | {' | '.join(cells)} |"

    def in_docs(self):
        """Return the row that the docs hold, None if there is none."""
        found = self._pattern.search(PAGE.read_text(encoding="utf-8"))
        return found and f"| {self.name} {found[2]}"

    def write(self):
        """Put the row into the docs, in place of the one that is there."""
        text = PAGE.read_text(encoding="utf-8")
        day = f", {dt.datetime.now(dt.UTC):%Y-%m-%d}" if self._dated else ""
        row = self.markdown().replace(self.name, f"{self.name}{day}", 1)
        written, count = self._pattern.subn(lambda _: row, text)
        assert count == 1, (
            f"docs/frameworks/frameworks.md has {count} rows {self.name!r}: add it by hand first"
        )
        PAGE.write_text(written, encoding="utf-8")

    @property
    def _pattern(self):
        return re.compile(rf"^\| {re.escape(self.name)}(, [\d-]+)? (\|.*)$", re.MULTILINE)


def _mark(passed):
    """Return the mark of a cell, by address: what holds at one alone isn't good."""
    good = [where for where in WHERE if passed[where]]
    return {0: "✗", len(WHERE): "✓"}.get(len(good), f"{'/'.join(good)} only")
