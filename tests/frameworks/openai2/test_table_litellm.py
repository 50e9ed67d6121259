"""The row of LiteLLM: its calls by way of the SDK, under `instrument_openai()`."""

from __future__ import annotations

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches one when it is imported

from contextlib import asynccontextmanager
from functools import partial

import litellm
import openai
import pytest

import asynccache
from asynccache import Cache
from asynccache.integrations.litellm import LiteLLMCache
from tests.helpers.frameworks_server import ARGUMENTS, TOOL, Model
from tests.helpers.frameworks_suite import FrameworkSuite, Weather, stored

pytest_plugins = ("tests.helpers.openai_fixtures",)
# LiteLLM's types, as pydantic sees them; and what LiteLLM itself does with its answers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*ReadOnly.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]

ASKED = [{"role": "user", "content": "How warm is it?"}]
SCHEMA = {"type": "object", "properties": {name: {"type": "string"} for name in ARGUMENTS}}


class TestLiteLLM(FrameworkSuite):
    name = "LiteLLM"
    requests = {**FrameworkSuite.requests, "streamed": 1}  # noqa: RUF012 - a ClassVar above

    @asynccontextmanager
    async def client(self, url):
        async with openai.AsyncOpenAI(base_url=url, api_key="sk-a", max_retries=0) as client:
            yield partial(litellm.acompletion, model="openai/gpt-4o", client=client)

    async def plain(self, ask):
        return (await ask(messages=ASKED)).choices[0].message.content

    async def tools(self, ask):
        tools = [{"type": "function", "function": {"name": TOOL, "parameters": SCHEMA}}]
        called = (await ask(messages=ASKED, tools=tools)).choices[0].message
        (call,) = called.tool_calls
        result = {"role": "tool", "tool_call_id": call.id, "content": "21"}
        history = [*ASKED, called.model_dump(), result]
        return (await ask(messages=history, tools=tools)).choices[0].message.content

    async def structured(self, ask):
        answer = await ask(messages=ASKED, response_format=Weather)
        return Weather.model_validate_json(answer.choices[0].message.content)

    async def streamed(self, ask):
        stream = await ask(messages=ASKED, stream=True)
        return [chunk.choices[0].delta.content async for chunk in stream]

    async def test_its_responses_go_another_way(self, server):
        """LiteLLM sends what goes to the Responses API by a client of its own: not cached here."""
        async with Cache.memory() as cache:
            with asynccache.instrument_openai():
                for _ in range(2):
                    await litellm.aresponses(
                        model="openai/gpt-4o", input="Hi", api_base=server.base_url, api_key="sk-a"
                    )
        await litellm.close_litellm_async_clients()
        assert len(server.requests) == 2
        assert cache.stats().misses == cache.stats().bypassed == 0

    @pytest.mark.parametrize("model", ["gpt-5-pro", "gpt-5-codex", "o1-pro", "responses/gpt-4o"])
    async def test_models_that_it_bridges_to_responses(self, model, server):
        """Their completions go the same way, so that `LiteLLMCache` alone caches them."""
        at = {"api_base": server.base_url, "api_key": "sk-a"}
        await self.bridged(server, model=f"openai/{model}", **at)

    async def test_tools_that_it_bridges_at_the_official_address(self, official_api):
        """There it does so with newer models' tools, which a local address gets as they are."""
        official_api.program = Model()
        tools = [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]
        await self.bridged(official_api, model="openai/gpt-5.4", tools=tools)

    async def bridged(self, server, **call):
        """Check who caches a call that LiteLLM sends to the Responses API."""
        async with Cache.memory() as cache:
            with asynccache.instrument_openai():
                for _ in range(2):
                    await litellm.acompletion(messages=ASKED, **call)
            assert [seen.path for seen in server.requests] == ["/v1/responses"] * 2
            assert cache.stats().misses == cache.stats().bypassed == 0
            litellm.cache = LiteLLMCache()
            try:
                for _ in range(2):
                    await litellm.acompletion(messages=ASKED, **call)
                    await stored(cache, 1)
            finally:
                litellm.cache = None
                await litellm.close_litellm_async_clients()
        assert len(server.requests) == 3
