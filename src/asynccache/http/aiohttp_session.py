"""The middleware that answers from a cache, for sessions of aiohttp 3.12 and later.

aiohttp has no public way to make a response, so this is the one file that knows how it does so.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import functools
import http.client
import inspect
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar, cast

import aiohttp
from aiohttp.helpers import TimerNoop
from aiohttp.payload import BytesPayload
from msgspec import Struct
from multidict import CIMultiDict, CIMultiDictProxy

from asynccache.cache.facade import ChunkSource
from asynccache.http.exchange import HttpCache
from asynccache.http.upstream import ResponseHead, WireAnswer
from asynccache.providers.answers import Received
from asynccache.providers.failures import ClientClosedError, failure_of
from asynccache.providers.table import is_endpoint
from asynccache.providers.wire import WireRequest, steady
from asynccache.runtime.background import run_now

SessionT = TypeVar("SessionT", bound=aiohttp.ClientSession)
Handler = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]

_METHOD: Final = "POST"
REQUEST: Final = "_request"
"""The method of a session that all its others call."""
_SESSIONS: Final = "_asynccache_sessions"
"""Where a connector keeps the sessions that share it, and what they were wrapped with."""
_ENDLESS: Final = 2**40
"""A reader's limit: what it gives is in memory already."""
_ENCODED: Final = "the session takes bodies as they are compressed (auto_decompress=False)"


class Given(Struct, frozen=True):
    """What of a request's options its middlewares aren't told."""

    sock_read: float | None
    """Seconds that its caller would wait for the next piece of a response."""
    decoded: bool
    """Whether it gets bodies decompressed."""

    @classmethod
    def of(cls, session: aiohttp.ClientSession, options: Mapping[str, Any]) -> Given:
        """Return what holds for a request with such options."""
        timeout = options.get("timeout", session.timeout)
        decoded = options.get("auto_decompress")
        return cls(
            # A number is a limit for the whole, which aiohttp keeps by itself.
            timeout.sock_read if isinstance(timeout, aiohttp.ClientTimeout) else None,
            session.auto_decompress if decoded is None else decoded,
        )


class CacheMiddleware:
    """Answers a session's cacheable requests, and hands on all others as they come.

    Args:
        http: Answers requests.
        given: Tells what holds for the one request that this is for; None for any of a session's.
    """

    def __init__(self, http: HttpCache, given: Callable[[], Given] | None = None) -> None:
        self._http = http
        self._given = given

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: Handler
    ) -> aiohttp.ClientResponse:
        http = self._http
        if request.method != _METHOD or not http.is_asked():
            return await handler(request)
        if not is_endpoint(request.url.raw_path):
            return await handler(request)
        payload: Any = request.body
        # Others are sent piece by piece, as uploads are.
        body = bytes(payload._value) if isinstance(payload, BytesPayload) else None
        question = http.question(_wire_request(request, body))
        if question is None:
            return await handler(request)
        given = Given.of(request.session, {}) if self._given is None else self._given()
        asked = AiohttpRequest(request, handler, given)
        accepted = request.headers.get("accept-encoding", "identity")
        if not given.decoded and accepted != "identity":
            past = http.going_past(_ENCODED)
            if past is not None:
                return await http.bypass(past, asked, question)
        return await http.answer(asked, question)


def options_with(
    http: HttpCache, session: aiohttp.ClientSession, method: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the options of a request with the middleware added, innermost.

    Args:
        http: Answers requests.
        session: The session that sends it.
        method: The request's.
        options: What ``session._request`` is called with besides.
    """
    if method.upper() != _METHOD or not http.is_asked():
        return options
    given = options.get("middlewares")
    # aiohttp takes a request's middlewares instead of the session's.
    around = getattr(session, "_middlewares", ()) if given is None else given
    ours = CacheMiddleware(http, functools.partial(Given.of, session, options))
    return {**options, "middlewares": (*around, ours)}


def wrapped_session(session: SessionT, http: HttpCache) -> SessionT:
    """Return a copy of a session whose requests go through a cache; both share connections."""
    require_middlewares()
    # aiohttp complains of a session that is collected before its connector was closed. So all that
    # share one live as long as that; two that would be equal are one.
    connector = session.connector
    shared: dict[Any, Any]
    shared = {} if connector is None else vars(connector).setdefault(_SESSIONS, {})
    known = (id(session), http.whose)
    if known in shared and not shared[known][1].closed:
        return cast("SessionT", shared[known][1])
    twin = copy.copy(session)

    async def request(method: str, url: Any, **options: Any) -> Any:
        asked = options_with(http, twin, method, options)
        return await getattr(type(twin), REQUEST)(twin, method, url, **asked)

    vars(twin)[REQUEST] = request
    shared[known] = (session, twin)
    return twin


def require_middlewares() -> None:
    """Check that aiohttp is recent enough.

    Raises:
        ImportError: It isn't.
    """
    if not hasattr(aiohttp, "ClientMiddlewareType"):
        raise ImportError(
            f"aiohttp {aiohttp.__version__} has no middlewares, with which its requests are"
            " cached: run pip install 'aiohttp>=3.12'"
        )


def _wire_request(request: aiohttp.ClientRequest, body: bytes | None) -> WireRequest:
    """Return a request as it is about to be sent."""
    url = request.url
    raw = [
        (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
        for name, value in request.headers.items()
    ]
    return WireRequest(
        method=request.method,
        scheme=url.scheme,
        host=url.host_port_subcomponent or "",
        path=url.raw_path,
        query=url.raw_query_string,
        user_info="",  # aiohttp makes a header of it
        headers=steady(raw),
        body=body,
    )


class AiohttpRequest:
    """One request of a session.

    Args:
        request: The request.
        handler: Sends it.
        given: What else holds for it.
    """

    def __init__(self, request: aiohttp.ClientRequest, handler: Handler, given: Given) -> None:
        self._request: Final[Any] = request
        self._handler: Final = handler
        self._given: Final = given
        self._timer = self._request._timer
        """Ends what the caller waits for after the time that is set for the whole request."""

    @property
    def patience(self) -> float:
        return self._given.sock_read or math.inf

    async def past(self) -> aiohttp.ClientResponse:
        return await self._handler(self._request)

    async def send(self, body: bytes | None) -> WireAnswer:
        try:
            response = await self._handler(self._with(body))
        except aiohttp.ClientError as exc:
            self._blame(exc)
            raise
        if hasattr(response.content, "_timer"):  # an empty body has none
            response.content._timer = TimerNoop()
        version = response.version or aiohttp.HttpVersion11
        said = {
            "http_version": f"HTTP/{version.major}.{version.minor}".encode(),
            "reason_phrase": (response.reason or "").encode(),
        }

        async def aclose() -> None:
            response.release()

        raw = response.raw_headers
        # As text that is those bytes again: what is stored of them has to be sent as it came.
        headers = CIMultiDict(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in raw
        )
        return WireAnswer(
            response.status,
            headers,
            Received.of(raw, said, None),
            self._pieces(response),
            aclose,
        )

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Return the pieces of a response's body."""
        content = response.content
        protocol = None if response.connection is None else response.connection.protocol
        closed = None if protocol is None else protocol.closed

        def lost(future: asyncio.Future[None]) -> None:
            """Wake who waits for a piece: aiohttp doesn't, where it closes the connection."""
            if not future.cancelled():
                future.exception()
            if not content.is_eof() and content.exception() is None:
                content.set_exception(aiohttp.ClientConnectionError("the connection was closed"))

        if closed is not None:
            closed.add_done_callback(lost)
        try:
            async for piece in content.iter_any():
                yield piece
        except aiohttp.ClientError as exc:
            self._blame(exc)
            raise
        finally:
            if closed is not None:  # the connection may live on for other requests
                closed.remove_done_callback(lost)

    def _blame(self, error: aiohttp.ClientError) -> None:
        """Say of an error that closing the session was its cause, if it was."""
        if self._request.session.closed:
            error.__cause__ = ClientClosedError()

    def _with(self, body: bytes | None) -> Any:
        """Return the request, or one like it with another body, as it is sent for all who wait."""
        request = self._request
        if body is not None:
            request = copy.copy(request)
            request.headers = request.headers.copy()
            request.headers.popall("content-length", None)
            request.update_body_from_data(body)
        request._timer = TimerNoop()  # the caller's time is not the others'
        return request

    def response(self, head: ResponseHead, body: bytes | ChunkSource) -> aiohttp.ClientResponse:
        request = self._request
        kind = request.response_class
        known = {
            "writer": None,
            "continue100": None,
            "timer": self._timer,
            "request_info": request.request_info,
            "traces": request._traces,
            "loop": request.loop,
            "session": request.session,
            "stream_writer": _Sent,
        }
        more = {name: known.get(name) for name in _arguments(kind, frozenset(known))}
        response = kind(request.method, request.original_url, **more)
        run_now(response.start(cast("Any", AnswerConnection(self, head, body))))
        response._asynccache_status = head.status_of
        return cast("aiohttp.ClientResponse", response)

    def timed_out(self) -> Exception:
        return aiohttp.SocketTimeoutError("a call that was under way took too long to answer")

    def own_error(self, error: Exception) -> Exception:
        """Return an error of aiohttp's for what ended a call, or that itself."""
        failure = failure_of(error)
        if failure is None or isinstance(error, aiohttp.ClientError | TimeoutError):
            return error
        message = str(error) or type(error).__name__
        if failure == "timeout":
            return aiohttp.SocketTimeoutError(message)
        if failure == "connect":
            refused = OSError(errno.ECONNREFUSED, message)
            return aiohttp.ClientConnectorError(self._request.connection_key, refused)
        return aiohttp.ClientConnectionError(message)


class _Sent:
    """Stands where a response has what wrote its request."""

    output_size = 0


@functools.lru_cache(maxsize=64)
def _arguments(kind: type, known: frozenset[str]) -> frozenset[str]:
    """Return the names of the arguments that a class of responses is called with.

    aiohttp has had more of them over time. One that isn't known here, and has to be there, gets
    None.
    """
    parameters = inspect.signature(kind).parameters.values()
    asked = frozenset(
        one.name
        for one in parameters
        if one.kind is one.KEYWORD_ONLY and (one.name in known or one.default is one.empty)
    )
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return asked | _arguments(aiohttp.ClientResponse, known)
    return asked


class _Message(Struct, frozen=True):
    """The head of a response, as aiohttp's parser gives it."""

    version: Any
    code: int
    reason: str
    headers: Any
    raw_headers: tuple[tuple[bytes, bytes], ...]


class AnswerConnection:
    """Stands where a response has its connection and that connection's protocol.

    Args:
        request: The request that is answered.
        head: What the response has beside its body.
        body: Its body.
    """

    connected = True
    upgraded = False
    transport = None
    _reading_paused = False

    def __init__(
        self, request: AiohttpRequest, head: ResponseHead, body: bytes | ChunkSource
    ) -> None:
        self._callbacks: list[Callable[[], None]] = []
        self._head = head
        self.reader = AnswerReader(self, request, body)

    @property
    def protocol(self) -> AnswerConnection:
        return self

    async def read(self) -> tuple[_Message, aiohttp.StreamReader]:
        """Return the response: its head, and what gives its body."""
        head = self._head
        raw = list(head.headers)
        if self.reader.whole is not None:
            raw.append((b"content-length", b"%d" % len(self.reader.whole)))
        headers = CIMultiDict(
            (name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape"))
            for name, value in raw
        )
        said = head.extensions.get("reason_phrase", b"").decode("utf-8", "surrogateescape")
        reason = said or http.client.responses.get(head.status, "")
        message = _Message(
            aiohttp.HttpVersion11, head.status, reason, CIMultiDictProxy(headers), tuple(raw)
        )
        return message, self.reader

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have something called once the response is over, as aiohttp's timers are ended."""
        self._callbacks.append(callback)

    def release(self) -> None:
        """Note that the response is over: its body was read, or nobody wants it."""
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
        self.reader.leave()

    close = release

    def pause_reading(self, *_: object, **__: object) -> None:
        """Do nothing, as the reader asks for what it gives."""

    resume_reading = pause_reading


class AnswerReader(aiohttp.StreamReader):
    """The body of a response. The chunks of a stream are taken one by one, as they are read.

    Args:
        connection: What it belongs to.
        request: The request that is answered.
        body: The whole body, or the chunks of a stream.
    """

    __slots__ = ("_source", "whole")

    def __init__(
        self, connection: AnswerConnection, request: AiohttpRequest, body: bytes | ChunkSource
    ) -> None:
        raw = request._request
        super().__init__(
            cast("Any", connection), _ENDLESS, timer=request._timer, loop=raw.loop
        )  # fmt: skip
        self.whole = body if isinstance(body, bytes) else None
        self._source = None if isinstance(body, bytes) else body
        if isinstance(body, bytes):
            self.feed_data(body)
            self.feed_eof()
        else:
            self.begin_http_chunk_receiving()

    def leave(self) -> None:
        """Read no more."""
        if self._source is not None:
            self._source.close()

    async def wait_eof(self) -> None:
        """Wait until the whole body is there."""
        while not self.is_eof():
            await self._wait("wait_eof")

    async def _wait(self, func_name: str) -> None:
        source = self._source
        if source is None:
            return
        try:
            with self._timer:
                chunks = await source.several()
        except Exception as exc:
            self.set_exception(exc)
            raise
        for chunk in chunks:
            self.feed_data(chunk)
            self.end_http_chunk_receiving()
        if not chunks:
            self.feed_eof()
