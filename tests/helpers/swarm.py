"""Starts worker processes on one cache, and counts what they pay."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent.parent.parent


class Swarm:
    """Some worker processes on one cache, and the file in which they count their calls."""

    def __init__(self, url, tmp_path, *options):
        """Prepare; ``options`` are the workers' command line."""
        self.calls = tmp_path / "calls"
        self.calls.touch()
        self.options = [url, str(self.calls), *options]
        self.workers = []

    async def start(self, count):
        """Start workers and wait until their caches are open."""
        for _ in range(count):
            self.workers.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "tests.helpers.swarm_worker", *self.options,
                    cwd=HERE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                )
            )  # fmt: skip
        for worker in self.workers:
            assert await worker.stdout.readline() == b"ready\n"

    def go(self):
        """Let all begin at once."""
        for worker in self.workers:
            worker.stdin.write(b"go\n")

    @property
    def paid(self):
        """Who called upstream so far, in order."""
        return [int(line) for line in self.calls.read_text().split()]

    async def paid_by(self, count):
        """Wait until so many calls were made; return the last one's process."""
        while len(self.paid) < count:
            await asyncio.sleep(0.005)  # a file has no event to wait for
        return self.paid[count - 1]

    async def reports(self):
        """Wait for the workers to end; return what those that were not killed report."""
        outputs = await asyncio.gather(*(worker.communicate() for worker in self.workers))
        return {
            worker.pid: json.loads(out)
            for worker, (out, _) in zip(self.workers, outputs, strict=True)
            if worker.returncode == 0
        }
