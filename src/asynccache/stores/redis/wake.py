"""Wakes who waits for a key, by messages; where none can come, by looking again soon."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from asynccache.errors import StoreError
from asynccache.stores.redis.errors import DRIVER_ERRORS
from asynccache.stores.redis.keys import CHANNEL
from asynccache.stores.redis.pool import Spawn, dropped

_log = logging.getLogger("asynccache")

_UNWOKEN: Final = 0.1  # seconds until who can't be woken looks again
_FIRST_PAUSE: Final = 0.05  # seconds before subscribing again, doubled by each failure
_LONGEST_PAUSE: Final = 5.0  # seconds


class Waker:
    """One subscription of one event loop, begun when somebody first waits.

    Args:
        subscribe: Makes redis-py's PubSub; None where no connection is to spare for it.
        spawn: Starts the task that listens.
    """

    __slots__ = ("_hearing", "_listening", "_spawn", "_subscribe", "_told", "_waiting")

    def __init__(self, subscribe: Callable[[], Awaitable[Any]] | None, *, spawn: Spawn) -> None:
        self._subscribe = subscribe
        self._spawn = spawn
        self._listening: asyncio.Task[None] | None = None
        self._hearing: asyncio.Event = asyncio.Event()
        self._waiting: dict[bytes, set[asyncio.Future[None]]] = {}
        self._told = False

    def enter(self, key: bytes) -> asyncio.Future[None]:
        """Return a future that ends when a key is published. `leave` it in any case."""
        if self._subscribe is not None and (self._listening is None or self._listening.done()):
            self._listening = self._spawn(self._listen(self._subscribe))
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, set()).add(woken)
        return woken

    def leave(self, key: bytes, woken: asyncio.Future[None]) -> None:
        """Forget one who has waited."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.discard(woken)
            if not waiting:
                del self._waiting[key]

    async def hearing(self, timeout: float) -> bool:
        """Wait until messages come, for ``timeout`` seconds at most; tell whether they do."""
        if self._hearing.is_set():
            return True
        if self._subscribe is None or self._told:
            return False
        try:
            async with asyncio.timeout(timeout):
                return await self._hearing.wait()
        except TimeoutError:
            return False

    async def sleep(self, woken: asyncio.Future[None], timeout: float) -> None:
        """Sleep until woken, ``timeout`` seconds at most, and no longer than is safe unheard."""
        if not self._hearing.is_set():
            timeout = min(timeout, _UNWOKEN)
        timer = asyncio.get_running_loop().call_later(timeout, _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()

    async def _listen(self, subscribe: Callable[[], Awaitable[Any]]) -> None:
        pause = _FIRST_PAUSE
        while True:
            pubsub = None
            try:
                pubsub = await subscribe()
                await pubsub.subscribe(CHANNEL)
                while True:
                    message = await pubsub.get_message(timeout=None)
                    if message is None:
                        continue
                    if message["type"] == "subscribe":
                        self._hearing.set()
                        self._told = False
                        pause = _FIRST_PAUSE
                    elif message["type"] == "message":
                        self._wake_key(message["data"])
            except (StoreError, *DRIVER_ERRORS) as exc:
                if not self._told:
                    self._told = True
                    _log.info("no messages from Redis for now, it is asked instead: %s", exc)
            finally:
                self._hearing.clear()
                if pubsub is not None:
                    await _closed(pubsub)
                # What was published meanwhile isn't repeated: everybody looks for themselves.
                for key in list(self._waiting):
                    self._wake_key(key)
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)

    def _wake_key(self, key: bytes | str) -> None:
        if isinstance(key, str):  # the user's client decodes
            key = key.encode()
        for woken in self._waiting.get(key, ()):
            _wake(woken)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


async def _closed(pubsub: Any) -> None:  # noqa: ANN401 - redis-py's PubSub
    try:
        if getattr(pubsub, "connection", None) is not None:
            await dropped(pubsub.connection)
        await pubsub.aclose()
    except DRIVER_ERRORS:
        return  # the connection that it would give back is gone
