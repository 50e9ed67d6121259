"""The HTTP client's requests in several loops, threads and processes: paid once, whole or not."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import ssl
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

import asynccache
from asynccache import Cache
from tests.helpers.openai_server import COMPLETION, DONE, MESSAGES, Gate, chunk, sse, state, stored
from tests.helpers.redis_servers import Valkey

pytest_plugins = ("tests.helpers.openai_fixtures",)

BODY = {"model": "gpt-4o", "messages": MESSAGES}
EVENTS = (sse(chunk("One ")), sse(chunk("two", finish="stop")), DONE)
TRUSTED = ssl.create_default_context()  # made once, as it takes long
WAIT = 30  # seconds, longer than anything takes
READER = """
import asyncio, sys
import httpx2
from asynccache import Cache

async def main(store, url):
    async with Cache.from_url(store, lease_ttl=0.6) as cache, httpx2.AsyncClient() as bare:
        messages = [{"role": "user", "content": "Hello?"}]
        body = {"model": "gpt-4o", "messages": messages, "stream": True}
        async with cache.wrap(bare).stream("POST", url, json=body, timeout=None) as response:
            async for line in response.aiter_lines():
                print(line, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def anyio_backend():
    """The loops that matter are made here, and are asyncio's."""
    return "asyncio"


@pytest.fixture
def url(api):
    """Where chats are."""
    return f"{api.base_url}/chat/completions"


async def asked(cache, url, *, streamed=False):
    """Ask once; return the text of the answer, and where it came from."""
    async with httpx2.AsyncClient(verify=TRUSTED, timeout=WAIT) as bare:
        response = await cache.wrap(bare).post(url, json={**BODY, "stream": streamed})
    return response.content, state(response).outcome


def both(api, gate):
    """Let the server wait for a gate."""

    async def program(seen):
        await gate.wait()
        if seen.body.get("stream"):
            await seen.stream(*EVENTS)
        else:
            await seen.answer(COMPLETION)

    api.program = program


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_two_loops_pay_once(streamed, api, url, tmp_path):
    """One cache object, two loops in two threads, ten callers in each."""
    gate = Gate()
    both(api, gate)
    ready = threading.Barrier(2)

    async def many(cache):
        ready.wait(WAIT)
        calls = (asked(cache, url, streamed=streamed) for _ in range(10))
        return await asyncio.gather(*calls)

    async with Cache.disk(cache_path_root=tmp_path) as cache:
        loops = [asyncio.to_thread(lambda: asyncio.run(many(cache))) for _ in range(2)]
        running = asyncio.gather(*loops)
        await api.arrived()
        gate.open()
        found = [answer for loop in await running for answer in loop]
    assert len({content for content, _ in found}) == 1
    assert len(api.requests) == 1
    assert [how for _, how in found].count("miss") == 1


async def test_successive_loops_share_a_client_and_a_cache(api, url, tmp_path):
    """A hit needs no connection, whose loop has ended."""
    cache = Cache.disk(cache_path_root=tmp_path)
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(verify=TRUSTED, limits=limits) as bare:
        client = cache.wrap(bare)

        async def once():
            async with cache:
                return state(await client.post(url, json=BODY)).outcome

        found = [await asyncio.to_thread(lambda: asyncio.run(once())) for _ in range(3)]
    assert found == ["miss", "hit", "hit"]
    assert len(api.requests) == 1


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_threads_pay_once(streamed, api, url):
    """One synchronous client in eight threads."""
    gate = Gate()
    both(api, gate)
    with (
        Cache.memory() as cache,
        httpx2.Client(verify=TRUSTED, timeout=WAIT) as bare,
        ThreadPoolExecutor(8) as threads,
    ):
        client = cache.wrap(bare)

        def ask():
            return client.post(url, json={**BODY, "stream": streamed}).content

        asking = [threads.submit(ask) for _ in range(8)]
        asyncio.run(api.arrived())
        gate.open()
        assert len({one.result(WAIT) for one in asking}) == 1
        assert len(api.requests) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork on this platform")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
async def test_a_forked_child(api, url, tmp_path):
    """Its requests go past the parent's cache, or through one that it opens; the parent goes on."""
    async with Cache.disk(cache_path_root=tmp_path) as cache:
        assert (await asked(cache, url))[1] == "miss"
        await stored(cache)

        def ask(wrapped):
            return asynccache.status(wrapped.post(url, json={**BODY, "stream": False}))

        def in_child():
            child = os.fork()
            if child == 0:
                signal.alarm(WAIT)
                status = 1
                try:
                    asyncio._set_running_loop(None)
                    logging.disable()
                    client = httpx2.Client(verify=TRUSTED)
                    past = ask(cache.wrap(client))
                    with Cache.disk(cache_path_root=tmp_path) as own:
                        status = 0 if (past, ask(own.wrap(client)).outcome) == (None, "hit") else 2
                finally:
                    os._exit(status)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        assert await asyncio.to_thread(in_child) == 0
        assert (await asked(cache, url))[1] == "hit"
    assert len(api.requests) == 2


@pytest.fixture(scope="module")
def valkey():
    """A server for all."""
    with Valkey() as running:
        yield running


@pytest.mark.parametrize("kind", ["disk", "redis"])
async def test_a_process_killed_in_mid_stream(kind, api, url, tmp_path, request):
    """Nothing of its answer is stored; who waited for it has another call's, whole."""
    store = f"disk:{tmp_path / 'cache'}"
    if kind == "redis":
        valkey = request.getfixturevalue("valkey")
        valkey.empty()
        store = valkey.url
    gate = Gate()

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        if len(api.requests) == 1:
            await seen.hang()
        await gate.wait()
        for event in EVENTS[1:]:
            await seen.send(event)
        await seen.end()

    api.program = program
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READER, store, url, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    first = await asyncio.wait_for(child.stdout.readline(), WAIT)
    assert json.loads(first.removeprefix(b"data: "))
    async with Cache.from_url(store, lease_ttl=0.6) as cache:
        waiting = asyncio.ensure_future(asked(cache, url, streamed=True))
        child.kill()
        await child.wait()
        gate.open()
        content, how = await waiting
        assert (content, how) == (b"".join(EVENTS), "miss")
        await stored(cache)
        assert cache.stats().flaws == {}
    async with Cache.from_url(store, mode="replay") as cache:
        assert await asked(cache, url, streamed=True) == (content, "hit")
    assert len(api.requests) == 2
