"""Several flights whose calls go upstream as one, where a server takes many questions at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from time import perf_counter

from msgspec.structs import replace

from asynccache.core.calls import Answer, CallRequest, Fetched
from asynccache.core.engine import Engine
from asynccache.core.flight import Caller, Flight
from asynccache.entries.entry import Entry
from asynccache.errors import ReplayMiss

Send = Callable[[list[bytes]], Awaitable[Sequence[Answer]]]
"""Makes one call for keys, and returns each one's answer."""


class BulkCall:
    """One call upstream for several flights, where one caller needs all their answers.

    It waits until each of its flights needs the call or doesn't, then makes it for those that do. A
    flight doesn't need it when it found its answer, failed, was left by everybody, or has to wait
    for a lease that is held elsewhere. If the last comes to call after all, it calls alone.

    Args:
        engine: The loop's. It owns the call's task, and counts the call in the flights' place.
        send: Makes the call.
        request: Returns what is asked for by a key; its ``upstream`` is that of this object.
    """

    __slots__ = ("_asking", "_beginning", "_engine", "_request", "_send", "_undecided")

    def __init__(self, engine: Engine, send: Send, request: Callable[[bytes], CallRequest]) -> None:
        self._engine = engine
        self._send = send
        self._request = request
        self._beginning = False
        self._undecided: set[bytes] = set()
        self._asking: dict[bytes, asyncio.Future[Answer]] = {}

    async def fetch(
        self, keys: Collection[bytes], caller: Caller, found: dict[bytes, Fetched]
    ) -> None:
        """Find the whole answers for keys. They count as one call: see `Engine.count_together`.

        Args:
            keys: What is asked for.
            caller: Who asks.
            found: Where the answers go, as they come; where one fails, the others may be there.

        Raises:
            WaitedTooLongError: The caller's patience ended.
            BaseException: As `Engine.fetch`.
        """
        engine = self._engine
        deadline = engine.loop.time() + caller.patience
        looked: set[bytes] = set()
        while missing := [key for key in keys if key not in found]:
            waiting: list[tuple[bytes, Flight, bool]] = []
            try:
                await self._begin(missing, waiting, found, looked)
                looked.clear()
                while waiting:
                    if engine.pacer.is_due(len(waiting)):
                        await engine.pacer.slot()
                    key, flight, started = waiting.pop()
                    try:
                        entry = await flight.wait_until(deadline, caller, started=started)
                    except ReplayMiss:
                        engine.note_replay_miss(self._request(key).mode)
                        raise
                    if entry is not None:
                        how = flight.outcome(started=started)
                        found[key] = Fetched(entry, how, received=flight.received)
                    elif flight.empty:
                        looked.add(key)
                    # Else the error was another caller's fate: the next round starts anew.
            finally:
                for _, flight, _ in waiting:
                    flight.leave()
                self._begun()  # where this caller has gone, others may wait for its flights

    async def _begin(
        self,
        keys: Sequence[bytes],
        waiting: list[tuple[bytes, Flight, bool]],
        found: dict[bytes, Fetched],
        looked: Collection[bytes],
    ) -> None:
        """Find what is there, and join or start flights for the rest, in slices of the loop's time.

        The call upstream doesn't leave before the end of this.
        """
        pacer = self._engine.pacer
        self._beginning = True
        for at, key in enumerate(keys):
            if pacer.is_due(at):
                await pacer.slot()
            answer = self._engine.get_or_start(self._request(key), looked=key in looked)
            if isinstance(answer, Entry):
                found[key] = Fetched(answer, "hit")
                continue
            flight, started = answer
            waiting.append((key, flight, started))
            if started:
                self._add(flight)
        self._begun()

    def _begun(self) -> None:
        self._beginning = False
        self._go_if_decided()

    def _add(self, flight: Flight) -> None:
        """Take a flight along that was just started."""
        if flight.key not in self._asking:  # it may have come that far
            self._undecided.add(flight.key)
        if flight.task is not None:
            flight.task.add_done_callback(lambda _: self.decided(flight.key))

    def decided(self, key: bytes) -> None:
        """Wait for a flight no longer: it doesn't need the call, or has asked for it."""
        self._undecided.discard(key)
        self._go_if_decided()

    def _go_if_decided(self) -> None:
        if self._beginning or self._undecided:
            return
        asked, self._asking = self._asking, {}
        asking = {key: future for key, future in asked.items() if not future.done()}
        if asking:
            _Batch(asking).task = self._engine.spawn(self._go(asking))

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
        counters, pacer = self._engine.counters, self._engine.pacer
        counters.upstream_calls += 1
        began = perf_counter()
        try:
            answers = await self._send(list(asking))
        except asyncio.CancelledError:
            for future in asking.values():
                future.cancel()
            raise
        except BaseException as exc:  # noqa: BLE001 - each flight gets it
            counters.upstream_errors += 1
            pacer.resolve(asking.values(), exc)
            return
        share = (perf_counter() - began) / len(answers)
        shared = [replace(answer, meta=replace(answer.meta, seconds=share)) for answer in answers]
        pacer.resolve_each(zip(asking.values(), shared, strict=True))


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
