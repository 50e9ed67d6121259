"""What all doors of one client share: from a request to its key, and on to its result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import UNSET

from asynccache.cache import events, in_force
from asynccache.cache.cache import AsyncCache
from asynccache.core.calls import CallRequest, Fetched, Mode, Status
from asynccache.core.counters import Outcome
from asynccache.core.engine import Engine
from asynccache.core.flight import Caller, NotSharedError, Reader, WaitedTooLongError
from asynccache.entries.entry import Entry
from asynccache.errors import NotCanonicalError, ReplayMiss
from asynccache.openai.client import sdk
from asynccache.openai.client.address import RequestAddress
from asynccache.openai.client.body import RequestBody, body_of_options
from asynccache.openai.client.endpoints import EMBEDDINGS, Endpoint
from asynccache.openai.client.lookup import CallOptions, Lookup, ResultForm
from asynccache.openai.client.outbound import PAST, OutboundCheck, is_beneath
from asynccache.openai.client.results import built
from asynccache.openai.client.upstream import RawCall, UpstreamCall


class ClientCache:
    """One client's way through caches.

    Args:
        client: The SDK's, synchronous or not.
        cache: The cache it was wrapped with; None for none.
        upstream: A name that takes the base URL's place in keys.
    """

    def __init__(
        self, client: Any, cache: AsyncCache | None = None, upstream: str | None = None
    ) -> None:
        self.client = client
        self.cache = cache
        self._upstream = upstream
        self._opaque = sdk.changes_requests(client)
        self._addresses: dict[tuple[frozenset[str], str], RequestAddress] = {}
        self._own: dict[str, RequestAddress] = {}  # those for the client's own cache

    def in_force(self, options: in_force.Options) -> AsyncCache | None:
        """Return the cache that a call under these options goes to; None for none."""
        chosen = options.cache
        found: AsyncCache | None = self.cache if chosen is UNSET else chosen
        return found

    def address(self, cache: AsyncCache, path: str) -> RequestAddress:
        """Return where an endpoint's requests go; caches may ignore different headers."""
        if cache is self.cache:
            own = self._own.get(path)
            if own is not None:
                return own
        ignore = cache.settings.ignore_headers
        address = self._addresses.get((ignore, path))
        if address is None:
            address = RequestAddress(self.client, path, self._upstream, ignore)
            self._addresses[ignore, path] = address
        if cache is self.cache:
            self._own[path] = address
        return address

    # -- past the cache ----------------------------------------------------------------------

    async def bypass(
        self,
        cache: AsyncCache,
        mode: Mode,
        reason: str | None,
        endpoint: str,
        call: Callable[[], Awaitable[Any]],
    ) -> Any:
        """Make a call past the cache, counted; ``reason`` is logged once.

        Raises:
            ReplayMiss: In mode "replay".
            CacheClosedError: In mode "replay", with the cache closed.
        """
        watch = events.watch(cache.settings.observer, endpoint)
        try:
            if mode == "replay":
                cache.engine()  # raises if the cache isn't open
                raise ReplayMiss(  # noqa: TRY301 - told to whoever watches, below
                    f"this call can't be replayed: {reason or 'it is never cached'}"
                )
            cache.note_bypass(reason)
            result = await PAST.over(call)
        except BaseException as exc:
            if watch is not None:
                watch.failed(exc)
            raise
        if watch is not None:
            watch.passed(reason)
        return result

    # -- from a request to its key -----------------------------------------------------------

    def ask(
        self,
        cache: AsyncCache,
        engine: Engine,
        mode: Mode,
        options: in_force.Options,
        endpoint: Endpoint,
        *,
        body: RequestBody,
        headers: Mapping[str, Any] | None,
        query: Mapping[str, Any] | None,
        streaming: bool,
    ) -> Lookup:
        """Return what a call asks for.

        Raises:
            NotCanonicalError: The request has no key.
        """
        if self._opaque is not None:
            raise NotCanonicalError(self._opaque)
        if endpoint is EMBEDDINGS and "input" not in body.data:
            raise NotCanonicalError("it has no input")  # the server says best what it thinks of it
        namespace = options.namespace(cache.settings.namespace)
        address = self.address(cache, endpoint.path)
        prefix = address.prefix(namespace, headers, query)
        key, sample = prefix.key(body.canonical), 0
        if options.samples is not None or options.sample:
            sample = options.sample if options.samples is None else options.samples.next(key)
            key = prefix.key(body.canonical, sample)
        return Lookup(
            cache, engine, endpoint, address, mode, namespace, prefix, body, key, sample, streaming
        )

    def matches(self, asked: Lookup, expected: RequestBody, options: Any) -> bool:
        """Tell whether what is being sent is what was asked for, with the body that is expected."""
        path, query = sdk.request_place(self.client, options.url)
        if query is None or path != asked.endpoint.path or options.method.lower() != "post":
            return False
        try:
            body = body_of_options(options, asked.cache.settings)
            prefix = asked.address.prefix(
                asked.namespace, sdk.headers_in(options), {**query, **options.params}
            )
        except NotCanonicalError:
            return False
        if body.canonical != expected.canonical:
            return False
        # Two prefixes may stand for one request, as its headers may have come by another way.
        return prefix is asked.prefix or prefix.key(b"") == asked.prefix.key(b"")

    def sent(self, sending: OutboundCheck) -> bool:
        """Tell whether what was sent is what the key stands for. Lookup before it is stored."""
        return sending.same

    # -- from a key to a result --------------------------------------------------------------

    async def fetch(
        self,
        asked: Lookup,
        wanted: ResultForm,
        asking: CallOptions,
        prepare: Callable[[], RawCall],
        past: Callable[[], Awaitable[Any]],
    ) -> Any:
        """Return the result of a call whose answer wasn't at hand.

        Args:
            asked: What for.
            wanted: As what.
            asking: The rest of the call.
            prepare: Copies the call's arguments and returns what makes it; called at most once,
                before anything is awaited.
            past: Makes the call as it came, where nobody else's answer would do.
        """
        if is_beneath(asked.key):
            return await past()
        try:
            return await self._fetch(asked, wanted, asking, prepare)
        except NotSharedError:
            return await self.unshared(asked, past)

    async def _fetch(
        self, asked: Lookup, wanted: ResultForm, asking: CallOptions, prepare: Callable[[], RawCall]
    ) -> Any:
        engine = asked.engine
        model = asked.body.data.get("model")
        observer, path = asked.cache.settings.observer, asked.endpoint.path
        watch = events.watch(observer, path, model, asked.key)
        caller = self.caller(asked.address, asking)
        fetched: Fetched | None = None
        reader: Reader | None = None
        flight = None if asked.streaming else engine.join(asked.mode, asked.key)
        try:
            if flight is not None:
                fetched = await engine.ride(flight, caller)
            if fetched is None:
                call = self._call(asked, caller, prepare)
                if asked.streaming:
                    fetched, reader = await engine.read(call)
                else:
                    fetched = await engine.fetch(call)
        except NotSharedError:
            raise  # nothing is told: the call is made anew
        except WaitedTooLongError:
            error = sdk.timed_out(asked.address.url)
            if watch is not None:
                watch.failed(error)
            raise error from None
        except BaseException as exc:
            if watch is not None:
                watch.failed(exc)
            raise
        if watch is not None:
            self._tell(watch, asked, fetched, reader)
        return self.result(asked, wanted, fetched.entry, fetched.outcome, reader)

    async def unshared(self, asked: Lookup, past: Callable[[], Awaitable[Any]]) -> Any:
        """Make a call past the cache that had joined one of which nobody knows what it sent."""
        path = asked.endpoint.path
        reason = f"{path}: something changes requests on their way"
        return await self.bypass(asked.cache, asked.mode, reason, path, past)

    def caller(self, address: RequestAddress, asking: CallOptions) -> Caller:
        """Return whose call it is, and how long it would wait."""
        client = self.client
        timeout = asking.timeout if sdk.is_given(asking.timeout) else client.timeout
        retries = asking.retries if isinstance(asking.retries, int) else client.max_retries
        return Caller(
            address.credentials(asking.headers, asking.query), sdk.patience(timeout, retries)
        )

    def _call(self, asked: Lookup, caller: Caller, prepare: Callable[[], RawCall]) -> CallRequest:
        settings = asked.cache.settings
        make = prepare()
        sending = OutboundCheck(lambda options: self.matches(asked, asked.body, options), asked.key)
        recipe = UpstreamCall(
            lambda: sending.over(make),
            asked.endpoint.facts,
            asked.body.secrets,
            lambda: sending.same,
        )
        return CallRequest(
            unchanged=lambda: self.sent(sending),
            namespace=asked.namespace,
            key=asked.key,
            mode=asked.mode,
            upstream=recipe.streamed(asked.engine.spawn) if asked.streaming else recipe.plain,
            scope=sdk.scope_of,
            caller=caller,
            ttl=asked.cache.ttl_in_force(None),
            store_if=asked.cache.rule_in_force(),
            canonical=asked.body.canonical,
            facts=asked.prefix.digests,
            keep_request=settings.keep_requests,
            about=asked.about if asked.mode == "replay" else "",
        )

    def _tell(
        self, watch: events.CallWatch, asked: Lookup, fetched: Fetched, reader: Reader | None
    ) -> None:
        if reader is None:
            watch.served(fetched.outcome, fetched.entry, asked.cache.now())
            return
        flight, before = reader.flight, reader.on_close

        def closed(error: BaseException | None) -> None:
            if before is not None:
                before(error)
            if (failure := flight.error or error) is not None:
                watch.failed(failure)
            else:
                watch.served(fetched.outcome, flight.entry or fetched.entry, asked.cache.now())

        reader.on_close = closed

    def hit(self, asked: Lookup, wanted: ResultForm, entry: Entry) -> Any:
        """Return the result of a call whose answer was at hand."""
        asked.engine.count_hit(entry)
        watch = events.watch(asked.cache.settings.observer, asked.endpoint.path)
        if watch is not None:
            watch.served("hit", entry, asked.cache.now())
        return self.result(asked, wanted, entry, "hit")

    def result(
        self,
        asked: Lookup,
        wanted: ResultForm,
        entry: Entry,
        how: Outcome,
        reader: Reader | None = None,
        *,
        parts: tuple[bytes, ...] = (),
    ) -> Any:
        """Return an answer as its caller wants it, marked for `asynccache.status`."""
        status = self.status(asked, entry, how, parts)
        return built(self.client, asked, wanted, entry, status=status, reader=reader)

    def status(
        self, asked: Lookup, entry: Entry, how: Outcome, parts: tuple[bytes, ...] = ()
    ) -> Status:
        """Return what `asynccache.status` says of an answer."""
        return Status(how, entry.key, entry.created, asked.cache.now(), asked.namespace, parts)
