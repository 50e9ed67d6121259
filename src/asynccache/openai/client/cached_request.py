"""The client's ``request``, cached: the way in for calls with the SDK's request options.

It lies beneath all methods. What `CachedMethod` doesn't see is caught here: methods of `beta`,
``client.post``, bound methods that somebody took earlier. What isn't cacheable is let pass, and
counted.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from asynccache.openai.client import sdk
from asynccache.openai.client.cached_method import copied
from asynccache.openai.client.call import KeyedCall, RawCall, Read, ResultForm, WayIn
from asynccache.openai.client.client_cache import ClientCache
from asynccache.openai.client.endpoints import Endpoint
from asynccache.providers.sending import current_sending


class RequestArguments(Struct, frozen=True):
    """The arguments of a call of ``request``."""

    cast_to: Any
    options: Any
    stream: bool
    stream_cls: Any
    query: dict[str, Any]
    """Parameters in the URL itself."""

    def made(self, request: Callable[..., Any], options: Any) -> Any:
        """Make the call, with these or other options."""
        return request(self.cast_to, options, stream=self.stream, stream_cls=self.stream_cls)


class CachedRequest(WayIn):
    """What stands in the place of a client's own ``request``.

    Args:
        client: The client's cache.
        original: The SDK's own, bound.
    """

    def __init__(self, client: ClientCache, original: Callable[..., Awaitable[Any]]) -> None:
        self._client = client
        self._original = original

    def method(self) -> Callable[..., Awaitable[Any]]:
        """Return the method as a real coroutine function with the SDK's name and signature."""
        original = self._original

        @functools.wraps(original)
        async def request(
            cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None
        ) -> Any:
            sending = current_sending()
            if sending is not None:
                options = sending.note(options)
                return await original(cast_to, options, stream=stream, stream_cls=stream_cls)
            return await self.send(cast_to, options, stream=stream, stream_cls=stream_cls)

        return request

    async def send(self, cast_to: Any, options: Any, *, stream: bool, stream_cls: Any) -> Any:
        """Return a call's result, by way of a cache if it can be."""
        place = placed(self._client, cast_to, options, stream=stream, stream_cls=stream_cls)
        return await self._client.answer(self, *place)

    # -- the way in --------------------------------------------------------------------------

    def read(self, given: RequestArguments) -> Read:
        """Return what a call asks for.

        Raises:
            NotCanonicalError: The request has no key.
        """
        options = given.options
        sdk.check_model(self._client.client, options.json_data, options.extra_json)
        body, canonical = sdk.body_in(options)
        query = {**given.query, **options.params}
        return body, canonical, sdk.headers_in(options), query, given.stream, self._form(given)

    def _form(self, given: RequestArguments) -> ResultForm:
        client, options, stream_cls = self._client.client, given.options, None
        if given.stream:  # without a class, a stream of that type, as the SDK has it
            stream_cls = given.stream_cls or sdk.stream_class(client, given.cast_to)
        raw = (sdk.headers_in(options) or {}).get(sdk.RAW_HEADER, "")
        cast_to = client._maybe_override_cast_to(given.cast_to, options)
        event = None if stream_cls is None else sdk.event_type(stream_cls)
        # What isn't the SDK's own kind of answer is left to the SDK, over the recorded response.
        odd = event is None if stream_cls is not None else not sdk.is_typed(cast_to)
        return ResultForm(
            cast_to,
            event,
            finish=options.post_parser if sdk.is_given(options.post_parser) else None,
            raw=raw,
            stream_cls=stream_cls,
            options=options,
            strange=odd and not raw,
        )

    def patience(self, given: RequestArguments) -> tuple[Any, Any]:
        """Return the call's own timeout and number of retries."""
        return given.options.timeout, given.options.max_retries

    def again(self, call: KeyedCall) -> RawCall:
        """Copy a request as it is now, and return what makes it for its raw response."""
        given: RequestArguments = call.given
        data, raw = copied(call.data), sdk.raw_options(given.options)

        async def send(*value: Any) -> Any:
            body = data()
            for one in value:
                body["input"] = one
            options = sdk.with_body(raw, body)
            sending = current_sending()
            if sending is not None:
                options = sending.note(options)
            return await given.made(self._original, options)

        return send

    def past(self, given: RequestArguments) -> Awaitable[Any]:
        """Make a call as it came."""
        made: Awaitable[Any] = given.made(self._original, given.options)
        return made


def placed(
    client: ClientCache, cast_to: Any, options: Any, *, stream: bool, stream_cls: Any
) -> tuple[RequestArguments, str, Endpoint | None]:
    """Return a call of ``request``, its path, and its endpoint; None for one that isn't cached."""
    path, query = sdk.request_place(client.client, options.url)
    known = options.method.lower() == "post" and query is not None
    given = RequestArguments(cast_to, options, stream, stream_cls, query or {})
    return given, path, client.endpoints.get(path) if known else None
