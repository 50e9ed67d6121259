"""Scenes for tests of flights: a store whose phases wait at gates, and so does an upstream."""

from __future__ import annotations

import asyncio
from typing import Any

from asynccache import AsyncCache, Cache
from asynccache.core.calls import Answer, CallRequest
from asynccache.entries.entry import Meta
from asynccache.keys.key import value_key
from asynccache.stores.memory import MemoryStore
from asynccache.testing import FaultyStore, Gate
from tests.helpers.inside import engine_of

PHASES: dict[str, Any] = {"lookup": "get_many", "claim": "claim", "call": None, "store": "set_many"}
EVENTS = (b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n")


class Upstream:
    """Something to be paid: counts calls, and can hold them in the middle."""

    def __init__(self):
        """Begin with an open gate."""
        self.calls = 0
        self.cancelled = 0
        self.gate: Gate | None = None

    def hold(self):
        """Let calls wait in the middle, at the gate that is returned."""
        self.gate = Gate()
        return self.gate

    async def __call__(self):
        """Make a call."""
        self.calls += 1
        number = self.calls
        try:
            if self.gate is not None:
                await self.gate.pass_through()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return {"answer": number}

    async def stream(self, flight):
        """Make a streamed call: the first event at once, the rest behind the gate."""
        self.calls += 1
        flight.start_body(Meta("sse", content_type="text/event-stream"))
        flight.add(EVENTS[0])
        try:
            if self.gate is not None:
                await self.gate.pass_through()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        for event in EVENTS[1:]:
            flight.add(event)
        return Answer(meta=Meta("sse"), chunks=tuple(flight.chunks))


class Scene:
    """A cache over a store that misbehaves on command, and an upstream that counts."""

    def __init__(self, *, hide_inline=True, **options):
        """Make the parts; ``options`` are the cache's."""
        self.store = FaultyStore(MemoryStore(), hide_inline=hide_inline)
        self.cache: AsyncCache = Cache.from_store(self.store, **options)
        self.upstream = Upstream()

    def hold(self, phase):
        """Make the next flight wait in a phase, at the gate that is returned."""
        method = PHASES[phase]
        return self.upstream.hold() if method is None else self.store.stall(method, times=1)

    async def ask(self, key="question"):
        """Ask plainly."""
        return await self.cache.get_or_create(key, self.upstream)

    async def ask_streamed(self, key="question"):
        """Ask for a stream and read it to its end."""
        call = self.streamed_call(key)
        fetched, reader = await engine_of(self.cache).read(call)
        if reader is None:
            return fetched.entry.chunks
        try:
            chunks = []
            while (chunk := await reader.next()) is not None:
                chunks.append(chunk)
            return tuple(chunks)
        finally:
            reader.close()

    async def reader(self):
        """Ask for a stream and return its reader."""
        _, reader = await engine_of(self.cache).read(self.streamed_call())
        assert reader is not None
        return reader

    def streamed_call(self, key="question", **changes):
        """Return a call for a stream."""
        namespace = self.cache.settings.namespace
        return CallRequest(
            namespace=namespace,
            key=value_key(namespace, "test", key),
            mode=self.cache.settings.mode,
            upstream=self.upstream.stream,
            **changes,
        )

    @property
    def leases(self):
        """The leases that are held in the store."""
        inner: Any = self.store.inner
        return inner._leases


async def settled(scene):
    """Wait until the cache has nothing under way in this loop."""
    engine = engine_of(scene.cache)
    while engine._tasks:
        await asyncio.wait(engine._tasks)
