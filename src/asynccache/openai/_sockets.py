"""WebSocket connections, which no cache can follow: counted as bypass, refused in mode "replay"."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from asynccache import _context
from asynccache._errors import ReplayMiss
from asynccache.openai._exchange import Exchange


def connector(exchange: Exchange, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return what stands in the place of a resource's ``connect``."""

    @functools.wraps(original)
    def connect(*args: Any, **kwargs: Any) -> Any:
        chosen = _context.current_options()
        cache = exchange.cache if chosen.cache is UNSET else chosen.cache
        if cache is not None:
            mode = cache.settings.mode if chosen.mode is UNSET else chosen.mode
            if mode == "replay":
                raise ReplayMiss("a WebSocket connection can't be replayed")
            cache.note_bypass("WebSocket connections are never cached")
        return original(*args, **kwargs)

    return connect
