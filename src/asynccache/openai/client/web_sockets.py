"""WebSocket connections, which no cache can follow: counted as bypass, refused in mode "replay"."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from asynccache.openai.client.client_cache import ClientCache


def connector(client: ClientCache, path: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return what stands in the place of a resource's ``connect``.

    Args:
        client: The wrapped client's cache.
        path: Of the endpoint that is connected to.
        original: The SDK's own method, bound.
    """

    @functools.wraps(original)
    def connect(*args: Any, **kwargs: Any) -> Any:
        client.pass_by(path, "WebSocket connections are never cached")
        return original(*args, **kwargs)

    return connect
