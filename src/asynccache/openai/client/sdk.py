"""What is known of the SDK's inside, on the way to a request: httpx or httpx2, options, errors."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast, get_origin

import openai
from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncAzureOpenAI,
    AsyncOpenAI,
    AsyncStream,
    AzureOpenAI,
    BaseModel,
    NotGiven,
    OpenAI,
    Stream,
    _base_client,
    _streaming,
    omit,
)
from openai._constants import RAW_RESPONSE_HEADER
from openai._models import FinalRequestOptions
from openai._streaming import extract_stream_chunk_type
from openai._types import Omit
from openai._utils import maybe_transform
from openai._utils._json import openapi_dumps

from asynccache.cache.facade import ErrorScope, WaitedTooLongError
from asynccache.errors import NotCanonicalError
from asynccache.keys.canonical import canonical_json, json_of
from asynccache.keys.denied import without_query
from asynccache.providers import failures
from asynccache.providers.failures import failure_of
from asynccache.providers.refusal import RefusedError, depends_on_credentials, refuses_request

if TYPE_CHECKING:
    import httpx2 as httpx
else:
    # The SDK's 3.x stands on httpx2, its 2.x on httpx; both may be installed beside either.
    httpx = getattr(_base_client, "httpx2", None) or _base_client.httpx

HTTP_LIBRARY: Final = httpx.__name__
RAW_HEADER: Final = RAW_RESPONSE_HEADER
_RETRY_COUNT: Final = "x-stainless-retry-count"
_DEPLOYED: Final = frozenset({"/chat/completions", "/completions", "/embeddings"})
_KEY_ERROR: Final[Any] = getattr(openai, "OAuthError", ())  # older SDKs lack it
_MAPS_STREAM_ERRORS: Final = hasattr(_streaming, "APIConnectionError")
AZURE: Final = (AsyncAzureOpenAI, AzureOpenAI)
OMIT: Final = omit
MARKERS: Final = (NotGiven, Omit)
"""The classes of what stands for an argument that was left out."""


def is_sync(client: Any) -> bool:
    """Tell whether a client is the SDK's synchronous one."""
    return isinstance(client, OpenAI)


def sets_own(client: Any, name: str) -> bool:
    """Tell whether a client's class has a property of its own in the place of the SDK's."""
    base = OpenAI if is_sync(client) else AsyncOpenAI
    return getattr(cast("Any", type(client)), name) is not getattr(base, name)


# -- arguments --------------------------------------------------------------------------------


def is_given(value: object) -> bool:
    """Tell an argument that was passed from one left out."""
    return not isinstance(value, MARKERS)


def is_not_given(value: object) -> bool:
    """Tell a marker that leaves a setting as it is."""
    return isinstance(value, NotGiven)


def is_omit(value: object) -> bool:
    """Tell a marker that takes a setting away."""
    return isinstance(value, Omit)


def transformed(arguments: Mapping[str, Any], params: Any) -> dict[str, Any]:
    """Return arguments as the SDK prepares them for JSON."""
    found: dict[str, Any] = maybe_transform(arguments, params) or {}
    return found


def _tool_maker() -> Callable[[Any], Any]:
    try:  # 3.x
        home: Any = importlib.import_module("openai.lib._response_resources")
    except ImportError:  # 2.x
        home = importlib.import_module("openai.resources.responses.responses")
    found: Callable[[Any], Any] = home._make_tools
    return found


response_tools: Final = _tool_maker()
"""Returns the tools of a Responses request as the SDK sends them."""


def json_body(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body as plain data, by way of the JSON that the SDK sends.

    Raises:
        NotCanonicalError: It has none.
    """
    try:
        wire = openapi_dumps(data)
    except Exception as exc:  # whatever user objects raise; the SDK's own call will say it better
        # Not the message, which may show a value.
        raise NotCanonicalError(f"an argument has no JSON form ({type(exc).__name__})") from exc
    found: dict[str, Any] = json_of(wire)
    return found


# -- addresses --------------------------------------------------------------------------------


def unsent_request(
    client: Any, path: str, headers: Mapping[str, Any], query: Mapping[str, Any], model: str
) -> Any:
    """Return the HTTP request that a client would send, but for its body and for a fetched key.

    Args:
        client: The SDK's.
        path: Of the endpoint, below the base URL.
        headers: The call's own.
        query: The call's own.
        model: What Azure's client makes a path of; "" for none.

    Raises:
        NotCanonicalError: The SDK can't build it.
    """
    options = FinalRequestOptions.construct(
        method="post",
        url=path,
        headers={**_credentials_of(client, headers), **headers},
        params=dict(query),
        json_data={"model": model} if model else {},
    )
    try:
        return client._build_request(options)
    except Exception as exc:  # whatever it finds wrong; its own call will say it better
        # Not the message, which may show a value.
        raise NotCanonicalError(f"no request can be built of it ({type(exc).__name__})") from exc


def _credentials_of(client: Any, headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return headers that the SDK adds only when it sends, and what lets it do without a key."""
    given = {name.lower() for name in (*headers, *client.default_headers)}
    found: dict[str, Any] = {}
    if isinstance(client, AZURE):
        token: Any = client._azure_ad_token
        if token is not None:
            found["Authorization"] = f"Bearer {token}"
        elif client.api_key and client._api_key_provider is None:
            found["api-key"] = client.api_key
    elif client.auth_headers:
        return found
    return {"Authorization": omit, **found} if "authorization" not in given else found


# -- errors -----------------------------------------------------------------------------------


def scope_of(error: BaseException) -> ErrorScope:
    """Return for whom an error of the SDK, or one that it lets through, is true."""
    if isinstance(error, APIStatusError):
        return "credentials" if depends_on_credentials(error.status_code) else "all"
    return failures.scope_of(error)


def sdk_error(client: Any, url: str, error: Exception) -> Exception:
    """Return the SDK's error for what a call ended with, whichever client made it.

    Args:
        client: The SDK's.
        url: Where the request went.
        error: The SDK's own, another library's, a refusal, or the end of the caller's patience.
    """
    if isinstance(error, APIError):
        return error
    request = httpx.Request("POST", url)
    if isinstance(error, RefusedError):
        response = httpx.Response(
            error.status, headers=error.received.unframed(), content=error.body, request=request
        )
        refused: Exception = client._make_status_error_from_response(response)
        return refused
    if isinstance(error, WaitedTooLongError):
        return APITimeoutError(request=request)
    failure = failure_of(error)
    if failure is None:
        return error
    kind = APITimeoutError if failure == "timeout" else APIConnectionError
    return kind(request=request)


def reading_error(url: str, error: Exception) -> Exception:
    """Return the same for what ended a stream: 3.x of the SDK makes its own, 2.x nothing of it."""
    if _MAPS_STREAM_ERRORS:
        return sdk_error(None, url, error)
    return error if isinstance(error, APIError) else transport_error(url, error)


def transport_error(url: str, error: Exception) -> Exception:
    """Return the HTTP library's error for what ended a stream."""
    if isinstance(error, httpx.RequestError):
        return error
    if isinstance(error, APIConnectionError) and isinstance(error.__cause__, Exception):
        return transport_error(url, error.__cause__)
    failure = "timeout" if isinstance(error, WaitedTooLongError) else failure_of(error)
    if failure is None:
        return error
    kind = httpx.ReadTimeout if failure == "timeout" else httpx.ReadError
    made: Exception = kind(str(error), request=httpx.Request("POST", url))
    return made


def patience(client: Any, timeout: Any) -> float:
    """Return seconds that one attempt at a call of a client would wait for an answer.

    Args:
        client: Whose timeout counts where the call has none.
        timeout: The call's.
    """
    if isinstance(timeout, MARKERS):
        timeout = client.timeout
    if timeout is None:
        return math.inf
    if not isinstance(timeout, int | float):
        timeout = getattr(timeout, "read", None)
        if timeout is None:
            return math.inf
    found: float = timeout
    return found


# -- retries ----------------------------------------------------------------------------------


def max_retries(client: Any, retries: Any) -> int:
    """Return how often a call is retried; 0 also for what the SDK refuses when it sends.

    Args:
        client: Whose number counts where the call has none.
        retries: The call's.
    """
    most = client.max_retries if isinstance(retries, MARKERS) else retries
    return max(0, most) if isinstance(most, int) else 0


def is_retried(client: Any, error: APIError) -> bool:
    """Tell whether the SDK makes another attempt after an error."""
    if isinstance(error, APIStatusError):  # while it fetches a key, it makes none
        retried: bool = not isinstance(error, _KEY_ERROR) and client._should_retry(error.response)
        return retried
    return isinstance(error, APIConnectionError)


def sleep_for_retry(
    client: Any, path: str, error: APIError, retries: int, most: int
) -> Callable[[], Any]:
    """Return the SDK's way of waiting before a retry; a coroutine function if the client is.

    Args:
        client: The SDK's.
        path: Of the request.
        error: What the attempt ended with.
        retries: Those made before.
        most: How many there may be.
    """
    options = FinalRequestOptions.construct(method="post", url=path, max_retries=most)
    response = error.response if isinstance(error, APIStatusError) else None
    return functools.partial(
        client._sleep_for_retry,
        retries_taken=retries,
        max_retries=most,
        options=options,
        response=response,
    )


def idempotency_key(client: Any) -> str | None:
    """Return a key that all attempts at one call have, if the client sends any."""
    key: str | None = client._idempotency_key() if client._idempotency_header else None
    return key


def single_attempt(options: Any, retries: int, idempotency_key: str | None) -> Any:
    """Return a request's options with which the SDK makes one attempt, after so many retries."""
    changes: dict[str, Any] = {"max_retries": 0}
    if retries:
        headers: Mapping[str, Any] = headers_in(options) or {}
        if _RETRY_COUNT not in map(str.lower, headers):  # the caller's own stays
            changes["headers"] = {**headers, _RETRY_COUNT: str(retries)}
    if options.idempotency_key is None:
        changes["idempotency_key"] = idempotency_key
    return options.model_copy(update=changes)


# -- requests ---------------------------------------------------------------------------------


def request_place(client: Any, url: str) -> tuple[str, dict[str, Any] | None]:
    """Return the path below the client's base URL and the query that a request's URL stands for.

    There is no query for a URL that no method of the SDK would send. The path is for people then,
    without what a URL may hold of secrets.
    """
    if "?" not in url and url.startswith("/"):
        return url, {}
    parts = httpx.URL(url)
    path = parts.path
    if parts.is_absolute_url:
        base = httpx.URL(str(client._base_url))
        if parts.copy_with(raw_path=b"/") != base.copy_with(raw_path=b"/"):
            return without_query(url), None
        path = path.removeprefix(base.path.rstrip("/"))
    path = f"/{path.lstrip('/')}"
    query = dict(parts.params)
    if len(query) != len(parts.params.multi_items()):  # something named twice: no place of ours
        return path, None
    # Azure's client sends these to a deployment, and only if they are spelled just so.
    elsewhere = isinstance(client, AZURE) and path in _DEPLOYED
    return path, None if elsewhere else query


def headers_in(options: Any) -> Mapping[str, Any] | None:
    """Return the headers of a request's options, None if there are none."""
    headers: Any = options.headers
    return headers if is_given(headers) else None


def body_in(options: Any) -> tuple[dict[str, Any], bytes]:
    """Return the body in a request's options as plain data, and its canonical form.

    Raises:
        NotCanonicalError: It isn't a JSON object, or has no canonical form.
    """
    data: Any = options.json_data
    extra: Any = options.extra_json
    if options.content is not None or options.files or not isinstance(data, dict | None):
        raise NotCanonicalError("its body isn't a JSON object")
    merged: dict[str, Any] = {**(data or {}), **(extra or {})}
    try:
        return merged, canonical_json(merged)
    except (NotCanonicalError, TypeError):
        merged = json_body({k: v for k, v in merged.items() if not is_omit(v)})
        return merged, canonical_json(merged)


def request_options(path: str) -> Any:
    """Return what the SDK keeps of a request beside its response."""
    return FinalRequestOptions.construct(method="post", url=path)


def with_parser(options: Any, post_parser: Callable[[Any], Any]) -> Any:
    """Return a request's options with another function that parsed answers go through."""
    return options.model_copy(update={"post_parser": post_parser})


def raw_options(options: Any) -> Any:
    """Return options of the same request that make the SDK return its raw response."""
    headers: dict[str, Any] = dict(options.headers) if is_given(options.headers) else {}
    params: dict[str, Any] = dict(options.params)
    changes = {"headers": {**headers, RAW_HEADER: "true"}, "params": params}
    return options.model_copy(update=changes)


def with_body(options: Any, body: Any) -> Any:
    """Return options of the same request with another body."""
    return options.model_copy(update={"json_data": body, "extra_json": None})


def is_typed(cast_to: Any) -> bool:
    """Tell whether answers of this type are built from JSON as the SDK's models are."""
    return isinstance(cast_to, type) and issubclass(cast_to, BaseModel)


def event_type(stream_cls: Any) -> Any:
    """Return the type of a stream's events; None for a stream of another class than `AsyncStream`.

    Synchronous ones are among those: the SDK makes them itself, of responses.
    """
    if (get_origin(stream_cls) or stream_cls) is not AsyncStream:
        return None
    try:
        return extract_stream_chunk_type(stream_cls)
    except TypeError:
        return None


def stream_class(client: Any, event: Any) -> Any:
    """Return the SDK's class of a client's streams of such events; None for no events."""
    if event is None:
        return None
    return Stream[event] if is_sync(client) else AsyncStream[event]


def is_refusal(error: BaseException) -> bool:
    """Tell whether a server refused a request for what is in it."""
    return isinstance(error, APIStatusError) and refuses_request(error.status_code)


_BUILDERS: Final = (
    "request", "_prepare_options", "_prepare_request", "_prepare_url", "_build_request",
    "_build_headers",
)  # fmt: skip
"""Methods of a client between a method's arguments and the wire, below where ours stand."""


def changes_requests(client: Any) -> str | None:
    """Return why a client's requests can't be known beforehand, None if they can.

    Subclasses may change a request between a method's arguments and the wire.
    """
    for name in _BUILDERS:
        method: Any = getattr(cast("Any", type(client)), name, None)
        if method is not None and not method.__module__.startswith("openai."):
            return f"{_name_of(client)} overrides {name}, which may change the request"
    return None


def check_model(client: Any, body: Any, extra: object) -> None:
    """Look at what ``extra_body`` does to the model in the body proper.

    Azure's client makes the path of a deployment of the model that a method was called with.

    Raises:
        NotCanonicalError: The body doesn't tell where the request goes.
    """
    if not isinstance(client, AZURE) or not isinstance(extra, Mapping):
        return
    given = cast("Mapping[str, object]", extra)
    named = cast("Mapping[str, object]", body or {})
    if "model" in given and given["model"] != named.get("model"):
        raise NotCanonicalError("its deployment isn't the model that its body names")


def _name_of(value: object) -> str:
    return type(value).__qualname__
