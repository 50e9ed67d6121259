"""One call for all, by whichever way and library they ask: answers, streams and errors.

Who joins another's call gets what it would have got from its own library.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
from typing import Any, ClassVar

import aiohttp
import anyio
import httpx
import httpx2
import pytest
from openai import (
    APIConnectionError,
    APITimeoutError,
    AsyncOpenAI,
    InternalServerError,
    RateLimitError,
)

from asynccache.core.flight import Flight
from asynccache.openai.client import sdk
from tests.helpers.http import httpx as sdks_library
from tests.helpers.openai_server import (
    COMPLETION,
    DONE,
    MESSAGES,
    CutError,
    Gate,
    chunk,
    halted,
    sse,
    stored,
)

pytest_plugins = ("tests.helpers.openai_fixtures",)
pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

BODY: dict[str, Any] = {"model": "gpt-4o", "messages": MESSAGES}
EVENTS = (sse(chunk("One ")), sse(chunk("two", finish="stop")), DONE)
TEXT = "One two"
TRUSTED = ssl.create_default_context()  # made once, as it takes long


class Refused(Exception):  # noqa: N818 - it is an answer here
    """A response that isn't 2xx, as a plain HTTP client gets it."""

    def __init__(self, status, headers, body):
        super().__init__(status)
        self.status, self.headers, self.body = status, headers, body


class ByMethod:
    """The SDK's methods, cached."""

    refused: ClassVar[Any] = {429: RateLimitError, 500: InternalServerError}
    errors: ClassVar[Any] = {
        "timeout": APITimeoutError, "connect": APIConnectionError, "read": APIConnectionError,
    }  # fmt: skip

    def __init__(self, cache, url, key="sk-a"):
        self._bare = self._made(cache, url, key)
        self.client = self._wrapped(cache)

    def _made(self, cache, url, key):
        http = sdks_library.AsyncClient(verify=TRUSTED)
        return AsyncOpenAI(api_key=key, base_url=url, max_retries=0, http_client=http)

    def _wrapped(self, cache):
        return cache.wrap(self._bare)

    async def plain(self, timeout=30):
        answer = await self.client.chat.completions.create(**BODY, timeout=timeout)
        return answer.choices[0].message.content

    async def stream(self, first=None, timeout=30):
        stream = await self.client.chat.completions.create(**BODY, stream=True, timeout=timeout)
        text = ""
        async for event in stream:
            text += event.choices[0].delta.content or ""
            if first is not None:
                first.set()
        return text

    @staticmethod
    def told(error):
        return error.status_code, error.response.headers, error.response.content

    async def aclose(self):
        await self._bare.close()


class ByHttp(ByMethod):
    """The SDK over a client of its HTTP library that is cached."""

    def _made(self, cache, url, key):
        http = cache.wrap(sdks_library.AsyncClient(verify=TRUSTED))
        return AsyncOpenAI(api_key=key, base_url=url, max_retries=0, http_client=http)

    def _wrapped(self, cache):
        return self._bare


class Plain:
    """A client of an HTTP library."""

    library: Any = httpx2
    refused: ClassVar[Any] = {429: Refused, 500: Refused}

    def __init__(self, cache, url, key="sk-a"):
        self._url = f"{url}/chat/completions"
        headers = {"authorization": f"Bearer {key}"}
        self._bare = self.library.AsyncClient(headers=headers, verify=TRUSTED)
        self.client = cache.wrap(self._bare)
        self.errors = {
            "timeout": self.library.ReadTimeout, "connect": self.library.ConnectError,
            "read": self.library.RequestError,
        }  # fmt: skip

    async def plain(self, timeout=30):
        response = await self.client.post(self._url, json=BODY, timeout=timeout)
        if response.status_code != 200:
            raise Refused(response.status_code, response.headers, response.content)
        assert response.request.headers["authorization"] == self.client.headers["authorization"]
        return response.json()["choices"][0]["message"]["content"]

    async def stream(self, first=None, timeout=30):
        body = {**BODY, "stream": True}
        text = ""
        asking = self.client.stream("POST", self._url, json=body, timeout=timeout)
        async with asking as response:
            if response.status_code != 200:
                raise Refused(response.status_code, response.headers, await response.aread())
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                    if first is not None:
                        first.set()
        return text

    @staticmethod
    def told(error):
        return error.status, error.headers, error.body

    async def aclose(self):
        await self._bare.aclose()


class PlainHttpx(Plain):
    """The same with httpx."""

    library = httpx


class PlainAiohttp(Plain):
    """The same with aiohttp."""

    def __init__(self, cache, url, key="sk-a"):
        self._url = f"{url}/chat/completions"
        self._bare = aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"})
        self.client = cache.wrap(self._bare)
        self.errors = {
            "timeout": aiohttp.SocketTimeoutError, "connect": aiohttp.ClientConnectorError,
            "read": aiohttp.ClientError,
        }  # fmt: skip

    def _post(self, timeout, **body):
        limits = aiohttp.ClientTimeout(total=None, sock_read=timeout)
        return self.client.post(self._url, json={**BODY, **body}, timeout=limits)

    async def plain(self, timeout=30):
        async with self._post(timeout) as response:
            if response.status != 200:
                raise Refused(response.status, response.headers, await response.read())
            return (await response.json())["choices"][0]["message"]["content"]

    async def stream(self, first=None, timeout=30):
        text = ""
        async with self._post(timeout, stream=True) as response:
            if response.status != 200:
                raise Refused(response.status, response.headers, await response.read())
            async for line in response.content:
                if line.startswith(b"data: {"):
                    text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                    if first is not None:
                        first.set()
        return text

    async def aclose(self):
        await self._bare.close()


WAYS = (ByMethod, ByHttp, Plain, PlainHttpx, PlainAiohttp)
PAIRS = [
    (a, b)
    for a, b in itertools.permutations(WAYS, 2)
    if ByMethod in {a, b} or not {ByHttp, Plain} & {a, b}  # these are like `PlainHttpx`
]
pairs = pytest.mark.parametrize(
    ("leading", "following"), PAIRS, ids=[f"{a.__name__}-{b.__name__}" for a, b in PAIRS]
)


forms = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


@pytest.fixture
async def made(api, api_cache):
    """What makes clients, which are closed in the end."""
    clients = []

    def make_one(kind, *, url=api.base_url, key="sk-a"):
        clients.append(kind(api_cache, url, key))
        return clients[-1]

    make: Any = make_one
    make.cache = api_cache
    yield make
    for client in clients:
        await client.aclose()


def held_back(api, *answers):
    """Let the server wait for a gate before it answers, the n-th request by the n-th answer."""
    gate, asked = Gate(), []

    async def program(seen):
        asked.append(seen)
        await gate.wait()
        await answers[min(len(asked), len(answers)) - 1](seen)

    api.program = program
    return gate


async def good(seen):
    """Answer as the API does."""
    if seen.body.get("stream"):
        await seen.stream(*EVENTS)
    else:
        await seen.answer(COMPLETION)


def refusing(status, **headers):
    """Return an answer that isn't 2xx."""

    async def answer(seen):
        error = {"error": {"message": f"no {seen.key}"}}
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        await seen.answer(error, status, headers=[*named, ("set-cookie", "secret=1")])

    return answer


async def until(condition):
    """Wait for something that surely comes."""
    with anyio.fail_after(20):
        while not condition():
            await asyncio.sleep(0.001)


def telling(function, event):
    """Return a function that sets an event once another one is called."""

    def told(*args, **kwargs):
        event.set()
        return function(*args, **kwargs)

    return told


async def together(api, gate, leader, follower):
    """Make two calls at once, the second one while the first is under way; return how they end."""
    first = asyncio.ensure_future(leader)
    await until(lambda: len(api.requests) == 1)
    joined = asyncio.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flight, "enter", telling(Flight.enter, joined))
        second = asyncio.ensure_future(follower)
        await joined.wait()
    gate.open()
    return await asyncio.gather(first, second, return_exceptions=True)


@pairs
@forms
async def test_an_answer_is_shared(leading, following, streamed, api, made):
    """Two at once pay once, plain and streamed, and who comes later pays nothing."""
    gate = held_back(api, good)
    clients = [made(leading), made(following)]
    asked = [client.stream() if streamed else client.plain() for client in clients]
    found = await together(api, gate, *asked)
    await stored(made.cache)
    found += [await (client.stream() if streamed else client.plain()) for client in clients]
    assert {*found} == {TEXT if streamed else COMPLETION["choices"][0]["message"]["content"]}
    assert len(api.requests) == 1
    stats = made.cache.stats()
    assert (stats.misses, stats.joined, stats.hits) == (1, 1, 2)


@pairs
async def test_a_stream_is_joined_midway(leading, following, api, made):
    """Who comes in the middle has it from the start."""
    gate = Gate()
    api.program = halted(gate, EVENTS)
    heard, joined = asyncio.Event(), asyncio.Event()
    leader = asyncio.ensure_future(made(leading).stream(heard))
    await heard.wait()
    follower = asyncio.ensure_future(made(following).stream(joined))
    await joined.wait()
    gate.open()
    assert {*await asyncio.gather(leader, follower)} == {TEXT}
    assert len(api.requests) == 1


@pairs
@forms
async def test_a_refusal_is_shared(leading, following, streamed, api, made):
    """Both get it as their library gives it, with what the server said; it isn't stored."""
    status = 429 if streamed else 500
    gate = held_back(api, refusing(status, retry_after="7"))
    clients = [made(leading), made(following)]
    asked = [client.stream() if streamed else client.plain() for client in clients]
    for client, error in zip(clients, await together(api, gate, *asked), strict=True):
        assert type(error) is client.refused[status]
        told, headers, body = client.told(error)
        assert told == status
        assert headers["retry-after"] == "7"
        assert json.loads(body) == {"error": {"message": "no sk-a"}}
    assert "set-cookie" not in client.told(error)[1]
    assert len(api.requests) == 1
    api.program = good
    assert await clients[1].plain()
    assert len(api.requests) == 2


@pairs
async def test_other_credentials_have_another_answer(leading, following, api, made):
    """A 429 is true for the account that got it; a 500 is true for all."""
    gate = held_back(api, refusing(429), good)
    other = made(following, key="sk-b")
    first, second = await together(api, gate, made(leading).plain(), other.plain())
    assert isinstance(first, Exception)
    assert second == COMPLETION["choices"][0]["message"]["content"]
    assert [seen.key for seen in api.requests] == ["sk-a", "sk-b"]


@pairs
async def test_a_500_is_true_for_all_accounts(leading, following, api, made):
    """Whoever asks would have got it."""
    gate = held_back(api, refusing(500), good)
    other = made(following, key="sk-b")
    found = await together(api, gate, made(leading).plain(), other.plain())
    assert type(found[1]) is other.refused[500]
    assert len(api.requests) == 1


@pairs
@forms
async def test_a_timeout_is_shared(leading, following, streamed, api, made):
    """Who wouldn't wait longer gets its own library's error; who would has another call."""

    async def program(seen):
        await (seen.hang() if len(api.requests) == 1 else good(seen))

    api.program = program
    clients = [made(leading), made(following), made(following)]
    calls = [
        (client.stream if streamed else client.plain)(timeout=timeout)
        for client, timeout in zip(clients, (0.2, 0.2, 30), strict=True)
    ]
    first, second, third = await asyncio.gather(*calls, return_exceptions=True)
    assert type(first) is clients[0].errors["timeout"]
    assert type(second) is clients[1].errors["timeout"]
    assert not isinstance(third, Exception)
    assert len(api.requests) == 2


@pairs
async def test_a_failed_connection_is_shared(leading, following, made):
    """Nobody listens: each gets its own library's error."""
    clients = [made(kind, url="http://127.0.0.1:1/v1") for kind in (leading, following)]
    found = await asyncio.gather(*(one.plain() for one in clients), return_exceptions=True)
    for client, error in zip(clients, found, strict=True):
        assert type(error) is client.errors["connect"]
    assert made.cache.stats().upstream_calls == 1


@pairs
async def test_a_stream_that_breaks_off_is_shared(leading, following, api, made):
    """Each reader sees its own library's error in the middle; nothing is stored."""
    gate = Gate()

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        await gate.wait()
        raise CutError

    api.program = program
    heard, joined = asyncio.Event(), asyncio.Event()
    clients = [made(leading), made(following)]
    leader = asyncio.ensure_future(clients[0].stream(heard))
    await heard.wait()
    follower = asyncio.ensure_future(clients[1].stream(joined))
    await joined.wait()
    gate.open()
    found = await asyncio.gather(leader, follower, return_exceptions=True)
    for client, error in zip(clients, found, strict=True):
        expected = client.errors["read"]
        if not sdk._MAPS_STREAM_ERRORS and isinstance(client, ByMethod):
            expected = sdks_library.RequestError
        assert isinstance(error, expected), repr(error)
    assert made.cache.stats().stored == 0


@pairs
@forms
async def test_a_cancelled_leader_disturbs_nobody(leading, following, streamed, api, made):
    """Who joined has the answer, from the one call."""
    gate = held_back(api, good)
    clients = [made(leading), made(following)]
    first, second = (
        asyncio.ensure_future(client.stream() if streamed else client.plain()) for client in clients
    )
    await until(lambda: len(api.requests) == 1)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    gate.open()
    assert await second
    assert len(api.requests) == 1
    assert made.cache.stats().abandoned == 0


@pairs
async def test_the_leaders_client_is_closed(leading, following, api, made):
    """Before anything was delivered: who joined asks anew, or has the answer."""
    gate = held_back(api, good)
    clients = [made(leading), made(following)]
    first, second = (asyncio.ensure_future(client.plain()) for client in clients)
    await until(lambda: len(api.requests) == 1)
    first.cancel()
    await clients[0].aclose()
    gate.open()
    assert isinstance(await second, str)


@pairs
async def test_a_client_is_closed_under_its_caller(leading, following, api, made):
    """That caller has an error; who joined asks anew, by its own client."""
    gate = held_back(api, good)
    clients = [made(leading), made(following)]
    joined = asyncio.Event()
    first = asyncio.ensure_future(clients[0].plain())
    await until(lambda: len(api.requests) == 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flight, "enter", telling(Flight.enter, joined))
        second = asyncio.ensure_future(clients[1].plain())
        await joined.wait()
    await clients[0].aclose()
    await asyncio.wait([first])
    assert isinstance(first.exception(), clients[0].errors["read"])
    gate.open()
    assert await second == COMPLETION["choices"][0]["message"]["content"]
    assert len(api.requests) == 2
