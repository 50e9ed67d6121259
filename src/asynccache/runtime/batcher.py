"""Many awaits, one call: what is asked for in one turn of the loop leaves together."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar, cast

from asynccache.runtime.pacer import Pacer

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Batcher(Generic[ItemT, ResultT]):
    """Collects the items of one turn of the loop and runs them as batches.

    Args:
        run: Takes items, returns their results in order.
        pacer: Hands the results out.
        spawn: Starts the task of a batch; whoever owns the tasks awaits them at closing.
        limit: Returns how much may be in one batch; a single item may be more than that.
        weigh: Returns how much an item is; one if nothing is given.
        shared: Equal items travel once, and have the same result.
        at_once: How many batches may be under way. What is asked for meanwhile leaves together.
    """

    __slots__ = (
        "_at_once", "_limit", "_pacer", "_pending", "_run", "_shared", "_spawn", "_under_way",
        "_weigh",
    )  # fmt: skip

    def __init__(
        self,
        run: Callable[[list[ItemT]], Awaitable[Sequence[ResultT]]],
        *,
        pacer: Pacer,
        spawn: Callable[[Any], asyncio.Task[None]],
        limit: Callable[[], int],
        weigh: Callable[[ItemT], int] | None = None,
        shared: bool = False,
        at_once: float = math.inf,
    ) -> None:
        self._run = run
        self._pacer = pacer
        self._spawn = spawn
        self._limit = limit
        self._weigh = weigh
        self._shared = shared
        self._at_once = at_once
        self._under_way = 0
        self._pending: list[tuple[ItemT, asyncio.Future[ResultT]]] = []

    def submit(self, item: ItemT) -> asyncio.Future[ResultT]:
        """Return the future of an item's result. Cancelling it does not stop the batch."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ResultT] = loop.create_future()
        self._pending.append((item, future))
        if len(self._pending) == 1:
            # Not a task, which may be cancelled before it has begun, and then leaves nothing.
            loop.call_soon(self._leave)
        return future

    def _leave(self) -> None:
        """Start the batches of what was asked for in the last turn."""
        if self._under_way >= self._at_once:
            return  # the next batch that ends starts them
        pending, self._pending = self._pending, []
        if len(pending) == 1:
            ((item, future),) = pending
            self._start([item], [[future]])
            return
        waiting: dict[object, list[asyncio.Future[ResultT]]] = {}
        items: list[ItemT] = []
        for item, future in pending:
            name: object = item if self._shared else future
            if name in waiting:
                waiting[name].append(future)
            else:
                waiting[name] = [future]
                items.append(item)
        futures = list(waiting.values())
        start = 0
        while start < len(items) and self._under_way < self._at_once:
            end = self._end(items, start)
            self._start(items[start:end], futures[start:end])
            start = end
        self._pending[:0] = [
            (item, future)
            for item, waiting_for_it in zip(items[start:], futures[start:], strict=True)
            for future in waiting_for_it
        ]

    def _start(
        self,
        items: list[ItemT],
        waiting: list[list[asyncio.Future[ResultT]]],
        *,
        again: bool = False,
    ) -> None:
        self._under_way += 1
        task = self._spawn(self._settle(items, waiting))
        task.add_done_callback(partial(self._ended, items, waiting, again))

    def _ended(
        self,
        items: list[ItemT],
        waiting: list[list[asyncio.Future[ResultT]]],
        again: bool,  # noqa: FBT001 - given by `partial`
        task: asyncio.Task[None],
    ) -> None:
        """Go on after a batch. The end of a loop cancels it once, maybe before it began."""
        self._under_way -= 1
        if task.cancelled():
            left = [
                (item, futures)
                for item, futures in zip(items, waiting, strict=True)
                if not all(future.done() for future in futures)
            ]
            if left and task.cancelling() and not again:
                self._start([item for item, _ in left], [who for _, who in left], again=True)
            else:
                for _, futures in left:
                    for future in futures:
                        future.cancel()
        if self._pending and self._under_way == self._at_once - 1:
            self._leave()

    def _end(self, items: list[ItemT], start: int) -> int:
        """Return where the batch ends that begins at a place."""
        limit = self._limit()
        if self._weigh is None:
            return start + limit
        weight, end = 0, start
        while end < len(items):
            weight += self._weigh(items[end])
            if weight > limit and end > start:
                break
            end += 1
        return end

    async def _settle(
        self, items: list[ItemT], waiting: list[list[asyncio.Future[ResultT]]]
    ) -> None:
        try:
            results: Sequence[object] = await self._run(items)
        except Exception as exc:  # noqa: BLE001 - each who asked gets the error
            results = [exc] * len(items)
        if len(waiting) == 1 and len(waiting[0]) == 1:  # nothing to pace
            ((future,),), (result,) = waiting, results
            if not future.done():
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(cast("ResultT", result))
            return
        self._pacer.resolve_each(
            [
                (future, result)
                for futures, result in zip(waiting, results, strict=True)
                for future in futures
            ]
        )
