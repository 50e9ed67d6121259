"""The transport that answers from a cache, for clients of httpx and httpx2: both work alike."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any, Final, TypeVar, cast

from asynccache.cache.facade import ChunkSource
from asynccache.errors import AsyncCacheError
from asynccache.http.exchange import HttpCache
from asynccache.http.own_errors import to_raise
from asynccache.http.request import Question
from asynccache.http.upstream import ResponseHead, WireAnswer
from asynccache.providers.answers import Received
from asynccache.providers.failures import failure_of
from asynccache.providers.wire import METHOD, WireRequest, combined, of_httpx

T = TypeVar("T")

_BODILESS: Final = frozenset({204, 304})  # HTTP's own
_ERRORS: Final = {"timeout": "ReadTimeout", "connect": "ConnectError"}
"""The library's error for what went wrong; for all else it is `ReadError`."""


def wire_request(library: Any, request: Any) -> WireRequest:
    """Return a request as it is about to be sent.

    Args:
        library: httpx or httpx2.
        request: Of that.
    """
    try:
        body: bytes | None = request.content
    except RuntimeError:  # it is sent piece by piece, as an upload is, or again elsewhere
        whole = isinstance(request.stream, library.ByteStream)
        body = b"".join(request.stream) if whole else None
    return of_httpx(request, body)


def patience_of(request: Any) -> float:
    """Return seconds that a request's caller would wait for a response."""
    found = request.extensions.get("timeout", {}).get("read")
    return math.inf if found is None else float(found)


class HttpxRequest:
    """One request of an asynchronous client of httpx or httpx2.

    Args:
        library: Which of the two.
        request: The request.
        inner: The transport that sends it.
    """

    def __init__(self, library: ModuleType, request: Any, inner: Any) -> None:
        self._library: Final[Any] = library
        self._request: Final = request
        self._inner: Final = inner

    @property
    def patience(self) -> float:
        return patience_of(self._request)

    async def past(self) -> Any:
        return await self._inner.handle_async_request(self._request)

    async def send(self, body: bytes | None) -> WireAnswer:
        response = await self._inner.handle_async_request(self._with(body))
        response.request = self._request
        return wire_answer(response, response.aiter_bytes(), response.aclose)

    def _with(self, body: bytes | None) -> Any:
        """Return the request, or one like it with another body."""
        request = self._request
        if body is None:
            return request
        headers = [pair for pair in request.headers.raw if pair[0].lower() != b"content-length"]
        return self._library.Request(
            request.method, request.url, headers=headers, content=body,
            extensions=request.extensions,
        )  # fmt: skip

    def response(self, head: ResponseHead, body: bytes | ChunkSource) -> Any:
        return made_response(self._library, head, body, self._stream(body))

    def _stream(self, body: bytes | ChunkSource) -> Any:
        if isinstance(body, bytes):
            return self._library.ByteStream(body)
        return of_library(AnswerStream, self._library, "AsyncByteStream")(body)

    def timed_out(self) -> Exception:
        return self._error("ReadTimeout", "a call that was under way took too long to answer")

    def own_error(self, error: Exception) -> Exception:
        """Return an error of this library's for what ended a call, or that itself."""
        if isinstance(error, self._library.RequestError):
            known = cast("Any", error)
            known.request = self._request  # another caller may have sent the one it came of
            return cast("Exception", known)
        failure = failure_of(error)
        if failure is None:
            return error
        for base in (*type(error.__cause__).__mro__, *type(error).__mro__):
            kind = getattr(self._library, base.__name__, None)  # of the other library, alike
            if isinstance(kind, type) and issubclass(kind, self._library.RequestError):
                return self._error(kind.__name__, str(error))
        return self._error(_ERRORS.get(failure, "ReadError"), str(error) or type(error).__name__)

    def _error(self, kind: str, message: str) -> Exception:
        error: Exception = getattr(self._library, kind)(message, request=self._request)
        return error


def wire_answer(response: Any, pieces: Any, aclose: Any) -> WireAnswer:
    """Return a response whose body is still to be read."""
    received = Received.of(response.headers.raw, response.extensions, None)
    # As text that says each byte: httpx guesses what others mean.
    headers = combined(response.headers.raw)
    return WireAnswer(response.status_code, headers, received, pieces, aclose)


def made_response(library: Any, head: ResponseHead, body: bytes | ChunkSource, stream: Any) -> Any:
    """Return a response of the library's, whose body is decoded already."""
    headers = head.headers
    if isinstance(body, bytes) and head.status not in _BODILESS:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    response = library.Response(
        head.status, headers=headers, stream=stream, extensions=dict(head.extensions)
    )
    response._asynccache_status = head.status_of
    return response


class AnswerStream:
    """The chunks of an answer as the body of a response.

    Args:
        source: The chunks.
    """

    def __init__(self, source: ChunkSource) -> None:
        self._source = source

    async def __aiter__(self) -> AsyncIterator[bytes]:
        source = self._source
        while not source.closed and (chunks := await source.several()):
            yield b"".join(chunks)  # each piece costs the library a step

    async def aclose(self) -> None:
        self._source.close()


class AnsweringTransport:
    """What both kinds of transport have in common.

    Args:
        library: httpx or httpx2.
        inner: The transport that sends what isn't answered. Closing this closes it.
        http: Answers requests.
    """

    def __init__(self, library: ModuleType, inner: Any, http: HttpCache) -> None:
        self._library = library
        self._inner = inner
        self._http = http

    def _question(self, request: Any) -> Question | None:
        """Return what a request asks for; None for one that is to be sent as it comes."""
        http = self._http
        if request.method != METHOD or not http.is_asked():
            return None
        return http.question(wire_request(self._library, request))


class CacheTransport(AnsweringTransport):
    """A transport that answers cacheable requests from a cache, and sends all others as they come.

    It is made by `AsyncCache.transport`.
    """

    async def handle_async_request(self, request: Any) -> Any:
        """Return the response to a request."""
        http, inner = self._http, self._inner
        question = self._question(request)
        if question is None:
            return await inner.handle_async_request(request)
        try:
            return await http.answer(HttpxRequest(self._library, request, inner), question)
        except AsyncCacheError as exc:
            raise to_raise(exc) from exc.__cause__

    async def aclose(self) -> None:
        """Close the transport beneath."""
        await self._inner.aclose()

    async def __aenter__(self) -> Any:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._inner.__aexit__(*error)


@functools.cache
def of_library(kind: type[T], library: ModuleType, base: str) -> type[T]:
    """Return a class of ours that is one of the library's as well, which it checks for."""
    return type(kind.__name__, (kind, getattr(library, base)), {"__module__": kind.__module__})
