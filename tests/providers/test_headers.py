"""Headers in keys and out of them, as the clients of each provider send them."""

from __future__ import annotations

import pytest

from asynccache.keys.denied import is_credential_header
from asynccache.keys.key import Namespace, Prefix
from asynccache.providers.table import find

HERE = Namespace.of(42)
USUAL = {
    "host": "{host}",
    "accept": "application/json",
    "accept-encoding": "gzip, deflate, br, zstd",
    "connection": "keep-alive",
    "content-length": "95",
    "content-type": "application/json",
    "transfer-encoding": "chunked",
    "cookie": "__cf_bm=1",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "a=1",
    "baggage": "b=1",
}
STAINLESS = {
    "x-stainless-lang": "python", "x-stainless-package-version": "2.14.0",
    "x-stainless-os": "Linux", "x-stainless-arch": "x64", "x-stainless-runtime": "CPython",
    "x-stainless-runtime-version": "3.11.9", "x-stainless-async": "async:asyncio",
    "x-stainless-retry-count": "0", "x-stainless-read-timeout": "600",
}  # fmt: skip
AMAZON = {
    "authorization": "AWS4-HMAC-SHA256 Credential=AKID/20261130/us-east-1/bedrock/aws4_request",
    "x-amz-date": "20261130T120000Z",
    "x-amz-content-sha256": "e3b0",
    "x-amz-security-token": "t",
    "amz-sdk-invocation-id": "1d2c",
    "amz-sdk-request": "attempt=1",
    "x-amzn-trace-id": "Root=1",
    "x-amzn-bedrock-request-metadata": "{}",
    "x-amzn-bedrock-request-metadata-team": "a",
}
# What is sent, by the address: that makes no difference, and that does.
SENT = {
    "anthropic": (
        "api.anthropic.com",
        "/v1/messages",
        {
            **STAINLESS, "user-agent": "AsyncAnthropic/Python 2.14.0", "x-api-key": "k",
            "authorization": "Bearer k", "anthropic-workspace-id": "w", "idempotency-key": "i",
        },
        {
            "anthropic-version": "2026-10-21", "anthropic-beta": "mcp-client-2025-04-04",
            "anthropic-user-profile-id": "u",
        },
    ),
    "openai": (
        "api.openai.com",
        "/v1/chat/completions",
        {
            **STAINLESS, "user-agent": "AsyncOpenAI/Python 3.57.0", "authorization": "Bearer k",
            "openai-organization": "o", "openai-project": "p", "x-client-request-id": "r",
        },
        {"openai-beta": "assistants=v2"},
    ),
    "azure": (
        "example.openai.azure.com",
        "/openai/deployments/gpt-4o/chat/completions",
        {**STAINLESS, "api-key": "k", "x-ms-client-request-id": "r"},
        {"openai-beta": "b"},
    ),
    "openrouter": (
        "openrouter.ai",
        "/api/v1/chat/completions",
        {"authorization": "Bearer k", "http-referer": "https://app.example", "x-title": "App"},
        {"x-unknown": "1"},
    ),
    "huggingface": (
        "router.huggingface.co",
        "/v1/chat/completions",
        {
            "user-agent": "unknown/None; hf_hub/2.4.0; python/3.11", "authorization": "Bearer k",
            "x-hf-bill-to": "org", "x-amzn-trace-id": "1f0b",
        },
        {"x-use-cache": "false"},
    ),
    "gemini": (
        "generativelanguage.googleapis.com",
        "/v1beta/models/gemini-2.5-flash:generateContent",
        {
            "user-agent": "google-genai-sdk/3.6.1 gl-python/3.11.9",
            "x-goog-api-client": "google-genai-sdk/3.6.1 gl-python/3.11.9",
            "x-goog-api-key": "k", "x-goog-user-project": "p", "x-server-timeout": "60",
        },
        {"x-goog-unknown": "1"},
    ),
    "cohere": (
        "api.cohere.com",
        "/v2/chat",
        {
            "user-agent": "cohere/7.3.1", "authorization": "Bearer k", "x-client-name": "n",
            "x-fern-language": "Python", "x-fern-runtime": "python/3.11.9",
            "x-fern-platform": "linux/6.1.0-18", "x-fern-sdk-name": "cohere",
            "x-fern-sdk-version": "7.3.1",
        },
        {"x-unknown": "1"},
    ),
    "ollama": (
        "localhost:11434",
        "/api/chat",
        {"user-agent": "ollama-python/0.6.3 (x86_64 linux) Python/3.11.9"},
        {"x-unknown": "1"},
    ),
    "bedrock": (
        "bedrock-runtime.us-east-1.amazonaws.com",
        "/model/anthropic.claude/converse",
        AMAZON,
        {
            f"x-amzn-bedrock-{name}": "1"
            for name in (
                "guardrailidentifier", "guardrailversion", "performanceconfig-latency",
                "service-tier", "trace",
            )
        },
    ),
}  # fmt: skip
EACH = [(name, header) for name, sent in SENT.items() for header in {**USUAL, **sent[2]}]
INSIDE = [(name, header) for name, sent in SENT.items() for header in sent[3]]


def key(name, **changes):
    """Return the key of a provider's request, with other values of some headers, None for none."""
    host, path, out, inside = SENT[name]
    headers = {**USUAL, **out, **inside, **changes}
    sent = {header: value for header, value in headers.items() if value is not None}
    prefix = Prefix(
        HERE, method="POST", upstream=f"https://{host}", path=path, query={}, headers=sent
    )
    return prefix.key(b"{}")


def test_they_are_found_where_they_are_sent():
    """The addresses above are those of their providers; Bedrock isn't known."""
    for name, (host, path, *_) in SENT.items():
        match = find(host, path, {})
        assert (match.provider.name if match else "bedrock") == name


@pytest.mark.parametrize(("name", "header"), EACH)
def test_headers_that_make_no_difference(name, header):
    """Another value is no other request, and neither is none."""
    assert key(name, **{header: "another"}) == key(name) == key(name, **{header: None})
    assert key(name, **{header.title(): "another"}) == key(name)


@pytest.mark.parametrize(("name", "header"), INSIDE)
def test_headers_that_do(name, header):
    """Another value is another request, and so is none."""
    assert len({key(name), key(name, **{header: "another"}), key(name, **{header: None})}) == 3


@pytest.mark.parametrize("name", SENT)
def test_machines_versions_and_accounts_share(name):
    """All that changes from one to the other, changed at once, makes no difference."""
    out = SENT[name][2]
    others = dict.fromkeys({**USUAL, **out}, "of another machine, version and account")
    assert key(name, **others) == key(name)


def test_whose_a_request_is():
    """Whom to bill is a part of that: an error of the one account is none of the other's."""
    for header in ("x-api-key", "anthropic-workspace-id", "x-hf-bill-to", "x-goog-user-project"):
        assert is_credential_header(header)
    for header in ("anthropic-version", "x-goog-api-client", "http-referer", "x-amz-date"):
        assert not is_credential_header(header)


def test_the_api_version_of_a_query_is_in_the_key():
    """So is the way in which a stream is asked for; a key in the query isn't."""

    def asked(**query):
        upstream = "https://a.example"
        return Prefix(HERE, method="POST", upstream=upstream, path="/x", query=query).key(b"{}")

    assert asked(**{"api-version": "1"}) != asked(**{"api-version": "2"})
    assert asked(alt="sse") != asked()
    assert asked(key="a") == asked(key="b") == asked()
