"""The one place where requests of HTTP clients are answered, whichever library sends them."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, TypeVar

from msgspec import UNSET

from asynccache.cache.facade import (
    AsyncCache,
    Bypass,
    Caller,
    CallRequest,
    ChunkSource,
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
from asynccache.http.inputs import answered
from asynccache.http.request import HttpCall, Question, keyed, question_of
from asynccache.http.upstream import LibraryRequest, ResponseHead, Upstream
from asynccache.providers.answers import Received
from asynccache.providers.failures import scope_of
from asynccache.providers.refusal import RefusedError
from asynccache.providers.sending import PAST, current_sending
from asynccache.providers.wire import WireRequest

R = TypeVar("R")

STANDS_STILL: Final = (
    "a synchronous client was called in the thread of an event loop that is making the same call,"
    " and stands still meanwhile: use an asynchronous client there, or asyncio.to_thread"
)
_CHANGED: Final = "something changes requests on their way"


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
        if question.match.operation.inputs and not question.is_signed:
            return await self._inputs(request, call)
        entry = engine.peek(scope.mode, scope.namespace, call.key)
        if isinstance(entry, Entry):
            return self._hit(request, call, entry)
        if scope.cache.stands_still(call.key):
            return await self._past(request, call, STANDS_STILL)
        return await self._fetch(request, call, missing=entry is None)

    async def bypass(self, past: Bypass, request: LibraryRequest[R], question: Question) -> R:
        """Send a request past the cache, counted; a reason is logged once.

        Raises:
            ReplayMiss: In mode "replay".
        """
        path, name = question.path, question.match.provider.name
        with past.watched(path, question.model, provider=name, what=path):
            return await PAST.over(request.past)

    async def _past(self, request: LibraryRequest[R], call: HttpCall, reason: str) -> R:
        """Send a request past the cache whose key turned out to be of no use."""
        scope = call.scope
        if reason is not STANDS_STILL:
            reason = f"{call.question.path}: {reason}"
        return await self.bypass(Bypass(scope.cache, scope.mode, reason), request, call.question)

    async def _inputs(self, request: LibraryRequest[R], call: HttpCall) -> R:
        """Return the response to a request each of whose inputs is an entry."""
        try:
            found = await answered(request, call)
        except (NotSharedError, NotCanonicalError) as exc:
            reason = _CHANGED if isinstance(exc, NotSharedError) else str(exc)
            return await self._past(request, call, reason)
        except BaseException as exc:  # noqa: BLE001 - it is raised as the library has it
            call.give_back()
            return _failed(request, exc)
        if found is None:
            return await self._past(request, call, STANDS_STILL)
        self.note_answer()
        entry, received = found.told, found.received
        return _response(request, call, entry, found.outcome, received=received, parts=found.parts)

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
            return await self._past(request, call, _CHANGED)
        except BaseException as exc:  # noqa: BLE001 - as in `_inputs`
            if watcher is not None:
                watcher.failed(exc)
            call.give_back()
            return _failed(request, exc)
        if watcher is not None:
            watcher.answered(fetched, reader, scope.now)
        self.note_answer()
        return _response(request, call, fetched.entry, fetched.outcome, reader, fetched.received)


# -- upstream ----------------------------------------------------------------------------------


def _call_request(request: LibraryRequest[Any], call: HttpCall, caller: Caller) -> CallRequest:
    """Return what the engine makes of a request."""
    scope = call.scope
    upstream = Upstream(request, call)
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


# -- responses ---------------------------------------------------------------------------------


def _response(
    request: LibraryRequest[R],
    call: HttpCall,
    entry: Entry,
    how: Outcome,
    reader: Reader | None = None,
    received: object = None,
    parts: tuple[bytes, ...] = (),
) -> R:
    """Return an answer as a response of its library."""
    scope, meta = call.scope, entry.meta
    status = Status(how, entry.key, entry.created, scope.now(), scope.namespace, parts)
    if isinstance(received, Received):
        headers, extensions = received.unframed(), received.extensions
    else:
        headers = [(name.encode(), _bytes(value)) for name, value in meta.headers]
        if meta.content_type:
            headers.insert(0, (b"content-type", _bytes(meta.content_type)))
        extensions = {}
    head = ResponseHead(meta.status, headers, extensions, status)
    if call.streaming:
        return request.response(
            head, ChunkSource(reader or entry.chunks, partial(_own_error, request))
        )
    return request.response(head, entry.body)


def _failed(request: LibraryRequest[R], error: BaseException) -> R:
    """Return the response that an error stands for, or raise what its library has for it."""
    if (refusal := _refusal(error)) is not None:
        return _refused(request, refusal)
    if isinstance(error, Exception) and (own := _own_error(request, error)) is not error:
        raise own from (None if isinstance(error, WaitedTooLongError) else error)
    raise error


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


def _bytes(value: str) -> bytes:
    """Return a stored header's bytes; the OpenAI SDK's methods store what its library has read."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode()
