"""The synchronous client's ``request``, cached: its calls wait for the background loop.

One net for all its methods, without fast ways beside it. The SDK builds the results itself, from
responses as they were recorded. On an event loop's own thread nothing may be waited for: what can
be read at once is served there, and the rest goes past the cache.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, cast

from asynccache.entries.entry import Entry
from asynccache.errors import NotCanonicalError
from asynccache.openai.client import sdk
from asynccache.openai.client.cached_request import (
    CachedRequest,
    RequestArguments,
    Route,
    asked_on,
    finished,
    road_of,
    wanted_of,
)
from asynccache.openai.client.client_cache import ClientCache
from asynccache.openai.client.endpoints import EMBEDDINGS
from asynccache.openai.client.lookup import CallOptions, Lookup, ResultForm
from asynccache.openai.client.outbound import PAST, current_sending
from asynccache.openai.client.sync_stream import AsyncReading
from asynccache.openai.embeddings.inputs import inputs_of, keys_of
from asynccache.openai.embeddings.method import EmbeddingJob
from asynccache.runtime.background import BlockedCaller

T = TypeVar("T")


class MustWaitError(Exception):
    """Something can't be had without waiting; never leaves the library."""


ON_LOOP: Final = (
    "a synchronous client was called on an event loop's own thread, where nothing may wait for the"
    " cache: use AsyncOpenAI, or asyncio.to_thread"
)


class SyncCachedRequest:
    """What stands in the place of a synchronous client's own ``request``.

    Args:
        exchange: The client's.
        original: The SDK's own, bound.
    """

    def __init__(self, exchange: ClientCache, original: Callable[..., Any]) -> None:
        self._exchange = exchange
        self._original = original

    def method(self) -> Callable[..., Any]:
        """Return the method with the SDK's name and signature."""

        @functools.wraps(self._original)
        def request(
            cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
        ) -> Any:
            wish = RequestArguments(cast_to, options, stream, stream_cls)
            sending = current_sending()
            if sending is not None:
                sending.note(options)
                return wish.made(self._original, options)
            road = road_of(self._exchange, wish)
            if road is None:
                return wish.made(self._original, options)
            return self.send(wish, road)

        return request

    def send(self, wish: RequestArguments, road: Route) -> Any:
        """Return a call's result, by way of the cache if it can be."""
        if road.endpoint is None:
            return self._past(wish, road, road.reason)
        if asyncio._get_running_loop() is not None:
            return self._at_once(wish, road)
        guest = BlockedCaller()
        net = CachedRequest(self._exchange, functools.partial(self._handed_back, guest))
        return guest.call(net.send, wish, road)

    async def _handed_back(
        self, guest: BlockedCaller, cast_to: Any, options: Any, *, stream: bool, stream_cls: Any
    ) -> Any:
        """Make the SDK's call in the thread that waits for it."""
        wish = RequestArguments(cast_to, options, stream, stream_cls)
        made = await guest.run(lambda: wish.made(self._original, options))
        recorded = stream and current_sending() is not PAST
        return AsyncReading(made) if recorded else made

    def _past(self, wish: RequestArguments, road: Route, reason: str | None) -> Any:
        async def call() -> Any:
            return wish.made(self._original, wish.options)

        return run_now(self._exchange.bypass(road.cache, road.mode, reason, road.path, call))

    # -- on an event loop's own thread -------------------------------------------------------

    def _at_once(self, wish: RequestArguments, road: Route) -> Any:
        engine = road.cache.engine()
        try:
            asked, query = asked_on(self._exchange, engine, wish, road)
        except NotCanonicalError as exc:
            return self._past(wish, road, f"{road.path}: {exc}")
        wanted = wanted_of(self._exchange.client, wish)
        try:
            result = run_now(self._at_hand(asked, query, wanted, wish))
        except MustWaitError:
            return self._past(wish, road, ON_LOOP)
        return run_now(finished(self._exchange.client, result, wanted))

    async def _at_hand(
        self, asked: Lookup, query: dict[str, Any], wanted: ResultForm, wish: RequestArguments
    ) -> Any:
        """Return the result of a call whose answer can be read at once."""
        engine, options = asked.engine, wish.options
        embeddings = asked.endpoint is EMBEDDINGS
        keys = keys_of(asked, inputs_of(asked.body.data["input"])) if embeddings else [asked.key]
        entries = [engine.inline(asked.mode, asked.namespace, key) for key in keys]
        if None in entries:
            raise MustWaitError
        if not embeddings:
            return self._exchange.hit(asked, wanted, cast("Entry", entries[0]))
        asking = CallOptions(sdk.headers_in(options), query, options.timeout, options.max_retries)
        job = EmbeddingJob(self._exchange, asked, wanted, asking, _nothing, past=_nothing)
        return await job.result()


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that needn't wait for anything.

    Raises:
        MustWaitError: It does wait; it was given up.
    """
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise MustWaitError


def _nothing() -> Any:
    raise MustWaitError
