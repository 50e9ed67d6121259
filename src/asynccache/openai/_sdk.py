"""What is known of the SDK's inside, in one place: httpx or httpx2, its errors, its raw responses."""

from __future__ import annotations

import math
from typing import Any, Final

import openai
from openai import APIConnectionError, APIStatusError, APITimeoutError
from openai._constants import RAW_RESPONSE_HEADER
from openai._legacy_response import LegacyAPIResponse
from openai._models import FinalRequestOptions

from asynccache._flight import Scope

try:  # the SDK's 3.x stands on httpx2, its 2.x on httpx
    import httpx2 as httpx
except ImportError:
    import httpx  # type: ignore[no-redef]

RAW_HEADER: Final = RAW_RESPONSE_HEADER
_CREDENTIAL_STATUS: Final = frozenset({401, 403, 404, 429})
"""What one account may be told and another not: who you are, what you may see, how much you had."""


def scope_of(error: BaseException) -> Scope:
    """Return for whom an error of the SDK is true."""
    if isinstance(error, APITimeoutError):
        return "timeout"
    if isinstance(error, APIStatusError):
        return "credentials" if error.status_code in _CREDENTIAL_STATUS else "all"
    return "all" if isinstance(error, APIConnectionError) else "own"


def as_sdk_error(error: Exception, request: Any) -> Exception:  # noqa: ANN401 - httpx's or httpx2's
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


def patience(timeout: Any, retries: int) -> float:  # noqa: ANN401 - the SDK's timeout types
    """Return seconds that a call with this timeout and these retries would wait for an answer."""
    if timeout is None:
        return math.inf
    if not isinstance(timeout, int | float):
        timeout = getattr(timeout, "read", None)
        if timeout is None:
            return math.inf
    return float(timeout) * (1 + max(0, retries))


def made_response(url: str, status: int, headers: list[tuple[str, str]], body: bytes) -> Any:  # noqa: ANN401 - httpx's or httpx2's
    """Return an HTTP response as the SDK would have received it."""
    return httpx.Response(status, headers=headers, content=body, request=httpx.Request("POST", url))


def parsed_by_sdk(client: Any, response: Any, cast_to: type[Any]) -> Any:  # noqa: ANN401 - the SDK's own types
    """Return what the SDK itself makes of a response."""
    return LegacyAPIResponse(
        raw=response,
        cast_to=cast_to,
        client=client,
        stream=False,
        stream_cls=None,
        options=FinalRequestOptions.construct(method="post", url=""),
    ).parse()


def is_given(value: object) -> bool:
    """Tell an argument that was passed from one left out."""
    return not isinstance(value, _LEFT_OUT)


_LEFT_OUT: Final = tuple(
    kind for name in ("NotGiven", "Omit") if (kind := getattr(openai, name, None)) is not None
)
