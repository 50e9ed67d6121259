"""Says that a call of ours is under way: whatever is sent beneath it is let pass, and not counted.

One call may come by several of our ways in, one above the other: the SDK's method, the HTTP client,
the HTTP library that this stands on. Only the first of them asks the cache.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

T = TypeVar("T")


class _Beneath:
    """What is beneath a call, until that is over: a task that began there may go on."""

    __slots__ = ("over", "sending")

    def __init__(self, sending: Sending) -> None:
        self.sending = sending
        self.over = False


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
        before, here = _sending.get(), _Beneath(self)
        _sending.set(here)
        try:
            return await call()
        finally:
            here.over = True
            _sending.set(before)


_sending: Final[ContextVar[_Beneath | None]] = ContextVar("asynccache_sending", default=None)

PAST: Final = Sending()
"""A call that goes past the cache."""


def current_sending() -> Sending | None:
    """Return the call of ours that the caller is beneath, if it is."""
    here = _sending.get()
    return None if here is None or here.over else here.sending


def is_beneath(key: bytes) -> bool:
    """Tell whether the caller is beneath a call of ours for the same, which waits for it."""
    sending = current_sending()
    return sending is not None and sending.key == key
