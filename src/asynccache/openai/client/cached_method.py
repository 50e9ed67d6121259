"""A method of the SDK, cached: the way in for calls with keyword arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final, cast

import msgspec

from asynccache.errors import NotCanonicalError
from asynccache.keys.canonical import canonical_json
from asynccache.openai.client import sdk
from asynccache.openai.client.call import KeyedCall, RawCall, Read, ResultForm, WayIn
from asynccache.openai.client.client_cache import ClientCache
from asynccache.openai.client.endpoints import Endpoint

Arguments = dict[str, Any]
Body = tuple[dict[str, Any], bytes]
"""The body of a request as plain data, and its canonical form."""

_TRANSPORT: Final = frozenset({"extra_headers", "extra_query", "extra_body", "timeout"})
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder().decode


class CachedMethod(WayIn):
    """A cached method. `method` returns it, to stand in the place of the SDK's own.

    Args:
        client: The wrapped client's cache.
        endpoint: Which endpoint it asks.
        name: Of the method.
        original: The SDK's own method, bound.
        latest: Call what is patched onto the SDK's class by then, instead of this very method.
    """

    uncopied: tuple[str, ...] = ()
    """Arguments that no JSON stands for, such as the class to parse into."""

    def __init__(
        self,
        client: ClientCache,
        endpoint: Endpoint,
        name: str,
        original: Callable[..., Awaitable[Any]],
        *,
        latest: bool = True,
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._name = name
        bound = cast("Any", original)
        self._signed: Any = bound
        self._resource: Any = bound.__self__
        self._latest = latest
        self._plain_form = ResultForm(endpoint.result, endpoint.event)

    def method(self) -> Callable[..., Awaitable[Any]]:
        """Return the method as a real coroutine function with the SDK's name and signature."""
        answer, endpoint = self._client.answer, self._endpoint
        path, required = endpoint.path, endpoint.required
        known, takes_all = _parameters(self._signed.__func__)

        @functools.wraps(self._signed)
        async def create(*args: Any, **kwargs: Any) -> Any:
            fits = takes_all or known.issuperset(kwargs)
            if args or not fits or not kwargs.keys() >= required:
                return await self._original(*args, **kwargs)  # which says best what is wrong
            return await answer(self, kwargs, path, endpoint)

        return create

    def _original(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        if not self._latest:
            made: Awaitable[Any] = self._signed(*args, **kwargs)
            return made
        # Looked up anew each time, so that what was patched onto the SDK's class later is called.
        kind = cast("Any", type(self._resource))
        found: Awaitable[Any] = getattr(kind, self._name)(self._resource, *args, **kwargs)
        return found

    # -- the way in --------------------------------------------------------------------------

    def read(self, given: Arguments) -> Read | None:
        """Return what a call asks for, None where only the SDK can tell.

        Raises:
            NotCanonicalError: The request has no key.
        """
        headers = given.get("extra_headers")
        form = self._form(given, headers)
        body = self._body(given)
        if body is None:
            return None
        if extra := given.get("extra_body"):
            sdk.check_model(self._client.client, given, extra)
        # A stream as the SDK reads it: its markers for what is left out are false.
        streaming = bool(given.get("stream"))
        return (*body, headers, given.get("extra_query"), streaming, form)

    def _body(self, given: Arguments) -> Body | None:
        """Return the body that a call would send, None where only the SDK can tell."""
        return body_of(given, self._endpoint.params)

    def _form(self, given: Arguments, headers: Any) -> ResultForm:
        """Return in which form a call wants its answer."""
        if not headers or sdk.RAW_HEADER not in headers:
            return self._plain_form
        return self._finished(headers, None)

    def _finished(
        self, headers: Any, finish: Callable[[Any], Any] | None, *, decode: bool | None = None
    ) -> ResultForm:
        """Return the same for an answer that the SDK makes something of in the end."""
        endpoint = self._endpoint
        if not headers or sdk.RAW_HEADER not in headers:
            return ResultForm(endpoint.result, endpoint.event, finish=finish, decode=decode)
        return ResultForm(
            endpoint.result,
            endpoint.event,
            finish=finish,
            raw=headers[sdk.RAW_HEADER],
            stream_cls=sdk.stream_class(self._client.client, endpoint.event),
            options=sdk.request_options(endpoint.path),
        )

    def patience(self, given: Arguments) -> tuple[Any, Any]:
        """Return the call's own timeout; retries are none of a method's arguments."""
        return given.get("timeout", sdk.OMIT), sdk.OMIT

    def again(self, call: KeyedCall) -> RawCall:
        """Copy a call's arguments, and return what makes it for its raw response."""
        copy = copied_arguments(call.given, self.uncopied)

        def make(*value: Any) -> Awaitable[Any]:
            arguments = copy()
            for one in value:
                extra: Arguments = arguments.get("extra_body") or {}
                (extra if "input" in extra else arguments)["input"] = one
            return self._original(**arguments)

        return make

    def past(self, given: Arguments) -> Awaitable[Any]:
        """Make a call as it came."""
        return self._original(**given)


@functools.lru_cache(maxsize=64)
def _parameters(function: Callable[..., Any]) -> tuple[frozenset[str], bool]:
    """Return the names that a method takes, and whether it takes any.

    The latter is so for one that somebody has wrapped without telling its signature.
    """
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return frozenset(parameters) - {"self"}, takes_all


# -- from arguments to a body, and back --------------------------------------------------------


def body_of(arguments: Arguments, params: Any) -> Body:
    """Return the body of a call, and leave in ``arguments`` only what can be read again.

    Args:
        arguments: Of the call, by name. What isn't plain data is replaced by its wire form, so that
            an iterator that this has read is still sent whole.
        params: The SDK's type of the arguments, for turning models and iterables into JSON.

    Raises:
        NotCanonicalError: The body has no canonical form.
        Exception: What an argument itself raises while it is read, as it would in the SDK.
    """
    try:
        data = arguments
        if not _TRANSPORT.isdisjoint(arguments):
            data = {name: value for name, value in arguments.items() if name not in _TRANSPORT}
            if extra := arguments.get("extra_body"):
                data = {**data, **extra}
        return data, canonical_json(data)
    except (NotCanonicalError, TypeError):
        data = _wire_body(arguments, params)
        return data, canonical_json(data)


def _wire_body(arguments: Arguments, params: Any) -> dict[str, Any]:
    """Return the body by the SDK's road: models, tuples, generators and the like become JSON."""
    given = {k: v for k, v in arguments.items() if k not in _TRANSPORT and sdk.is_given(v)}
    transformed = sdk.transformed(given, params)
    arguments.update(transformed)  # whatever was an iterator is a list now
    body = sdk.json_body(transformed)
    arguments.update(body)
    if not (extra := arguments.get("extra_body")):
        return body
    if not hasattr(extra, "items"):
        raise NotCanonicalError("extra_body is no mapping")
    added = sdk.json_body({k: v for k, v in extra.items() if sdk.is_given(v)})
    arguments["extra_body"] = added
    body |= added
    for name, value in extra.items():
        if sdk.is_omit(value) and name in body:  # so much for that argument
            del body[name]
            arguments[name] = value
    return body


def copied(body: Mapping[str, Any]) -> Callable[[], dict[str, Any]]:
    """Return what makes copies of a body of plain data as it is now.

    A caller may change its own while the call waits for its turn upstream.
    """
    encoded = _ENCODE(body)

    def copy() -> dict[str, Any]:
        found: dict[str, Any] = _DECODE(encoded)
        return found

    return copy


def copied_arguments(
    arguments: Arguments, uncopied: Collection[str] = ()
) -> Callable[[], Arguments]:
    """Return what makes copies of a call's arguments that ask the SDK for its raw response.

    Args:
        arguments: As `body_of` left them.
        uncopied: Names of arguments that no JSON stands for.
    """
    apart = _TRANSPORT.union(uncopied) if uncopied else _TRANSPORT
    body = copied(
        {k: v for k, v in arguments.items() if k not in apart and not isinstance(v, sdk.MARKERS)}
    )
    extra = arguments.get("extra_body")
    extra_body = copied(extra) if extra else None
    headers: Arguments = {**(arguments.get("extra_headers") or {}), sdk.RAW_HEADER: "true"}
    query = dict(arguments.get("extra_query") or {})

    def copy() -> Arguments:
        made: Arguments = {**arguments, **body(), "extra_headers": dict(headers)}
        if query:
            made["extra_query"] = query
        if extra_body is not None:
            made["extra_body"] = extra_body()
        return made

    return copy
