"""No connection to a database crosses a fork: threads pause between two steps, and all is closed.

SQLite counts the locks of a process in its memory, once for all connections to a file. A child
inherits the counts without the locks: it waits for a writer that it doesn't have, and whoever
closes the file for the last time doesn't see it. See
https://sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork_.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from threading import get_ident
from typing import Final, Protocol
from weakref import WeakSet

from asynccache.runtime.forks import at_fork

_PATIENCE: Final = 2.0  # seconds that a fork waits; a commit takes milliseconds


class Connected(Protocol):
    """What has connections."""

    def disconnect(self, until: float) -> bool:
        """Close all connections, to be opened anew when they are needed; nobody is at work.

        Args:
            until: When to give up, by `time.monotonic`.

        Returns:
            Whether all are closed.
        """
        ...


LEAKED: Final[list[Connected]] = []
"""Whose connections were in use at a fork: closing one here might undo what the parent writes."""


class _Forks:
    """Who is at work with SQLite in this process, and who is about to fork it."""

    def __init__(self, *, torn: bool) -> None:
        self.torn = torn
        self.turn = threading.Condition()
        self.at_work: set[int] = set()
        self.forking = 0
        self.forks: defaultdict[int, list[list[Connected]]] = defaultdict(list)
        """Of each forking thread, what isn't closed: signals may fork in the middle of a fork."""
        self.connected: WeakSet[Connected] = WeakSet()


_here = _Forks(torn=False)


def is_torn() -> bool:
    """Tell whether this process came of a fork in the middle of somebody's work.

    What SQLite knows of locks, and its own mutexes, may be in any state here: to be let alone.
    """
    return _here.torn


def add(connected: Connected) -> None:
    """Note what has to be disconnected before this process forks, as long as it lives."""
    with _here.turn:
        _here.connected.add(connected)


@contextmanager
def working() -> Generator[None]:
    """Keep this process from forking meanwhile; wait while it is about to.

    Not to be nested, nor for waiting for a thread that works, too.
    """
    here, thread = _here, get_ident()
    with here.turn:
        here.turn.wait_for(lambda: not here.forking)
        here.at_work.add(thread)
    try:
        yield
    finally:
        with here.turn:
            here.at_work.discard(thread)
            here.turn.notify_all()


def _before() -> None:
    here, thread, until = _here, get_ident(), time.monotonic() + _PATIENCE
    with here.turn:
        here.forking += 1
        mine = here.forks[thread]
        at = len(mine)
        connected = list(here.connected)
        mine.append(connected)
        if thread in here.at_work or not here.turn.wait_for(lambda: not here.at_work, _PATIENCE):
            return
    try:
        closed = [each.disconnect(until) for each in connected]
    except sqlite3.Error:
        return
    if all(closed):
        mine[at] = []


def _after_in_parent() -> None:
    here = _here
    with here.turn:
        here.forking -= 1
        here.forks[get_ident()].pop()
        here.turn.notify_all()


def _after_in_child() -> None:
    global _here  # noqa: PLW0603 - one for the process is what it is
    left = _here.forks[get_ident()]
    LEAKED.extend(each for some in left for each in some)
    _here = _Forks(torn=_here.torn or any(left))


at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
