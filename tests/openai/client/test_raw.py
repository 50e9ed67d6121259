"""Raw responses: what a paid call, those who waited with it, and a hit show of them."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
from openai import AsyncOpenAI, OpenAI

from asynccache import Cache
from tests.helpers.http import httpx
from tests.helpers.openai_embeddings import embed
from tests.helpers.openai_server import COMPLETION, EVENTS, MESSAGES, Gate, state

pytest_plugins = ("tests.helpers.openai_fixtures",)

SENT = [
    ("x-ratelimit-remaining-requests", "41"),
    ("x-ratelimit-remaining-tokens", "1000"),
    ("apim-request-id", "apim_1"),
    ("x-ms-region", "Sweden Central"),
    ("openai-version", "2020-10-01"),
    ("x-several", "one"),
    ("x-several", "two"),
]
COOKIE = ("set-cookie", "session=secret")
KEPT = {"x-request-id", "apim-request-id", "x-ms-region", "openai-version"}
CHAT = {"model": "gpt-4o", "messages": MESSAGES}
EMBED = {"model": "text-embedding-3-small", "input": ["a", "b"]}


def fails_first(times):
    """Return a server's program that fails a few times, then answers compressed."""
    left = [times]

    async def program(seen):
        if left[0]:
            left[0] -= 1
            await seen.answer({}, status=503, headers=[("retry-after-ms", "1")])
        elif seen.path.endswith("/embeddings"):
            await embed(seen)
        elif seen.body.get("stream"):
            body = gzip.compress(b"".join(EVENTS))
            await seen.stream(body, headers=[*SENT, COOKIE, ("content-encoding", "gzip")])
        else:
            body = gzip.compress(json.dumps(COMPLETION).encode())
            length = ("content-length", str(len(body)))
            await seen.answer(body, headers=[*SENT, COOKIE, length, ("content-encoding", "gzip")])

    return program


def told(raw):
    """Return all that can be compared of a raw response before its body is read."""
    request = raw.http_request
    return {
        "type": type(raw),
        "status": raw.status_code,
        "headers": [
            (name.lower(), value)
            for name, value in raw.headers.multi_items()
            if name.lower() not in {"date", "set-cookie"}
        ],
        "id": raw.request_id,
        "retries": raw.retries_taken,
        "url": str(raw.url),
        "version": raw.http_version,
        "reason": raw.http_response.reason_phrase,
        "sent to": str(request.url),
        "sent": request.content,
        "sent headers": {
            name: value
            for name, value in request.headers.items()
            if name not in {"idempotency-key", "cookie"}
        },
        "closed": raw.is_closed,
    }


async def raw_plain(client, **ask):
    """Ask for a raw response."""
    raw = await client.chat.completions.with_raw_response.create(**CHAT, **ask)
    if ask.get("stream"):
        return told(raw), [event.model_dump() async for event in raw.parse()], raw.is_closed
    return told(raw), raw.parse().model_dump(), raw.is_closed


async def raw_streaming(client, **ask):
    """Ask for a raw response that is read in the block."""
    create = client.chat.completions.with_streaming_response.create
    async with create(**CHAT, **ask) as raw:
        return told(raw), b"".join([piece async for piece in raw.iter_bytes()]), raw.is_closed


async def raw_read(client):
    """Ask for the same, and read it in other ways."""
    async with client.chat.completions.with_streaming_response.create(**CHAT) as raw:
        return told(raw), await raw.json(), await raw.read(), (await raw.parse()).model_dump()


async def raw_embeddings(client):
    """Ask for a raw response with embeddings."""
    raw = await client.embeddings.with_raw_response.create(**EMBED)
    return told(raw), raw.parse().model_dump(), raw.is_closed


async def posted(client):
    """Ask for the HTTP response itself."""
    response = await client.post("/chat/completions", cast_to=httpx.Response, body=CHAT)
    return response.json(), dict(response.headers)["x-several"], response.request.content


async def of_stream(client):
    """Ask for a stream, and look at its response."""
    stream = await client.chat.completions.create(**CHAT, stream=True)
    found = dict(stream.response.headers)["x-several"], stream.response.request.content
    return *found, stream.response.is_closed, [event.model_dump() async for event in stream]


CALLS = {
    "raw": raw_plain,
    "raw, streamed": lambda client: raw_plain(client, stream=True),
    "streaming": raw_streaming,
    "streaming, streamed": lambda client: raw_streaming(client, stream=True),
    "streaming, read": raw_read,
    "embeddings": raw_embeddings,
    "post": posted,
    "stream": of_stream,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("failing", [0, 2])
async def test_a_paid_call_shows_what_the_bare_client_shows(api, call, failing):
    """Headers, the request that was sent, retries, and whether the body was read yet."""
    async with AsyncOpenAI(api_key="sk-a", base_url=api.base_url) as bare, Cache.memory() as cache:
        api.program = fails_first(failing)
        expected = await call(bare)
        api.program = fails_first(failing)
        assert await call(cache.wrap(bare)) == expected
        assert len(api.requests) == 2 * (failing + 1)


def sync_plain(client, **ask):
    """Ask for a raw response."""
    raw = client.chat.completions.with_raw_response.create(**CHAT, **ask)
    if ask.get("stream"):
        return told(raw), [event.model_dump() for event in raw.parse()], raw.is_closed
    return told(raw), raw.parse().model_dump(), raw.is_closed


def sync_streaming(client, **ask):
    """Ask for a raw response that is read in the block."""
    with client.chat.completions.with_streaming_response.create(**CHAT, **ask) as raw:
        return told(raw), b"".join(raw.iter_bytes()), raw.is_closed


SYNC_CALLS = {
    "raw": sync_plain,
    "raw, streamed": lambda client: sync_plain(client, stream=True),
    "streaming": sync_streaming,
    "streaming, streamed": lambda client: sync_streaming(client, stream=True),
}


@pytest.mark.parametrize("call", SYNC_CALLS.values(), ids=SYNC_CALLS)
async def test_a_synchronous_paid_call_shows_what_the_bare_client_shows(api, api_cache, call):
    """The same for the synchronous client."""
    with OpenAI(api_key="sk-a", base_url=api.base_url) as bare:
        api.program = fails_first(1)
        expected = await asyncio.to_thread(call, bare)
        api.program = fails_first(1)
        assert await asyncio.to_thread(call, api_cache.wrap(bare)) == expected


@pytest.mark.parametrize("stream", [False, True])
async def test_headers_of_a_miss_of_who_joins_it_and_of_a_hit(api, bare, cached, stream):
    """Whoever waited has all but cookies, and the request of its payer alone; a hit has a few."""
    gate = Gate()
    answer = fails_first(0)

    async def slow(seen):
        await gate.wait()
        await answer(seen)

    async def ask(client):
        raw = await client.chat.completions.with_raw_response.create(**CHAT, stream=stream)
        parsed = raw.parse()
        if stream:
            _ = [event async for event in parsed]
        return raw

    api.program = slow
    other = cached.with_options(api_key="sk-b")
    asked = [asyncio.create_task(ask(client)) for client in (cached, other)]
    await api.arrived()
    gate.open()
    miss, joined = await asyncio.gather(*asked)
    hit = await ask(cached)
    assert [state(raw).outcome for raw in (miss, joined, hit)] == ["miss", "joined", "hit"]
    for raw in (miss, joined):
        sent = raw.headers.multi_items()
        assert set(SENT) <= set(sent)
        assert "set-cookie" not in raw.headers
        assert "content-encoding" in raw.headers
    assert set(hit.headers) - {"content-type", "content-length"} == KEPT
    assert miss.http_request.headers["authorization"] == "Bearer sk-a"
    assert "authorization" not in joined.http_request.headers
    assert joined.retries_taken == hit.retries_taken == 0


async def test_a_hit_is_not_read_yet_either(cached, api):
    """A plain answer is the caller's to read, wherever it came from."""
    for _ in range(2):
        async with cached.chat.completions.with_streaming_response.create(**CHAT) as raw:
            assert not raw.is_closed
            assert await raw.json() == COMPLETION
            assert raw.is_closed
    assert len(api.requests) == 1


async def test_nothing_but_the_kept_headers_is_at_rest(api, bare, tmp_path):
    """Cookies and what is true of a moment only aren't stored."""
    api.program = fails_first(0)
    async with Cache.disk(cache_path_root=tmp_path) as cache:
        await cache.wrap(bare).chat.completions.with_raw_response.create(**CHAT)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"apim_1" in stored
    assert b"session=secret" not in stored
    assert b"x-ratelimit" not in stored
