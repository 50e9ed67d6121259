"""An OpenAI-compatible server on a real socket, whose every answer the test decides.

Runs uvicorn in a thread; programs are coroutine functions run in the server's loop, one per
request. Gates between the test's loop and the server's are `threading` events waited for in a
thread, so that neither loop is held.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import uvicorn

import asynccache

MESSAGES = [{"role": "user", "content": "Hello?"}]
CHOICE = {
    "index": 0,
    "message": {"role": "assistant", "content": "Hello!", "refusal": None},
    "logprobs": None,
    "finish_reason": "stop",
}
COMPLETION: dict = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "gpt-4o-2024-08-06",
    "choices": [CHOICE],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}


def completion(**changes):
    """Return an answer with other top-level members."""
    return {**COMPLETION, **changes}


def choice(**changes):
    """Return an answer whose only choice has other members."""
    return completion(choices=[{**CHOICE, **changes}])


def chunk(content="Hi", *, finish=None, **changes):
    """Return one event of a streamed answer."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}],
        **changes,
    }


def sse(data):
    """Return data as it travels in a stream."""
    text = data if isinstance(data, str) else json.dumps(data)
    return f"data: {text}\n\n".encode()


DONE = b"data: [DONE]\n\n"
EVENTS = (sse(chunk("One ")), sse(chunk("two ")), sse(chunk("three", finish="stop")), DONE)


class Gate:
    """Opened by one loop, waited for by another."""

    def __init__(self):
        self._event = threading.Event()

    def open(self):
        self._event.set()

    async def wait(self):
        if not await asyncio.to_thread(self._event.wait, 30):
            raise TimeoutError("nobody opened the gate")


class Seen:
    """One request as the server received it, and the way to answer it."""

    def __init__(self, scope, body, receive, send):
        self.path = scope["path"]
        self.peer = scope["client"]
        self.query = scope["query_string"].decode()
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.raw = body
        self.body = json.loads(body) if body[:1] in {b"{", b"["} else None
        self.disconnected = Gate()
        self._receive = receive
        self._send = send

    @property
    def key(self):
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    async def start(self, status=200, content_type="text/event-stream", headers=()):
        named = [("content-type", content_type)] if content_type else []
        named += [("x-request-id", "req_1"), *headers]
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode(), value.encode()) for name, value in named],
            }
        )

    async def send(self, data, *, more=True):
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def end(self):
        await self.send(b"", more=False)

    async def answer(self, body, status=200, content_type="application/json", headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.start(status, content_type, headers)
        await self.send(data, more=False)

    async def stream(self, *events, content_type="text/event-stream", headers=()):
        await self.start(200, content_type, headers)
        for event in events:
            await self.send(event)
        await self.end()

    async def hang(self):
        """Wait until the client goes away."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.disconnected.open()


Program = Callable[[Seen], Awaitable[None]]


class CutError(Exception):
    """Raised by a program: uvicorn then drops the connection in the middle of the answer."""


async def good(seen):
    """Answer as the API does, streamed if asked."""
    if seen.body.get("stream"):
        await seen.stream(*EVENTS)
    else:
        await seen.answer(COMPLETION)


def halted(gate, events=EVENTS):
    """Return a program that streams the first event at once, and the rest once a gate is open."""

    async def program(seen):
        await seen.start()
        await seen.send(events[0])
        await gate.wait()
        for event in events[1:]:
            await seen.send(event)
        await seen.end()

    return program


class OpenAIServer:
    """Answers with `program`; `requests` holds what came in."""

    program: Program = staticmethod(good)

    def __init__(self):
        self.requests: list[Seen] = []
        self.port = 0
        self.authority = ""  # the certificate of who vouches for it, where it speaks TLS
        self._arrival = threading.Condition()

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    async def arrived(self, count=1):
        """Wait until so many requests came in."""

        def wait():
            with self._arrival:
                return self._arrival.wait_for(lambda: len(self.requests) >= count, 30)

        assert await asyncio.to_thread(wait), f"only {len(self.requests)} requests came"
        return self.requests[count - 1]

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        seen = Seen(scope, body, receive, send)
        with self._arrival:
            self.requests.append(seen)
            program = self.program
            self._arrival.notify_all()
        await program(seen)


class _Uvicorn(uvicorn.Server):
    """Ends what clients leave open, who would never answer TLS's good-bye."""

    async def shutdown(self, sockets=None):
        # Before, as a transport that was closed twice can't be aborted any more.
        for connection in list(self.server_state.connections):
            if connection.transport.get_extra_info("ssl_object") is not None:
                connection.transport.abort()
        await super().shutdown(sockets)


@contextmanager
def running(**options) -> Iterator[OpenAIServer]:
    """Run a server in a thread until the block is left, with further options of uvicorn's."""
    app = OpenAIServer()
    listening = socket.create_server(("127.0.0.1", 0))
    # Inherited by connections: head and body are two packets, of which the second would wait.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    app.port = listening.getsockname()[1]
    config = uvicorn.Config(
        app, log_level="critical", lifespan="off", loop="asyncio", timeout_graceful_shutdown=1,
        **options,
    )  # fmt: skip
    server = _Uvicorn(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield app
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


def connections(client):
    """Return the connections of a client's pool that are in use."""
    pool = client._client._transport._pool
    return [connection for connection in pool.connections if not connection.is_idle()]


def ask(client, **changes):
    """Make the one call that nearly all tests make."""
    return client.chat.completions.create(**{"model": "gpt-4o", "messages": MESSAGES, **changes})


async def events_of(stream):
    """Return a stream's events and the error that ended it, None at its proper end."""
    events: list = []
    try:
        async for event in stream:
            events.append(event)  # noqa: PERF401 - what came before an error is wanted
    except Exception as exc:  # noqa: BLE001 - whichever it is
        return events, exc
    return events, None


async def stored(cache, count=1):
    """Wait until so many answers were stored: callers get theirs before."""
    while cache.stats().stored < count:
        await asyncio.sleep(0)


def state(response):
    """Return the status of a response that came through a cache."""
    found = asynccache.status(response)
    assert found is not None
    return found
