"""The synchronous client's ``request``, cached: its calls wait for the background loop.

One way in for all its methods. The SDK builds the results itself, from responses as they were
recorded. In the thread of another event loop, as in a notebook, that loop stands still meanwhile,
as it does in the SDK's own call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from asynccache.openai.client.cached_request import CachedRequest, RequestArguments, placed
from asynccache.openai.client.client_cache import ClientCache
from asynccache.openai.client.sync_stream import AsyncReading
from asynccache.providers.sending import PAST, current_sending
from asynccache.runtime import background
from asynccache.runtime.background import BlockedCaller, run_now

IN_BACKGROUND: Final = (
    "a synchronous client was called in the cache's own background loop, where an observer or a"
    " store_if runs: it can't wait for itself"
)


class SyncCachedRequest(CachedRequest):
    """What stands in the place of a synchronous client's own ``request``."""

    def method(self) -> Callable[..., Any]:
        """Return the method with the SDK's name and signature."""
        original: Callable[..., Any] = self._original

        @functools.wraps(original)
        def request(
            cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
        ) -> Any:
            sending = current_sending()
            if sending is not None:
                options = sending.note(options)
                return original(cast_to, options, stream=stream, stream_cls=stream_cls)
            return self.send_now(cast_to, options, stream=stream, stream_cls=stream_cls)

        return request

    def send_now(self, cast_to: Any, options: Any, *, stream: bool, stream_cls: Any) -> Any:
        """Return a call's result, by way of a cache if it can be."""
        client = self._client
        given, path, endpoint = placed(
            client, cast_to, options, stream=stream, stream_cls=stream_cls
        )
        if client.in_force()[0] is None:
            return given.made(self._original, given.options)
        reason = IN_BACKGROUND if background.in_background_loop() else None
        past = client.going_past(endpoint, reason)
        if past is not None:
            return run_now(client.bypass(past, self, given, path))
        caller = BlockedCaller()
        way = _BlockedRequest(client, self._original, caller)
        return caller.call(client.answer, way, given, path, endpoint)

    async def past(self, given: RequestArguments) -> Any:
        """Make a call as it came, in the caller's thread."""
        return given.made(self._original, given.options)


class _BlockedRequest(CachedRequest):
    """The way in of a thread that waits for its call: the SDK's own work is done there."""

    def __init__(
        self, client: ClientCache, original: Callable[..., Any], caller: BlockedCaller
    ) -> None:
        super().__init__(client, self._handed_back)
        self._in_thread = original
        self._caller = caller

    async def _handed_back(
        self, cast_to: Any, options: Any, *, stream: bool, stream_cls: Any
    ) -> Any:
        """Make the SDK's call in the thread that waits for it."""
        made = await self._caller.run(
            lambda: self._in_thread(cast_to, options, stream=stream, stream_cls=stream_cls)
        )
        recorded = stream and current_sending() is not PAST
        return AsyncReading(made) if recorded else made

    async def pause(self, sleep: Callable[[], Any]) -> None:
        """Wait as the SDK waits before it retries a call."""
        await self._caller.run(sleep)
