"""The SDK's methods, patched: each asks first whether anything is to be done at all."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

from openai import AsyncOpenAI, OpenAI
from openai.resources import chat, completions, embeddings, responses

from asynccache.cache.facade import Place, bound
from asynccache.openai.client.cached_method import CachedMethod
from asynccache.openai.client.cached_request import CachedRequest
from asynccache.openai.client.endpoints import Endpoint
from asynccache.openai.client.helpers import watched_helper
from asynccache.openai.client.sync_request import SyncCachedRequest
from asynccache.openai.instrument.ambient import anything_to_do, client_cache_of, passes
from asynccache.openai.wrapping import CACHED_METHODS
from asynccache.providers.sending import current_sending

_CLASSES: Final = {
    "chat.completions": chat.completions.AsyncCompletions,
    "responses": responses.AsyncResponses,
    "completions": completions.AsyncCompletions,
    "embeddings": embeddings.AsyncEmbeddings,
}
_HELPED: Final = (
    chat.completions.AsyncCompletions, chat.completions.Completions,
    responses.AsyncResponses, responses.Responses,
)  # fmt: skip


def places(_: str) -> list[Place]:
    """Return what is patched."""
    found = [
        Place(
            _CLASSES[endpoint.resource],
            name,
            functools.partial(_patched_method, endpoint, name, cached),
        )
        for endpoint, name, cached in CACHED_METHODS
    ]
    # On the clients themselves, where others put theirs: beneath those ours would not be called.
    found.append(Place(AsyncOpenAI, "request", _patched_request))
    found.append(Place(OpenAI, "request", _patched_sync_request))
    found.extend(Place(owner, "stream", watched_helper) for owner in _HELPED)
    return [place for place in found if hasattr(place.owner, place.name)]  # older SDKs lack some


# -- what stands in the place of the SDK's methods -----------------------------------------------


def _patched_method(
    endpoint: Endpoint,
    name: str,
    cached: type[CachedMethod],
    original: Callable[..., Awaitable[Any]],
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not anything_to_do():
            return await bound(original, self)(*args, **kwargs)
        client = client_cache_of(self._client)
        of, made = client.methods.get(id(original), (None, None))
        if made is None or of is not original:
            made = cached(client, endpoint, name, bound(original, self), latest=False).method()
            client.methods[id(original)] = (original, made)
        return await made(*args, **kwargs)

    return method


def _patched_request(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def request(
        self: Any, cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
    ) -> Any:
        send, sending = bound(original, self), current_sending()
        if sending is not None:
            options = sending.note(options)
        elif not passes():
            send = CachedRequest(client_cache_of(self), send).send
        return await send(cast_to, options, stream=stream, stream_cls=stream_cls)

    return request


def _patched_sync_request(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def request(
        self: Any, cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
    ) -> Any:
        send, sending = bound(original, self), current_sending()
        if sending is not None:
            options = sending.note(options)
        elif not passes():
            send = SyncCachedRequest(client_cache_of(self), send).send_now
        return send(cast_to, options, stream=stream, stream_cls=stream_cls)

    return request
