"""A link to a server for each event loop that uses a store, closed in its own loop, left by a fork.

What a driver opens belongs to the loop that opened it: this keeps one of it for each.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from asynccache.errors import StoreUnavailableError
from asynccache.runtime.background import blocked_loop
from asynccache.runtime.loops import done_in

_FOREIGN_CLOSE: Final = 5.0  # seconds that another loop may take to close its connections


class Closing(Protocol):
    """What a link must be able to do."""

    async def aclose(self) -> None:
        """Give connections back."""
        ...


LinkT = TypeVar("LinkT", bound=Closing)


class Links(Generic[LinkT]):
    """All links of a store.

    Args:
        make: Makes the link of the loop it is called in; waits for nothing.
        only_one: What the links stand on serves one loop alone; says what to do for more.
    """

    def __init__(self, make: Callable[[], LinkT], *, only_one: str | None = None) -> None:
        self.are_open = False
        self._make = make
        self._only_one = only_one
        self._lock = threading.Lock()
        self._links: dict[asyncio.AbstractEventLoop, LinkT] = {}
        self._endings: dict[asyncio.AbstractEventLoop, AsyncGenerator[None]] = {}
        self._leaked: object = None
        _ALL.add(self)

    def open(self) -> None:
        """Let loops have links from now on."""
        self.are_open = True

    def mine(self) -> LinkT:
        """Return the running loop's link.

        Raises:
            StoreUnavailableError: The store isn't open, or serves another loop alone.
        """
        loop = asyncio.get_running_loop()
        return self._links.get(loop) or self._new(loop)

    def _new(self, loop: asyncio.AbstractEventLoop) -> LinkT:
        with self._lock:
            if not self.are_open:
                raise StoreUnavailableError("the store isn't open in this process: open it first")
            if self._only_one is not None and self._links:
                raise StoreUnavailableError(self._only_one)
            for past in [past for past in self._links if past.is_closed()]:
                del self._links[past], self._endings[past]
            link = self._links[loop] = self._make()
            # Known to the loop, which closes it if it ends before the store does.
            self._endings[loop] = _until_the_loop_ends(link)
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
            else:
                patience = 0 if loop is blocked_loop() else _FOREIGN_CLOSE  # it does, once it may
                await done_in(loop, ending.aclose, patience=patience)

    def forget(self) -> None:
        """Forget, in a forked child, what belongs to the parent: not even closed, it isn't ours."""
        self._leaked = (self._links, self._endings, self._leaked)
        self.are_open = False
        self._links, self._endings = {}, {}
        self._lock = threading.Lock()


async def _until_the_loop_ends(link: Closing) -> AsyncGenerator[None]:
    """Wait to be closed; asyncio closes what is left of such generators when a loop ends."""
    try:
        yield
    finally:
        await link.aclose()


def _begin(ending: AsyncGenerator[None]) -> None:
    """Run a generator to its first yield, which waits for nothing."""
    first: Any = ending.asend(None)
    try:
        first.send(None)
    except StopIteration:
        return


_ALL: Final[weakref.WeakSet[Links[Any]]] = weakref.WeakSet()


def _forked() -> None:
    for links in list(_ALL):
        links.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
