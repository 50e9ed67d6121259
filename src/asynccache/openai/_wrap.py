"""A client of the same type whose cacheable methods go through a cache."""

from __future__ import annotations

import copy
import functools
from typing import Any, Final, TypeVar, cast

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk, completion_create_params

from asynccache._cache import AsyncCache
from asynccache.openai._door import Door, Endpoint

ClientT = TypeVar("ClientT", bound=AsyncOpenAI)

_CHAT: Final = Endpoint(
    "/chat/completions",
    method="create",
    required=frozenset({"messages", "model"}),
    params=completion_create_params.CompletionCreateParams,
    result=ChatCompletion,
    event=ChatCompletionChunk,
)
_MARK: Final = "_asynccache_wrapped"


def wrap(client: ClientT, *, cache: AsyncCache, upstream: str | None = None) -> ClientT:
    """Return a copy of a client whose calls go through a cache; see `AsyncCache.wrap`.

    Wrapping a wrapped client takes it from its cache to this one.

    Raises:
        TypeError: It isn't an ``AsyncOpenAI``; the synchronous client can't await a cache.
    """
    if not isinstance(client, AsyncOpenAI):
        raise TypeError(f"can't wrap a {type(client).__qualname__}: pass an openai.AsyncOpenAI")
    # Not client.copy(), which runs __init__ anew: a subclass may want other arguments there, and
    # what was set on the client would be lost.
    twin = copy.copy(client)
    own = vars(twin)
    for name in list(own):  # resources, which point to the client that made them
        if isinstance(getattr(type(twin), name, None), functools.cached_property):
            del own[name]
    if own.pop(_MARK, False):
        del own["copy"], own["with_options"]
    inner = cast("Any", twin)
    inner._custom_headers = dict(inner._custom_headers)
    inner._custom_query = dict(inner._custom_query)
    return _patch(twin, cache, upstream)


def _patch(client: ClientT, cache: AsyncCache, upstream: str | None) -> ClientT:
    completions = cast("Any", client.chat.completions)
    completions.create = Door(client, cache, _CHAT, completions.create, upstream).method()
    copy_client = client.copy

    @functools.wraps(copy_client)
    def copied(*args: Any, **kwargs: Any) -> Any:
        made = copy_client(*args, **kwargs)
        # A name stands for the server it was given to, and for no other.
        same = made.base_url == client.base_url
        return _patch(made, cache, upstream if same else None)

    changed = cast("Any", client)
    changed.copy = changed.with_options = copied
    setattr(client, _MARK, True)
    return client
