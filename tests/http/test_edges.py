"""What is odd about requests, clients and answers: it costs no wrong hit, and no call."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest

import asynccache
from asynccache import Cache, options

HOST = "https://api.openai.com"
CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}
AZURE = "https://one.openai.azure.com/openai/deployments"
ANSWER = {"model": "m", "choices": [{"index": 0, "message": {}, "finish_reason": "stop"}]}


class Server:
    """Numbers its answers."""

    def __init__(self, **given):
        self.given = given
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        given = {"json": {**ANSWER, "id": str(len(self.requests))}, **self.given}
        return httpx2.Response(given.pop("status_code", 200), **given)


@pytest.fixture
async def cache():
    """An open cache."""
    async with Cache.memory() as cache:
        yield cache


@pytest.fixture
def server():
    """A server as it is at first."""
    return Server()


@pytest.fixture
def client(cache, server):
    """A client of it, cached."""
    return cache.wrap(httpx2.AsyncClient(transport=httpx2.MockTransport(server)))


async def asked(client, url=HOST + CHAT, body=BODY, **given):
    """Return where a response came from, None for one that isn't ours."""
    found = asynccache.status(await client.post(url, json=body, **given))
    return found and found.outcome


# -- what makes another request ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"headers": {"host": "llama-a.corp"}}, {"headers": {"host": "llama-b.corp"}}),
        ({"url": f"{HOST}{CHAT}?x=%FF"}, {"url": f"{HOST}{CHAT}?x=%FE"}),
        ({"url": f"{AZURE}/a/chat/completions"}, {"url": f"{AZURE}/b/chat/completions"}),
    ],
    ids=["host header", "bytes of a query", "deployment"],
)
async def test_other_requests_have_other_answers(client, server, one, other):
    """None of the two gets the other's."""
    await asked(client, **one)
    assert await asked(client, **other) in {"miss", None}
    assert len(server.requests) == 2


async def test_a_host_header_that_says_what_the_url_says_is_nothing(client):
    """With the default port, too, or in capitals."""
    assert await asked(client) == "miss"
    for host in ("API.openai.com", "api.openai.com:443"):
        assert await asked(client, headers={"host": host}) == "hit"


async def test_a_name_for_the_server_hides_no_deployment(cache, server):
    """One that isn't the body's model is in the key; one that is, is not."""
    bare = httpx2.AsyncClient(transport=httpx2.MockTransport(server))
    client = cache.wrap(bare, upstream="azure")
    assert await asked(client, f"{AZURE}/a/chat/completions") == "miss"
    assert await asked(client, f"{AZURE}/b/chat/completions") == "miss"
    assert await asked(client, f"{AZURE}/m/chat/completions") == "miss"
    assert await asked(client, f"{AZURE.replace('one', 'two')}/m/chat/completions") == "hit"


async def test_a_deployment_is_a_model(client):
    """Azure's requests need none in the body."""
    body = {"messages": BODY["messages"]}
    assert await asked(client, f"{AZURE}/a/chat/completions", body) == "miss"
    assert await asked(client, f"{AZURE}/a/chat/completions", body) == "hit"
    assert await asked(client, f"{HOST}{CHAT}", body) is None


@pytest.mark.parametrize(
    "header", ["ocp-apim-subscription-key", "x-newrelic-id", "x-instana-t", "sw8", "date",
               "x-session-affinity"],
)  # fmt: skip
async def test_what_differs_per_account_or_call_is_in_no_key(client, header):
    """Another value of it is the same request."""
    assert await asked(client, headers={header: "a"}) == "miss"
    assert await asked(client, headers={header: "b"}) == "hit"


@pytest.mark.parametrize("content", [b'{"model":"m","messages":[],"n":NaN}',
                                     b'{"model":"m","messages":["\\ud800"]}'])  # fmt: skip
async def test_a_request_without_a_canonical_form_is_counted(client, cache, server, content):
    """It goes past the cache, as one that has no key."""
    await client.post(HOST + CHAT, content=content)
    assert cache.stats().bypassed == len(server.requests) == 1


async def test_a_stream_in_a_framing_that_isnt_known_passes(client, cache, server):
    """Cohere's first version answers in lines, unless it is asked for events."""
    url = "https://api.cohere.com/v1/chat"
    await asked(
        client, url, {"message": "x", "stream": True}, headers={"accept": "text/event-stream"}
    )
    assert cache.stats().bypassed == len(server.requests) == 1


# -- whose an error is ---------------------------------------------------------------------------


async def test_a_cookie_makes_no_other_account(cache):
    """Of ten clients of one key, each with a server's cookie of its own, one asks in vain."""
    server = Server(status_code=429)
    client = cache.wrap(httpx2.AsyncClient(transport=Slow(server)))
    sent = [{"authorization": "Bearer k", "cookie": f"__cf_bm={number}"} for number in range(10)]
    await asyncio.gather(*(asked(client, headers=headers) for headers in sent))
    assert len(server.requests) == 1


class Slow(httpx2.MockTransport):
    """Lets all others ask before it answers."""

    async def handle_async_request(self, request):
        await asyncio.sleep(0.01)
        return await super().handle_async_request(request)


async def test_each_account_is_told_that_its_key_is_bad(cache):
    """Some say 400 to that, also where several inputs are asked for in one request."""
    for url, body in (
        (f"{HOST}{CHAT}", BODY),
        (f"{HOST}/v1/embeddings", {"model": "m", "input": ["a", "b"]}),
    ):
        server = Server(status_code=400)
        client = cache.wrap(httpx2.AsyncClient(transport=Slow(server)))
        keys = [{"authorization": f"Bearer {key}"} for key in ("a", "b", "a")]
        await asyncio.gather(*(asked(client, url, body, headers=key) for key in keys))
        assert len(server.requests) == 2


# -- attempts and accounts -----------------------------------------------------------------------


async def test_a_retry_is_still_the_same_sample(cache):
    """The second time the block asks, all is there."""
    server = Server(status_code=429)
    client = cache.wrap(httpx2.AsyncClient(transport=httpx2.MockTransport(server)))
    with options(sample="each"):
        await asked(client)
        server.given = {}
        assert [await asked(client), await asked(client)] == ["miss", "miss"]
    with options(sample="each"):
        assert [await asked(client), await asked(client)] == ["hit", "hit"]


@pytest.mark.parametrize(
    ("authorization", "sent"),
    [("AWS4-HMAC-SHA256 Credential=k", ["a", "c"]), ("Bearer k", ["c"]), ("", ["c"])],
)
async def test_a_signed_request_is_sent_as_it_is(cache, authorization, sent):
    """Its signature is true for this body alone: no part of the inputs is sent under it."""
    requests = []

    def embed(request):
        requests.append(json.loads(request.content)["input"])
        data = [{"index": at, "embedding": [1.0]} for at, _ in enumerate(requests[-1])]
        return httpx2.Response(200, json={"data": data})

    client = cache.wrap(httpx2.AsyncClient(transport=httpx2.MockTransport(embed)))
    headers = {"authorization": authorization} if authorization else {}
    for inputs in (["a", "b"], ["a", "c"], ["a", "c"]):
        await asked(
            client, f"{HOST}/v1/embeddings", {"model": "m", "input": inputs}, headers=headers
        )
    assert requests == [["a", "b"], sent]


# -- clients -------------------------------------------------------------------------------------


async def test_a_copy_has_settings_of_its_own(cache, server):
    """What is set on it later is not set on the client it was made of, and the reverse."""
    bare = httpx2.AsyncClient(transport=httpx2.MockTransport(server), headers={"a": "1"})
    client = cache.wrap(bare)
    client.headers["b"], bare.headers["c"] = "2", "3"
    client.cookies.set("b", "2")
    client.event_hooks["request"].append(print)
    assert (client.headers["a"], "b" in bare.headers, "c" in client.headers) == ("1", False, False)
    assert not bare.cookies
    assert not bare.event_hooks["request"]


async def test_what_a_task_asks_that_was_begun_beneath_a_call_is_cached(cache, server):
    """The call that it was begun beneath is over by then."""
    tasks, over = [], asyncio.Event()
    mock = httpx2.MockTransport(server)
    client = cache.wrap(httpx2.AsyncClient(transport=mock))

    async def later():
        await over.wait()
        return [await asked(client, body={**BODY, "n": 2}) for _ in range(2)]

    class Gateway(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request):
            tasks.append(asyncio.ensure_future(later()))
            return await mock.handle_async_request(request)

    await asked(cache.wrap(httpx2.AsyncClient(transport=Gateway())))
    over.set()
    assert await tasks[0] == ["miss", "hit"]


# -- answers -------------------------------------------------------------------------------------


async def test_an_answer_without_a_body_has_no_length(cache):
    """As HTTP has it (RFC 9110, 8.6)."""
    server = Server(status_code=204, json=None, content=b"")
    server.given.pop("json")
    client = cache.wrap(httpx2.AsyncClient(transport=Bodiless()))
    response = await client.post(HOST + CHAT, json=BODY)
    assert (response.status_code, response.content) == (204, b"")
    assert "content-length" not in response.headers


class Bodiless(httpx2.AsyncBaseTransport):
    """Answers with nothing."""

    async def handle_async_request(self, request):
        return httpx2.Response(204)


class Body(httpx2.AsyncByteStream):
    """Pieces that come one by one, the next once the one before was read."""

    def __init__(self, pieces, gate=None):
        self.pieces, self.gate, self.closed = pieces, gate, asyncio.Event()

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece
        if self.gate is not None:
            await self.gate.wait()

    async def aclose(self):
        self.closed.set()


class Streaming(httpx2.AsyncBaseTransport):
    """Answers with a body."""

    def __init__(self, body, content_type="text/event-stream"):
        self.body, self.content_type = body, content_type

    async def handle_async_request(self, request):
        headers = {"content-type": self.content_type}
        return httpx2.Response(200, headers=headers, stream=self.body)


@pytest.mark.parametrize("content_type", ["application/json", "text/html; charset=utf-8"])
async def test_a_document_in_a_streams_place_comes_as_it_comes(cache, content_type):
    """Nobody waits for the end of an event where there is none, and nothing is stored."""
    gate = asyncio.Event()
    client = cache.wrap(
        httpx2.AsyncClient(transport=Streaming(Body([b'{"a"'], gate), content_type))
    )
    body = {**BODY, "stream": True}
    async with asyncio.timeout(20), client.stream("POST", HOST + CHAT, json=body) as response:
        assert await anext(response.aiter_bytes()) == b'{"a"'
        gate.set()
    assert cache.stats().stored == 0


async def test_nobody_joins_a_stream_that_has_failed(cache):
    """Who comes after the error asks anew at once, though the failed stream goes on."""
    gate = asyncio.Event()
    bad = Body([b'data: {"error":{"message":"overloaded"}}\n\n'], gate)
    good = Body(
        [b'data: {"choices":[{"index":0,"finish_reason":"stop"}]}\n\n', b"data: [DONE]\n\n"]
    )
    transport = Streaming(bad)
    client = cache.wrap(httpx2.AsyncClient(transport=transport))
    body = {**BODY, "stream": True}
    async with asyncio.timeout(20), client.stream("POST", HOST + CHAT, json=body) as failed:
        pieces = failed.aiter_bytes()
        assert await anext(pieces) == bad.pieces[0]
        transport.body = good
        assert (await client.post(HOST + CHAT, json=body)).content == b"".join(good.pieces)
        gate.set()
        assert [piece async for piece in pieces] == []  # and it came to its own end


async def test_what_never_ends_an_event_is_handed_on():
    """More of it than an entry may hold is no event; it comes through, and isn't kept."""
    pieces, gate = [b"data: " + b"x" * 1000] * 50, asyncio.Event()
    async with Cache.memory(max_entry_bytes=10_000) as cache:
        client = cache.wrap(httpx2.AsyncClient(transport=Streaming(Body(pieces, gate))))
        body, read = {**BODY, "stream": True}, b""
        async with asyncio.timeout(20), client.stream("POST", HOST + CHAT, json=body) as response:
            async for piece in response.aiter_bytes():
                read += piece
                if len(read) == len(b"".join(pieces)):
                    gate.set()  # all has come before the end
        assert read == b"".join(pieces)
        assert cache.stats().stored == 0


async def test_the_connection_is_given_back_though_the_server_holds_it(cache):
    """After the terminal event nobody waits long for what else may come."""
    events = [b'data: {"choices":[{"index":0,"finish_reason":"stop"}]}\n\n', b"data: [DONE]\n\n"]
    body = Body(events, asyncio.Event())
    client = cache.wrap(httpx2.AsyncClient(transport=Streaming(body)))
    async with asyncio.timeout(20):
        response = await client.post(HOST + CHAT, json={**BODY, "stream": True})
        assert response.content == b"".join(events)
        await body.closed.wait()
