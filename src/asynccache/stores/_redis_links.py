"""A link to Redis for each event loop that uses a store, closed in its own loop, left by a fork."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator
from typing import Any, Final

from asynccache._errors import StoreUnavailableError
from asynccache.stores._redis_address import Address
from asynccache.stores._redis_link import Link

_FOREIGN_CLOSE: Final = 5.0  # seconds that another loop may take to close its connections


class Links:
    """All links of a store.

    Args:
        address: Where Redis is, if no client is given.
        client: A client of the user's own, which serves one loop alone.
        timeout: Seconds until a command counts as unanswered.
        limit: Connections to one server at most, in each loop.
    """

    def __init__(
        self, address: Address, client: object | None, *, timeout: float, limit: int
    ) -> None:
        self.are_open = False
        self._address = address
        self._client = client
        self._timeout = timeout
        self._limit = limit
        self._lock = threading.Lock()
        self._links: dict[asyncio.AbstractEventLoop, Link] = {}
        self._endings: dict[asyncio.AbstractEventLoop, AsyncGenerator[None]] = {}
        self._leaked: object = None
        _ALL.add(self)

    def open(self) -> None:
        """Let loops have links from now on."""
        self.are_open = True

    def mine(self) -> Link:
        """Return the running loop's link.

        Raises:
            StoreUnavailableError: The store isn't open, or the client is another loop's.
        """
        loop = asyncio.get_running_loop()
        return self._links.get(loop) or self._new(loop)

    def _new(self, loop: asyncio.AbstractEventLoop) -> Link:
        with self._lock:
            if not self.are_open:
                raise StoreUnavailableError(
                    "The Redis store isn't open in this process: open it first."
                )
            if self._client is not None and self._links:
                raise StoreUnavailableError(
                    "the client that was given belongs to another event loop:"
                    " give redis_url instead, and each loop gets connections of its own"
                )
            for past in [past for past in self._links if past.is_closed()]:
                del self._links[past], self._endings[past]
            link = Link(self._address, self._client, timeout=self._timeout, limit=self._limit)
            self._links[loop] = link
            # Known to the loop, which closes it if it ends before the store does.
            self._endings[loop] = link.until_the_loop_ends()
            _begin(self._endings[loop])
            return link

    async def aclose(self) -> None:
        """Close all links, each in its own loop."""
        with self._lock:
            self.are_open = False
            endings, self._endings, self._links = self._endings, {}, {}
        for loop, ending in endings.items():
            if loop is asyncio.get_running_loop():
                await ending.aclose()
            elif loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(ending.aclose(), loop)
                await asyncio.wait({asyncio.wrap_future(closing)}, timeout=_FOREIGN_CLOSE)

    def forget(self) -> None:
        """Forget, in a forked child, what belongs to the parent: not even closed, it isn't ours."""
        self._leaked = (self._links, self._endings, self._leaked)
        self.are_open = False
        self._links, self._endings = {}, {}
        self._lock = threading.Lock()


def _begin(ending: AsyncGenerator[None]) -> None:
    """Run a generator to its first yield, which waits for nothing."""
    first: Any = ending.asend(None)
    try:
        first.send(None)
    except StopIteration:
        return


_ALL: Final[weakref.WeakSet[Links]] = weakref.WeakSet()


def _forked() -> None:
    for links in list(_ALL):
        links.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
