"""What a run has measured, as tables: for the terminal, and for the docs."""

from __future__ import annotations

NO_SUCH_THING = "-"
MATRICES: list[Matrix] = []
"""Those that a run may fill: what is in them is printed when it ends."""


class Matrix:
    """Tables of marks.

    Args:
        title: Stands above them.
        heading: Of the rows.

    Attributes:
        tables: The rows and the columns of each.
        measured: By row and column: marks, nothing for what wasn't run.
    """

    def __init__(self, title, heading):
        self.title, self._heading = title, heading
        self.tables: list[tuple[list[str], list[str]]] = []
        self.measured: dict[tuple[str, str], str] = {}
        MATRICES.append(self)

    def markdown(self):
        """Return what was measured for the docs."""
        parts = []
        for heading, *rows in self._cells():
            lines = [heading, ["---", *(":-:" for _ in heading[1:])], *rows]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        return "\n\n".join(parts)

    def for_terminal(self):
        """Return the tables with aligned columns, None if nothing was measured."""
        if not any(self.measured.values()):
            return None
        lines = []
        for table in self._cells():
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            for line in table:
                cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
                lines.append("  ".join(cells).rstrip())
            lines.append("")
        return "\n".join(lines)

    def _cells(self):
        """Yield the tables as rows of cells, headings first."""
        for rows, columns in self.tables:
            marks = self.measured
            yield [
                [self._heading, *columns],
                *([f"`{r}`", *(marks.get((r, c), NO_SUCH_THING) for c in columns)] for r in rows),
            ]


def mark(checks):
    """Return checks as marks; None stands for what there isn't to check."""
    return "".join({True: "✓", False: "✗", None: "·"}[passed] for passed in checks)
