"""What the wrapper holds in one event loop, and lets go of when that loop ends."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from openai import AsyncOpenAI

from asynccache.cache.cache import AsyncCache
from asynccache.cache.factory import Cache
from asynccache.errors import StoreError

_log = logging.getLogger("asynccache")

_Place = tuple[int | str, str]
"""A ``cache_seed`` and the ``cache_path_root`` as it was given."""
_USER: Final = "_asynccache_user"
_told: Final[set[tuple[str, bool]]] = set()  # folders, and whether they could be used


class _User:
    """Lives as long as a client of a wrapper's, and the copies that caches have made of it."""

    __slots__ = ("__weakref__",)


class LoopState:
    """The implicit caches of one event loop, and the clients that wrappers have made in it.

    An implicit cache is nobody's to close. It belongs to the loop: `asyncio.run`, `asyncio.Runner`
    and whoever else ends a loop properly close what asynchronous generators are left in it, and one
    of those is ours. By then the loop has cancelled its tasks, and what was paid for is on its way
    into the store, whose closing waits for it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: Final = loop
        self._connections: set[Any] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._caches: dict[_Place, AsyncCache | None] = {}
        self._opening: dict[_Place, asyncio.Task[AsyncCache | None]] = {}
        self._ending = False
        self._watch = self._until_the_end()

    async def start(self) -> None:
        """Begin to watch for the end of the loop."""
        await anext(self._watch)

    async def _until_the_end(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self._close()

    async def _close(self) -> None:
        # Caches first: what still waits for an answer waits on a client.
        await self.close_caches()
        for http in list(self._connections):
            await self._disconnect(http)

    # -- clients -----------------------------------------------------------------------------

    def keep(self, client: AsyncOpenAI) -> None:
        """Hold a client's connections until nobody can use them any more, or the loop ends.

        A call may go on when the wrapper is gone that made it: in a stream that is still read, or
        in a flight that others have joined. What such a call holds is the client, or a copy of it.
        """
        http = client._client
        user = vars(client)[_USER] = _User()
        self._connections.add(http)
        weakref.finalize(user, self._let_go, http).atexit = False

    async def close_client(self, client: AsyncOpenAI) -> None:
        """Close a client that is held, whoever uses it."""
        await self._disconnect(client._client)

    async def _disconnect(self, http: Any) -> None:
        try:
            await http.aclose()
        except Exception as exc:  # noqa: BLE001 - of a transport; others are to be closed too
            _log.warning("connections could not be closed: %r", exc)
        self._connections.discard(http)

    def _let_go(self, http: Any) -> None:
        # Called by the collector, in any thread.
        with suppress(RuntimeError):  # the loop is closed, and with it the connections
            self.loop.call_soon_threadsafe(self._disconnect_soon, http)

    def _disconnect_soon(self, http: Any) -> None:
        if not self._ending and http in self._connections:
            task = self.loop.create_task(self._disconnect(http))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    # -- caches ------------------------------------------------------------------------------

    async def close_caches(self) -> None:
        """Close the caches. None is opened in this loop from now on."""
        self._ending = True
        caches = [cache for cache in self._caches.values() if cache is not None]
        self._caches.clear()
        for cache in caches:
            try:
                await cache.aclose()
            except StoreError as exc:
                _log.warning("a cache could not be closed as its loop ended: %r", exc)

    def cache(self, seed: int | str, root: str) -> AsyncCache | None:
        """Return the implicit cache if it is open already, without waiting."""
        return self._caches.get((seed, root))

    async def open_cache(self, seed: int | str, root: str) -> AsyncCache | None:
        """Return the implicit cache, opened once; None if there can't be one in this loop."""
        place = (seed, root)
        if place in self._caches:
            return self._caches[place]
        if self._ending:
            return None
        opening = self._opening.get(place)
        if opening is None:
            opening = asyncio.get_running_loop().create_task(self._open(place))
            self._opening[place] = opening
        # Whoever is cancelled here leaves the others waiting for the same cache.
        return await asyncio.shield(opening)

    async def _open(self, place: _Place) -> AsyncCache | None:
        cache = Cache.disk(*place)
        folder = _folder(place)
        found: AsyncCache | None = None
        try:
            found = await cache.open()
        except StoreError as exc:
            if (folder, False) not in _told:
                _told.add((folder, False))
                _log.warning("nothing is cached, as %s can't be used: %s", folder, exc)
        else:
            if found.stats().store_errors:  # the disk fails for now, and the log says so already
                await found.aclose()
                found = None
            elif (folder, True) not in _told:
                _told.add((folder, True))
                _log.info("answers are cached in %s; cache_seed=None switches that off", folder)
        finally:
            del self._opening[place]
        self._caches[place] = found
        return found


def _folder(place: _Place) -> str:
    seed, root = place
    return str(Path(root).absolute() / str(seed))


_states: Final[dict[int, LoopState]] = {}


async def loop_state() -> LoopState:
    """Return the running loop's state, which ends with it."""
    loop = asyncio.get_running_loop()
    state = _states.get(id(loop))
    if state is None:
        state = _states[id(loop)] = LoopState(loop)
        await state.start()  # nothing in it waits, so nobody sees a state that isn't watching
        for name, old in list(_states.items()):
            # Ended by close() alone. Its caches can be closed from here, its connections are lost.
            if old.loop.is_closed() and _states.pop(name, None) is not None:
                await old.close_caches()
    return state
