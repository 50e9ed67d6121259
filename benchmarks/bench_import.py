"""`import asynccache` against importing msgspec and anyio, in fresh interpreters.

Each import is timed inside a new interpreter that does nothing else; in turn, after a few that warm
the file system and write the bytecode. anyio puts off nearly all of itself, and asyncio with it,
until a name is asked for; so what `from asynccache import Cache` takes is shown too, and what both
take in a program that has asyncio already.
"""

from __future__ import annotations

import asyncio
import sys

from _harness import Report, Timed, in_turn, run

ROUNDS = 60
SCRIPT = "{}; from time import perf_counter as now; a = now(); {}; print(now() - a)"


def fresh(statement: str, *, before: str = "pass") -> Timed:
    async def timed() -> float:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SCRIPT.format(before, statement), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await child.communicate()
        return float(output)

    return timed


async def main(report: Report) -> None:
    ours, peer, names = "import asynccache", "import msgspec, anyio", "from asynccache import Cache"
    running = {
        f"{statement}, after asyncio": fresh(statement, before="import asyncio")
        for statement in (names, peer)
    }
    contestants = {name: fresh(name) for name in (ours, peer, names)} | running
    await in_turn(contestants, 3)
    times = await in_turn(contestants, 10 if report.small else ROUNDS)
    report.versus(ours, times, ours, peer, target=1.25, unit="ms")
    report.versus(names, times, names, peer, unit="ms")
    ours_running, peer_running = running
    report.versus(ours_running, times, ours_running, peer_running, unit="ms")


if __name__ == "__main__":
    run(main, __doc__, "anyio")
