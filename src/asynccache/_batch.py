"""Many awaits, one call: what is asked for in one turn of the loop leaves together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from asynccache._pacer import Pacer

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_LIMIT: Final = 256  # items: a batch of lookups this long takes a local store a millisecond


class Batcher(Generic[ItemT, ResultT]):
    """Collects the items of one turn of the loop and runs them as batches.

    Args:
        run: Takes items, returns their results in order.
        pacer: Hands the results out.
        spawn: Starts the task of a batch; whoever owns the tasks awaits them at closing.
        limit: Most items in one batch.
    """

    __slots__ = ("_limit", "_pacer", "_pending", "_run", "_spawn")

    def __init__(
        self,
        run: Callable[[list[ItemT]], Awaitable[Sequence[ResultT]]],
        *,
        pacer: Pacer,
        spawn: Callable[[Any], asyncio.Task[None]],
        limit: int = _LIMIT,
    ) -> None:
        self._run = run
        self._pacer = pacer
        self._spawn = spawn
        self._limit = limit
        self._pending: list[tuple[ItemT, asyncio.Future[ResultT]]] = []

    def submit(self, item: ItemT) -> asyncio.Future[ResultT]:
        """Return the future of an item's result. Cancelling it does not stop the batch."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ResultT] = loop.create_future()
        if not self._pending:
            loop.call_soon(self._flush)
        self._pending.append((item, future))
        return future

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        for start in range(0, len(pending), self._limit):
            self._spawn(self._settle(pending[start : start + self._limit]))

    async def _settle(self, batch: list[tuple[ItemT, asyncio.Future[ResultT]]]) -> None:
        try:
            results: Sequence[object] = await self._run([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as exc:  # noqa: BLE001 - each who asked gets the error
            results = [exc] * len(batch)
        self._pacer.resolve_each(
            (future, result) for (_, future), result in zip(batch, results, strict=True)
        )
