"""A loop's lookups in a namespace: few under way, and those that come meanwhile leave together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from asynccache.errors import StoreUnavailableError

_UNDER_WAY: Final = 2  # lookups; more would each ask for less, and pay for a request of its own


class CosmosLookups:
    """Shares lookups out among requests.

    Args:
        read: Returns the bodies of keys, in order.
        limit: Returns how many keys one request should ask for.
        spawn: Starts a request, which goes on when its callers give up.
    """

    def __init__(
        self,
        read: Callable[[Sequence[bytes]], Awaitable[list[bytes | None]]],
        limit: Callable[[], int],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._read = read
        self._limit = limit
        self._spawn = spawn
        self._under_way = 0
        # Nobody joins a lookup that was sent: what it finds may be older than who asks.
        self._waiting: dict[bytes, asyncio.Future[bytes | None]] = {}

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the body of each key."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting
        futures: list[asyncio.Future[bytes | None]] = []
        for key in keys:
            future = waiting.get(key)
            if future is None:
                future = waiting[key] = loop.create_future()
            futures.append(future)
        self._send()
        if futures:
            await asyncio.wait(futures)  # unlike gather it cancels nothing that others wait for
        return [future.result() for future in futures]

    def _send(self) -> None:
        while self._waiting and self._under_way < _UNDER_WAY:
            keys = list(self._waiting)[: self._limit()]
            batch = {key: self._waiting.pop(key) for key in keys}
            self._under_way += 1
            self._spawn(self._run(batch))

    async def _run(self, batch: dict[bytes, asyncio.Future[bytes | None]]) -> None:
        try:
            bodies = await self._read(list(batch))
        except BaseException as exc:
            closed = StoreUnavailableError("the store was closed meanwhile")
            for future in batch.values():
                future.set_exception(exc if isinstance(exc, Exception) else closed)
                future.exception()  # seen: whoever waits for it raises it, if anybody does
            if not isinstance(exc, Exception):
                raise
        else:
            for future, body in zip(batch.values(), bodies, strict=True):
                future.set_result(body)
        finally:
            self._under_way -= 1
            self._send()
