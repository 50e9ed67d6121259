"""What is never in a key: credentials, traces, and how a request travels. The only list of these.

Names are in lower case here, and compared without regard to case.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

T = TypeVar("T")

CREDENTIAL_HEADERS: Final = frozenset({
    "authorization", "proxy-authorization", "api-key", "x-api-key", "cookie",
    "openai-organization", "openai-project", "x-amz-security-token", "x-goog-api-key",
    "x-goog-user-project", "cf-aig-authorization", "ocp-apim-subscription-key",
    "anthropic-workspace-id", "x-hf-bill-to",
})  # fmt: skip
"""Headers that say who asks, or whom to bill. They also tell whose an error is."""
_TRANSPORT: Final = frozenset({
    "user-agent", "host", "connection", "content-length", "accept", "accept-encoding",
    "content-type", "idempotency-key", "transfer-encoding", "x-session-affinity", "x-grok-conv-id",
    "x-server-timeout", "x-amz-date",
    "x-amz-content-sha256",
})  # fmt: skip
_CLIENTS: Final = frozenset({"x-goog-api-client", "x-client-name", "http-referer", "x-title"})
"""What asks: SDKs, their versions and machines, and the application that they are part of."""
_TRACES: Final = frozenset({
    "traceparent", "tracestate", "baggage", "b3", "sentry-trace", "uber-trace-id", "newrelic",
    "elastic-apm-traceparent", "x-amzn-trace-id", "x-cloud-trace-context", "request-id",
    "x-request-id", "x-client-request-id", "x-ms-client-request-id", "x-correlation-id",
    "x-newrelic-id", "x-newrelic-transaction", "x-dynatrace", "grpc-trace-bin", "langsmith-trace",
    "date",
})  # fmt: skip
DENIED_HEADERS: Final = CREDENTIAL_HEADERS | _TRANSPORT | _CLIENTS | _TRACES
DENIED_PREFIXES: Final = (
    "x-stainless-", "x-fern-", "amz-sdk-", "x-amzn-bedrock-request-metadata", "x-b3-", "x-datadog-",
    "x-instana-", "sw8", "ot-tracer-", "x-ot-", "uberctx-",
)  # fmt: skip
"""How the names of further denied headers begin."""
DENIED_MEMBERS: Final = frozenset({"prompt_cache_key"})
"""Members of a body that say to which of its machines a server sends it. No model sees them."""
DENIED_QUERY: Final = frozenset({
    "api-key", "api_key", "apikey", "key", "token", "access_token", "sig", "signature",
    "subscription-key",
})  # fmt: skip
"""Query parameters that carry credentials."""


def is_denied_header(name: str) -> bool:
    """Tell whether a header never belongs in a key."""
    lowered = name.lower()
    return lowered in DENIED_HEADERS or lowered.startswith(DENIED_PREFIXES)


def is_credential_header(name: str) -> bool:
    """Tell whether a header says who asks, or whom to bill."""
    return name.lower() in CREDENTIAL_HEADERS


def is_denied_query(name: str) -> bool:
    """Tell whether a query parameter carries credentials."""
    return name.lower() in DENIED_QUERY


def kept_headers(
    headers: Iterable[tuple[str, T]], ignore: frozenset[str] = frozenset()
) -> list[tuple[str, T]]:
    """Return the headers that belong in a key: names in lower case, sorted.

    Args:
        headers: Names and values.
        ignore: Further names to leave out, in lower case.
    """
    lowered = ((name.lower(), value) for name, value in headers)
    kept = (pair for pair in lowered if pair[0] not in ignore and not is_denied_header(pair[0]))
    return sorted(kept, key=itemgetter(0))  # values of one name stay in the order they are sent


def without_credentials(url: str) -> tuple[str, list[str]]:
    """Return a URL without its credentials, and what these are.

    Credentials are the user-info and the query parameters that `is_denied_query` names. A URL that
    has none is returned unchanged, and so is text that is no URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, []
    user_info, _, host = parts.netloc.rpartition("@")
    found = [user_info, user_info.partition(":")[2]]
    kept: list[str] = []
    for pair in parts.query.split("&"):
        name, _, value = pair.partition("=")
        denied = is_denied_query(unquote(name))
        (found if denied else kept).append(value if denied else pair)
    secrets = [secret for secret in found if secret]
    if not secrets:
        return url, []
    return urlunsplit(parts._replace(netloc=host, query="&".join(kept))), secrets


def without_query(url: str) -> str:
    """Return a URL without user-info, query and fragment: what people may read of it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host, query="", fragment=""))
