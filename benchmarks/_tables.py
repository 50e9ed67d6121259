"""Print the figures in `benchmarks/results` as a Markdown table; run it as a script."""

from __future__ import annotations

import json
from pathlib import Path

from _harness import HEADINGS, table_of


def main() -> None:
    rows = []
    versions: dict[str, set[str]] = {}
    for path in sorted((Path(__file__).parent / "results").glob("*.json")):
        figures = json.loads(path.read_text("utf-8"))
        rows += table_of(figures["rows"])
        for name, version in {**figures["versions"], "Python": figures["python"]}.items():
            versions.setdefault(name, set()).add(version)
    print(" | ".join(("", *HEADINGS, "")).strip())
    print("|---|---|--:|--:|--:|--:|--:|---|")
    for row in rows:
        print(" | ".join(("", *row, "")).strip())
    named = (f"{name} {' and '.join(sorted(found))}" for name, found in sorted(versions.items()))
    print(f"\n{', '.join(named)}.")


if __name__ == "__main__":
    main()
