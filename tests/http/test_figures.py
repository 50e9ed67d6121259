"""What events and figures say of each provider's answers, asked over an HTTP client."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

import asynccache
from asynccache import Cache
from tests.helpers import providers_answers as answers

SAID = answers.Said(7, "It is sunny.")
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash"
# By provider: URL, body, what answers, what of a body asks for a stream, model, tokens.
PROVIDERS: dict[str, Any] = {
    "groq": (
        "https://api.groq.com/openai/v1/chat/completions", CHAT, answers.GroqChat(),
        {"stream": True}, "gpt-4o-2024-08-06", (9, 3, 4, 0),
    ),
    "openai-compatible": (
        "http://nobody.example/v1/chat/completions", CHAT, answers.Chat(), {"stream": True},
        "gpt-4o-2024-08-06", (9, 3, 4, 0),
    ),
    "anthropic": (
        "https://api.anthropic.com/v1/messages", {**CHAT, "max_tokens": 9}, answers.Anthropic(),
        {"stream": True}, "claude-sonnet-4-5", (11, 3, 4, 2),
    ),
    "gemini": (
        f"{GEMINI}:generateContent", {"contents": []}, answers.Gemini(), {}, "gemini-2.5-flash",
        (9, 5, 4, 0),
    ),
    "cohere": (
        "https://api.cohere.com/v2/chat", CHAT, answers.Cohere(), {"stream": True}, "m",
        (9, 3, 4, 0),
    ),
    "ollama": (
        "http://localhost:11434/api/chat", {**CHAT, "stream": False}, answers.Ollama(),
        {"stream": True}, "llama3.2", (9, 3, 0, 0),
    ),
}  # fmt: skip


def figures(call):
    """Return an event's numbers of tokens."""
    cached = (call.cache_read_tokens, call.cache_write_tokens)
    return (call.input_tokens, call.output_tokens, *cached)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("name", PROVIDERS)
async def test_what_an_answer_says_of_itself(name, streamed):
    """Provider, model and tokens are told of the call that was paid for, and of a hit."""
    url, body, speaks, streaming, model, tokens = PROVIDERS[name]
    if streamed:
        url = url.replace(":generateContent", ":streamGenerateContent?alt=sse")
        body = {**body, **streaming}

    def answer(request):
        if not streamed:
            return httpx2.Response(200, json=speaks.plain(SAID))
        return httpx2.Response(200, content=b"".join(speaks.events(SAID)))

    async with (
        Cache.memory() as cache,
        cache.wrap(httpx2.AsyncClient(transport=httpx2.MockTransport(answer))) as client,
    ):
        with asynccache.record() as calls:
            for _ in range(2):
                (await client.post(url, json=body)).raise_for_status()
        assert [call.outcome for call in calls] == ["miss", "hit"]
        for call in calls:
            assert (call.provider, call.model) == (name, model)
            assert figures(call) == tokens
        stats = cache.stats()
        assert stats.tokens_paid == stats.tokens_saved == sum(tokens[:2])
        assert (stats.cache_read_tokens, stats.cache_write_tokens) == tokens[2:]
        assert json.loads(json.dumps(stats.as_dict()))["cache_read_tokens"] == tokens[2]


async def test_a_stream_that_is_no_stream_of_events_passes():
    """Without ``alt=sse`` Gemini sends one array, piece by piece, which is given as it comes."""
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=[{"candidates": []}]))
    async with (
        Cache.memory() as cache,
        cache.wrap(httpx2.AsyncClient(transport=transport)) as client,
    ):
        url = f"{GEMINI}:streamGenerateContent"
        assert (await client.post(url, json={"contents": []})).json() == [{"candidates": []}]
        assert cache.stats().bypassed == 1


async def test_who_was_asked_past_the_cache():
    """The provider is told of bypasses and of errors too."""
    transport = httpx2.MockTransport(lambda _: httpx2.Response(529, json={"type": "error"}))
    url, body, *_ = PROVIDERS["anthropic"]
    async with (
        Cache.memory() as cache,
        cache.wrap(httpx2.AsyncClient(transport=transport)) as client,
    ):
        with asynccache.record() as calls:
            await client.post(url, json={**body, "container": "c"})
            await client.post(url, json=body)
    assert [call.outcome for call in calls] == ["bypass", "error"]
    assert [call.provider for call in calls] == ["anthropic"] * 2
