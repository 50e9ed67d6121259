"""The same transport for synchronous clients: their requests wait for the background loop."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from asynccache.cache.facade import ChunkSource
from asynccache.errors import AsyncCacheError
from asynccache.http.httpx_transport import (
    AnsweringTransport,
    HttpxRequest,
    of_library,
    wire_answer,
)
from asynccache.http.own_errors import to_raise
from asynccache.http.request import Question
from asynccache.http.upstream import WireAnswer
from asynccache.runtime import background
from asynccache.runtime.background import BlockedCaller, run_now
from asynccache.runtime.threaded import ThreadedBody

_IN_BACKGROUND = (
    "a synchronous client was called in the cache's own background loop, where an observer or a"
    " store_if runs: it can't wait for itself"
)


class BlockedHttpxRequest(HttpxRequest):
    """One request of a synchronous client: it is sent in the thread that waits for it.

    Args:
        library: httpx or httpx2.
        request: The request.
        inner: The transport that sends it.
        caller: The thread that waits.
    """

    def __init__(
        self, library: ModuleType, request: Any, inner: Any, caller: BlockedCaller
    ) -> None:
        super().__init__(library, request, inner)
        self._caller = caller

    async def past(self) -> Any:
        return await self._caller.run(lambda: self._inner.handle_request(self._request))

    async def send(self, body: bytes | None) -> WireAnswer:
        request = self._with(body)
        response = await self._caller.run(lambda: self._inner.handle_request(request))
        response.request = self._request
        pieces = ThreadedBody(response, response.iter_bytes(), response.close)
        return wire_answer(response, pieces, pieces.aclose)

    def _stream(self, body: bytes | ChunkSource) -> Any:
        if isinstance(body, bytes):
            return super()._stream(body)
        return of_library(SyncAnswerStream, self._library, "SyncByteStream")(body)


class _PassedRequest(HttpxRequest):
    """One request that goes past the cache: it is sent at once, in the calling thread."""

    async def past(self) -> Any:
        return self._inner.handle_request(self._request)


class SyncAnswerStream:
    """The chunks of an answer as the body of a synchronous response.

    Args:
        source: The chunks; live ones belong to the background loop.
    """

    def __init__(self, source: ChunkSource) -> None:
        self._source = source

    def __iter__(self) -> Iterator[bytes]:
        source = self._source
        if not source.live:
            while not source.closed and (chunk := source.ready()) is not None:
                yield chunk
            return
        while not source.closed and (chunks := background.call(source.several)):
            yield from chunks

    def close(self) -> None:
        # Without waiting: the collector may call this anywhere, holding whatever lock.
        self._source.close_anywhere()


class SyncCacheTransport(AnsweringTransport):
    """A transport that answers cacheable requests from a cache, and sends all others as they come.

    It is made by `SyncCache.transport`.
    """

    def handle_request(self, request: Any) -> Any:
        """Return the response to a request."""
        question = self._question(request)
        if question is None:
            return self._inner.handle_request(request)
        try:
            return self._answer(request, question)
        except AsyncCacheError as exc:
            raise to_raise(exc) from exc.__cause__

    def _answer(self, request: Any, question: Question) -> Any:
        http, inner, library = self._http, self._inner, self._library
        past = http.going_past(_IN_BACKGROUND if background.in_background_loop() else None)
        if past is not None:
            return run_now(http.bypass(past, _PassedRequest(library, request, inner), question))
        caller = BlockedCaller()
        return caller.call(
            http.answer, BlockedHttpxRequest(library, request, inner, caller), question
        )

    def close(self) -> None:
        """Close the transport beneath."""
        self._inner.close()

    def __enter__(self) -> Any:
        self._inner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._inner.__exit__(*error)
