"""Says that a call of ours is under way: whatever is sent beneath it is let pass, and not counted.

One call may come by several of our ways in, one above the other: the SDK's method, the HTTP client,
the HTTP library that this stands on. Only the first of them asks the cache.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

T = TypeVar("T")


class Sending:
    """One call that goes upstream for an entry, or past the cache.

    Args:
        key: The request's; empty for none.
    """

    __slots__ = ("key",)

    def __init__(self, key: bytes = b"") -> None:
        self.key: Final = key

    def note(self, options: Any) -> Any:
        """Look at a request that is being sent, and return the options that it is sent with."""
        return options

    async def over(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await a call whose requests are let pass."""
        before = _sending.get()
        _sending.set(self)
        try:
            return await call()
        finally:
            _sending.set(before)

    def over_now(self, call: Callable[[], T]) -> T:
        """Do the same for a function that blocks."""
        token = _sending.set(self)
        try:
            return call()
        finally:
            _sending.reset(token)


_sending: Final[ContextVar[Sending | None]] = ContextVar("asynccache_sending", default=None)

PAST: Final = Sending()
"""A call that goes past the cache."""


def current_sending() -> Sending | None:
    """Return the call of ours that the caller is beneath, if it is."""
    return _sending.get()


def is_beneath(key: bytes) -> bool:
    """Tell whether the caller is beneath a call of ours for the same, which waits for it."""
    sending = _sending.get()
    return sending is not None and sending.key == key
