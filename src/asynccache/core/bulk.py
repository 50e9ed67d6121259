"""Several flights whose calls go upstream as one, where a server takes many questions at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from time import perf_counter
from typing import Any

from msgspec.structs import replace

from asynccache.core.calls import Answer, CallRequest, Fetched
from asynccache.core.counters import Counters
from asynccache.core.engine import Engine
from asynccache.core.flight import Caller, Flight
from asynccache.entries.entry import Entry
from asynccache.errors import ReplayMiss

Send = Callable[[list[bytes]], Awaitable[Sequence[Answer]]]
"""Makes one call for keys, and returns each one's answer."""


class BulkCall:
    """Waits until each of its flights needs the call or doesn't, then makes it for those that do.

    A flight doesn't need it when it found its answer, failed, was left by everybody, or has to wait
    for a lease that is held elsewhere. If the last comes to call after all, it calls alone.

    Args:
        send: Makes the call.
        spawn: Starts the task that makes it; whoever owns it awaits it at closing.
        counters: Told of calls and failures; the flights' own are not counted.
    """

    __slots__ = ("_asking", "_counters", "_send", "_spawn", "_undecided")

    def __init__(
        self,
        send: Send,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        counters: Counters,
    ) -> None:
        self._send = send
        self._spawn = spawn
        self._counters = counters
        self._undecided: set[bytes] = set()
        self._asking: dict[bytes, asyncio.Future[Answer]] = {}

    def add(self, flight: Flight) -> None:
        """Take a flight along that was just started; all are added before anything is awaited."""
        self._undecided.add(flight.key)
        if flight.task is not None:
            flight.task.add_done_callback(lambda _: self.decided(flight.key))

    def decided(self, key: bytes) -> None:
        """Wait for a flight no longer: it doesn't need the call, or has asked for it."""
        self._undecided.discard(key)
        if not self._undecided and self._asking:
            asking, self._asking = self._asking, {}
            _Batch(asking).task = self._spawn(self._go(asking))

    async def upstream(self, flight: Flight) -> Answer:
        """Return a flight's answer from the common call."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asking[flight.key] = future
        self.decided(flight.key)
        try:
            return await future
        finally:
            if self._asking.get(flight.key) is future:  # left before the call was made
                del self._asking[flight.key]

    async def _go(self, asking: dict[bytes, asyncio.Future[Answer]]) -> None:
        self._counters.upstream_calls += 1
        began = perf_counter()
        try:
            answers = await self._send(list(asking))
        except asyncio.CancelledError:
            for future in asking.values():
                future.cancel()
            raise
        except BaseException as exc:  # noqa: BLE001 - each flight gets it
            self._counters.upstream_errors += 1
            for future in asking.values():
                if not future.done():
                    future.set_exception(exc)
            return
        share = (perf_counter() - began) / len(answers)
        for future, answer in zip(asking.values(), answers, strict=True):
            if not future.done():
                future.set_result(replace(answer, meta=replace(answer.meta, seconds=share)))


class _Batch:
    """One call under way: ended when every flight that asked for it has gone."""

    __slots__ = ("_left", "task")

    def __init__(self, asking: dict[bytes, asyncio.Future[Answer]]) -> None:
        self.task: asyncio.Task[None] | None = None
        self._left = len(asking)
        for future in asking.values():
            future.add_done_callback(self._gone)

    def _gone(self, future: asyncio.Future[Answer]) -> None:
        self._left -= 1
        if not self._left and future.cancelled() and self.task is not None:
            self.task.cancel()


async def fetch_many(
    engine: Engine,
    calls: Mapping[bytes, CallRequest],
    caller: Caller,
    bulk: BulkCall,
    found: dict[bytes, Fetched],
) -> None:
    """Find the whole answers to several calls that one caller needs together.

    They count as one call: see `Engine.count_together`.

    Args:
        engine: The loop's.
        calls: By key; each one's ``upstream`` is the bulk call's.
        caller: Who asks.
        bulk: Makes the call for those that have to be made.
        found: Where the answers go, as they come; where one fails, the others may be there.

    Raises:
        WaitedTooLongError: The caller's patience ended.
        BaseException: As `Engine.fetch`.
    """
    deadline = engine.loop.time() + caller.patience
    while not calls.keys() <= found.keys():
        waiting: list[tuple[bytes, Flight, bool]] = []
        try:
            for key, call in calls.items():  # all are registered before anything is awaited
                if key in found:
                    continue
                found_or_started = engine.get_or_start(call)
                if isinstance(found_or_started, Entry):
                    found[key] = Fetched(found_or_started, "hit")
                    continue
                flight, started = found_or_started
                waiting.append((key, flight, started))
                if started:
                    bulk.add(flight)
            while waiting:
                key, flight, started = waiting.pop()
                try:
                    entry = await flight.wait_until(deadline, caller, started=started)
                except ReplayMiss:
                    engine.note_replay_miss(calls[key].mode)
                    raise
                if entry is not None:
                    how = flight.outcome(started=started)
                    found[key] = Fetched(entry, how, received=flight.received)
                # Else the error was another caller's fate: the next round starts anew.
        finally:
            for _, flight, _ in waiting:
                flight.leave()
