"""WebSocket connections, which no cache can follow: counted as bypass, refused in mode "replay"."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from msgspec import UNSET

from asynccache import _context, _events
from asynccache._errors import ReplayMiss
from asynccache.openai._exchange import Exchange

_REASON: Final = "WebSocket connections are never cached"


def connector(exchange: Exchange, path: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return what stands in the place of a resource's ``connect``.

    Args:
        exchange: The wrapped client's.
        path: Of the endpoint that is connected to.
        original: The SDK's own method, bound.
    """

    @functools.wraps(original)
    def connect(*args: Any, **kwargs: Any) -> Any:
        chosen = _context.current_options()
        cache = exchange.in_force(chosen)
        if cache is not None:
            mode = cache.settings.mode if chosen.mode is UNSET else chosen.mode
            if mode == "replay":
                raise ReplayMiss("a WebSocket connection can't be replayed")
            cache.note_bypass(_REASON)
            watch = _events.watch(cache.settings.observer, path)
            if watch is not None:
                watch.passed(_REASON)
        return original(*args, **kwargs)

    return connect
