"""The clients of httpx and httpx2, patched where they choose the transport for a request."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from asynccache.cache.facade import Place, bound
from asynccache.http.ambient import AmbientHttpCache
from asynccache.http.wrapping import CHOOSE, transport_over
from asynccache.providers.table import is_endpoint


def places(name: str) -> Iterator[Place]:
    """Return what is patched.

    Raises:
        ImportError: The library isn't as those that are known.
    """
    library, http = sys.modules[name], AmbientHttpCache(name)
    for kind, is_sync in (("AsyncClient", False), ("Client", True)):
        owner: Any = getattr(library, kind, None)
        if not hasattr(owner, CHOOSE):
            version = getattr(library, "__version__", "")
            raise ImportError(
                f"{kind} of {name} {version} has no {CHOOSE}: give its clients"
                " transport=cache.transport() instead"
            )
        yield Place(owner, CHOOSE, functools.partial(_patched, library, http, is_sync=is_sync))


def _patched(
    library: ModuleType, http: AmbientHttpCache, original: Any, *, is_sync: bool
) -> Callable[..., Any]:
    @functools.wraps(original)
    def transport_for_url(self: Any, url: Any) -> Any:
        inner = bound(original, self)(url)
        # Of most URLs the path alone says that nobody's endpoint is meant.
        if not http.is_asked() or not is_endpoint(url.raw_path.partition(b"?")[0].decode("ascii")):
            return inner
        if http.is_told_beneath(inner):
            return inner
        return transport_over(library, inner, http, is_sync=is_sync)

    return transport_for_url
