"""The table of docs/frameworks/frameworks.md: each row as a run has measured it."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "frameworks" / "frameworks.md"
KINDS = ("plain", "tools", "structured", "streamed")
AGAIN, AT_ONCE = "second run pays nothing", "a thousand at once pay once"
MARKS = {True: "✓", False: "✗"}


class Row:
    """What a run has measured of one framework.

    Args:
        name: As it stands in the table.
        reasons: Why a column isn't tested, by column.
    """

    def __init__(self, name, reasons):
        self.name, self._reasons = name, reasons
        self._works: dict[str, bool] = {}
        self._again: dict[str, bool] = {}
        self._at_once: list[bool] = []

    @property
    def kinds(self):
        """The columns of kinds that are tested."""
        return [kind for kind in KINDS if kind not in self._reasons]

    def begin(self, kind):
        """Note that a kind is being measured: what ends before its time has failed."""
        self._works[kind] = self._again[kind] = False

    def end(self, kind, *, works, again):
        """Note what was found."""
        self._works[kind], self._again[kind] = works, again

    def at_once(self, *, passed):
        """Note whether a thousand paid once."""
        self._at_once = [passed]

    def is_complete(self):
        """Tell whether every column was run."""
        return self._works.keys() == set(self.kinds) and bool(
            self._at_once or AT_ONCE in self._reasons
        )

    def markdown(self):
        """Return the row."""
        cells = [self._reasons.get(kind) or MARKS[self._works[kind]] for kind in KINDS]
        cells.append(self._reasons.get(AGAIN) or MARKS[all(self._again.values())])
        cells.append(self._reasons.get(AT_ONCE) or MARKS[all(self._at_once)])
        return f"| {self.name} | {' | '.join(cells)} |"

    def in_docs(self):
        """Return the row that the docs hold, None if there is none."""
        found = self._pattern.search(PAGE.read_text(encoding="utf-8"))
        return found and found[0]

    def write(self):
        """Put the row into the docs, in place of the one that is there."""
        text = PAGE.read_text(encoding="utf-8")
        written, count = self._pattern.subn(lambda _: self.markdown(), text)
        assert count == 1, (
            f"docs/frameworks/frameworks.md has {count} rows {self.name!r}: add it by hand first"
        )
        PAGE.write_text(written, encoding="utf-8")

    @property
    def _pattern(self):
        return re.compile(rf"^\| {re.escape(self.name)} \|.*$", re.MULTILINE)
