"""`import asynccache` against importing msgspec and anyio, in fresh interpreters.

Each import is timed inside a new interpreter that does nothing else; in turn, after a few that warm
the file system and write the bytecode.
"""

from __future__ import annotations

import asyncio
import sys

from _harness import Report, Timed, in_turn, run

ROUNDS = 60
SCRIPT = "from time import perf_counter as now; a = now(); import {}; print(now() - a)"


def fresh(modules: str) -> Timed:
    async def timed() -> float:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SCRIPT.format(modules), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await child.communicate()
        return float(output)

    return timed


async def main(report: Report) -> None:
    peer = "import msgspec, anyio"
    contestants = {"ours": fresh("asynccache"), peer: fresh("msgspec, anyio")}
    await in_turn(contestants, 3)
    times = await in_turn(contestants, 10 if report.small else ROUNDS)
    report.versus("import asynccache", times, "ours", peer, target=1.25, unit="ms")


if __name__ == "__main__":
    run(main, __doc__, "anyio")
