"""The synchronous client's ``request``, cached: its calls wait for the background loop.

One way in for all its methods. The SDK builds the results itself, from responses as they were
recorded. On an event loop's own thread nothing may be waited for: what can be read at once is
served there, and the rest goes past the cache.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from asynccache.openai.client.cached_request import CachedRequest, RequestArguments, placed
from asynccache.openai.client.sync_stream import AsyncReading
from asynccache.openai.client.upstream import PAST, current_sending
from asynccache.runtime.background import BlockedCaller

T = TypeVar("T")


class SyncCachedRequest(CachedRequest):
    """What stands in the place of a synchronous client's own ``request``.

    As a way in itself, it serves callers who can't wait.
    """

    waits = False

    def method(self) -> Callable[..., Any]:
        """Return the method with the SDK's name and signature."""
        original: Callable[..., Any] = self._original

        @functools.wraps(original)
        def request(
            cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
        ) -> Any:
            sending = current_sending()
            if sending is not None:
                sending.note(options)
                return original(cast_to, options, stream=stream, stream_cls=stream_cls)
            return self.send_now(cast_to, options, stream=stream, stream_cls=stream_cls)

        return request

    def send_now(self, cast_to: Any, options: Any, *, stream: bool, stream_cls: Any) -> Any:
        """Return a call's result, by way of a cache if it can be."""
        client = self._client
        given, path, endpoint = placed(
            client, cast_to, options, stream=stream, stream_cls=stream_cls
        )
        on_loop = asyncio._get_running_loop() is not None
        if on_loop or endpoint is None or client.goes_past():
            return _run_now(client.answer(self, given, path, endpoint))
        caller = BlockedCaller()
        way = CachedRequest(client, functools.partial(self._handed_back, caller))
        return caller.call(client.answer, way, given, path, endpoint)

    async def _handed_back(
        self, caller: BlockedCaller, cast_to: Any, options: Any, *, stream: bool, stream_cls: Any
    ) -> Any:
        """Make the SDK's call in the thread that waits for it."""
        made = await caller.run(
            lambda: self._original(cast_to, options, stream=stream, stream_cls=stream_cls)
        )
        recorded = stream and current_sending() is not PAST
        return AsyncReading(made) if recorded else made

    async def past(self, given: RequestArguments) -> Any:
        """Make a call as it came, in the caller's thread."""
        return given.made(self._original, given.options)


def _run_now(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("a call that may not wait did wait")
