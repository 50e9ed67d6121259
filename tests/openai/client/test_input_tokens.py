"""`/responses/input_tokens`, which counts the tokens of a request: always the same for the same."""

from __future__ import annotations

import asyncio

import openai
import pytest

from asynccache import ReplayMiss, options
from tests.helpers.openai_server import state, stored

pytest_plugins = ("tests.helpers.openai_fixtures",)

COUNTED = {"object": "response.input_tokens", "input_tokens": 7}


@pytest.fixture(autouse=True)
def counting(api):
    """Count tokens."""

    async def program(seen):
        await seen.answer(COUNTED)

    api.program = program


async def test_counts_are_paid_once(cached, api, api_cache):
    """Whoever asks shares the count, also at the same moment; another request has another."""
    count = cached.responses.input_tokens.count
    several = await asyncio.gather(*(count(model="gpt-4o", input="a") for _ in range(5)))
    await stored(api_cache)
    several.append(await count(model="gpt-4o", input="a"))
    assert {one.input_tokens for one in several} == {7}
    assert state(several[-1]).outcome == "hit"
    assert [seen.path for seen in api.requests] == ["/v1/responses/input_tokens"]
    await count(model="gpt-4o", input="a", instructions="b")
    assert len(api.requests) == 2


async def test_counts_of_the_synchronous_client(api, api_cache):
    """It shares counts with the asynchronous one, and replays them."""
    with openai.OpenAI(base_url=api.base_url, api_key="k", max_retries=0) as plain:
        count = api_cache.wrap(plain).responses.input_tokens.count
        for _ in range(2):
            assert (await asyncio.to_thread(count, model="m", input="a")).input_tokens == 7
            await stored(api_cache)
        with options(mode="replay"), pytest.raises(ReplayMiss):
            await asyncio.to_thread(count, model="m", input="b")
    assert len(api.requests) == 1


async def test_counts_of_a_conversation_are_not_cached(cached, api):
    """What it holds changes at the server."""
    for _ in range(2):
        await cached.responses.input_tokens.count(model="m", input="a", conversation="conv_1")
    assert len(api.requests) == 2
