"""What the benchmarks share: timing in turn with the peers, a table, and figures as JSON.

Others may be working on the machine. So every contestant is timed in each round, in an order that
alternates: what slows some rounds down slows all. A ratio is our median divided by the peer's. The
figures also hold the ratio of the least times, which noise touches least, and the median of the
ratios within each round; where these three differ much, the machine was too busy to tell.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

Timed = Callable[[], Awaitable[float]]
"""Does some work once and returns the seconds it took, or the seconds per call."""

_UNITS = {"us": (1e6, "µs"), "ms": (1e3, "ms")}
_HELD = {True: "met", False: "MISSED", None: ""}


def arguments(doc: str | None) -> argparse.Namespace:
    """Return the options that every benchmark takes."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--small", action="store_true", help="fewer rounds, smaller stores: a try-out"
    )
    parser.add_argument(
        "--uvloop", action="store_true", help="run on uvloop instead of asyncio's loop"
    )
    return parser.parse_args()


def run(main: Callable[[Report], Awaitable[None]], doc: str | None, *packages: str) -> None:
    """Run a benchmark, print its table, write its figures.

    Args:
        main: Measures and adds rows to the report.
        doc: The script's docstring; its first sentence is the title.
        packages: Distributions whose versions belong to the figures.
    """
    options = arguments(doc)
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if options.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
        packages = (*packages, "uvloop")
    report = Report((doc or "").split("\n", 1)[0], packages, small=options.small, loop=factory)

    async def measured() -> None:
        await main(report)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(measured())
    report.print()
    if options.json is not None:
        report.write(options.json)


class Times:
    """What each contestant took in each round, in seconds."""

    def __init__(self, rounds: Mapping[str, Sequence[float]]) -> None:
        self.rounds = rounds

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def least(self, name: str) -> float:
        return min(self.rounds[name])

    def ratio(self, name: str, peer: str) -> float:
        return self.median(name) / self.median(peer)

    def ratio_within(self, name: str, peer: str) -> float:
        pairs = zip(self.rounds[name], self.rounds[peer], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)


async def in_turn(contestants: Mapping[str, Timed], rounds: int, *, collect: bool = True) -> Times:
    """Time every contestant once a round, first there and then back, after one round unmeasured.

    Args:
        contestants: By name.
        rounds: How many rounds.
        collect: Collect garbage before each, so that nobody pays for what another left. The
            collector stays on while they run, as it does in a program.
    """
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        order = list(contestants)
        if number % 2:
            order.reverse()
        for name in order:
            if collect:
                gc.collect()
            seconds = await contestants[name]()
            if number:
                taken[name].append(seconds)
    return Times(taken)


def repeated(
    call: Callable[[], Awaitable[object]],
    times: int,
    clock: Callable[[], float] = perf_counter,
) -> Timed:
    """Return what awaits a call several times, one after the other: seconds per call.

    Where nothing waits for anything outside the process, ``clock`` may be its own time, which what
    else runs on the machine touches less.
    """

    async def timed() -> float:
        began = clock()
        for _ in range(times):
            await call()
        return (clock() - began) / times

    return timed


def at_once(calls: Callable[[], Sequence[Awaitable[object]]], *, per_call: bool = True) -> Timed:
    """Return what awaits many calls together: seconds per call, or for all."""

    async def timed() -> float:
        began = perf_counter()
        coroutines = calls()
        results = await asyncio.gather(*coroutines)
        taken = perf_counter() - began
        del results
        return taken / len(coroutines) if per_call else taken

    return timed


class Report:
    """The rows of one benchmark."""

    def __init__(
        self,
        title: str,
        packages: Sequence[str],
        *,
        small: bool,
        loop: Callable[[], asyncio.AbstractEventLoop] | None,
    ) -> None:
        self.title = title
        self.small = small
        self._loop = "asyncio" if loop is None else "uvloop"
        self._packages = ("asynccache", "msgspec", *packages)
        self._rows: list[dict[str, Any]] = []
        self._facts: dict[str, Any] = {}

    def versus(
        self,
        what: str,
        times: Times,
        ours: str,
        peer: str,
        *,
        target: float | None = None,
        unit: Literal["us", "ms"] = "us",
        note: str = "",
    ) -> None:
        """Add a row that compares us with a peer; ``target`` is the largest ratio allowed."""
        ratio = times.ratio(ours, peer)
        scale = _UNITS[unit][0]
        self._rows.append({
            "what": what,
            "peer": peer,
            "unit": unit,
            "ours": round(times.median(ours) * scale, 3),
            "ours_least": round(times.least(ours) * scale, 3),
            "theirs": round(times.median(peer) * scale, 3),
            "theirs_least": round(times.least(peer) * scale, 3),
            "ratio": round(ratio, 4),
            "ratio_within_rounds": round(times.ratio_within(ours, peer), 4),
            "ratio_of_least": round(times.least(ours) / times.least(peer), 4),
            "target": target,
            "met": None if target is None else ratio <= target,
            "rounds": len(times.rounds[ours]),
            "note": note,
        })  # fmt: skip

    def value(
        self, what: str, seconds: float, *, target: float | None = None,
        unit: Literal["us", "ms"] = "ms", note: str = "",
    ) -> None:  # fmt: skip
        """Add a row with a figure of its own; ``target`` is the most seconds allowed."""
        scale = _UNITS[unit][0]
        self._rows.append({
            "what": what,
            "unit": unit,
            "ours": round(seconds * scale, 3),
            "target": None if target is None else target * scale,
            "met": None if target is None else seconds <= target,
            "note": note,
        })  # fmt: skip

    def fact(self, name: str, value: object) -> None:
        """Add something that the figures should be read with."""
        self._facts[name] = value

    def figures(self) -> dict[str, Any]:
        """Return all there is, nothing of which names the machine."""
        return {
            "title": self.title,
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "system": platform.system(),
            "loop": self._loop,
            "small": self.small,
            "versions": {name: _version(name) for name in sorted(set(self._packages))},
            "rows": self._rows,
            "facts": self._facts,
        }

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.figures(), indent=2, ensure_ascii=False) + "\n", "utf-8")

    def print(self) -> None:
        versions = ", ".join(f"{name} {_version(name)}" for name in self._packages)
        print(f"\n{self.title}")
        print(f"Python {platform.python_version()}, {self._loop}, {versions}\n")
        print_table(table_of(self._rows))
        for name, value in self._facts.items():
            print(f"  {name}: {value}")
        for row in self._rows:
            if row["met"] is False:
                print(f"  MISSED {row['what']}: {missed_by(row)}")
        print(flush=True)


def missed_by(row: Mapping[str, Any]) -> str:
    """Say by how much a row's target was missed."""
    figure = row.get("ratio", row["ours"])
    over = (figure / row["target"] - 1) * 100
    return f"{figure:.3g} instead of {row['target']:.3g}, {over:.0f} % over"


HEADINGS = ("what", "peer", "ours", "theirs", "ratio", "of least", "target", "")


def table_of(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return rows as text, in the order of `HEADINGS`."""
    found: list[tuple[str, ...]] = []
    for row in rows:
        unit = _UNITS[row["unit"]][1]
        target = row["target"]
        compared = "ratio" in row
        found.append((
            row["what"] + (f" ({row['note']})" if row["note"] else ""),
            row.get("peer", ""),
            f"{row['ours']:,.4g} {unit}",
            f"{row['theirs']:,.4g} {unit}" if compared else "",
            f"{row['ratio']:.3f}" if compared else "",
            f"{row['ratio_of_least']:.3f}" if compared else "",
            "" if target is None else f"≤ {target:.3g}" + ("" if compared else f" {unit}"),
            _HELD[row["met"]],
        ))  # fmt: skip
    return found


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[at]) for row in [HEADINGS, *rows]) for at in range(len(HEADINGS))]
    for row in [HEADINGS, tuple("-" * width for width in widths), *rows]:
        cells = [
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
