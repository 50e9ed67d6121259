"""The SDK's methods, patched: each asks first whether anything is to be done at all.

Others may patch the same methods, before or after: what stands on top of ours stays, with ours let
through beneath it.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from msgspec import Struct
from openai import AsyncOpenAI, OpenAI
from openai.resources import chat, completions, embeddings, responses

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


class _Patch(Struct, frozen=True):
    """One method of the SDK's that was replaced."""

    owner: type
    name: str
    original: Any
    """What stood there; None where the class had none of its own."""
    ours: Any

    def is_there(self) -> bool:
        """Tell whether ours still stands there, maybe beneath what others have put on top."""
        found: Any = getattr(self.owner, self.name)
        while found is not None:
            if found is self.ours:
                return True
            found = getattr(found, "__wrapped__", None)
        return False

    def undo(self) -> bool:
        """Put the SDK's own back, if nothing stands on top; tell whether that was done."""
        if vars(self.owner).get(self.name) is not self.ours:
            return False
        if self.original is None:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.original)
        return True


_patches: Final[list[_Patch]] = []


def patch_all() -> None:
    """Put ours where it isn't."""
    _patches[:] = [patch for patch in _patches if patch.is_there()]
    there = {(patch.owner, patch.name) for patch in _patches}
    places: list[tuple[type, str, Callable[[Any], Any]]] = [
        (
            _CLASSES[endpoint.resource],
            name,
            functools.partial(_patched_method, endpoint, name, cached),
        )
        for endpoint, name, cached in CACHED_METHODS
    ]
    # On the clients themselves, where others put theirs: beneath those ours would not be called.
    places.append((AsyncOpenAI, "request", _patched_request))
    places.append((OpenAI, "request", _patched_sync_request))
    places.extend((owner, "stream", watched_helper) for owner in _HELPED)
    for owner, name, made in places:
        if (owner, name) not in there and hasattr(owner, name):  # older SDKs lack some
            original = vars(owner).get(name)
            ours = made(_inherited(owner, name) if original is None else original)
            setattr(owner, name, ours)
            _patches.append(_Patch(owner, name, original, ours))


def unpatch_all() -> None:
    """Put the SDK's own back; what others have put on top of ours stays."""
    _patches[:] = [patch for patch in _patches if not patch.undo()]


def _inherited(owner: type, name: str) -> Any:
    """Return a method that calls what the class above has by then, as somebody may patch it."""

    @functools.wraps(getattr(owner, name))
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        above = cast("Any", super(owner, self))
        return getattr(above, name)(*args, **kwargs)

    return method


def _bound(original: Any, owner: object) -> Any:
    """Bind a method, which may be somebody's object: those tell by this who is called."""
    return original.__get__(owner, type(owner))


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
            return await _bound(original, self)(*args, **kwargs)
        client = client_cache_of(self._client)
        of, made = client.methods.get(id(original), (None, None))
        if made is None or of is not original:
            made = cached(client, endpoint, name, _bound(original, self), latest=False).method()
            client.methods[id(original)] = (original, made)
        return await made(*args, **kwargs)

    return method


def _patched_request(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def request(
        self: Any, cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
    ) -> Any:
        send, sending = _bound(original, self), current_sending()
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
        send, sending = _bound(original, self), current_sending()
        if sending is not None:
            options = sending.note(options)
        elif not passes():
            send = SyncCachedRequest(client_cache_of(self), send).send_now
        return send(cast_to, options, stream=stream, stream_cls=stream_cls)

    return request
