"""The client's ``request``, cached: the net beneath all doors, through which every call must pass.

What the fast ways miss is caught here: methods of `beta`, ``client.post``, bound methods that
somebody took earlier. What isn't cacheable is let pass, and counted.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import UNSET

from asynccache import _context
from asynccache._call import Mode, status_of
from asynccache._errors import NotCanonicalError
from asynccache.openai import _sdk
from asynccache.openai._embeddings import EmbeddingJob
from asynccache.openai._endpoints import BY_PATH, EMBEDDINGS
from asynccache.openai._exchange import Asking, Exchange, Wanted, headers_in
from asynccache.openai._replay import mark
from asynccache.openai._request import Body, body_of_options, copied
from asynccache.openai._sending import current_sending


def net(exchange: Exchange, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return what stands in the place of a client's own ``request``."""

    @functools.wraps(original)
    async def request(
        cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
    ) -> Any:
        def untouched() -> Awaitable[Any]:
            return original(cast_to, options, stream=stream, stream_cls=stream_cls)

        sending = current_sending()
        if sending is not None:
            sending.note(options)
            return await untouched()
        chosen = _context.current_options()
        cache = exchange.cache if chosen.cache is UNSET else chosen.cache
        if cache is None:
            return await untouched()
        mode: Mode = cache.settings.mode if chosen.mode is UNSET else chosen.mode
        path, query = _sdk.request_place(exchange.client, options.url)
        endpoint = BY_PATH.get(path) if options.method.lower() == "post" else None
        if endpoint is None or mode == "off" or not (cache.is_open or mode == "replay"):
            reason = None if endpoint is None or mode == "off" else "the cache isn't open"
            return await exchange.bypass(cache, mode, reason, path, untouched)
        engine = cache.engine()
        if engine.pacer.spent():
            await engine.pacer.slot()
        cast_to = exchange.client._maybe_override_cast_to(cast_to, options)
        headers = headers_in(options)
        query.update(options.params)
        try:
            body = body_of_options(options, cache.settings.ignore)
            asked = exchange.ask(
                cache, engine, mode, chosen, endpoint, body, headers, query, streaming=stream
            )
        except NotCanonicalError as exc:
            return await exchange.bypass(cache, mode, f"{path}: {exc}", path, untouched)
        wanted = _wanted(cast_to, options, headers, stream_cls if stream else None)
        asking = Asking(headers, query, options.timeout, options.max_retries)

        def prepare() -> Callable[..., Awaitable[Any]]:
            again = _repeated(options, body)
            return lambda *value: original(
                cast_to, again(*value), stream=stream, stream_cls=stream_cls
            )

        entry = engine.inline(mode, asked.namespace, asked.key)
        if entry is not None:
            result = exchange.hit(asked, wanted, entry)
        elif endpoint is EMBEDDINGS:
            result = await EmbeddingJob(exchange, asked, wanted, asking, prepare).result()
        else:
            result = await exchange.fetch(asked, wanted, asking, prepare)
        if wanted.strange:
            return await _processed(exchange.client, result, wanted)
        return result

    return request


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


def _wanted(cast_to: Any, options: Any, headers: Any, stream_cls: Any) -> Wanted:
    raw = (headers or {}).get(_sdk.RAW_HEADER, "")
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
