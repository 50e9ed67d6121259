"""One cached method of the SDK: from its arguments to a key, and from an answer to its result."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from msgspec import UNSET
from openai import AsyncStream
from openai._utils import maybe_transform
from openai._utils._json import openapi_dumps

from asynccache import _context
from asynccache._cache import AsyncCache
from asynccache._call import Call, Mode, Status
from asynccache._canonical import canonical_json, json_of, without_paths
from asynccache._engine import Engine
from asynccache._entry import Entry, Meta
from asynccache._errors import NotCanonicalError, ReplayMiss
from asynccache._flight import Caller
from asynccache._gate import WaitedTooLongError
from asynccache._key import Namespace, Prefix
from asynccache.openai import _sdk, _upstream
from asynccache.openai._address import Address
from asynccache.openai._replay import ReplayedStream, mark, typed

_TRANSPORT: Final = ("extra_headers", "extra_query", "extra_body", "timeout")


class Endpoint:
    """What sets one method of the SDK apart from another.

    Args:
        path: Below the base URL.
        required: Arguments without which the SDK itself raises.
        params: The SDK's type of the arguments, for turning models and generators into JSON.
        result: The type of a plain answer.
        event: The type of a streamed one's events.
    """

    def __init__(
        self,
        path: str,
        *,
        required: frozenset[str],
        params: Any,  # noqa: ANN401 - a union of TypedDicts
        result: type[Any],
        event: type[Any],
    ) -> None:
        self.path = path
        self.required = required
        self.params = params
        self.result = result
        self.event = event


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
        client: Any,  # noqa: ANN401 - the SDK's client
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
        self._known = frozenset(inspect.signature(original).parameters)
        self._address = Address(client, endpoint.path, upstream, cache.settings.ignore_headers)

    def method(self) -> Callable[..., Awaitable[Any]]:
        """Return the method as a real coroutine function with the SDK's name and signature."""

        @functools.wraps(self._signed)
        async def create(*args: Any, **kwargs: Any) -> Any:
            return await self.create(args, kwargs)

        return create

    def _original(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        # Looked up anew each time, so that what was patched onto the SDK's class later is called.
        found: Awaitable[Any] = getattr(type(self._resource), self._signed.__name__)(
            self._resource, *args, **kwargs
        )
        return found

    async def create(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a call from the cache, from a flight, or by making it."""
        options = _context.current_options()
        cache = self._cache if options.cache is UNSET else options.cache
        if cache is None:
            return await self._original(*args, **kwargs)
        mode: Mode = cache.settings.mode if options.mode is UNSET else options.mode
        if mode == "off" or (not cache.is_open and mode != "replay"):
            return await self._bypass(
                cache, None if mode == "off" else "the cache isn't open", args, kwargs
            )
        engine = cache.engine()
        if engine.pacer.spent():
            await engine.pacer.slot()
        if args or not self._known.issuperset(kwargs) or not kwargs.keys() >= self._endpoint.required:
            return await self._original(*args, **kwargs)  # which says best what is wrong
        extra_headers = kwargs.get("extra_headers")
        if extra_headers and _sdk.RAW_HEADER in extra_headers:
            return await self._bypass(cache, None, args, kwargs)
        namespace = options.namespace(cache.settings.namespace)
        try:
            prefix = self._address.prefix(namespace, extra_headers, kwargs.get("extra_query"))
            canonical = self._canonical(cache, kwargs)
        except NotCanonicalError as exc:
            if mode == "replay":
                raise ReplayMiss(f"this request can't be cached: {exc}") from exc
            return await self._bypass(cache, f"{self._endpoint.path}: {exc}", args, kwargs)
        key = prefix.key(canonical)
        if options.samples is not None or options.sample:
            number = options.sample if options.samples is None else options.samples.next(key)
            key = prefix.key(canonical, number)
        entry = engine.inline(mode, namespace, key)
        if entry is not None:
            return self._served(cache, engine, namespace, entry, kwargs)
        call = self._call(cache, engine, mode, namespace, key, prefix, canonical, kwargs)
        return await self._answer(cache, engine, call, kwargs)

    async def _bypass(
        self, cache: AsyncCache, reason: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        cache.note_bypass(reason)
        return await self._original(*args, **kwargs)

    # -- from arguments to a request ---------------------------------------------------------

    def _canonical(self, cache: AsyncCache, kwargs: dict[str, Any]) -> bytes:
        """Return the canonical body; arguments that can be read only once are made lists in place."""
        body = {k: v for k, v in kwargs.items() if k not in _TRANSPORT}
        extra_body = kwargs.get("extra_body")
        try:
            if extra_body:
                body.update(extra_body)
            if cache.settings.ignore:
                canonical_json(body)
                body = without_paths(body, cache.settings.ignore)
            return canonical_json(body)
        except (NotCanonicalError, TypeError, ValueError):
            return self._canonical_wire(cache, kwargs)

    def _canonical_wire(self, cache: AsyncCache, kwargs: dict[str, Any]) -> bytes:
        """Do as `_canonical` by the SDK's own road, for models, tuples, generators and the like."""
        for name, value in kwargs.items():
            if not isinstance(value, str | bytes | Mapping | list) and hasattr(value, "__next__"):
                kwargs[name] = list(value)
        given = {k: v for k, v in kwargs.items() if k not in _TRANSPORT and _sdk.is_given(v)}
        try:
            body = maybe_transform(given, self._endpoint.params) or {}
            if extra_body := kwargs.get("extra_body"):
                body = {**body, **{k: v for k, v in extra_body.items() if _sdk.is_given(v)}}
            wire = json_of(openapi_dumps(body))
        except NotCanonicalError:
            raise
        except Exception as exc:  # whatever user objects raise: the SDK's own call will say it better
            raise NotCanonicalError(f"the arguments have no JSON form: {exc!r}") from exc
        return canonical_json(without_paths(wire, cache.settings.ignore))

    def _call(  # noqa: PLR0913 - what was worked out on the way
        self,
        cache: AsyncCache,
        engine: Engine,
        mode: Mode,
        namespace: Namespace,
        key: bytes,
        prefix: Prefix,
        canonical: bytes,
        kwargs: dict[str, Any],
    ) -> Call:
        headers = kwargs.get("extra_headers") or {}
        timeout = kwargs.get("timeout", _MISSING)
        if timeout is _MISSING or not _sdk.is_given(timeout):
            timeout = self._client.timeout
        options = _context.current_options()

        async def raw() -> Any:
            marked = {**headers, _sdk.RAW_HEADER: "true"}
            return await self._original(**{**kwargs, "extra_headers": marked})

        streaming = kwargs.get("stream") is True
        return Call(
            namespace=namespace,
            key=key,
            mode=mode,
            upstream=_upstream.streamed(raw, engine.spawn) if streaming else _upstream.plain(raw),
            scope=_sdk.scope_of,
            caller=Caller(
                self._address.credentials(headers),
                _sdk.patience(timeout, self._client.max_retries),
            ),
            ttl=cache.settings.ttl if options.ttl is UNSET else options.ttl,
            store_if=cache.settings.store_if,
            canonical=canonical,
            facts=prefix.facts,
            keep_request=cache.settings.keep_requests,
        )

    # -- from an answer to a result ----------------------------------------------------------

    async def _answer(
        self, cache: AsyncCache, engine: Engine, call: Call, kwargs: dict[str, Any]
    ) -> Any:
        try:
            if kwargs.get("stream") is True:
                return await self._stream(cache, engine, call)
            fetched = await engine.fetch(call)
        except WaitedTooLongError:
            raise _sdk.timed_out(self._address.url) from None
        entry = fetched.entry
        result = typed(
            self._client, self._address.url, entry.meta, entry.chunks[0], self._endpoint.result
        )
        mark(result, _status(cache, call.namespace, fetched.entry, fetched.outcome))
        return result

    def _served(
        self,
        cache: AsyncCache,
        engine: Engine,
        namespace: Namespace,
        entry: Entry,
        kwargs: dict[str, Any],
    ) -> Any:
        engine.served(entry, "hit")
        if kwargs.get("stream") is True:
            result = self._stream_of(engine, entry.meta, entry.chunks)
        else:
            result = typed(
                self._client, self._address.url, entry.meta, entry.chunks[0], self._endpoint.result
            )
        mark(result, _status(cache, namespace, entry, "hit"))
        return result

    async def _stream(self, cache: AsyncCache, engine: Engine, call: Call) -> AsyncStream[Any]:
        fetched, reader = await engine.read(call)
        entry = fetched.entry
        stream = self._stream_of(engine, entry.meta, reader or entry.chunks)
        mark(stream, _status(cache, call.namespace, entry, fetched.outcome))
        return stream

    def _stream_of(
        self, engine: Engine, meta: Meta, source: Any  # noqa: ANN401 - chunks or a reader
    ) -> AsyncStream[Any]:
        return ReplayedStream(
            client=self._client,
            url=self._address.url,
            cast_to=self._endpoint.event,
            meta=meta,
            source=source,
            pacer=engine.pacer,
        )


_MISSING: Final = object()


def _status(cache: AsyncCache, namespace: Namespace, entry: Entry, how: Any) -> Status:  # noqa: ANN401 - an Outcome
    return Status(
        outcome=how,
        key=entry.key.hex(),
        age=cache.age(entry) if entry.created else 0.0,
        seed=namespace.seed,
        tenant=namespace.tenant,
    )
