"""`asynccache[litellm]` alone: LiteLLM imports more at each hit than it asks for."""

from __future__ import annotations

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches one when it is imported

import asyncio

import litellm
import pytest

from asynccache import Cache
from asynccache.integrations.litellm import LiteLLMCache
from tests.extras.answering import answering

# What LiteLLM and its dependencies warn of is their own business.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_hits():
    """Each call is paid for once: plain, streamed and embeddings, awaited and not."""

    async def use(url):
        ask = {"api_base": url, "api_key": "k", "caching": True}
        messages = [{"role": "user", "content": "Hello?"}]
        chat = {**ask, "model": "openai/gpt-4o", "messages": messages}
        embed = {**ask, "model": "openai/text-embedding-3-small", "input": ["a"]}
        async with Cache.memory() as cache:
            litellm.cache = LiteLLMCache(cache)
            for count in (3, 3, 3):
                assert (await litellm.acompletion(**chat)).choices
                assert [one async for one in await litellm.acompletion(**chat, stream=True)]
                assert (await litellm.aembedding(**embed)).data
                await asyncio.to_thread(litellm.completion, **chat)
                while cache.stats().stored < count:
                    await asyncio.sleep(0.01)

    with answering() as (url, asked):
        asyncio.run(use(url))
        assert len(asked) == 3
