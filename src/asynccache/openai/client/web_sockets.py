"""WebSocket connections, which no cache can follow: counted as bypass, refused in mode "replay"."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from msgspec import UNSET

from asynccache.cache import events, in_force
from asynccache.errors import ReplayMiss
from asynccache.openai.client.client_cache import ClientCache

_REASON: Final = "WebSocket connections are never cached"


def connector(exchange: ClientCache, path: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return what stands in the place of a resource's ``connect``.

    Args:
        exchange: The wrapped client's.
        path: Of the endpoint that is connected to.
        original: The SDK's own method, bound.
    """

    @functools.wraps(original)
    def connect(*args: Any, **kwargs: Any) -> Any:
        chosen = in_force.current_options()
        cache = exchange.in_force(chosen)
        if cache is not None:
            mode = cache.settings.mode if chosen.mode is UNSET else chosen.mode
            if mode == "replay":
                raise ReplayMiss("a WebSocket connection can't be replayed")
            cache.note_bypass(_REASON)
            watch = events.watch(cache.settings.observer, path)
            if watch is not None:
                watch.passed(_REASON)
        return original(*args, **kwargs)

    return connect
