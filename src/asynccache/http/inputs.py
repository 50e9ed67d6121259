"""Embeddings at the HTTP client, input by input: how a request for some of its inputs is sent."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec.structs import replace

from asynccache.cache.facade import (
    Caller,
    ErrorScope,
    InputsAnswer,
    InputsJob,
    InputsRequest,
    InputsSender,
    ServerAnswer,
)
from asynccache.http.request import HttpCall
from asynccache.http.upstream import LibraryRequest, Upstream
from asynccache.providers import inputs
from asynccache.providers.failures import scope_of
from asynccache.providers.refusal import RefusedError
from asynccache.providers.sending import PAST


async def answered(request: LibraryRequest[Any], call: HttpCall) -> InputsAnswer | None:
    """Return the answer to a request for embeddings, its body put together.

    None is returned if a loop stands still that would have to bring it.

    Raises:
        NotCanonicalError: An input alone has no key.
        NotSharedError: A flight was joined whose answer is its starter's alone.
        BaseException: What the call upstream raised.
    """
    question, scope = call.question, call.scope
    settings = scope.cache.settings
    keys = inputs.keys_of(
        call.data,
        question.match.operation,
        lambda body: call.prefix.key(body, call.sample),
        ignore=settings.ignore,
        normalize=settings.normalize,
    )
    asked = InputsRequest(
        scope=scope,
        path=question.path,
        model=question.model,
        provider=question.match.provider.name,
        key=call.key,
        keys=keys,
        canonical=call.canonical,
        digests=call.prefix.digests,
        paths=call.paths,
        about=call.about,
    )
    found = await InputsJob(asked, _Sender(request, call), inputs).answer()
    if found is None or not found.items:
        return found
    body = inputs.assembled(found.head, found.items)
    return replace(found, told=replace(found.told, chunks=(body,)))


class _Sender(InputsSender):
    """Sends one request for embeddings.

    Args:
        request: The library's.
        call: The same with its key.
    """

    def __init__(self, request: LibraryRequest[Any], call: HttpCall) -> None:
        self._request = request
        self._call = call
        self._inputs = inputs.inputs_of(call.data[inputs.INPUT])
        self._upstream = Upstream(request, call)

    def caller(self) -> Caller:
        return Caller(self._call.credentials, self._request.patience)

    def prepare(self) -> None:
        """Do nothing: nobody can change what was read of a request's bytes."""

    async def until_answered(self, attempt: Callable[[], Awaitable[None]]) -> None:
        await attempt()  # whoever sends the request makes more of them

    async def send(self, places: Sequence[int] | None, keys: Sequence[bytes]) -> ServerAnswer:
        body: bytes | None = None
        if places is not None:
            some = {**self._call.data, inputs.INPUT: [self._inputs[at] for at in places]}
            body = json.dumps(some, ensure_ascii=False, separators=(",", ":")).encode()
        return await self._upstream.part(body)

    async def send_past(self) -> ServerAnswer:
        return await PAST.over(lambda: self._upstream.part(None))

    def size(self, place: int) -> int:
        return inputs.size_of(self._inputs[place])

    def scope_of(self, error: BaseException, *, together: bool) -> ErrorScope:
        whose = scope_of(error)
        refused = isinstance(error, RefusedError) and error.is_of_request
        # What is wrong with one input is no fault of those that others ask for too.
        return "request" if together and refused else whose

    def is_sent(self, key: bytes) -> bool:
        """Return True: what is beneath the client's transport sends what it is given."""
        return True
