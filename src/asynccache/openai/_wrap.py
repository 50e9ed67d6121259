"""A client of the same type whose cacheable methods go through a cache."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk, completion_create_params

from asynccache._cache import AsyncCache
from asynccache.openai._door import Door, Endpoint

ClientT = TypeVar("ClientT", bound=AsyncOpenAI)

_CHAT = Endpoint(
    "/chat/completions",
    required=frozenset({"messages", "model"}),
    params=completion_create_params.CompletionCreateParams,
    result=ChatCompletion,
    event=ChatCompletionChunk,
)


def wrap(client: ClientT, *, cache: AsyncCache, upstream: str | None = None) -> ClientT:
    """Return a copy of a client whose calls go through a cache; see `AsyncCache.wrap`.

    Raises:
        TypeError: It isn't an ``AsyncOpenAI``; the synchronous client can't await a cache.
    """
    if not isinstance(client, AsyncOpenAI):
        raise TypeError(f"can't wrap a {type(client).__qualname__}: pass an openai.AsyncOpenAI")
    return _patch(client.copy(), cache, upstream)


def _patch(client: ClientT, cache: AsyncCache, upstream: str | None) -> ClientT:
    completions = client.chat.completions
    door = Door(client, cache, _CHAT, completions.create, upstream)
    changed = cast("Any", completions)
    changed.create = door.method()
    copy = client.copy

    def copied(*args: Any, **kwargs: Any) -> Any:
        return _patch(copy(*args, **kwargs), cache, upstream)

    changed = cast("Any", client)
    changed.copy = changed.with_options = copied
    return client
