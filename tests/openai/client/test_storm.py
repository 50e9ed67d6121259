"""Many callers at once, of every kind: paid once each, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import random

import pytest
from llmock.testing import LLMockServer
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from asynccache import Cache
from tests.helpers.openai_answers import answer
from tests.helpers.openai_embeddings import MODEL, give
from tests.helpers.openai_server import (
    DONE,
    EVENTS,
    MESSAGES,
    Gate,
    ask,
    choice,
    chunk,
    connections,
    good,
    sse,
    stored,
)

pytest_plugins = ("tests.helpers.openai_fixtures",)

CALLS, REQUESTS = 600, 20
MIXED_CALLS, MIXED_REQUESTS = 2000, 50


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


class Structured(BaseModel):
    """What answers are parsed into."""

    text: str


TEXT_OF_STRUCTURED = '{"text": "Hello!"}'


async def structured(seen):
    """Answer as the API does, with JSON where a schema was asked for."""
    if seen.body.get("response_format"):
        await seen.answer(choice(message={"role": "assistant", "content": TEXT_OF_STRUCTURED}))
    else:
        await answer(seen)


async def read_raw(call):
    """Read a streamed raw response to its end."""
    async with call as response:
        async for _ in response.iter_lines():
            pass


# Each door's way of making a wire request that a number tells from others; some wire requests have
# several doors. True marks those whose result is a stream to be read.
MIXED_DOORS = {
    "chat": [
        (lambda client, number: ask(client, seed=number), False),
        (
            lambda client, number: client.chat.completions.with_raw_response.create(
                model="gpt-4o", messages=MESSAGES, seed=number
            ),
            False,
        ),
        (lambda client, number: ask(client.beta, seed=number), False),
        (
            lambda client, number: client.post(
                "/chat/completions",
                body={"model": "gpt-4o", "messages": MESSAGES, "seed": number},
                cast_to=ChatCompletion,
            ),
            False,
        ),
    ],
    "chat streamed": [
        (lambda client, number: ask(client, seed=number, stream=True), True),
        (
            lambda client, number: read_raw(
                client.chat.completions.with_streaming_response.create(
                    model="gpt-4o", messages=MESSAGES, seed=number, stream=True
                )
            ),
            False,
        ),
    ],
    "chat parsed": [
        (
            lambda client, number: client.chat.completions.parse(
                model="gpt-4o", messages=MESSAGES, seed=number, response_format=Structured
            ),
            False,
        )
    ],
    "responses": [
        (
            lambda client, number: client.responses.create(model="gpt-4o", input=f"{number}"),
            False,
        ),
        (
            lambda client, number: client.responses.parse(model="gpt-4o", input=f"{number}"),
            False,
        ),
    ],
    "responses streamed": [
        (
            lambda client, number: client.responses.create(
                model="gpt-4o", input=f"{number}", stream=True
            ),
            True,
        )
    ],
    "text": [
        (
            lambda client, number: client.completions.create(model="m", prompt=f"{number}"),
            False,
        )
    ],
    "embeddings": [
        (lambda client, number: give(client, [f"{number}"]), False),
        (lambda client, number: give(client, f"{number}"), False),
        (
            lambda client, number: client.embeddings.with_raw_response.create(
                model=MODEL, input=[f"{number}"]
            ),
            False,
        ),
    ],
}


async def mixed_swarm(client, *, seed):
    """Make many calls of a few requests by every door; return errors, and what was abandoned.

    The first call for each request is patient: it is neither cancelled nor broken out of, so that
    no request is given up by everybody.
    """
    dice = random.Random(seed)
    doors = list(MIXED_DOORS.values())

    def way_of(number):
        ways = doors[number % MIXED_REQUESTS % len(doors)]
        return ways[number // MIXED_REQUESTS % len(ways)]

    async def one(number, *, leaves):
        call, streams = way_of(number)
        found = await call(client, number % MIXED_REQUESTS)
        if streams:
            async for _ in found:
                if leaves:
                    break

    hasty = range(MIXED_REQUESTS, MIXED_CALLS)
    streamed = [number for number in hasty if way_of(number)[1]]
    broken = set(dice.sample(streamed, MIXED_CALLS // 10))
    cancelled = set(dice.sample(sorted(set(hasty) - broken), MIXED_CALLS // 10))
    tasks = [
        asyncio.ensure_future(one(number, leaves=number in broken)) for number in range(MIXED_CALLS)
    ]
    for turn in range(3):  # some before they have begun, others midway
        await asyncio.sleep(0)
        for number in sorted(cancelled)[turn::3]:
            tasks[number].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)]


async def test_a_storm_of_mixed_doors_pays_each_request_once(bare, api):
    """Every door at once, a tenth cancelled, a tenth broken out of: each request is paid once."""
    api.program = structured
    before = asyncio.all_tasks()
    async with Cache.memory() as cache:
        client = cache.wrap(bare)
        assert await mixed_swarm(client, seed=5) == []
        await quiet(bare, before)
        assert len(api.requests) == MIXED_REQUESTS
        assert len({(seen.path, seen.raw) for seen in api.requests}) == MIXED_REQUESTS
        stats = cache.stats()
        assert stats.upstream_calls == stats.stored == MIXED_REQUESTS
        assert stats.upstream_errors == stats.abandoned == stats.bypassed == 0
        assert stats.not_stored == stats.flaws == stats.store_errors == {}
        assert stats.misses == MIXED_REQUESTS
        assert stats.calls >= MIXED_CALLS * 0.9
        assert await mixed_swarm(client, seed=6) == []
        assert len(api.requests) == MIXED_REQUESTS
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
