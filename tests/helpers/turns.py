"""Counts what is done in one turn of the loop, whatever a turn takes here."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager

from asynccache.runtime.pacer import Pacer

IN_A_TURN = 64  # steps that a slice may have: twice as many as lie between two looks at the time


def spend_turns(monkeypatch):
    """Let each turn be spent as soon as somebody looks at its time."""
    monkeypatch.setattr(Pacer, "spent", lambda _: True)


@asynccontextmanager
async def sampled(measure):
    """Yield the list of what a function returned in each turn of the loop."""
    samples = [measure()]
    handle: asyncio.Handle
    loop = asyncio.get_running_loop()

    def sample():
        nonlocal handle
        samples.append(measure())
        handle = loop.call_soon(sample)

    handle = loop.call_soon(sample)
    try:
        yield samples
    finally:
        handle.cancel()


def largest_step(samples):
    """Return by how much a measure grew at most between two turns."""
    return max(after - before for before, after in itertools.pairwise(samples))
