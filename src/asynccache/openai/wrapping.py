"""A client of the same type whose cacheable calls go through a cache."""

from __future__ import annotations

import copy
import functools
from operator import attrgetter
from typing import Any, Final, TypeVar, cast

from openai import AsyncOpenAI, OpenAI

from asynccache.cache.facade import AsyncCache, not_wrappable
from asynccache.openai.client import sdk
from asynccache.openai.client.cached_method import CachedMethod
from asynccache.openai.client.cached_request import CachedRequest
from asynccache.openai.client.client_cache import ClientCache
from asynccache.openai.client.endpoints import (
    CHAT,
    COMPLETIONS,
    INPUT_TOKENS,
    RESPONSES,
    Endpoint,
)
from asynccache.openai.client.helpers import watched_helper
from asynccache.openai.client.parse import ParsedChatMethod, ParsedResponseMethod
from asynccache.openai.client.sync_request import SyncCachedRequest
from asynccache.openai.client.web_sockets import connector
from asynccache.openai.embeddings.method import EMBEDDINGS, EmbeddingsMethod

ClientT = TypeVar("ClientT", bound=AsyncOpenAI | OpenAI)

CACHED_METHODS: Final[tuple[tuple[Endpoint, str, type[CachedMethod]], ...]] = (
    (CHAT, "create", CachedMethod),
    (CHAT, "parse", ParsedChatMethod),
    (RESPONSES, "create", CachedMethod),
    (RESPONSES, "parse", ParsedResponseMethod),
    (COMPLETIONS, "create", CachedMethod),
    (EMBEDDINGS, "create", EmbeddingsMethod),
)
"""The asynchronous client's methods that are cached by their arguments, the shortest way.

What isn't here is cached by the options that the client's ``request`` gets.
"""
ENDPOINTS: Final = {
    endpoint.path: endpoint for endpoint in (CHAT, RESPONSES, INPUT_TOKENS, COMPLETIONS, EMBEDDINGS)
}
_OURS: Final = ("request", "copy", "with_options")
_MARK: Final = "_asynccache_wrapped"
CLIENT_CACHE: Final = "_asynccache_client_cache"
"""Where an instrumented client has its `ClientCache`."""


def wrap(client: ClientT, *, cache: AsyncCache, upstream: str | None = None) -> ClientT:
    """Return a copy of a client whose calls go through a cache; see `AsyncCache.wrap`.

    Wrapping a wrapped client takes it from its cache to this one.

    Raises:
        TypeError: It is neither an ``AsyncOpenAI`` nor an ``OpenAI``.
    """
    if not isinstance(client, AsyncOpenAI | OpenAI):
        raise not_wrappable(client)
    # Not client.copy(), which runs __init__ anew: a subclass may want other arguments there, and
    # what was set on the client would be lost.
    twin = copy.copy(client)
    own = vars(twin)
    for name in list(own):  # resources, which point to the client that made them
        if isinstance(getattr(type(twin), name, None), functools.cached_property):
            del own[name]
    own.pop(CLIENT_CACHE, None)
    if own.pop(_MARK, False):
        for name in _OURS:
            del own[name]
    inner = cast("Any", twin)
    inner._custom_headers = dict(inner._custom_headers)
    inner._custom_query = dict(inner._custom_query)
    return _patch(twin, cache, upstream)


def _patch(client: ClientT, cache: AsyncCache, upstream: str | None) -> ClientT:
    ours = ClientCache(client, ENDPOINTS, cache, upstream)
    changed = cast("Any", client)
    is_sync = sdk.is_sync(client)
    for endpoint, name, cached in () if is_sync else CACHED_METHODS:
        resource = attrgetter(endpoint.resource)(changed)
        method = getattr(resource, name, None)
        if method is not None:  # older SDKs lack some
            setattr(resource, name, cached(ours, endpoint, name, method).method())
    for endpoint in (CHAT, RESPONSES):
        resource = attrgetter(endpoint.resource)(changed)
        if (stream := getattr(resource, "stream", None)) is not None:
            resource.stream = watched_helper(stream)
    # Not `beta`'s own, as looking at it loads a third of a second of modules.
    connect = getattr(changed.responses, "connect", None)
    if connect is not None:
        changed.responses.connect = connector(ours, RESPONSES.path, connect)
    request = SyncCachedRequest if is_sync else CachedRequest
    changed.request = request(ours, changed.request).method()
    copy_client: Any = changed.copy

    @functools.wraps(copy_client)
    def copied(*args: Any, **kwargs: Any) -> Any:
        made = copy_client(*args, **kwargs)
        # A name stands for the server it was given to, and for no other.
        same = made.base_url == client.base_url
        return _patch(made, cache, upstream if same else None)

    changed.copy = changed.with_options = copied
    setattr(client, _MARK, True)
    return client
