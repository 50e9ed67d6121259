"""The one place where a client's calls are answered, by whichever way in they come."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import UNSET

from asynccache.cache.facade import (
    AsyncCache,
    Bypass,
    Caller,
    CallRequest,
    CallWatch,
    Fetched,
    NotSharedError,
    Options,
    Outcome,
    Reader,
    Scope,
    Status,
    behind,
    current_options,
    is_watched,
    resolve,
    status_of,
    watch,
)
from asynccache.entries.entry import Entry
from asynccache.errors import NotCanonicalError
from asynccache.openai.client import sdk, sdk_responses
from asynccache.openai.client.address import RequestAddress
from asynccache.openai.client.attempts import Attempts
from asynccache.openai.client.call import KeyedCall, WayIn
from asynccache.openai.client.endpoints import Endpoint
from asynccache.openai.client.parsing import mark, note_parsing, parsing_of
from asynccache.openai.client.replay import FINISH, built
from asynccache.openai.client.upstream import OutboundCheck, UpstreamCall, check_of
from asynccache.providers.answers import Received
from asynccache.providers.bodies import keyed_form
from asynccache.providers.sending import PAST, is_beneath
from asynccache.providers.table import name_at

STANDS_STILL: Final = (
    "a synchronous client was called in the thread of an event loop that is making the same call,"
    " and stands still meanwhile: use AsyncOpenAI there, or asyncio.to_thread"
)
CHANGED: Final = "something changes requests on their way"


class ClientCache:
    """Answers one client's calls.

    Args:
        client: The SDK's, synchronous or not.
        endpoints: Those whose answers are cached, by their paths.
        cache: The cache it was wrapped with; None for none.
        upstream: A name that takes the base URL's place in keys.
    """

    def __init__(
        self,
        client: Any,
        endpoints: Mapping[str, Endpoint],
        cache: AsyncCache | None = None,
        upstream: str | None = None,
    ) -> None:
        self.client = client
        self.endpoints = endpoints
        self._own = cache
        self._upstream = upstream
        self._opaque = sdk.changes_requests(client)
        self._addresses: dict[tuple[str, frozenset[str]], RequestAddress] = {}

    @property
    def provider(self) -> str:
        """Who is asked, as far as the client's address tells."""
        netloc = urlsplit(str(self.client._base_url)).netloc
        return name_at(netloc.rpartition("@")[2]) or "openai"

    def in_force(self) -> tuple[AsyncCache | None, Options]:
        """Return the cache that a call goes to, None for none, and the options in force."""
        options = current_options()
        return self._own if options.cache is UNSET else options.cache, options

    async def answer(self, way: WayIn, given: Any, path: str, endpoint: Endpoint | None) -> Any:
        """Return the result of a call: stored, shared with others, from upstream, or past a cache.

        Args:
            way: How it came.
            given: The call as it came.
            path: Of its endpoint, below the base URL.
            endpoint: None for one whose answers aren't cached.
        """
        cache, options = self.in_force()
        if cache is None:
            return await way.past(given)
        if endpoint is None:
            return await self.bypass(_uncached(cache, options, None), way, given, path)
        found = resolve(cache, options)
        if isinstance(found, Bypass):
            return await self.bypass(found, way, given, path)
        engine = found.engine
        if engine.pacer.spent():
            await engine.pacer.slot()
        try:
            call = self._call(found, way, given, endpoint)
        except NotCanonicalError as exc:
            past = Bypass(found.cache, found.mode, f"{path}: {exc}")
            return await self.bypass(past, way, given, path)
        if call is None:
            return await way.past(given)  # the SDK says best what is wrong with it
        if endpoint.parts is not None:
            result = await endpoint.parts(self, call)
        elif isinstance(entry := engine.peek(found.mode, found.namespace, call.key), Entry):
            result = self._hit(call, entry)
        else:
            result = await self._fetch(call, missing=entry is None)
        return await self._processed(call, result) if call.form.strange else result

    def _call(self, scope: Scope, way: WayIn, given: Any, endpoint: Endpoint) -> KeyedCall | None:
        """Return what is asked for, and its key; None where only the SDK can tell.

        Raises:
            NotCanonicalError: The request has no key.
        """
        if self._opaque is not None:
            raise NotCanonicalError(self._opaque)
        read = way.read(given)
        if read is None:
            return None
        data, canonical, headers, query, streaming, form = read
        settings, operation = scope.cache.settings, endpoint.operation
        canonical, secrets = keyed_form(
            data,
            canonical,
            operation=operation,
            ignore=settings.ignore,
            normalize=settings.normalize,
        )
        address = self._addresses.get((endpoint.path, settings.ignore_headers))
        if address is None:
            ignore = settings.ignore_headers
            address = RequestAddress(
                self.client, endpoint.path, endpoint.operation, self._upstream, ignore
            )
            self._addresses[endpoint.path, ignore] = address
        prefix = address.prefix(scope.namespace, headers, query, data.get("model"))
        key, sample, _ = scope.keyed(prefix, canonical)
        return KeyedCall(
            way, given, scope, endpoint, address, prefix, key, sample, data, canonical, secrets,
            headers, query, streaming, form,
        )  # fmt: skip

    def _hit(self, call: KeyedCall, entry: Entry) -> Any:
        """Return the result of a call whose answer was at hand."""
        call.scope.engine.count_hit(entry)
        if is_watched(call.scope.cache.settings.observer):
            watcher = watch(call.scope.cache.settings, call.endpoint.path, provider=self.provider)
            if watcher is not None:
                watcher.served("hit", entry, call.scope.now())
        return self.result(call, entry, "hit")

    # -- past the cache ----------------------------------------------------------------------

    async def bypass(self, past: Bypass, way: WayIn, given: Any, path: str) -> Any:
        """Make a call past the cache, counted; a reason is logged once.

        Raises:
            ReplayMiss: In mode "replay".
        """
        with self.watched(past, path):
            return await PAST.over(lambda: way.past(given))

    def watched(self, past: Bypass, path: str) -> AbstractContextManager[None]:
        """Count the call that goes past the cache in this block, and tell whoever watches.

        Raises:
            ReplayMiss: In mode "replay".
        """
        return past.watched(path, provider=self.provider, what=path)

    def pass_by(self, path: str, reason: str) -> None:
        """Count something else than a call that goes past the cache in force, if one is.

        Raises:
            ReplayMiss: In mode "replay".
        """
        cache, options = self.in_force()
        if cache is not None:
            with self.watched(_uncached(cache, options, reason), path):
                pass

    def going_past(self, endpoint: Endpoint | None, reason: str | None) -> Bypass | None:
        """Return the bypass of a call that goes past the cache in force, None for one that doesn't.

        Works in any thread.

        Args:
            endpoint: None for one whose answers aren't cached.
            reason: Why all calls go past it now.
        """
        cache, options = self.in_force()
        if cache is None:
            return None
        if endpoint is None or reason is not None:
            return _uncached(cache, options, reason)
        return behind(cache).bypass(options)

    async def past(self, call: KeyedCall, reason: str) -> Any:
        """Make a call past the cache whose key turned out to be of no use."""
        bypass = Bypass(call.scope.cache, call.scope.mode, reason)
        return await self.bypass(bypass, call.way, call.given, call.endpoint.path)

    # -- what isn't at hand ------------------------------------------------------------------

    async def _fetch(self, call: KeyedCall, *, missing: bool) -> Any:
        """Return the result of a call whose answer isn't at hand.

        ``missing`` is true where the engine knows that there is none: see `Engine.fetch`.
        """
        if is_beneath(call.key):  # it would wait for itself
            return await call.way.past(call.given)
        if call.scope.cache.stands_still(call.key):
            return await self.past(call, STANDS_STILL)
        engine, mode, key = call.scope.engine, call.scope.mode, call.key
        path, model = call.endpoint.path, call.data.get("model")
        settings = call.scope.cache.settings
        watcher: CallWatch | None = None
        if is_watched(settings.observer):
            watcher = watch(settings, path, model, key, call.paths, provider=self.provider)
        caller, attempts = self.caller(call), Attempts(self.client, call)

        async def attempt() -> tuple[Fetched, Reader | None]:
            nonlocal missing
            known, missing = missing, False
            if call.streaming:
                return await engine.read(self._request(call, caller, attempts))
            fetched = await engine.fetch(
                mode, key, caller, lambda: self._request(call, caller, attempts), missing=known
            )
            return fetched, None

        try:
            fetched, reader = await attempts.until_answered(attempt)
        except NotSharedError:
            return await self.past(call, f"{path}: {CHANGED}")
        except BaseException as exc:
            if watcher is not None:
                watcher.failed(exc)
            raise
        if watcher is not None:
            watcher.answered(fetched, reader, call.scope.now)
        return self.result(
            call,
            fetched.entry,
            fetched.outcome,
            reader,
            fetched.received,
            retries=attempts.retries,
        )

    def caller(self, call: KeyedCall) -> Caller:
        """Return whose call it is, and how long an attempt of it would wait."""
        patience = sdk.patience(self.client, call.way.patience(call.given)[0])
        return Caller(call.address.credentials(call.headers, call.query), patience)

    def _request(self, call: KeyedCall, caller: Caller, attempts: Attempts) -> CallRequest:
        """Return what the engine makes of an attempt at a call."""
        scope = call.scope
        check = check_of(self.client, call, call.canonical, attempts)
        upstream = UpstreamCall(call, attempts.make(), check)
        return CallRequest(
            namespace=scope.namespace,
            key=call.key,
            mode=scope.mode,
            upstream=upstream.streamed if call.streaming else upstream.plain,
            scope=sdk.scope_of,
            caller=caller,
            ttl=scope.ttl,
            store_if=scope.store_if,
            canonical=call.canonical,
            facts=call.prefix.digests,
            keep_request=scope.cache.settings.keep_requests,
            about=call.about if scope.mode == "replay" else "",
            unchanged=lambda: self.is_sent(check),
            judge=upstream.judge,
        )

    def is_sent(self, check: OutboundCheck) -> bool:
        """Tell whether what was sent is what the key stands for; asked before it is stored."""
        return check.same

    # -- results -----------------------------------------------------------------------------

    def result(
        self,
        call: KeyedCall,
        entry: Entry,
        how: Outcome,
        reader: Reader | None = None,
        received: object = None,
        *,
        parts: tuple[bytes, ...] = (),
        retries: int = 0,
    ) -> Any:
        """Return an answer as its caller wants it, marked for `asynccache.status`."""
        status = self.status(call, entry, how, parts)
        came = received if isinstance(received, Received) else None
        if came is not None and how != "miss":
            came = came.for_others()
        return built(
            self.client, call, entry, status, reader=reader, received=came, retries=retries
        )

    def status(
        self, call: KeyedCall, entry: Entry, how: Outcome, parts: tuple[bytes, ...] = ()
    ) -> Status:
        """Return what `asynccache.status` says of an answer."""
        scope = call.scope
        return Status(how, entry.key, entry.created, scope.now(), scope.namespace, parts)

    async def _processed(self, call: KeyedCall, result: Any) -> Any:
        """Return what the SDK makes of a response in a form that is strange to us."""
        status = status_of(result)
        if status is None:  # it went past the cache, and is what the SDK has made of it
            return result
        finish = getattr(result, FINISH, None)
        made = await sdk_responses.processed(self.client, result, call.form, finish)
        mark(made, status)
        if call.streaming:
            note_parsing(made, parsing_of(result))
        return made


def _uncached(cache: AsyncCache, options: Options, reason: str | None) -> Bypass:
    """Return the bypass of what is never cached."""
    found = behind(cache)
    return Bypass(found, found.settings.mode if options.mode is UNSET else options.mode, reason)
