"""One process of a swarm: asks one question many times over a shared disk cache.

Run as ``python -m tests.helpers.swarm_worker``; says "ready" when the cache is open, begins at a
line on its standard input, and prints as JSON what its callers got and what its cache counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

from asynccache import Cache


async def main():
    """Ask, and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("calls", type=Path, help="file that gets a line for each call upstream")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=0.2, help="how long a call takes")
    parser.add_argument("--lease-ttl", type=float, default=5.0)
    options = parser.parse_args()

    async def pay():
        with options.calls.open("a") as calls:  # one short line in append mode is written at once
            calls.write(f"{os.getpid()}\n")
        await asyncio.sleep(options.seconds)
        return {"paid_by": os.getpid()}

    async with Cache.disk(cache_path_root=options.root, lease_ttl=options.lease_ttl) as cache:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        asked = [cache.get_or_create("question", pay) for _ in range(options.tasks)]
        answers = await asyncio.gather(*asked)
    stats = cache.stats()
    distinct = [json.loads(text) for text in {json.dumps(answer) for answer in answers}]
    print(json.dumps({"answers": distinct, "not_stored": stats.not_stored, "flaws": stats.flaws}))


if __name__ == "__main__":
    asyncio.run(main())
