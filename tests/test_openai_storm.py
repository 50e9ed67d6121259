"""Many callers at once, of every kind: paid once each, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import random

import pytest
from llmock.testing import LLMockServer
from openai import AsyncOpenAI

from asynccache import Cache
from tests.helpers.openai_server import (
    DONE,
    EVENTS,
    Gate,
    ask,
    chunk,
    connections,
    good,
    sse,
    stored,
)

pytest_plugins = ("tests.helpers.openai_fixtures",)

CALLS, REQUESTS = 600, 20


async def swarm(client, *, seed):
    """Make many calls of a few requests: plain, streamed, cancelled, broken out of."""
    dice = random.Random(seed)

    async def one(number):
        stream = number % 2 == 0
        response = await ask(client, seed=number % REQUESTS, stream=stream)
        if stream:
            async for _ in response:
                if dice.random() < 0.05:
                    break

    tasks = [asyncio.ensure_future(one(number)) for number in range(CALLS)]
    await asyncio.sleep(0)
    for task in dice.sample(tasks, CALLS // 10):
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)]


async def quiet(client, before):
    """Wait until no task and no connection in use is left; the test's own timeout bounds it."""
    gc.collect()
    while connections(client) or asyncio.all_tasks() - before:
        await asyncio.sleep(0.01)


async def test_a_storm_leaves_nothing_behind(bare, api):
    """Plain, streamed, cancelled, broken out of: each request is paid once, nothing leaks."""
    before = asyncio.all_tasks()
    async with Cache.memory() as cache:
        client = cache.wrap(bare)
        assert await swarm(client, seed=1) == []
        await quiet(bare, before)
        asked = {(seen.body["seed"], bool(seen.body["stream"])) for seen in api.requests}
        assert len(asked) == REQUESTS
        # A request may be paid again only where everybody who wanted it had left.
        stats = cache.stats()
        assert len(api.requests) <= REQUESTS + stats.abandoned
        assert stats.calls >= CALLS * 0.9
        paid = len(api.requests)
        assert await swarm(client, seed=2) == []
        assert len(api.requests) == paid
        await quiet(bare, before)


async def test_a_stream_gives_its_connection_back(bare, cached, api):
    """What follows the closing event is read, so that the next call finds the connection open."""
    before = asyncio.all_tasks()
    sent = Gate()

    async def program(seen):
        await seen.start()
        await seen.send(b"".join(EVENTS))
        await sent.wait()
        await seen.end()

    api.program = program
    for number in range(3):
        stream = await ask(cached, stream=True, seed=number)
        async for _ in stream:
            pass
        sent.open()
        await quiet(bare, before)
    assert len({seen.peer for seen in api.requests}) == 1


async def test_a_storm_of_failures_leaves_nothing_behind(bare, api):
    """Errors, error events, cut and endless streams leave no task and no connection either."""
    before = asyncio.all_tasks()
    dice = random.Random(3)

    async def program(seen):
        kind = dice.randrange(5)
        if kind == 0:
            await seen.answer({"error": {}}, 500)
        elif kind == 1:
            await seen.stream(EVENTS[0], sse({"error": {"message": "m"}}), DONE)
        elif kind == 2:
            await seen.stream(*EVENTS[:-1])
        elif kind == 3 and seen.body["stream"]:
            await seen.start()
            await seen.send(sse(chunk()))
            await seen.send(DONE)  # and never ends the response
            await seen.hang()
        else:
            await good(seen)

    api.program = program
    async with Cache.memory() as cache:
        await swarm(cache.wrap(bare), seed=4)
        await quiet(bare, before)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_against_another_server(stream):
    """A mock of the API that isn't ours, with tools and usage, is paid once per request."""
    with LLMockServer() as server:
        async with (
            AsyncOpenAI(api_key="k", base_url=server.base_url("openai")) as bare,
            Cache.memory() as cache,
        ):
            client = cache.wrap(bare)

            async def one(number):
                response = await ask(client, seed=number, stream=stream)
                if not stream:
                    return response.choices[0].message.content
                texts = [e.choices[0].delta.content or "" async for e in response if e.choices]
                return "".join(texts)

            answers = await asyncio.gather(*(one(n % 5) for n in range(50)))
            again = await asyncio.gather(*(one(n % 5) for n in range(50)))
            assert answers == again
            assert all(answers)
            await stored(cache, 5)
            while len(server.state.journal.records()) < 5:  # written after the answer was sent
                await asyncio.sleep(0.01)
            assert len(server.state.journal.records()) == cache.stats().upstream_calls == 5
