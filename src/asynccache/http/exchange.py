"""The one place where requests of HTTP clients are answered, whichever library sends them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from msgspec import UNSET, Struct
from msgspec.structs import replace

from asynccache.cache.facade import (
    Answer,
    AsyncCache,
    Bypass,
    Caller,
    CallRequest,
    ChunkSource,
    Flight,
    Judging,
    NotSharedError,
    Options,
    Outcome,
    Reader,
    Status,
    WaitedTooLongError,
    behind,
    current_cache,
    current_options,
    is_watched,
    resolve,
    watch,
)
from asynccache.entries.entry import Entry
from asynccache.errors import NotCanonicalError
from asynccache.http.request import HttpCall, Question, keyed, question_of
from asynccache.providers.answers import Received, meta_of
from asynccache.providers.failures import scope_of
from asynccache.providers.recording import StreamRecorder
from asynccache.providers.refusal import RefusedError
from asynccache.providers.secrets import repeats
from asynccache.providers.sending import PAST, Sending, current_sending
from asynccache.providers.wire import WireRequest
from asynccache.runtime.draining import drained

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")

STANDS_STILL: Final = (
    "a synchronous client was called in the thread of an event loop that is making the same call,"
    " and stands still meanwhile: use an asynchronous client there, or asyncio.to_thread"
)
_CHANGED: Final = "something changes requests on their way"
_GOOD: Final = range(200, 300)


class WireAnswer(Struct, frozen=True):
    """A response as an HTTP library got it, its body still to be read."""

    status: int
    headers: Mapping[str, str]
    """By names that are found without regard to case."""
    received: Received
    pieces: AsyncIterable[bytes]
    """Of the body, decoded."""
    aclose: Any
    """Closes the response; to be awaited."""


class ResponseHead(Struct, frozen=True):
    """What a response has beside its body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    extensions: Mapping[str, Any]
    status_of: Status | None = None
    """Where it came from; None for an error."""


class LibraryRequest(Protocol[R_co]):
    """One request of one HTTP library: what its own code has to do for it."""

    @property
    def patience(self) -> float:
        """Seconds that the caller would wait for the response, or for the next piece of it."""
        ...

    def past(self) -> Awaitable[R_co]:
        """Send the request as it came."""
        ...

    def send(self) -> Awaitable[WireAnswer]:
        """Send the request for an entry."""
        ...

    def response(self, head: ResponseHead, body: bytes | ChunkSource) -> R_co:
        """Return a response of the library's."""
        ...

    def timed_out(self) -> Exception:
        """Return the library's error for a caller who waited as long as it would."""
        ...

    def own_error(self, error: Exception) -> Exception:
        """Return the library's error for what ended a call; one that is no library's as it is."""
        ...


class HttpCache:
    """Answers the requests of HTTP clients.

    Args:
        cache: The cache that a client was wrapped with; None for the current one of each request.
        upstream: A name that takes the address's place in keys.
    """

    def __init__(self, cache: AsyncCache | None = None, upstream: str | None = None) -> None:
        self._own = cache
        self._upstream = upstream

    @property
    def whose(self) -> tuple[AsyncCache | None, str | None]:
        """What a client was wrapped with."""
        return self._own, self._upstream

    def in_force(self) -> tuple[AsyncCache | None, Options]:
        """Return the cache that a request goes to, None for none, and the options in force."""
        options = current_options()
        own = self._own
        return current_cache() if own is None or options.cache is not UNSET else own, options

    def is_asked(self) -> bool:
        """Tell whether requests have anything to do with a cache, at the least cost."""
        return current_sending() is None and self.in_force()[0] is not None

    def question(self, wire: WireRequest) -> Question | None:
        """Return what a request asks for; None for one that is none of ours. In any thread."""
        return question_of(wire)

    def going_past(self, reason: str | None) -> Bypass | None:
        """Return the bypass of a request that goes past the cache, None for one that doesn't.

        Works in any thread. ``reason`` is why all do now.
        """
        cache, options = self.in_force()
        if cache is None:
            return None
        found = behind(cache)
        if reason is not None:
            return Bypass(found, found.mode(options), reason)
        return found.bypass(options)

    async def answer(self, request: LibraryRequest[R], question: Question) -> R:
        """Return the response to a request: stored, shared with others, or from upstream.

        Raises:
            ReplayMiss: Nothing is stored for it, in mode "replay".
            Exception: What the library raises.
        """
        cache, options = self.in_force()
        if cache is None:
            return await request.past()
        scope = resolve(cache, options)
        if isinstance(scope, Bypass):
            return await self.bypass(scope, request, question)
        engine = scope.engine
        if engine.pacer.spent():
            await engine.pacer.slot()
        try:
            call = keyed(question, scope, self._upstream)
        except NotCanonicalError as exc:
            past = Bypass(scope.cache, scope.mode, f"{question.path}: {exc}")
            return await self.bypass(past, request, question)
        entry = engine.peek(scope.mode, scope.namespace, call.key)
        if isinstance(entry, Entry):
            return self._hit(request, call, entry)
        if scope.cache.stands_still(call.key):
            past = Bypass(scope.cache, scope.mode, STANDS_STILL)
            return await self.bypass(past, request, question)
        return await self._fetch(request, call, missing=entry is None)

    async def bypass(self, past: Bypass, request: LibraryRequest[R], question: Question) -> R:
        """Send a request past the cache, counted; a reason is logged once.

        Raises:
            ReplayMiss: In mode "replay".
        """
        name = question.match.provider.name
        watcher = watch(past.cache.settings, question.path, question.model, provider=name)
        try:
            past.note(question.path)
            response = await PAST.over(request.past)
        except BaseException as exc:
            if watcher is not None:
                watcher.failed(exc)
            raise
        if watcher is not None:
            watcher.passed(past.reason)
        return response

    def note_answer(self) -> None:
        """Note that a request had an entry, or made one."""

    def _hit(self, request: LibraryRequest[R], call: HttpCall, entry: Entry) -> R:
        """Return the response to a request whose answer was at hand."""
        scope = call.scope
        self.note_answer()
        scope.engine.count_hit(entry)
        if is_watched(scope.cache.settings.observer):
            name = call.question.match.provider.name
            watcher = watch(scope.cache.settings, call.question.path, provider=name)
            if watcher is not None:
                watcher.served("hit", entry, scope.now())
        return _response(request, call, entry, "hit")

    async def _fetch(self, request: LibraryRequest[R], call: HttpCall, *, missing: bool) -> R:
        """Return the response to a request whose answer isn't at hand.

        ``missing`` is true where the engine knows that there is none: see `Engine.fetch`.
        """
        scope, question = call.scope, call.question
        engine = scope.engine
        watcher = watch(
            scope.cache.settings, question.path, question.model, call.key, call.paths,
            provider=question.match.provider.name,
        )  # fmt: skip
        caller = Caller(call.credentials, request.patience)
        reader: Reader | None = None
        try:
            if call.streaming:
                fetched, reader = await engine.read(_call_request(request, call, caller))
            else:
                fetched = await engine.fetch(
                    scope.mode, call.key, caller, lambda: _call_request(request, call, caller),
                    missing=missing,
                )  # fmt: skip
        except NotSharedError:
            past = Bypass(scope.cache, scope.mode, f"{question.path}: {_CHANGED}")
            return await self.bypass(past, request, question)
        except BaseException as exc:
            if watcher is not None:
                watcher.failed(exc)
            if (refusal := _refusal(exc)) is not None:
                return _refused(request, refusal)
            if isinstance(exc, Exception) and (error := _own_error(request, exc)) is not exc:
                raise error from (None if isinstance(exc, WaitedTooLongError) else exc)
            raise
        if watcher is not None:
            watcher.answered(fetched, reader, scope.now)
        self.note_answer()
        return _response(request, call, fetched.entry, fetched.outcome, reader, fetched.received)


# -- upstream ----------------------------------------------------------------------------------


def _call_request(request: LibraryRequest[Any], call: HttpCall, caller: Caller) -> CallRequest:
    """Return what the engine makes of a request."""
    scope = call.scope
    upstream = _Upstream(request, call)
    return CallRequest(
        namespace=scope.namespace,
        key=call.key,
        mode=scope.mode,
        upstream=upstream.streamed if call.streaming else upstream.plain,
        scope=scope_of,
        caller=caller,
        ttl=scope.ttl,
        store_if=scope.store_if,
        canonical=call.canonical,
        facts=call.prefix.digests,
        keep_request=scope.cache.settings.keep_requests,
        about=call.about if scope.mode == "replay" else "",
        judge=upstream.judge,
    )


class _Upstream:
    """Sends one request and records its answer."""

    __slots__ = ("_call", "_choices", "_judge", "_request")

    def __init__(self, request: LibraryRequest[Any], call: HttpCall) -> None:
        operation, data = call.question.match.operation, call.question.data
        self._request = request
        self._call = call
        self._choices = operation.choices(data)
        self._judge = None if operation.judge is None else operation.judge(data)

    def judge(self, answer: Answer) -> Judging | None:
        """Return what tells whether an answer is usable; None where there is nothing to judge."""
        if self._judge is None:
            return None
        return self._judge.work(answer.chunks, streamed=answer.meta.kind != "json")

    async def plain(self, flight: Flight) -> Answer:
        """Send a request whose answer is one JSON body."""
        response = await self._sent()
        body = await _whole(response)
        operation = self._call.question.match.operation
        facts = operation.read(body)
        flight.add(body)
        return self._answer(facts, response, "json", (body,), complete=facts.complete)

    async def streamed(self, flight: Flight) -> Answer:
        """Send a request whose answer is a stream."""
        response = await self._sent()
        call = self._call
        operation, engine = call.question.match.operation, call.scope.engine
        facts = operation.facts()
        kind = operation.streamed
        recorder = StreamRecorder(
            flight, facts, kind, self._choices, lambda: engine.give_up(flight)
        )
        kept = call.question.match.provider.kept_headers
        meta = meta_of(facts, response.status, response.headers, kind, kept)
        pieces = aiter(response.pieces)
        try:
            flight.start_body(meta, response.received)
            complete = await recorder.record(pieces)
            return self._answer(facts, response, kind, tuple(flight.chunks), complete=complete)
        finally:
            # In a task of its own, as this one may have been cancelled. No flight waits for it.
            engine.spawn(_finish(response, pieces if facts.closed else None))

    async def _sent(self) -> WireAnswer:
        """Send the request.

        Raises:
            RefusedError: The answer isn't 2xx.
        """
        response = await Sending(self._call.key).over(self._request.send)
        if response.status not in _GOOD:
            raise RefusedError(response.status, response.received, await _whole(response))
        return response

    def _answer(
        self,
        facts: Any,
        response: WireAnswer,
        kind: Any,
        chunks: tuple[bytes, ...],
        *,
        complete: bool,
    ) -> Answer:
        call = self._call
        kept = call.question.match.provider.kept_headers
        meta = meta_of(facts, response.status, response.headers, kind, kept)
        model = call.question.model
        if not meta.model and isinstance(model, str):
            meta = replace(meta, model=model)
        secrets = call.secrets
        return Answer(
            meta=meta,
            chunks=chunks,
            error=facts.error,
            filtered=facts.filtered,
            complete=complete,
            private=bool(secrets) and repeats(b"".join(chunks), secrets),
            received=response.received,
        )


async def _whole(response: WireAnswer) -> bytes:
    """Read the whole body of a response, and close it."""
    try:
        return b"".join([piece async for piece in response.pieces])
    finally:
        await response.aclose()


async def _finish(response: WireAnswer, rest: AsyncIterable[bytes] | None) -> None:
    """Close a response; after its end read what is left, so that the connection lives on."""
    with suppress(Exception):  # the answer is whole or given up: this can't matter to anybody
        try:
            if rest is not None:
                await drained(rest)
        finally:
            await response.aclose()


# -- responses ---------------------------------------------------------------------------------


def _response(
    request: LibraryRequest[R],
    call: HttpCall,
    entry: Entry,
    how: Outcome,
    reader: Reader | None = None,
    received: object = None,
) -> R:
    """Return an answer as a response of its library."""
    scope, meta = call.scope, entry.meta
    status = Status(how, entry.key, entry.created, scope.now(), scope.namespace)
    if isinstance(received, Received):
        headers, extensions = received.unframed(), received.extensions
    else:
        headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in meta.headers
        ]
        if meta.content_type:
            headers.insert(0, (b"content-type", meta.content_type.encode("latin-1")))
        extensions = {}
    head = ResponseHead(meta.status, headers, extensions, status)
    if call.streaming:
        return request.response(
            head, ChunkSource(reader or entry.chunks, partial(_own_error, request))
        )
    return request.response(head, entry.body)


def _own_error(request: LibraryRequest[Any], error: Exception) -> Exception:
    """Return the error of a request's library for what ended a call, or its caller's patience."""
    if isinstance(error, WaitedTooLongError):
        return request.timed_out()
    return request.own_error(error)


def _refusal(error: BaseException) -> RefusedError | None:
    """Return what the server said that an error stands for, whichever way in it comes from."""
    if isinstance(error, RefusedError):
        return error
    response: Any = getattr(error, "response", None)  # of the OpenAI SDK's errors
    if response is None or not hasattr(response, "status_code"):
        return None
    received = Received.of(response.headers.raw, response.extensions, None)
    return RefusedError(response.status_code, received, response.content)


def _refused(request: LibraryRequest[R], refusal: RefusedError) -> R:
    received = refusal.received
    return request.response(
        ResponseHead(refusal.status, received.unframed(), received.extensions), refusal.body
    )
