"""What wrappers hold in one event loop, and let go of when that loop ends."""

from __future__ import annotations

import asyncio
import functools
import logging
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from openai import AsyncOpenAI

from asynccache.cache.facade import AsyncCache, Cache
from asynccache.errors import StoreError
from asynccache.runtime.loops import begin

_log = logging.getLogger("asynccache")

_KEPT: Final = "_asynccache_kept"


class ClientToken:
    """Lives as long as a client that a wrapper has made, and the copies that caches make of it."""

    __slots__ = ("__weakref__",)


class LoopState:
    """The implicit caches of one event loop, and the clients that wrappers have made in it.

    Nobody else closes an implicit cache. `asyncio.run`, `asyncio.Runner` and others who end a loop
    properly close the asynchronous generators that are left in it, and one of those is ours. By
    then the loop has cancelled its tasks. Closing a cache waits for what is still being stored.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: Final = loop
        self._connections: set[Any] = set()
        self._caches: list[AsyncCache] = []
        self._openings: dict[tuple[int | str, str], asyncio.Task[AsyncCache | None]] = {}
        self._ending = False
        self.watch: Final = self._until_the_end()

    async def _until_the_end(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            # Caches first: what still waits for an answer waits on a client.
            await self.close_caches()
            for http in list(self._connections):
                await _disconnect(http, self._connections)

    def keep(self, client: AsyncOpenAI) -> None:
        """Hold a client's connections until nobody can use them any more, or the loop ends.

        A call may go on when its wrapper is gone: a stream is still read, or others have joined the
        call. It holds the client, or a copy of it.
        """
        token = vars(client)[_KEPT] = ClientToken()
        self._connections.add(client._client)
        # Not a method of this object: it would live as long as the client.
        weakref.finalize(
            token, _let_go, self.loop, client._client, self._connections
        ).atexit = False

    async def close_client(self, client: AsyncOpenAI) -> None:
        """Close a client that is held, whoever uses it."""
        await _disconnect(client._client, self._connections)

    async def close_caches(self) -> None:
        """Close the caches. None is opened in this loop from now on."""
        self._ending = True
        while self._caches:
            try:
                await self._caches.pop().aclose()
            except StoreError as exc:
                _log.warning("a cache could not be closed as its loop ended: %r", exc)

    async def cache(self, seed: int | str, root: str) -> AsyncCache | None:
        """Return the implicit cache, opened once; None if there can't be one in this loop."""
        opening = self._openings.get((seed, root))
        if opening is None or opening.cancelled():
            if self._ending:
                return None
            cache = Cache.disk(seed, root)
            opening = self.loop.create_task(self._open(cache, _folder(root, seed)))
            self._openings[seed, root] = opening
        if not opening.done():
            # A caller that is cancelled here leaves the others waiting for the same cache.
            await asyncio.shield(opening)
        return opening.result()

    async def _open(self, cache: AsyncCache, folder: Path) -> AsyncCache | None:
        try:
            await cache.open()
        except StoreError as exc:
            _tell_of(folder, str(exc))
            return None
        if cache.stats().store_errors:  # the disk fails for now, and the log says so already
            await cache.aclose()
            return None
        _tell_of(folder, None)
        self._caches.append(cache)
        return cache


def _folder(root: str, seed: int | str) -> Path:
    return Path(root).absolute() / str(seed)


def _let_go(loop: asyncio.AbstractEventLoop, http: Any, connections: set[Any]) -> None:
    # Called by the collector, in any thread.
    if http in connections:
        with suppress(RuntimeError):  # the loop is closed, and with it the connections
            begin(loop, functools.partial(_disconnect, http, connections))


async def _disconnect(http: Any, connections: set[Any]) -> None:
    connections.discard(http)
    try:
        await http.aclose()
    except Exception as exc:  # noqa: BLE001 - of a transport; others are to be closed too
        _log.warning("connections could not be closed: %r", exc)


@functools.cache  # once for each folder
def _tell_of(folder: Path, problem: str | None) -> None:
    if problem is None:
        _log.info("answers are cached in %s; cache_seed=None switches that off", folder)
    else:
        _log.warning("nothing is cached, as %s can't be used: %s", folder, problem)


_states: Final[dict[int, LoopState]] = {}


async def loop_state() -> LoopState:
    """Return the running loop's state, which ends with it."""
    loop = asyncio.get_running_loop()
    state = _states.get(id(loop))
    if state is None:
        state = _states[id(loop)] = LoopState(loop)
        await anext(state.watch)  # nothing in it waits, so nobody sees a state that isn't watching
        for name, old in list(_states.items()):
            # Ended by close() alone. Its caches can be closed from here, its connections are lost.
            if old.loop.is_closed() and _states.pop(name, None) is not None:
                await old.close_caches()
    return state
