"""No secret of a request is at rest or in sight, whichever provider's it is."""

from __future__ import annotations

import json
import logging
import traceback
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

import asynccache
from asynccache import Cache, options
from asynccache.cache.facade import NO_OPTIONS, resolve
from asynccache.http.httpx_transport import wire_request
from asynccache.http.request import keyed, question_of
from asynccache.keys.denied import CREDENTIAL_HEADERS, DENIED_QUERY
from asynccache.stores.memory import MemoryStore
from tests.helpers.inside import engine_of
from tests.helpers.openai_server import state, stored

pytest_plugins = ("tests.helpers.openai_fixtures",)
pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

WORD = "hunter2-"  # in every secret, so that nothing of one may be anywhere
ASKED = "what the user asks"
MESSAGES = [{"role": "user", "content": ASKED}]
CHAT = {"model": "m", "messages": MESSAGES}
ANTHROPIC = {"anthropic-version": "2023-06-01"}
MCP = {
    "type": "url", "name": "store", "authorization_token": f"{WORD}of-mcp",
    "url": f"https://me:{WORD}info@mcp.example/sse?page=1&api_key={WORD}query",
}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "/v1/chat/completions": {"choices": [{"index": 0, "finish_reason": "stop"}], "model": "m"},
    "/v1/messages": {"type": "message", "content": [], "stop_reason": "end_turn", "model": "m"},
    "/v1beta/models/m:generateContent": {"candidates": [{"finishReason": "STOP"}]},
    "/v2/chat": {"message": {"role": "assistant"}, "finish_reason": "COMPLETE"},
    "/v1/embeddings": {"data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]},
}
REQUESTS: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "openai": ("https://api.openai.com/v1/chat/completions", {}, CHAT),
    "embeddings": ("https://api.openai.com/v1/embeddings", {}, {"model": "m", "input": ASKED}),
    "anthropic": (
        "https://api.anthropic.com/v1/messages", ANTHROPIC,
        {**CHAT, "max_tokens": 9, "mcp_servers": [MCP], "fallback_credit_token": f"{WORD}credit"},
    ),
    "gemini": (
        "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent", {},
        {"contents": [{"role": "user", "parts": [{"text": ASKED}]}]},
    ),
    "cohere": ("https://api.cohere.com/v2/chat", {}, CHAT),
}  # fmt: skip


def requests():
    """Return the URL, headers and body of requests that have secrets everywhere."""
    credentials = {name: f"Bearer {WORD}{name}" for name in CREDENTIAL_HEADERS}
    query = "&".join(f"{name}={WORD}{name}" for name in sorted(DENIED_QUERY))
    for name, (url, headers, body) in REQUESTS.items():
        secret = url.replace("https://", f"https://me:{WORD}pass@")
        yield name, f"{secret}?{query}", {**credentials, **headers}, body


class Upstream(httpx2.AsyncBaseTransport, httpx2.BaseTransport):
    """Answers as a provider does, with cookies and whatever a test wants."""

    def __init__(self):
        self.asked = 0
        self.refuses = False

    def handle_request(self, request):
        self.asked += 1
        body = json.loads(request.content)
        if self.refuses:
            return httpx2.Response(401, json={"error": {"message": "no"}})
        if body.get("model") == "slow":
            raise httpx2.ReadTimeout("too slow", request=request)
        headers = {"set-cookie": f"session={WORD}cookie", "x-request-id": "req_1"}
        return httpx2.Response(200, json=ANSWERS[request.url.path], headers=headers)

    async def handle_async_request(self, request):
        return self.handle_request(request)


@pytest.fixture(params=["memory", "disk"])
def place(request, tmp_path):
    """Give a cache that keeps requests too, and a function that reads all it has at rest."""
    events: list[asynccache.CallEvent] = []
    kept: dict[str, Any] = {"keep_requests": True, "observer": events.append, "event_paths": True}
    if request.param == "memory":
        store = MemoryStore()

        def at_rest():
            return b"".join(body for body, *_ in store._entries.values())

        return Cache.from_store(store, **kept), at_rest, events

    def on_disk():
        return b"".join(
            path.read_bytes() + str(path).encode()
            for path in sorted(tmp_path.rglob("*"))
            if path.is_file()
        )

    return Cache.disk(cache_path_root=tmp_path / "cache", **kept), on_disk, events


async def test_nothing_secret_at_rest_or_in_sight(place, caplog):
    """Store, log, repr, errors, stats and events hold no credential."""
    caplog.set_level(logging.DEBUG, logger="asynccache")
    cache, at_rest, events = place
    upstream = Upstream()
    shown = []
    async with httpx2.AsyncClient(transport=upstream) as bare:
        client = cache.wrap(bare)

        async def failing(kind, url, **given):
            with pytest.raises(kind) as caught:
                await client.post(url, **given)
            shown.append("".join(traceback.format_exception_only(caught.value)))
            shown.append(repr(caught.value))

        for _, url, headers, body in requests():
            await client.post(url, headers=headers, json=body)  # past a cache that isn't open
        async with cache:
            for name, url, headers, body in requests():
                given = {"headers": headers, "json": body}
                for _ in range(2):
                    response = await client.post(url, **given)
                    assert response.status_code == 200, name
                    shown.append(repr(asynccache.status(response)))
                other = {**body, "model": "other"}
                if name == "gemini":
                    other = {**body, "labels": {"a": "b"}}
                with options(mode="replay"):
                    await failing(asynccache.ReplayMiss, url, headers=headers, json=other)
                twice = json.dumps(body)[:-1] + f', "a": "{WORD}", "a": 1}}'  # not cacheable
                await client.post(url, headers=headers, content=twice)
                upstream.refuses = True
                await client.post(url, headers=headers, json={**body, "x": 1})
                upstream.refuses = False
                if "model" in body:
                    slow = {**body, "model": "slow"}
                    await failing(httpx2.ReadTimeout, url, headers=headers, json=slow)
            await stored(cache, len(REQUESTS))
            shown += [repr(cache), repr(cache.settings), repr(engine_of(cache))]
            shown += [repr(client), repr(client._transport_for_url(httpx2.URL(url)))]
    shown += [repr(cache.stats()), *map(repr, events), caplog.text]
    assert ASKED not in "".join(shown)
    assert WORD not in "".join(shown)
    rest = at_rest()
    assert ASKED.encode() in rest  # the requests are really there
    assert b"mcp.example" in rest
    assert WORD.encode() not in rest
    assert {one.outcome for one in events} == {"bypass", "miss", "hit", "error"}


async def test_accounts_share_entries(place):
    """Two requests that differ in nothing but secrets are one."""
    cache, *_ = place
    upstream = Upstream()
    async with cache, httpx2.AsyncClient(transport=upstream) as bare:
        client = cache.wrap(bare)
        for name, url, headers, body in requests():
            await client.post(url, headers=headers, json=body)
            await stored(cache, upstream.asked)
            other = json.loads(json.dumps(body).replace(WORD, "sesame-"))
            renamed = {header: value.replace(WORD, "sesame-") for header, value in headers.items()}
            response = await client.post(url.replace(WORD, "sesame-"), headers=renamed, json=other)
            assert state(response).outcome == "hit", name
    assert upstream.asked == len(REQUESTS)


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_what_stands_in_frames_shows_nothing(library, api_cache):
    """Tools that report errors show the variables of frames: ours name no secret there."""
    for _, url, headers, body in requests():
        request = library.Request("POST", url, headers=headers, json=body)
        wire = wire_request(library, request)
        question: Any = question_of(wire)
        scope: Any = resolve(api_cache, NO_OPTIONS)
        call = keyed(question, scope, None)
        assert WORD not in repr([wire, question, question.source, call])


async def test_an_answer_that_echoes_a_secret_is_not_stored(api_cache):
    """As where an MCP server's token stands in Anthropic's answer."""

    def echo(request):
        token = json.loads(request.content)["mcp_servers"][0]["authorization_token"]
        content = [{"type": "text", "text": f"your token is {token}"}]
        return httpx2.Response(200, json={**ANSWERS["/v1/messages"], "content": content})

    url, headers, body = REQUESTS["anthropic"]
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(echo)) as bare:
        for _ in range(2):
            response = await api_cache.wrap(bare).post(url, headers=headers, json=body)
            assert f"{WORD}of-mcp" in response.text
    assert api_cache.stats().not_stored == {"secret": 2}


async def test_aiohttp_shows_nothing_either(api, api_cache, caplog):
    """What it has of a request: headers, query, user-info and cookies."""
    caplog.set_level(logging.DEBUG, logger="asynccache")

    async def program(seen):
        cookie = [("set-cookie", f"session={WORD}cookie")]
        await seen.answer(ANSWERS["/v1/chat/completions"], headers=cookie)

    api.program = program
    url = (
        api.base_url.replace("http://", f"http://me:{WORD}pass@") + f"/chat/completions?key={WORD}"
    )
    shown = []
    headers = {"x-api-key": f"{WORD}key"}
    async with aiohttp.ClientSession(cookies={"a": f"{WORD}cookie"}, headers=headers) as bare:
        session = api_cache.wrap(bare)
        for _ in range(2):
            async with session.post(url, json=CHAT) as response:
                assert response.status == 200
                shown.append(repr(asynccache.status(response)))
            await stored(api_cache)
        with options(mode="replay"), pytest.raises(asynccache.ReplayMiss) as caught:
            await session.post(url, json={**CHAT, "model": "other"})
        shown += [repr(caught.value), caplog.text]
    assert len(api.requests) == 1
    assert WORD not in "".join(shown)
