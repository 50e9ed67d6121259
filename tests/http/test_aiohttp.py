"""Sessions of aiohttp over a cache, at a real server."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import warnings
from typing import Any

import aiohttp
import anyio
import httpx2
import pytest
from aiohttp import web
from yarl import URL

import asynccache
from asynccache import Cache
from asynccache.http import aiohttp_middleware
from asynccache.http.aiohttp_session import AiohttpRequest, Given
from asynccache.http.upstream import ResponseHead
from asynccache.testing.records import PATIENCE
from tests.helpers.openai_server import (
    COMPLETION,
    DONE,
    EVENTS,
    Gate,
    chunk,
    completion,
    good,
    halted,
    running,
    sse,
    stored,
)
from tests.helpers.providers_server import Providers

MESSAGES = [{"role": "user", "content": "Hello?"}]
BODY: dict[str, Any] = {"model": "m", "messages": MESSAGES}
STREAMED = {**BODY, "stream": True}
WHOLE = b"".join(EVENTS)
SENDS_NOTHING: Any = None


@pytest.fixture(scope="module")
def running_server():
    """One server for all tests."""
    with running() as server:
        yield server


@pytest.fixture
def server(running_server):
    """The server as it is at first."""
    running_server.program = good
    running_server.requests.clear()
    return running_server


@pytest.fixture
def url(server):
    """Where it answers."""
    return f"{server.base_url}/chat/completions"


@pytest.fixture
async def cache():
    """An open cache."""
    async with Cache.memory() as cache:
        yield cache


@pytest.fixture
async def bare():
    """A session that nobody has wrapped. In the end none of its connections is in use."""
    async with aiohttp.ClientSession() as session:
        yield session
        with anyio.fail_after(PATIENCE):
            while session.connector is not None and session.connector._acquired:
                await anyio.sleep(0.01)


@pytest.fixture
def session(cache, bare):
    """The same over the cache."""
    return cache.wrap(bare)


def outcome(response):
    """Return where a response came from."""
    found = asynccache.status(response)
    return found and found.outcome


async def read(session, url, body=BODY, **options):
    """Return a response and its whole body."""
    async with session.post(url, json=body, **options) as response:
        return response, await response.read()


async def test_an_answer_is_paid_for_once(server, url, cache, bare, session):
    """The second time it comes from the cache, as aiohttp has it."""

    async def program(seen):
        number = len(server.requests)
        await seen.answer(completion(id=f"c-{number}"), headers=[("set-cookie", "a=b"), ("x", "1")])

    server.program = program
    (first, body), (second, again) = [await read(session, f"{url}#part") for _ in range(2)]
    assert (outcome(first), outcome(second)) == ("miss", "hit")
    assert json.loads(body) == json.loads(again) == completion(id="c-1")
    assert type(session) is type(bare)
    assert type(second) is aiohttp.ClientResponse
    assert (second.status, second.reason, second.ok) == (200, "OK", True)
    assert second.version == aiohttp.HttpVersion11
    assert (str(second.url), str(second.real_url)) == (url, f"{url}#part")
    assert second.request_info.method == second.method == "POST"
    assert second.history == ()
    assert second.content_type == "application/json"
    assert second.headers["Content-Length"] == str(len(again))
    assert second.headers["X-Request-Id"] == "req_1"
    assert (b"x-request-id", b"req_1") in second.raw_headers
    assert (first.headers.get("x"), second.headers.get("x")) == ("1", None)
    assert not first.cookies
    assert not session.cookie_jar
    assert (await second.json(), await second.text()) == (completion(id="c-1"), again.decode())
    assert second.closed
    assert second.content.at_eof()
    assert cache.stats().tokens_saved == 12
    other, _ = await read(bare, url)  # the session itself stays as it was
    assert outcome(other) is None
    assert len(server.requests) == 2


READERS = {
    "read": lambda content: content.read(),
    "iter_any": lambda content: content.iter_any(),
    "iter_chunked": lambda content: content.iter_chunked(7),
    "lines": lambda content: content,
    "readexactly": lambda content: content.readexactly(len(WHOLE)),
}


@pytest.mark.parametrize("how", READERS)
async def test_a_stream_is_read_in_every_way(server, url, session, how):
    """Live and recorded, its bytes are those that the server sent."""
    for number in range(2):
        async with session.post(url, json=STREAMED) as response:
            found = READERS[how](response.content)
            if hasattr(found, "__aiter__"):
                whole = b"".join([piece async for piece in found])
            else:
                whole = await found
            assert whole == WHOLE
            assert await response.content.read() == b""
        assert outcome(response) == ("miss", "hit")[number]
        assert response.content_type == "text/event-stream"
        assert response.closed
    assert len(server.requests) == 1


async def test_chunks_of_http_are_the_recorded_ones(url, session):
    """Who puts them together by their ends sees one end for each event."""
    for _ in range(2):
        async with session.post(url, json=STREAMED) as response:
            assert [pair async for pair in response.content.iter_chunks()] == [
                (event, True) for event in EVENTS
            ]


async def test_the_end_can_be_waited_for(url, session):
    """As with any response: what comes until then can be read after it."""
    async with session.post(url, json=STREAMED) as response:
        await response.content.wait_eof()
        assert response.content.read_nowait() == WHOLE


async def test_a_swarm_makes_one_call(server, url, session, cache):
    """A hundred at once share one answer, plain and streamed."""
    gate = Gate()
    server.program = Providers(gate=gate)
    for number, body in enumerate((BODY, STREAMED), start=1):
        tasks = [asyncio.ensure_future(read(session, url, body)) for _ in range(100)]
        await server.arrived(number)
        gate.open()
        answers = await asyncio.gather(*tasks)
        assert len({whole for _, whole in answers}) == len(server.requests) / number == 1
    assert cache.stats().joined == 2 * 99


async def test_a_refusal_is_a_response(server, url, cache, session):
    """It has status, body and headers, raises where it is asked to, and isn't stored."""
    server.program = Providers(status=429)
    response, body = await read(session, url)
    assert (response.status, response.reason) == (429, "Too Many Requests")
    assert response.headers["retry-after"] == "7"
    assert json.loads(body)["error"]["message"] == "status 429"
    with pytest.raises(aiohttp.ClientResponseError) as caught:
        response.raise_for_status()
    assert (caught.value.status, caught.value.message) == (429, "Too Many Requests")
    with pytest.raises(aiohttp.ClientResponseError):
        await session.post(url, json=STREAMED, raise_for_status=True)
    assert len(server.requests) == 2
    assert cache.stats().stored == 0


@pytest.mark.parametrize("end", ["cut", "broken"])
async def test_a_stream_that_failed_is_delivered_and_not_stored(server, url, cache, session, end):
    """It comes as it is, each time anew."""
    server.program = Providers(end=end)
    for number in (1, 2):
        _, body = await read(session, url, STREAMED)
        assert body.startswith(b"data: ")
        assert len(server.requests) == number
    assert cache.stats().stored == 0


async def test_a_stream_that_breaks_off_raises_what_aiohttp_raises(server, url, bare, session):
    """The error is of the same type with a cache and without."""
    server.program = Providers(end="dropped")
    found = []
    for one in (bare, session):
        with pytest.raises(aiohttp.ClientError) as caught:
            await read(one, url, STREAMED)
        found.append(type(caught.value))
    assert found[0] is found[1]


async def test_a_server_that_is_not_there(bare, session):
    """The error is aiohttp's own, with a cache and without."""
    for one in (bare, session):
        with pytest.raises(aiohttp.ClientConnectorError):
            await read(one, "http://127.0.0.1:9/v1/chat/completions")


async def test_hanging_up_after_the_finish_reason_stores_the_stream(server, url, cache, session):
    """Clients close the response before its end; the rest is read on for them."""
    async with session.post(url, json=STREAMED) as response:
        async for line in response.content:
            if b'"stop"' in line:
                break
    await stored(cache)
    _, body = await read(session, url, STREAMED)
    assert body == WHOLE
    assert len(server.requests) == 1


@pytest.mark.parametrize("way", ["close", "release"])
async def test_leaving_early_ends_the_call(server, url, session, way):
    """When nobody reads a stream any more, the server is told; who goes on reading is."""

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        await seen.hang()

    server.program = program
    response = await session.post(url, json=STREAMED)
    assert await response.content.readany() == EVENTS[0]
    getattr(response, way)()
    seen = await server.arrived()
    await seen.disconnected.wait()
    assert response.closed
    with pytest.raises(aiohttp.ClientConnectionError, match="Connection closed"):
        await response.read()


async def test_a_cancelled_leader_disturbs_nobody(server, url, session):
    """Others get the answer of the call that it began."""
    gate = Gate()
    server.program = Providers(gate=gate)
    leader = asyncio.ensure_future(read(session, url))
    await server.arrived()
    other = asyncio.ensure_future(read(session, url))
    await asyncio.sleep(0)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    gate.open()
    _, body = await other
    assert json.loads(body)["id"] == "chatcmpl-1"
    assert len(server.requests) == 1


@pytest.mark.parametrize("limits", [{"total": 0.01}, {"sock_read": 0.01}], ids=str)
async def test_a_timeout_is_ones_own(server, url, session, limits):
    """Who has less patience leaves with aiohttp's error, and the call goes on for the others."""
    gate = Gate()
    server.program = Providers(gate=gate)
    patient = asyncio.ensure_future(read(session, url))
    await server.arrived()
    with pytest.raises(TimeoutError):
        await read(session, url, timeout=aiohttp.ClientTimeout(**limits))
    gate.open()
    _, body = await patient
    assert json.loads(body)["id"] == "chatcmpl-1"
    assert len(server.requests) == 1


async def test_the_leaders_time_limit_is_not_the_others(server, url, session):
    """The whole time that one has for a request ends nothing that others wait for."""
    gate = Gate()
    server.program = Providers(gate=gate)
    limit = aiohttp.ClientTimeout(total=0.05)
    hasty = asyncio.ensure_future(read(session, url, timeout=limit))
    await server.arrived()
    patient = asyncio.ensure_future(read(session, url))
    with pytest.raises(TimeoutError):
        await hasty
    gate.open()
    _, body = await patient
    assert json.loads(body)["id"] == "chatcmpl-1"
    assert len(server.requests) == 1


async def test_a_silent_server_is_left_after_the_leaders_patience(server, url, session):
    """Who would have waited longer makes a call of its own."""
    gate = Gate()

    async def program(seen):
        if len(server.requests) == 1:
            await seen.hang()
        else:
            await gate.wait()
            await seen.answer(COMPLETION)

    server.program = program
    hasty = aiohttp.ClientTimeout(sock_read=0.05)
    leader = asyncio.ensure_future(read(session, url, timeout=hasty))
    await server.arrived()
    follower = asyncio.ensure_future(read(session, url))
    with pytest.raises(aiohttp.ServerTimeoutError):
        await leader
    gate.open()
    _, body = await follower
    assert json.loads(body) == COMPLETION
    assert len(server.requests) == 2


@pytest.mark.parametrize("limits", [{"total": 0.05}, {"sock_read": 0.05}], ids=str)
async def test_a_stream_that_stands_still_times_out(server, url, session, limits):
    """The time for the whole request counts while the body is read, too."""

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        await seen.hang()

    server.program = program
    patient = await session.post(url, json=STREAMED)
    hasty = await session.post(url, json=STREAMED, timeout=aiohttp.ClientTimeout(**limits))
    assert await hasty.content.readany() == EVENTS[0]
    with pytest.raises(TimeoutError):
        await hasty.content.readany()
    assert await patient.content.readany() == EVENTS[0]
    assert len(server.requests) == 1
    for response in (hasty, patient):
        response.close()


async def test_what_is_none_of_ours_passes_untouched(server, url, cache, session):
    """Other methods and bodies, uploads, and paths that merely look alike aren't counted."""
    root = server.base_url.removesuffix("/v1")

    async def program(seen):
        await seen.answer(b"pong", content_type="text/plain")

    async def pieces():
        yield json.dumps(BODY).encode()

    server.program = program
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", b"x" * 100_000, filename="f")
    requests = [
        ("GET", url, {}),
        ("PUT", url, {"json": BODY}),
        ("POST", url, {}),
        ("POST", url, {"data": pieces()}),
        ("POST", url, {"data": form}),
        ("POST", url, {"data": b"not json", "headers": {"content-type": "application/json"}}),
        ("POST", url, {"json": {"to": "+1"}}),
        ("POST", f"{root}/v1/messages", {"json": {"to": "whatsapp:+1", "text": "hello"}}),
        ("POST", f"{root}/v1/embeddings", {"json": {"model": "m", "input": "x"}}),
    ]
    for method, to, options in requests:
        async with session.request(method, to, **options) as response:
            assert await response.read() == b"pong"
            assert asynccache.status(response) is None
    assert len(server.requests) == len(requests)
    stats = cache.stats()
    assert stats.hits + stats.misses + stats.joined + stats.bypassed == 0


async def test_websockets_pass_untouched(cache, bare):
    """A session opens them as ever."""

    async def echo(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/v1/realtime", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        to = f"http://127.0.0.1:{port}/v1/realtime"
        async with cache.wrap(bare).ws_connect(to) as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
    finally:
        await runner.cleanup()


async def test_a_compressed_body_is_stored_as_it_is_read(server, url, cache, session):
    """Who takes bodies as they are compressed goes past the cache, counted."""
    server.program = Providers(encoding="gzip")
    for _ in range(2):
        response, body = await read(session, url)
        assert json.loads(body)["id"] == "chatcmpl-1"
    assert "content-encoding" not in response.headers
    async with aiohttp.ClientSession(auto_decompress=False) as raw:
        response, body = await read(cache.wrap(raw), url)
        assert response.headers["content-encoding"] == "gzip"
        assert body[:2] == b"\x1f\x8b"
        assert cache.stats().bypassed == 1
        # Asked for none, there is nothing to decompress.
        plain = {"accept-encoding": "identity"}
        response, body = await read(cache.wrap(raw), url, headers=plain)
        assert outcome(response) == "hit"
    assert len(server.requests) == 2


async def test_traces_and_middlewares_see_every_request(server, url, cache):
    """On hits too. What a middleware adds is in the key, and a request's own are kept."""
    told: list[Any] = []
    config = aiohttp.TraceConfig()

    async def ended(session, context, params):
        told.append((params.method, params.response.status))

    async def received(session, context, params):
        told.append(len(params.chunk))

    config.on_request_end.append(ended)
    config.on_response_chunk_received.append(received)

    async def versioned(request, handler):
        told.append("middleware")
        request.headers["openai-beta"] = "v2"
        return await handler(request)

    async with aiohttp.ClientSession(trace_configs=[config], middlewares=[versioned]) as bare:
        session = cache.wrap(bare)
        for _ in range(2):
            _, body = await read(session, url)
        assert told == ["middleware", ("POST", 200), len(body)] * 2
        assert len(server.requests) == 1
        response, _ = await read(session, url, middlewares=())
        assert (outcome(response), len(server.requests)) == ("miss", 2)


async def test_the_middleware_alone(server, url, cache):
    """It may be given to a session; without a cache it takes the current one."""
    for number, own in enumerate((cache, None), start=1):
        middleware = aiohttp_middleware(own, upstream=f"server-{number}")
        async with aiohttp.ClientSession(middlewares=[middleware]) as session:
            for _ in range(2):
                response, _ = await read(session, url)
        assert outcome(response) == "hit"
        assert len(server.requests) == number


async def test_without_a_cache_the_middleware_does_nothing(server, url):
    """Outside of any block requests are as they were."""
    async with aiohttp.ClientSession(middlewares=[aiohttp_middleware()]) as session:
        for _ in range(2):
            response, _ = await read(session, url)
            assert asynccache.status(response) is None
    assert len(server.requests) == 2


async def test_wrapping_again_takes_a_session_to_the_other_cache(server, url, cache, session):
    """The first cache isn't asked then; equal sessions over one connector are one."""
    await read(session, url)
    async with Cache.memory() as second:
        again = second.wrap(session)
        await read(again, url)
        await read(again, url)
        assert second.stats().hits == second.stats().misses == 1
        assert len(server.requests) == 2
    assert cache.stats().hits == 0
    assert cache.wrap(session) is cache.wrap(session)


async def test_a_name_takes_the_address_place(server, url, cache, bare):
    """Two addresses of one server share what is stored."""
    session = cache.wrap(bare, upstream="llm")
    await read(session, url)
    response, _ = await read(session, url.replace("127.0.0.1", "localhost"))
    assert outcome(response) == "hit"


async def test_sessions_end_without_complaints(url, cache, caplog):
    """Whoever closes: the copy or the original; a copy may also be dropped."""
    caplog.set_level(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with cache.wrap(aiohttp.ClientSession()) as session:  # the original is nobody's
            gc.collect()
            await read(session, url)
        assert session.closed
        async with aiohttp.ClientSession() as bare:
            cache.wrap(bare, upstream="dropped")
            gc.collect()
            copied = cache.wrap(bare)
            await read(copied, url)
        assert copied.closed
        del bare, session, copied
        gc.collect()
    assert caplog.records == []


def test_two_loops(server, url):
    """Each has its session; what one has stored, the other gets."""
    cache = Cache.memory()

    async def once():
        async with cache, cache.wrap(aiohttp.ClientSession()) as session:
            first, _ = await read(session, url)
            second, _ = await read(session, url, STREAMED)
            return outcome(first), outcome(second)

    assert asyncio.run(once()) == ("miss", "miss")
    assert asyncio.run(once()) == ("hit", "hit")
    assert len(server.requests) == 2


async def test_a_response_may_ask_for_more_than_is_known(url, cache):
    """A later aiohttp's may take further arguments, or one's own whatever it likes."""

    class Newer(aiohttp.ClientResponse):
        def __init__(self, *args: Any, brand_new: Any, optional: str = "kept", **options: Any):
            super().__init__(*args, **options)
            self.given = (brand_new, optional)

    async with aiohttp.ClientSession() as bare:
        request: Any = aiohttp.ClientRequest(
            "POST", URL(url), loop=asyncio.get_running_loop(), session=bare,
            response_class=Newer,
        )  # fmt: skip
        ours = AiohttpRequest(request, SENDS_NOTHING, Given(None, decoded=True))
        response: Any = ours.response(ResponseHead(200, [], {}), b"{}")
        assert response.given == (None, "kept")
        assert await response.json(content_type=None) == {}


async def test_an_aiohttp_without_middlewares_is_refused(monkeypatch, cache, bare):
    """The message says which version has them."""
    monkeypatch.delattr(aiohttp, "ClientMiddlewareType")
    for call in (lambda: cache.wrap(bare), lambda: aiohttp_middleware(cache)):
        with pytest.raises(ImportError, match=r"pip install 'aiohttp>=3.12'"):
            call()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx2.ReadTimeout("late"), aiohttp.SocketTimeoutError),
        (httpx2.ConnectError("no"), aiohttp.ClientConnectorError),
        (httpx2.RemoteProtocolError("no"), aiohttp.ClientConnectionError),
        (aiohttp.ServerDisconnectedError(), aiohttp.ServerDisconnectedError),
        (ValueError("a bug"), ValueError),
    ],
    ids=repr,
)
async def test_what_others_calls_ended_with(url, bare, error, kind):
    """An error of another library's is given as aiohttp's own; what is none stays."""
    request: Any = aiohttp.ClientRequest(
        "POST", URL(url), loop=asyncio.get_running_loop(), session=bare
    )
    ours = AiohttpRequest(request, SENDS_NOTHING, Given(None, decoded=True))
    found = ours.own_error(error)
    assert type(found) is kind
    assert str(error) in str(found)


async def test_a_stream_across_libraries(server, url, cache, session):
    """Clients of httpx2 and aiohttp share one call, and one entry."""
    gate = Gate()

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        await gate.wait()
        await seen.send(b"".join(EVENTS[1:]), more=False)

    server.program = program
    async with httpx2.AsyncClient() as bare:
        other = cache.wrap(bare)
        first = asyncio.ensure_future(other.post(url, json=STREAMED))
        await server.arrived()
        async with session.post(url, json=STREAMED) as response:
            assert await response.content.readany() == EVENTS[0]
            gate.open()
            assert await response.content.read() == b"".join(EVENTS[1:])
        assert (await first).content == WHOLE
        assert outcome(response) == "joined"
        assert outcome(await other.post(url, json=STREAMED)) == "hit"
    assert len(server.requests) == 1


async def test_a_header_in_any_script(server, url, session):
    """What is kept of an answer's headers comes again as it was, ASCII or not."""

    async def program(seen):
        await seen.answer(COMPLETION, headers=[("openai-organization", "株式")])

    server.program = program
    for how in ("miss", "hit"):
        response, _ = await read(session, url)
        assert (outcome(response), response.headers["openai-organization"]) == (how, "株式")


async def test_embeddings_are_kept_one_by_one(server, cache, session):
    """Only what isn't known is sent, and the response has all."""
    server.program = Providers()
    url = f"{server.base_url}/embeddings"
    client = {"user-agent": "OpenAI/Python 3"}
    for inputs in (["a"], ["b", "a", "c"]):
        _, body = await read(session, url, {"model": "m", "input": inputs}, headers=client)
        await stored(cache, len(inputs))
    vectors = [item["embedding"] for item in json.loads(body)["data"]]
    assert vectors == [[0.25, 0.5, float(number)] for number in (2, 1, 2)]
    assert [seen.body["input"] for seen in server.requests] == [["a"], ["b", "c"]]
    assert [seen.headers["user-agent"] for seen in server.requests] == ["OpenAI/Python 3"] * 2


async def test_instrumented_sessions(server, url, cache, bare):
    """All of the process are served, also those that exist; undone, none is."""
    with asynccache.instrument(only=["aiohttp"]):
        async with aiohttp.ClientSession() as later:
            outcomes = [outcome((await read(one, url))[0]) for one in (bare, later)]
        assert outcomes == ["miss", "hit"]
        other, _ = await read(bare, url, middlewares=())
        assert outcome(other) == "hit"
    response, _ = await read(bare, url)
    assert outcome(response) is None
    assert len(server.requests) == 2


async def test_instrumented_and_wrapped_is_counted_once(server, url, bare):
    """The copy's own cache answers; beneath it a request passes."""
    async with Cache.memory() as own, Cache.memory() as around:
        with asynccache.instrument():
            session = own.wrap(bare)
            for _ in range(2):
                response, _ = await read(session, url)
        assert outcome(response) == "hit"
        assert (own.stats().misses, own.stats().hits) == (1, 1)
        stats = around.stats()
        assert stats.misses + stats.hits + stats.bypassed == 0
    assert len(server.requests) == 1


async def test_long_lines_are_read(server, url, session):
    """A line may be longer than what aiohttp buffers of a socket."""
    long = sse(chunk("x" * 2_000_000, finish="stop"))

    async def program(seen):
        await seen.stream(long, DONE)

    server.program = program
    for _ in range(2):
        async with session.post(url, json=STREAMED) as response:
            assert await response.content.readline() == long[:-1]


@pytest.mark.parametrize("readers", [1, 3])
async def test_a_session_that_is_closed_in_mid_stream_ends_it_for_all(cache, server, url, readers):
    """Who reads is told at once, and nobody waits for ever; who asks then is asked for anew."""
    gate = Gate()
    server.program = halted(gate)
    session = cache.wrap(aiohttp.ClientSession())
    responses = [await session.post(url, json=STREAMED) for _ in range(readers)]
    for response in responses:
        assert await response.content.readany() == EVENTS[0]
    waiting = [asyncio.ensure_future(response.content.readany()) for response in responses]
    await asyncio.sleep(0)
    await session.close()
    async with asyncio.timeout(20):
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error) for error in ended} == {aiohttp.ClientConnectionError}
    gate.open()
    async with cache.wrap(aiohttp.ClientSession()) as another:
        response = await another.post(url, json=STREAMED)
        assert await response.read() == WHOLE
    assert len(server.requests) == 2
