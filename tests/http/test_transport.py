"""Clients of httpx and httpx2 over a cache: what is answered from it, and what passes untouched."""

from __future__ import annotations

import asyncio
import importlib
import json
from typing import Any

import pytest

import asynccache
from asynccache import Cache, ReplayMiss
from asynccache.http import endpoint, register
from asynccache.providers import table

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}
URL = "https://api.openai.com/v1/chat/completions"
CHAT = {
    "id": "c-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "?"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}  # fmt: skip


def event(data):
    """Return one server-sent event."""
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def delta(text, finish=None):
    """Return a chunk of a streamed answer."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return event({"id": "c", "model": "m", "choices": [choice]})


STREAM = (delta("a"), delta("b"), delta("", "stop"), event("[DONE]"))


@pytest.fixture(params=["httpx", "httpx2"])
def library(request) -> Any:
    """Each of the two libraries."""
    return importlib.import_module(request.param)


@pytest.fixture(params=[False, True], ids=["async", "sync"])
def is_sync(request):
    """An asynchronous client, or a synchronous one."""
    return request.param


@pytest.fixture
async def cache():
    """An open cache."""
    async with Cache.memory() as cache:
        yield cache


class Server:
    """Stands beneath a client's transport, and keeps what arrives there."""

    def __init__(self, library, *, answer=None, events=STREAM, headers=(), status=200):
        self.library, self.answer, self.events, self.status = library, answer, events, status
        self.headers = [("content-type", "application/json"), *headers]
        self.requests = []
        self.given = 0  # chunks that were read of streams
        self.closed = 0

    def __call__(self, request):
        self.requests.append(request)
        streamed = b'"stream":true' in request.read().replace(b" ", b"") if self.events else False
        if not streamed:
            found = self.answer or {**CHAT, "id": f"c-{len(self.requests)}"}
            return self.library.Response(self.status, json=found, headers=self.headers)
        headers = [("content-type", "text/event-stream")]
        return self.library.Response(200, headers=headers, stream=self.body(self.library))

    def body(server, library):  # noqa: N805 - `self` is the stream's
        class Body(library.AsyncByteStream, library.SyncByteStream):  # type: ignore[misc, name-defined]  # of either library
            def __iter__(self):
                for chunk in server.events:
                    server.given += 1
                    yield chunk

            async def __aiter__(self):
                for chunk in server.events:
                    server.given += 1
                    await asyncio.sleep(0)
                    yield chunk

            def close(self):
                server.closed += 1

            async def aclose(self):
                server.closed += 1

        return Body()


class Asked:
    """A client of either kind, used alike."""

    def __init__(self, client):
        self.client = client
        self.is_sync = not hasattr(client, "aclose")

    async def _called(self, function, *args, **kwargs):
        if self.is_sync:
            return await asyncio.to_thread(function, *args, **kwargs)
        return await function(*args, **kwargs)

    async def post(self, url=URL, body=BODY, **kwargs):
        """Return a response, read."""
        return await self._called(self.client.post, url, json=body, **kwargs)

    async def lines(self, url=URL, body=BODY, stop=None):
        """Return a streamed response, and its lines up to one that holds a text."""
        body = {**body, "stream": True}
        request = self.client.build_request("POST", url, json=body)
        response = await self._called(self.client.send, request, stream=True)
        found = []
        if self.is_sync:
            await asyncio.to_thread(lambda: found.extend(response.iter_lines()))
            await asyncio.to_thread(response.close)
            return response, found
        async for line in response.aiter_lines():
            found.append(line)
            if stop and stop in line:
                break
        await response.aclose()
        return response, found


def client_of(server, *, is_sync):
    """Return a client whose requests reach a server."""
    kind = server.library.Client if is_sync else server.library.AsyncClient
    return kind(transport=server.library.MockTransport(server))


def outcome(response):
    """Return where a response came from."""
    found = asynccache.status(response)
    return found and found.outcome


async def test_an_answer_is_paid_for_once(library, is_sync, cache):
    """The second time it comes from the cache: body, status, content type, and whence."""
    server = Server(
        library, headers=[("x-request-id", "r-1"), ("set-cookie", "a=b"), ("x-left", "3")]
    )
    bare = client_of(server, is_sync=is_sync)
    asked = Asked(cache.wrap(bare))
    first, second = await asked.post(), await asked.post()
    assert (outcome(first), outcome(second)) == ("miss", "hit")
    assert first.json() == second.json() == {**CHAT, "id": "c-1"}
    assert len(server.requests) == 1
    assert type(second) is library.Response
    assert second.headers["x-request-id"] == "r-1"
    assert (first.headers["x-left"], "x-left" in second.headers) == ("3", False)
    assert "set-cookie" not in first.headers
    assert second.headers["content-length"] == str(len(second.content))
    assert second.request.url == URL
    assert second.elapsed is not None
    assert cache.stats().tokens_saved == 7
    assert outcome(await Asked(bare).post()) is None  # the client itself stays as it was
    assert len(server.requests) == 2


async def test_a_stream_is_paid_for_once(library, is_sync, cache):
    """Its events come again as they were, and the connection is given back."""
    server = Server(library)
    asked = Asked(cache.wrap(client_of(server, is_sync=is_sync)))
    (first, lines), (second, again) = await asked.lines(), await asked.lines()
    assert (outcome(first), outcome(second)) == ("miss", "hit")
    assert lines == again == b"".join(STREAM).decode().split("\n")[:-1]
    assert second.headers["content-type"] == "text/event-stream"
    assert len(server.requests) == 1
    async with asyncio.timeout(10):
        while not server.closed:
            await asyncio.sleep(0)


async def test_a_swarm_makes_one_call(library, is_sync, cache):
    """A hundred at once share one answer, plain and streamed."""
    server = Server(library)
    asked = Asked(cache.wrap(client_of(server, is_sync=is_sync)))
    many = 20 if is_sync else 100  # of threads there are fewer
    plain = await asyncio.gather(*(asked.post() for _ in range(many)))
    assert len({response.text for response in plain}) == len(server.requests) == 1
    streamed = await asyncio.gather(*(asked.lines() for _ in range(many)))
    assert len({tuple(lines) for _, lines in streamed}) == 1
    assert len(server.requests) == 2


async def test_a_refusal_is_a_response(library, is_sync, cache):
    """It reaches who waits with status, body and headers, and isn't stored."""
    server = Server(library, answer={"error": {}}, status=429, headers=[("retry-after", "7")])
    asked = Asked(cache.wrap(client_of(server, is_sync=is_sync)))
    for number in (1, 2):
        response = await asked.post()
        assert (response.status_code, response.headers["retry-after"]) == (429, "7")
        assert response.json() == {"error": {}}
        assert len(server.requests) == number
    assert cache.stats().stored == 0


async def test_others_credentials_get_their_own_refusal(library, cache):
    """A 429 is shared by those of one key alone; all share an answer."""
    server = Server(library, answer={"error": {}}, status=429)
    asked = Asked(cache.wrap(client_of(server, is_sync=False)))
    keys = ("k-1", "k-1", "k-2")
    await asyncio.gather(*(asked.post(headers={"authorization": f"Bearer {k}"}) for k in keys))
    assert len(server.requests) == 2


async def test_closing_after_the_finish_reason_stores_the_stream(library, cache):
    """Many clients hang up before the terminal event; the rest is read on for them."""
    server = Server(library)
    asked = Asked(cache.wrap(client_of(server, is_sync=False)))
    await asked.lines(stop='"stop"')
    async with asyncio.timeout(10):
        while not cache.stats().stored:
            await asyncio.sleep(0)
    _, lines = await asked.lines()
    assert len(server.requests) == 1
    assert lines[-2] == "data: [DONE]"


@pytest.mark.parametrize(
    "events",
    [STREAM[:2], (STREAM[0], event({"error": {"message": "overloaded"}}), STREAM[3])],
    ids=["cut", "error"],
)
async def test_a_stream_that_failed_is_delivered_and_not_stored(library, cache, events):
    """It comes as it is, each time anew."""
    server = Server(library, events=events)
    asked = Asked(cache.wrap(client_of(server, is_sync=False)))
    for number in (1, 2):
        _, lines = await asked.lines()
        assert lines == b"".join(events).decode().split("\n")[:-1]
        assert len(server.requests) == number
    assert cache.stats().stored == 0


@pytest.mark.parametrize(
    "answer", [{"detail": "maintenance"}, {"error": {"message": "no"}}, {"id": "c", "usage": None}]
)
async def test_an_answer_of_another_shape_is_not_stored(library, cache, answer):
    """A page of a proxy's, or an error with status 200, is given to who asked alone."""
    server = Server(library, answer=answer)
    asked = Asked(cache.wrap(client_of(server, is_sync=False)))
    for _ in range(2):
        assert (await asked.post()).json() == answer
    assert len(server.requests) == 2


OTHERS = {
    "path at another host": ("https://other.example/v1/messages", {"to": "+1", "text": "hello"}),
    "marked path, other body": ("https://api.anthropic.com/v1/messages", {"to": "+1"}),
    "other path": ("https://api.openai.com/v1/moderations", {"model": "m", "input": "x"}),
    "chat without messages": (URL, {"model": "m"}),
    "no object": (URL, ["model", "messages"]),
    "other service's events": ("https://events.example/stream", {"stream": True}),
}


@pytest.mark.parametrize("name", OTHERS)
async def test_what_is_nobodys_passes_untouched(library, is_sync, cache, name):
    """It is sent each time, the response is the transport's own, and nothing is counted."""
    url, body = OTHERS[name]
    server = Server(library, events=())
    asked = Asked(cache.wrap(client_of(server, is_sync=is_sync)))
    for _ in range(2):
        assert outcome(await asked.post(url, body)) is None
    assert len(server.requests) == 2
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.bypassed, stats.upstream_calls) == (0, 0, 0, 0)


async def test_uploads_and_downloads_pass_piece_by_piece(library, cache):
    """Nothing of them is read or held: pieces of a gigabyte are taken as the caller takes them."""
    piece = bytes(2**20)
    server = Server(library, events=[piece] * 1024)
    sent = []

    class Inner(library.AsyncBaseTransport):  # type: ignore[misc, name-defined]  # likewise
        async def handle_async_request(self, request):
            if request.method == "POST":
                sent.append([part async for part in request.stream])
            return library.Response(200, stream=server.body(library))

    async def upload():
        for _ in range(3):
            yield b"part"

    client = library.AsyncClient(transport=cache.transport(Inner()))
    async with client.stream("POST", URL, content=upload()) as response:
        assert sent == [[b"part"] * 3]
        read = 0
        async for part in response.aiter_raw():
            read += 1
            assert len(part) == len(piece)
            assert server.given == read
            if read == 5:
                break
    async with client.stream("GET", URL) as response:
        assert sum([len(part) async for part in response.aiter_raw()]) == 2**30


async def test_redirects_and_event_hooks_work(library, cache):
    """A request that is sent on is asked for where it goes; hooks run for hits as well."""
    server = Server(library)
    seen = []

    def moved(request):
        if request.url.path == "/old/chat/completions":
            return library.Response(307, headers={"location": URL})
        return server(request)

    async def note(response):
        seen.append(response.status_code)

    client = cache.wrap(
        library.AsyncClient(
            transport=library.MockTransport(moved), follow_redirects=True,
            event_hooks={"response": [note]},
        )
    )  # fmt: skip
    for _ in range(2):
        response = await client.post("https://api.openai.com/old/chat/completions", json=BODY)
        assert response.json()["id"] == "c-1"
        assert [one.status_code for one in response.history] == [307]
    assert len(server.requests) == 1
    assert seen == [307, 200] * 2


async def test_a_server_of_ones_own_is_registered(library, cache, monkeypatch):
    """`register(endpoint(...))` makes its requests cacheable, by base URL or by the whole one."""
    monkeypatch.setattr(table, "_table", table._table)  # what is registered is gone then
    server = Server(library, events=(), answer={"data": [{"index": 0, "embedding": [1.0]}]})
    asked = Asked(cache.wrap(client_of(server, is_sync=False)))
    url, body = "https://llm.corp/v1/embeddings", {"model": "m", "input": ["x"]}
    assert outcome(await asked.post(url, body)) is None
    register(endpoint("https://llm.corp/v1", like="openai-embeddings"))
    assert outcome(await asked.post(url, body)) == "miss"
    assert outcome(await asked.post(url, body)) == "hit"


async def test_transports_of_ones_own_are_taken(library, cache):
    """`transport` takes either kind of either library, and refuses what is none."""
    server = Server(library)
    mock = library.MockTransport(server)
    async with library.AsyncClient(transport=cache.transport(mock)) as client:
        assert outcome(await client.post(URL, json=BODY)) == "miss"
    assert isinstance(cache.transport(library.HTTPTransport()), library.BaseTransport)
    with pytest.raises(TypeError, match=r"cache\.wrap"):
        cache.transport(client)
    own = cache.transport()
    await own.aclose()


async def test_modes_hold(library, is_sync, cache):
    """Refresh asks anew, off passes, replay raises its own error, named by host and model."""
    server = Server(library)
    asked = Asked(cache.wrap(client_of(server, is_sync=is_sync)))
    with asynccache.options(mode="off"):
        assert outcome(await asked.post()) is None
    with (
        asynccache.options(mode="replay"),
        pytest.raises(ReplayMiss, match=r"api\.openai\.com.*'m'"),
    ):
        await asked.post()
    await asked.post()
    with asynccache.options(mode="refresh"):
        assert outcome(await asked.post()) == "miss"
    with asynccache.options(mode="replay"):
        assert (await asked.post()).json()["id"] == "c-3"
    assert len(server.requests) == 3


async def test_a_body_that_names_a_member_twice_is_not_cached(library, cache):
    """Servers differ in which one counts: it goes upstream, counted as such."""
    server = Server(library)
    client = cache.wrap(client_of(server, is_sync=False))
    content = b'{"model": "m", "messages": [], "n": 1, "n": 2}'
    for written in (content, content, content.replace(b" ", b"")):
        await client.post(URL, content=written)
    assert len(server.requests) == cache.stats().bypassed == 3


async def test_the_same_request_written_otherwise_is_the_same(library, cache):
    """Spaces, the order of members and escapes don't matter; numbers' kinds do."""
    server = Server(library)
    client = cache.wrap(client_of(server, is_sync=False))
    for content in (
        b'{"model":"m","messages":[{"role":"user","content":"\xc3\xa9"}],"temperature":1}',
        b'{ "messages": [{"content": "\\u00e9", "role": "user"}], "temperature": 1, "model": "m" }',
    ):
        await client.post(URL, content=content)
    assert len(server.requests) == 1
    await client.post(URL, content=content.replace(b" 1,", b" 1.0,"))
    assert len(server.requests) == 2
