"""One cached method of the SDK: from its arguments to a key, and from an answer to its result."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from msgspec import UNSET, Struct

from asynccache import _context
from asynccache._cache import AsyncCache
from asynccache._call import Call, Fetched, Mode, Status
from asynccache._engine import Engine
from asynccache._entry import Entry
from asynccache._errors import NotCanonicalError, ReplayMiss
from asynccache._flight import Caller, Reader
from asynccache._gate import WaitedTooLongError
from asynccache._key import Namespace, Prefix
from asynccache._stats import Outcome
from asynccache.openai import _sdk, _upstream
from asynccache.openai._address import Address
from asynccache.openai._replay import ReplayedStream, Source, mark, typed
from asynccache.openai._request import Sent, canonical_body

_STATEFUL: Final = frozenset({"background", "conversation"})  # parameters: each call is another
_MISSING: Final = object()


class Endpoint:
    """What sets one method of the SDK apart from another.

    Args:
        path: Below the base URL.
        method: Its name on the resource.
        required: Arguments without which the SDK itself raises.
        params: The SDK's type of the arguments, for turning models and generators into JSON.
        result: The type of a plain answer.
        event: The type of a streamed one's events.
    """

    def __init__(
        self,
        path: str,
        *,
        method: str,
        required: frozenset[str],
        params: Any,
        result: type[Any],
        event: type[Any],
    ) -> None:
        self.path = path
        self.method = method
        self.required = required
        self.params = params
        self.result = result
        self.event = event


class Asked(Struct, frozen=True, gc=False):
    """What one call asks for."""

    mode: Mode
    namespace: Namespace
    key: bytes
    prefix: Prefix
    canonical: bytes
    streaming: bool


class Door:
    """A cached method. `create` takes the arguments of the SDK's method and returns its results.

    Args:
        client: The wrapped client.
        cache: The cache it was wrapped with.
        endpoint: Which method.
        original: The SDK's own method, bound.
        upstream: A name that takes the base URL's place in keys.
    """

    def __init__(
        self,
        client: Any,
        cache: AsyncCache,
        endpoint: Endpoint,
        original: Callable[..., Awaitable[Any]],
        upstream: str | None,
    ) -> None:
        self._client = client
        self._cache = cache
        self._endpoint = endpoint
        self._resource: Any = original.__self__  # type: ignore[attr-defined]  # a bound method
        self._signed = original
        parameters = inspect.signature(original).parameters
        self._known = frozenset(parameters)
        # So does a method that somebody has wrapped without telling its signature.
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self._upstream = upstream
        self._opaque = _sdk.changes_requests(client)
        self._addresses: dict[frozenset[str], Address] = {}
        self._address = self._address_for(cache)

    def method(self) -> Callable[..., Awaitable[Any]]:
        """Return the method as a real coroutine function with the SDK's name and signature."""

        # All in one coroutine, as thousands of them wait at once.
        @functools.wraps(self._signed)
        async def create(*args: Any, **kwargs: Any) -> Any:
            options = _context.current_options()
            cache = self._cache if options.cache is UNSET else options.cache
            if cache is None:
                return await self._original(*args, **kwargs)
            mode: Mode = cache.settings.mode if options.mode is UNSET else options.mode
            if mode == "off" or not (cache.is_open or mode == "replay"):
                reason = None if mode == "off" else "the cache isn't open"
                return await self._bypass(cache, mode, reason, args, kwargs)
            engine = cache.engine()
            if engine.pacer.spent():
                await engine.pacer.slot()
            if not self._fits(args, kwargs):
                return await self._original(*args, **kwargs)  # which says best what is wrong
            try:
                asked = self._ask(cache, mode, options, kwargs)
            except NotCanonicalError as exc:
                return await self._bypass(
                    cache, mode, f"{self._endpoint.path}: {exc}", args, kwargs
                )
            if asked is None:
                return await self._bypass(cache, mode, None, args, kwargs)
            entry = engine.inline(mode, asked.namespace, asked.key)
            if entry is None:
                return await self._fetch(cache, engine, asked, kwargs)
            engine.count_hit(entry)
            return self._result(cache, engine, asked, entry, "hit")

        return create

    def _original(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        # Looked up anew each time, so that what was patched onto the SDK's class later is called.
        kind = cast("Any", type(self._resource))
        found: Awaitable[Any] = getattr(kind, self._endpoint.method)(
            self._resource, *args, **kwargs
        )
        return found

    def _address_for(self, cache: AsyncCache) -> Address:
        ignore = cache.settings.ignore_headers
        address = self._addresses.get(ignore)
        if address is None:
            address = Address(self._client, self._endpoint.path, self._upstream, ignore)
            self._addresses[ignore] = address
        return address

    async def _bypass(
        self,
        cache: AsyncCache,
        mode: Mode,
        reason: str | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if mode == "replay":
            raise ReplayMiss(
                f"this call can't be replayed: {reason or 'it asks for the raw response'}"
            )
        cache.note_bypass(reason)
        return await self._original(*args, **kwargs)

    # -- from arguments to a request ---------------------------------------------------------

    def _fits(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return (
            not args
            and (self._takes_all or self._known.issuperset(kwargs))
            and kwargs.keys() >= self._endpoint.required
        )

    def _ask(
        self, cache: AsyncCache, mode: Mode, options: _context.Options, kwargs: dict[str, Any]
    ) -> Asked | None:
        """Return what a call asks for, None if it wants the raw response."""
        extra_headers = kwargs.get("extra_headers")
        if extra_headers and _sdk.RAW_HEADER in extra_headers:
            return None
        if self._opaque is not None:
            raise NotCanonicalError(self._opaque)
        extra_body = kwargs.get("extra_body")
        if extra_body and not _STATEFUL.isdisjoint(extra_body):
            raise NotCanonicalError("it reads or changes state at the server")
        namespace = options.namespace(cache.settings.namespace)
        address = self._address if cache is self._cache else self._address_for(cache)
        prefix = address.prefix(namespace, extra_headers, kwargs.get("extra_query"))
        canonical = canonical_body(kwargs, self._endpoint.params, cache.settings.ignore)
        key = prefix.key(canonical)
        if options.samples is not None or options.sample:
            number = options.sample if options.samples is None else options.samples.next(key)
            key = prefix.key(canonical, number)
        streaming = bool(kwargs.get("stream"))  # as the SDK reads it; its markers are false
        return Asked(mode, namespace, key, prefix, canonical, streaming)

    def _caller(self, kwargs: dict[str, Any]) -> Caller:
        timeout = kwargs.get("timeout", _MISSING)
        if timeout is _MISSING or not _sdk.is_given(timeout):
            timeout = self._client.timeout
        return Caller(
            self._address.credentials(kwargs.get("extra_headers"), kwargs.get("extra_query")),
            _sdk.patience(timeout, self._client.max_retries),
        )

    def _call(
        self,
        cache: AsyncCache,
        engine: Engine,
        asked: Asked,
        caller: Caller,
        kwargs: dict[str, Any],
    ) -> Call:
        ttl = _context.current_options().ttl
        sent = Sent(kwargs)

        async def raw() -> Any:
            return await self._original(**sent.arguments())

        address = self._address if cache is self._cache else self._address_for(cache)
        headers = dict(kwargs.get("extra_headers") or {})
        query = dict(kwargs.get("extra_query") or {})

        def unchanged() -> bool:
            return address.prefix(asked.namespace, headers, query) is asked.prefix

        return Call(
            unchanged=unchanged,
            namespace=asked.namespace,
            key=asked.key,
            mode=asked.mode,
            upstream=(
                _upstream.streamed(raw, engine.spawn) if asked.streaming else _upstream.plain(raw)
            ),
            scope=_sdk.scope_of,
            caller=caller,
            ttl=cache.settings.ttl if ttl is UNSET else ttl,
            store_if=cache.settings.store_if,
            canonical=asked.canonical,
            facts=asked.prefix.facts,
            keep_request=cache.settings.keep_requests,
        )

    # -- from an answer to a result ----------------------------------------------------------

    async def _fetch(
        self, cache: AsyncCache, engine: Engine, asked: Asked, kwargs: dict[str, Any]
    ) -> Any:
        caller = self._caller(kwargs)
        fetched: Fetched | None = None
        reader: Reader | None = None
        flight = None if asked.streaming else engine.join(asked.mode, asked.key)
        try:
            if flight is not None:
                fetched = await engine.ride(flight, caller)
            if fetched is None:
                call = self._call(cache, engine, asked, caller, kwargs)
                if asked.streaming:
                    fetched, reader = await engine.read(call)
                else:
                    fetched = await engine.fetch(call)
        except WaitedTooLongError:
            raise _sdk.timed_out(self._address.url) from None
        entry = fetched.entry
        return self._result(cache, engine, asked, entry, fetched.outcome, reader=reader)

    def _result(
        self,
        cache: AsyncCache,
        engine: Engine,
        asked: Asked,
        entry: Entry,
        how: Outcome,
        *,
        reader: Reader | None = None,
    ) -> Any:
        result: object
        if asked.streaming:
            url = self._address.url
            result = ReplayedStream(
                client=self._client,
                url=url,
                cast_to=self._endpoint.event,
                meta=entry.meta,
                source=Source(reader or entry.chunks, url),
                pacer=engine.pacer,
            )
        else:
            result = typed(self._client, self._address, entry, self._endpoint.result)
        mark(result, Status(how, entry.key, entry.created, cache.now(), asked.namespace))
        return result
