"""The client's ``request``, cached: the net beneath all doors, through which every call must pass.

What the fast ways miss is caught here: methods of `beta`, ``client.post``, bound methods that
somebody took earlier. What isn't cacheable is let pass, and counted.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import UNSET, Struct

from asynccache.cache import in_force
from asynccache.cache.cache import AsyncCache
from asynccache.core.calls import Mode, status_of
from asynccache.core.engine import Engine
from asynccache.errors import NotCanonicalError
from asynccache.openai.client import sdk, sdk_responses
from asynccache.openai.client.body import RequestBody, body_of_options, check_model, copied
from asynccache.openai.client.client_cache import ClientCache
from asynccache.openai.client.endpoints import BY_PATH, EMBEDDINGS, Endpoint
from asynccache.openai.client.lookup import CallOptions, Lookup, ResultForm
from asynccache.openai.client.outbound import current_sending
from asynccache.openai.client.replay import mark
from asynccache.openai.embeddings.method import EmbeddingJob


class RequestArguments(Struct, frozen=True):
    """The arguments of a call of ``request``."""

    cast_to: Any
    options: Any
    stream: bool
    stream_cls: Any

    def made(self, request: Callable[..., Any], options: Any) -> Any:
        """Make the call, with these or other options."""
        return request(self.cast_to, options, stream=self.stream, stream_cls=self.stream_cls)


class Route(Struct, frozen=True):
    """Where a call goes: through a cache, or past it."""

    cache: AsyncCache
    chosen: in_force.Options
    mode: Mode
    path: str
    query: dict[str, Any]
    endpoint: Endpoint | None
    """None for past."""
    reason: str | None = None
    """Why past, where that is worth telling."""


class CachedRequest:
    """What stands in the place of a client's own ``request``.

    Args:
        exchange: The client's.
        original: The SDK's own, bound.
    """

    def __init__(self, exchange: ClientCache, original: Callable[..., Awaitable[Any]]) -> None:
        self._exchange = exchange
        self._original = original

    def method(self) -> Callable[..., Awaitable[Any]]:
        """Return the method as a real coroutine function with the SDK's name and signature."""

        @functools.wraps(self._original)
        async def request(
            cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
        ) -> Any:
            wish = RequestArguments(cast_to, options, stream, stream_cls)
            sending = current_sending()
            if sending is not None:
                sending.note(options)
                return await wish.made(self._original, options)
            road = road_of(self._exchange, wish)
            if road is None:
                return await wish.made(self._original, options)
            return await self.send(wish, road)

        return request

    async def send(self, wish: RequestArguments, road: Route) -> Any:
        """Return a call's result, by way of the cache if it can be."""
        if road.endpoint is None:
            return await self._past(wish, road, road.reason)
        engine = road.cache.engine()
        if engine.pacer.spent():
            await engine.pacer.slot()
        try:
            asked, query = asked_on(self._exchange, engine, wish, road)
        except NotCanonicalError as exc:
            return await self._past(wish, road, f"{road.path}: {exc}")
        wanted = wanted_of(self._exchange.client, wish)
        result = await self._answer(asked, wanted, wish, query)
        return await finished(self._exchange.client, result, wanted)

    async def _past(self, wish: RequestArguments, road: Route, reason: str | None) -> Any:
        return await self._exchange.bypass(
            road.cache, road.mode, reason, road.path,
            lambda: wish.made(self._original, wish.options),
        )  # fmt: skip

    async def _answer(
        self, asked: Lookup, wanted: ResultForm, wish: RequestArguments, query: dict[str, Any]
    ) -> Any:
        exchange, options = self._exchange, wish.options
        if asked.endpoint is not EMBEDDINGS:  # whose entries are parts of answers
            entry = asked.engine.inline(asked.mode, asked.namespace, asked.key)
            if entry is not None:
                return exchange.hit(asked, wanted, entry)

        def prepare() -> Callable[..., Awaitable[Any]]:
            again = _repeated(options, asked.body)

            async def send(*value: Any) -> Any:
                repeated = again(*value)
                sending = current_sending()
                if sending is not None:
                    sending.note(repeated)
                return await wish.made(self._original, repeated)

            return send

        def past() -> Awaitable[Any]:
            made: Awaitable[Any] = wish.made(self._original, options)
            return made

        asking = CallOptions(sdk.headers_in(options), query, options.timeout, options.max_retries)
        if asked.endpoint is EMBEDDINGS and "input" in asked.body.data:
            job = EmbeddingJob(exchange, asked, wanted, asking, prepare, past=past)
            return await job.result()
        return await exchange.fetch(asked, wanted, asking, prepare, past)


def road_of(exchange: ClientCache, wish: RequestArguments) -> Route | None:
    """Return where a call goes; None where no cache is in force."""
    chosen = in_force.current_options()
    cache = exchange.in_force(chosen)
    if cache is None:
        return None
    mode: Mode = cache.settings.mode if chosen.mode is UNSET else chosen.mode
    options = wish.options
    path, query = sdk.request_place(exchange.client, options.url)
    known = options.method.lower() == "post" and query is not None
    endpoint = BY_PATH.get(path) if known else None
    if endpoint is None or mode == "off" or not (cache.is_open or mode == "replay"):
        reason = None if endpoint is None or mode == "off" else "the cache isn't open"
        return Route(cache, chosen, mode, path, {}, None, reason)
    return Route(cache, chosen, mode, path, query or {}, endpoint)


def asked_on(
    exchange: ClientCache, engine: Engine, wish: RequestArguments, road: Route
) -> tuple[Lookup, dict[str, Any]]:
    """Return what a call asks for, and its whole query.

    Raises:
        NotCanonicalError: The request has no key.
    """
    options, endpoint = wish.options, road.endpoint
    assert endpoint is not None  # noqa: S101 - calls that go past aren't asked about
    query = {**road.query, **options.params}
    check_model(exchange.client, options.json_data, options.extra_json)
    asked = exchange.ask(
        road.cache, engine, road.mode, road.chosen, endpoint,
        body=body_of_options(options, road.cache.settings),
        headers=sdk.headers_in(options), query=query, streaming=wish.stream,
    )  # fmt: skip
    return asked, query


def wanted_of(client: Any, wish: RequestArguments) -> ResultForm:
    """Return as what a call wants its answer."""
    options, stream_cls = wish.options, None
    if wish.stream:  # without a class, a stream of that type, as the SDK has it
        stream_cls = wish.stream_cls or sdk.stream_class(client, wish.cast_to)
    raw = (sdk.headers_in(options) or {}).get(sdk.RAW_HEADER, "")
    cast_to = client._maybe_override_cast_to(wish.cast_to, options)
    event = None if stream_cls is None else sdk.event_type(stream_cls)
    finish = options.post_parser if sdk.is_given(options.post_parser) else None
    # What isn't the SDK's own kind of answer is left to the SDK, over the recorded response.
    strange = not raw and (event is None if stream_cls is not None else not sdk.is_typed(cast_to))
    return ResultForm(
        cast_to,
        event,
        finish=finish,
        raw=raw,
        stream_cls=stream_cls,
        options=options,
        strange=strange,
    )


async def finished(client: Any, result: Any, wanted: ResultForm) -> Any:
    """Return what the SDK makes of a response that is strange to us; other results as they are."""
    if not wanted.strange:
        return result
    made = await sdk_responses.processed(
        client, result, wanted.result, wanted.stream_cls, wanted.options
    )
    status = status_of(result)
    if status is not None:
        mark(made, status)
    return made


def _repeated(options: Any, body: RequestBody) -> Callable[..., Any]:
    """Return what makes options of the same request as it is now, for its raw response.

    An argument, if there is one, takes the place of the request's ``input``.
    """
    data = copied(body.data)
    raw = sdk.raw_options(options)

    def again(*value: Any) -> Any:
        changed = data()
        for given in value:
            changed["input"] = given
        return sdk.with_body(raw, changed)

    return again
