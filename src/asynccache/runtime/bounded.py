"""A dict of bounded size, for what is remembered because it is dear to make again."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(dict[K, V]):
    """A dict that drops its oldest item when it is full. Reading it costs what a dict's does.

    Args:
        limit: How many items it holds at most.
    """

    __slots__ = ("_limit",)

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: K, value: V) -> None:
        """Store an item; the oldest one goes if there is no room."""
        if len(self) >= self._limit and key not in self:
            # Another thread may change the dict meanwhile: then that one has made room.
            with suppress(KeyError, RuntimeError, StopIteration):
                del self[next(iter(self))]
        super().__setitem__(key, value)
