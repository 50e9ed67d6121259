"""What leaves a client beneath a call of ours: known from what would be a call of its own.

Every door leads to the client's ``request`` in the end. A call that goes upstream for an entry, or
past the cache, sets what is here; ``request`` finds it, lets the call pass, and checks that what is
sent is what the key was made of. Whatever stands in between (a patch on the SDK's class, an
override, another version of the SDK) can then cost an entry, but never make a wrong one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

T = TypeVar("T")

_sending: Final[ContextVar[OutboundCheck | None]] = ContextVar("asynccache_sending", default=None)


class OutboundCheck:
    """One call of ours that goes upstream.

    Args:
        matches: Tells whether a request's options are what the key stands for; None for a call
            that has no key.
        key: The request's; empty for none.
    """

    __slots__ = ("_matches", "_strayed", "key", "same")

    def __init__(self, matches: Callable[[Any], bool] | None, key: bytes = b"") -> None:
        self._matches = matches
        self._strayed = False
        self.key: Final = key
        self.same = False
        """Whether the request of the key was really sent, and no other."""

    def note(self, options: Any) -> None:
        """Look at a request that is being sent."""
        # Once something else was sent, nobody knows which of the answers came back.
        if self._matches is not None and not self._strayed:
            self.same = self._matches(options)
            self._strayed = not self.same

    async def over(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await a call whose requests are let pass."""
        before = _sending.get()
        _sending.set(self)
        try:
            return await call()
        finally:
            _sending.set(before)
            # A connection that was opened meanwhile keeps the context it was opened in, and us.
            self._matches = None


PAST: Final = OutboundCheck(None)
"""A call that goes past the cache."""


def current_sending() -> OutboundCheck | None:
    """Return the call of ours that the caller is beneath, if it is."""
    return _sending.get()


def is_beneath(key: bytes) -> bool:
    """Tell whether the caller is beneath a call of ours for the same, which waits for it."""
    sending = _sending.get()
    return sending is not None and sending.key == key
