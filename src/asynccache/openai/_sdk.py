"""What is known of the SDK's inside, in one place: httpx or httpx2, errors, raw responses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from openai import APIConnectionError, APIStatusError, APITimeoutError, NotGiven
from openai._constants import RAW_RESPONSE_HEADER
from openai._legacy_response import LegacyAPIResponse
from openai._models import FinalRequestOptions
from openai._types import Omit
from openai._utils import maybe_transform
from openai._utils._json import openapi_dumps

from asynccache._flight import Scope

if TYPE_CHECKING:
    import httpx2 as httpx
else:
    try:  # the SDK's 3.x stands on httpx2, its 2.x on httpx
        import httpx2 as httpx
    except ImportError:
        import httpx

RAW_HEADER: Final = RAW_RESPONSE_HEADER
_CREDENTIAL_STATUS: Final = frozenset({401, 402, 403, 404, 429})
"""What one account may be told and another not: who you are, what you paid for, what you may see,
how much you had."""

ByteStream = httpx.AsyncByteStream


# -- arguments --------------------------------------------------------------------------------


def is_given(value: object) -> bool:
    """Tell an argument that was passed from one left out."""
    return not isinstance(value, NotGiven | Omit)


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


def dumped(body: object) -> bytes:
    """Return a body's JSON as the SDK sends it."""
    return openapi_dumps(body)


# -- addresses --------------------------------------------------------------------------------


def plain_url(url: Any) -> str:
    """Return a URL without user-info, query and fragment."""
    return str(httpx.URL(str(url)).copy_with(userinfo=b"", query=None, fragment=None))


def http_defaults(http: Any) -> tuple[list[Any], Any]:
    """Return what an HTTP client adds to every request, to be compared with later."""
    headers = http.headers
    # The list inside, where it can be had, as building one of it costs a microsecond a call.
    return getattr(headers, "_list", None) or headers.raw, http.params


def http_headers(http: Any) -> dict[str, str]:
    """Return the headers that an HTTP client adds to every request, names in lower case."""
    return dict(http.headers)


# -- errors -----------------------------------------------------------------------------------


def scope_of(error: BaseException) -> Scope:
    """Return for whom an error of the SDK is true."""
    if isinstance(error, APITimeoutError):
        return "timeout"
    if isinstance(error, APIStatusError):
        return "credentials" if error.status_code in _CREDENTIAL_STATUS else "all"
    return "all" if isinstance(error, APIConnectionError) else "own"


def as_sdk_error(error: Exception, request: Any) -> Exception:
    """Return what the SDK makes of a transport error while it reads a stream."""
    names = {base.__name__ for base in type(error).__mro__}
    if "TimeoutException" in names:
        return APITimeoutError(request=request)
    if "RequestError" in names:
        return APIConnectionError(request=request)
    return error


def timed_out(url: str) -> APITimeoutError:
    """Return the SDK's error for a caller who waited as long as it would."""
    return APITimeoutError(request=httpx.Request("POST", url))


def patience(timeout: Any, retries: int) -> float:
    """Return seconds that a call with this timeout and these retries would wait for an answer."""
    if timeout is None:
        return math.inf
    if not isinstance(timeout, int | float):
        timeout = getattr(timeout, "read", None)
        if timeout is None:
            return math.inf
    return float(timeout) * (1 + max(0, retries))


# -- responses --------------------------------------------------------------------------------


def made_response(
    url: str,
    status: int,
    headers: list[tuple[str, str]],
    content: bytes | ByteStream,
) -> Any:
    """Return an HTTP response as the SDK would have received it."""
    request = httpx.Request("POST", url)
    if isinstance(content, bytes):
        return httpx.Response(status, headers=headers, content=content, request=request)
    return httpx.Response(status, headers=headers, stream=content, request=request)


def parsed_by_sdk(client: Any, response: Any, cast_to: type[Any]) -> Any:
    """Return what the SDK itself makes of a response."""
    return LegacyAPIResponse(
        raw=response,
        cast_to=cast_to,
        client=client,
        stream=False,
        stream_cls=None,
        options=FinalRequestOptions.construct(method="post", url=""),
    ).parse()


def changes_requests(client: Any) -> str | None:
    """Return why a client's requests can't be known beforehand, None if they can.

    Subclasses may change a request between a method's arguments and the wire.
    """
    for name in ("_prepare_options", "_prepare_request", "_build_request", "_build_headers"):
        method: Any = getattr(cast("Any", type(client)), name, None)
        if method is not None and not method.__module__.startswith("openai."):
            return f"{_name_of(client)} overrides {name}, which may change the request"
    return None


def _name_of(value: object) -> str:
    return type(value).__qualname__
