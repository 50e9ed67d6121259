"""One process of a swarm: asks a few questions many times over a shared cache.

Run as ``python -m tests.helpers.swarm_worker``; says "ready" when the cache is open, begins at a
line on its standard input, and prints as JSON what its callers got and what its cache counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path

from asynccache import Cache
from asynccache.core.calls import Answer, CallRequest
from asynccache.entries.entry import Meta
from asynccache.keys.key import value_key
from tests.helpers.inside import engine_of

META = Meta("sse", content_type="text/event-stream")


class Swarmer:
    """Asks on one cache, and notes each call upstream in a file."""

    def __init__(self, options):
        """Prepare."""
        self.options = options
        self.cache = Cache.from_url(options.url, lease_ttl=options.lease_ttl)

    def note(self):
        """Note a call."""
        with self.options.calls.open("a") as calls:  # one short line in append mode is one write
            calls.write(f"{os.getpid()}\n")

    async def pay(self):
        """Make a plain call."""
        self.note()
        if self.options.blocking:
            time.sleep(self.options.seconds)  # the mistake that is tested
        else:
            await asyncio.sleep(self.options.seconds)
        return {"paid_by": os.getpid()}

    async def pay_streamed(self, flight):
        """Make a streamed call: one event at once, the rest when its time is over."""
        self.note()
        flight.start_body(META)
        flight.add(b"data: first\n\n")
        await asyncio.sleep(self.options.seconds)
        flight.add(json.dumps({"paid_by": os.getpid()}).encode())
        return Answer(meta=META, chunks=tuple(flight.chunks))

    async def ask(self, number):
        """Ask a question, and return the answer."""
        question = "question" if number == 0 else f"question {number}"
        if not self.options.streamed:
            return await self.cache.get_or_create(question, self.pay)
        namespace = self.cache.settings.namespace
        key = value_key(namespace, "test", question)
        call = CallRequest(
            namespace=namespace, key=key, mode="read_write", upstream=self.pay_streamed
        )
        fetched, reader = await engine_of(self.cache).read(call)
        if reader is None:
            return json.loads(fetched.entry.chunks[1])
        try:
            chunks = []
            while (chunk := await reader.next()) is not None:
                chunks.append(chunk)
            return json.loads(chunks[1])
        finally:
            reader.close()

    async def run(self):
        """Ask, and report."""
        options = self.options
        async with self.cache:
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            numbers = [task % options.keys for task in range(options.tasks)]
            answers = await asyncio.gather(*(self.ask(number) for number in numbers))
        stats = self.cache.stats()
        distinct = {(n, json.dumps(answer)) for n, answer in zip(numbers, answers, strict=True)}
        report = {
            "answers": [json.loads(text) for _, text in sorted(distinct)],
            "not_stored": stats.not_stored,
            "flaws": stats.flaws,
            "store_errors": stats.store_errors,
        }
        print(json.dumps(report))


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url", help="the cache's")
    parser.add_argument("calls", type=Path, help="file that gets a line for each call upstream")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--keys", type=int, default=1, help="how many questions")
    parser.add_argument("--streamed", action="store_true")
    parser.add_argument("--blocking", action="store_true", help="hold the loop while calling")
    parser.add_argument("--seconds", type=float, default=0.2, help="how long a call takes")
    parser.add_argument("--lease-ttl", type=float, default=5.0)
    asyncio.run(Swarmer(parser.parse_args()).run())


if __name__ == "__main__":
    main()
