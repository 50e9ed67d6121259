"""A client of the same type whose cacheable calls go through a cache."""

from __future__ import annotations

import copy
import functools
from operator import attrgetter
from typing import Any, Final, TypeVar, cast

from openai import AsyncOpenAI, OpenAI

from asynccache._cache import AsyncCache
from asynccache.openai import _sdk
from asynccache.openai._door import Door
from asynccache.openai._embeddings import EmbeddingsDoor
from asynccache.openai._endpoints import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, Endpoint
from asynccache.openai._exchange import Exchange
from asynccache.openai._net import Net
from asynccache.openai._parse import ParseChatDoor, ParseResponseDoor
from asynccache.openai._sockets import connector
from asynccache.openai._sync import SyncNet

ClientT = TypeVar("ClientT", bound=AsyncOpenAI | OpenAI)

DOORS: Final[tuple[tuple[Endpoint, str, type[Door]], ...]] = (
    (CHAT, "create", Door),
    (CHAT, "parse", ParseChatDoor),
    (RESPONSES, "create", Door),
    (RESPONSES, "parse", ParseResponseDoor),
    (COMPLETIONS, "create", Door),
    (EMBEDDINGS, "create", EmbeddingsDoor),
)
"""The fast ways of the asynchronous client. Whatever isn't here still passes through the net."""
_OURS: Final = ("request", "copy", "with_options")
_MARK: Final = "_asynccache_wrapped"
EXCHANGE: Final = "_asynccache_exchange"
"""Where an instrumented client has its exchange."""


def wrap(client: ClientT, *, cache: AsyncCache, upstream: str | None = None) -> ClientT:
    """Return a copy of a client whose calls go through a cache; see `AsyncCache.wrap`.

    Wrapping a wrapped client takes it from its cache to this one.

    Raises:
        TypeError: It is neither an ``AsyncOpenAI`` nor an ``OpenAI``.
    """
    if not isinstance(client, AsyncOpenAI | OpenAI):
        kind = type(client).__qualname__
        raise TypeError(f"can't wrap a {kind}: pass an openai.AsyncOpenAI or openai.OpenAI")
    # Not client.copy(), which runs __init__ anew: a subclass may want other arguments there, and
    # what was set on the client would be lost.
    twin = copy.copy(client)
    own = vars(twin)
    for name in list(own):  # resources, which point to the client that made them
        if isinstance(getattr(type(twin), name, None), functools.cached_property):
            del own[name]
    own.pop(EXCHANGE, None)
    if own.pop(_MARK, False):
        for name in _OURS:
            del own[name]
    inner = cast("Any", twin)
    inner._custom_headers = dict(inner._custom_headers)
    inner._custom_query = dict(inner._custom_query)
    return _patch(twin, cache, upstream)


def _patch(client: ClientT, cache: AsyncCache, upstream: str | None) -> ClientT:
    exchange = Exchange(client, cache, upstream)
    changed = cast("Any", client)
    is_sync = _sdk.is_sync(client)
    for endpoint, name, door in () if is_sync else DOORS:
        resource = attrgetter(endpoint.resource)(changed)
        method = getattr(resource, name, None)
        if method is not None:  # older SDKs lack some
            setattr(resource, name, door(exchange, endpoint, name, method).method())
    # Not `beta`'s own, as looking at it loads a third of a second of modules.
    connect = getattr(changed.responses, "connect", None)
    if connect is not None:
        changed.responses.connect = connector(exchange, RESPONSES.path, connect)
    net = SyncNet if is_sync else Net
    changed.request = net(exchange, changed.request).method()
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
