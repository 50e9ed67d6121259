"""A method of the SDK, cached: the fast way, which makes nothing for a hit that only calls need."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, cast

from msgspec import UNSET

from asynccache.cache import in_force
from asynccache.cache.settings import Settings
from asynccache.core.calls import Mode
from asynccache.errors import NotCanonicalError
from asynccache.openai.client import sdk
from asynccache.openai.client.body import (
    FrozenArguments,
    RequestBody,
    body_of_arguments,
    check_model,
)
from asynccache.openai.client.client_cache import ClientCache
from asynccache.openai.client.endpoints import Endpoint
from asynccache.openai.client.lookup import CallOptions, Lookup, ResultForm

Arguments = dict[str, Any]


class CachedMethod:
    """A cached method. `method` returns it, to stand in the place of the SDK's own.

    Args:
        exchange: The wrapped client's.
        endpoint: Which endpoint it asks.
        name: Of the method.
        original: The SDK's own method, bound.
        latest: Call what is patched onto the SDK's class by then, instead of this very method.
    """

    uncopied: tuple[str, ...] = ()
    """Arguments that no JSON stands for."""
    whole = True
    """The entry under a request's key is the answer to it, and not a part of one."""

    def __init__(
        self,
        exchange: ClientCache,
        endpoint: Endpoint,
        name: str,
        original: Callable[..., Awaitable[Any]],
        *,
        latest: bool = True,
    ) -> None:
        self._exchange = exchange
        self._endpoint = endpoint
        self._name = name
        bound = cast("Any", original)
        self._signed: Any = bound
        self._resource: Any = bound.__self__
        self._latest = latest
        self._known, self._takes_all = _parameters(bound.__func__)
        self._wanted = ResultForm(endpoint.result, endpoint.event)

    def method(self) -> Callable[..., Awaitable[Any]]:
        """Return the method as a real coroutine function with the SDK's name and signature."""
        exchange = self._exchange

        # All in one coroutine, as thousands of them wait at once.
        @functools.wraps(self._signed)
        async def create(*args: Any, **kwargs: Any) -> Any:
            options = in_force.current_options()
            cache = exchange.in_force(options)
            if cache is None:
                return await self._original(*args, **kwargs)
            mode: Mode = cache.settings.mode if options.mode is UNSET else options.mode
            if mode == "off" or not (cache.is_open or mode == "replay"):
                reason = None if mode == "off" else "the cache isn't open"
                return await self._past(cache, mode, reason, args, kwargs)
            engine = cache.engine()
            if engine.pacer.spent():
                await engine.pacer.slot()
            if not self._fits(args, kwargs):
                return await self._original(*args, **kwargs)  # which says best what is wrong
            headers = kwargs.get("extra_headers")
            try:
                body = self._body(cache.settings, kwargs)
                if body is None:
                    return await self._original(*args, **kwargs)
                check_model(exchange.client, kwargs, kwargs.get("extra_body"))
                asked = exchange.ask(
                    cache, engine, mode, options, self._endpoint, body=body, headers=headers,
                    query=kwargs.get("extra_query"), streaming=self._streams(kwargs),
                )  # fmt: skip
            except NotCanonicalError as exc:
                reason = f"{self._endpoint.path}: {exc}"
                return await self._past(cache, mode, reason, args, kwargs)
            wanted = self._want(kwargs, headers)
            if self.whole:
                entry = engine.inline(mode, asked.namespace, asked.key)
                if entry is not None:
                    return exchange.hit(asked, wanted, entry)
            return await self._fetch(asked, wanted, kwargs)

        return create

    def _original(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        if not self._latest:
            made: Awaitable[Any] = self._signed(*args, **kwargs)
            return made
        # Looked up anew each time, so that what was patched onto the SDK's class later is called.
        kind = cast("Any", type(self._resource))
        found: Awaitable[Any] = getattr(kind, self._name)(self._resource, *args, **kwargs)
        return found

    async def _past(
        self, cache: Any, mode: Mode, reason: str | None, args: tuple[Any, ...], kwargs: Arguments
    ) -> Any:
        return await self._exchange.bypass(
            cache, mode, reason, self._endpoint.path, lambda: self._original(*args, **kwargs)
        )

    def _fits(self, args: tuple[Any, ...], kwargs: Arguments) -> bool:
        return (
            not args
            and (self._takes_all or self._known.issuperset(kwargs))
            and kwargs.keys() >= self._endpoint.required
        )

    def _streams(self, kwargs: Arguments) -> bool:
        """Tell whether a call wants a stream, as the SDK reads it; its markers are false."""
        return bool(kwargs.get("stream"))

    def _body(self, settings: Settings, kwargs: Arguments) -> RequestBody | None:
        """Return the body that a call would send, None where only the SDK can tell."""
        return body_of_arguments(kwargs, self._endpoint.params, settings)

    def _want(self, kwargs: Arguments, headers: Any) -> ResultForm:
        """Return as what a call wants its answer."""
        if not headers or sdk.RAW_HEADER not in headers:
            return self._wanted
        return self._finished(headers, None)

    def _finished(self, headers: Any, finish: Callable[[Any], Any] | None) -> ResultForm:
        """Return the same for an answer that the SDK makes something of in the end."""
        endpoint = self._endpoint
        if not headers or sdk.RAW_HEADER not in headers:
            return ResultForm(endpoint.result, endpoint.event, finish=finish)
        return ResultForm(
            endpoint.result,
            endpoint.event,
            finish=finish,
            raw=headers[sdk.RAW_HEADER],
            stream_cls=None
            if endpoint.event is None
            else sdk.stream_class(self._exchange.client, endpoint.event),
            options=sdk.request_options(endpoint.path),
        )

    async def _fetch(self, asked: Lookup, wanted: ResultForm, kwargs: Arguments) -> Any:
        def prepare() -> Callable[[], Awaitable[Any]]:
            sent = FrozenArguments(kwargs, self.uncopied)
            return lambda: self._original(**sent.arguments())

        return await self._exchange.fetch(
            asked, wanted, self._asking(kwargs), prepare, lambda: self._original(**kwargs)
        )

    def _asking(self, kwargs: Arguments) -> CallOptions:
        return CallOptions(
            kwargs.get("extra_headers"),
            kwargs.get("extra_query"),
            kwargs.get("timeout", sdk.OMIT),
            None,
        )


@functools.lru_cache(maxsize=64)
def _parameters(function: Callable[..., Any]) -> tuple[frozenset[str], bool]:
    """Return the names that a method takes, and whether it takes any.

    The latter is so for one that somebody has wrapped without telling its signature.
    """
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return frozenset(parameters) - {"self"}, takes_all
