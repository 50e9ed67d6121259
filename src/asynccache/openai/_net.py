"""The client's ``request``, cached: the net beneath all doors, through which every call must pass.

What the fast ways miss is caught here: methods of `beta`, ``client.post``, bound methods that
somebody took earlier. What isn't cacheable is let pass, and counted.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import UNSET, Struct

from asynccache import _context
from asynccache._cache import AsyncCache
from asynccache._call import Mode, status_of
from asynccache._errors import NotCanonicalError
from asynccache.openai import _sdk
from asynccache.openai._asked import Asked, Asking, Wanted
from asynccache.openai._embeddings import EmbeddingJob
from asynccache.openai._endpoints import BY_PATH, EMBEDDINGS
from asynccache.openai._exchange import Exchange, headers_in
from asynccache.openai._replay import mark
from asynccache.openai._request import Body, body_of_options, check_model, copied
from asynccache.openai._sending import current_sending


class Net:
    """What stands in the place of a client's own ``request``.

    Args:
        exchange: The wrapped client's.
        original: The SDK's own, bound.
    """

    def __init__(self, exchange: Exchange, original: Callable[..., Awaitable[Any]]) -> None:
        self._exchange = exchange
        self._original = original

    def method(self) -> Callable[..., Awaitable[Any]]:
        """Return the method as a real coroutine function with the SDK's name and signature."""

        @functools.wraps(self._original)
        async def request(
            cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
        ) -> Any:
            sending = current_sending()
            if sending is not None:
                sending.note(options)
            chosen = _context.current_options()
            cache = self._exchange.cache if chosen.cache is UNSET else chosen.cache
            if sending is not None or cache is None:
                return await self._original(cast_to, options, stream=stream, stream_cls=stream_cls)
            wish = _Wish(cast_to, options, stream, stream_cls)
            if stream and stream_cls is None:  # a stream of that type, as the SDK has it
                stream_cls = _sdk.stream_class(cast_to)
            mode: Mode = cache.settings.mode if chosen.mode is UNSET else chosen.mode
            path, query = _sdk.request_place(self._exchange.client, options.url)
            known = options.method.lower() == "post" and query is not None
            endpoint = BY_PATH.get(path) if known else None
            if endpoint is None or mode == "off" or not (cache.is_open or mode == "replay"):
                reason = None if endpoint is None or mode == "off" else "the cache isn't open"
                return await self._past(cache, mode, reason, path, wish)
            engine = cache.engine()
            if engine.pacer.spent():
                await engine.pacer.slot()
            try:
                cast_to = self._exchange.client._maybe_override_cast_to(cast_to, options)
                query = {**(query or {}), **options.params}
                check_model(self._exchange.client, options.json_data, options.extra_json)
                asked = self._exchange.ask(
                    cache, engine, mode, chosen, endpoint,
                    body=body_of_options(options, cache.settings.ignore),
                    headers=headers_in(options), query=query, streaming=stream,
                )  # fmt: skip
            except NotCanonicalError as exc:
                return await self._past(cache, mode, f"{path}: {exc}", path, wish)
            wanted = _wanted(cast_to, options, stream_cls if stream else None)
            result = await self._answer(asked, wanted, wish, query)
            if wanted.strange:
                return await _processed(self._exchange.client, result, wanted)
            return result

        return request

    async def _past(
        self, cache: AsyncCache, mode: Mode, reason: str | None, path: str, wish: _Wish
    ) -> Any:
        return await self._exchange.bypass(
            cache, mode, reason, path, lambda: wish.made(self._original, wish.options)
        )

    async def _answer(
        self, asked: Asked, wanted: Wanted, wish: _Wish, query: dict[str, Any]
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
            return wish.made(self._original, options)

        asking = Asking(headers_in(options), query, options.timeout, options.max_retries)
        if asked.endpoint is EMBEDDINGS and "input" in asked.body.data:
            job = EmbeddingJob(exchange, asked, wanted, asking, prepare, past=past)
            return await job.result()
        return await exchange.fetch(asked, wanted, asking, prepare, past)


class _Wish(Struct, frozen=True):
    """The arguments of a call of ``request``."""

    cast_to: Any
    options: Any
    stream: bool
    stream_cls: Any

    def made(self, request: Callable[..., Awaitable[Any]], options: Any) -> Awaitable[Any]:
        """Make the call, with these or other options."""
        return request(self.cast_to, options, stream=self.stream, stream_cls=self.stream_cls)


def _repeated(options: Any, body: Body) -> Callable[..., Any]:
    """Return what makes options of the same request as it is now, for its raw response.

    An argument, if there is one, takes the place of the request's ``input``.
    """
    data = copied(body.data)
    raw = _sdk.raw_options(options)

    def again(*value: Any) -> Any:
        changed = data()
        for given in value:
            changed["input"] = given
        return _sdk.with_body(raw, changed)

    return again


async def _processed(client: Any, response: Any, wanted: Wanted) -> Any:
    result = await _sdk.processed(
        client, response, wanted.result, wanted.stream_cls, wanted.options
    )
    status = status_of(response)
    if status is not None:
        mark(result, status)
    return result


def _wanted(cast_to: Any, options: Any, stream_cls: Any) -> Wanted:
    raw = (headers_in(options) or {}).get(_sdk.RAW_HEADER, "")
    event = None if stream_cls is None else _sdk.event_type(stream_cls)
    finish = options.post_parser if _sdk.is_given(options.post_parser) else None
    # What isn't the SDK's own kind of answer is left to the SDK, over the recorded response.
    strange = not raw and (event is None if stream_cls is not None else not _sdk.is_typed(cast_to))
    return Wanted(
        cast_to,
        event,
        finish=finish,
        raw=raw,
        stream_cls=stream_cls,
        options=options,
        strange=strange,
    )
