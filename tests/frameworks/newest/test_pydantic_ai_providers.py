"""PydanticAI, over its models of Anthropic and of Gemini."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from anthropic import AsyncAnthropic
from httpx2 import AsyncClient
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.google import GoogleProvider

import asynccache
from asynccache import Cache, normalizers
from tests.helpers.frameworks_server import TEXT, Model
from tests.helpers.frameworks_suite import FrameworkSuite, Weather

pytest_plugins = ("tests.helpers.openai_fixtures",)


def get_weather(city: str) -> str:
    """Tell the degrees in a city."""
    return "21"


class PydanticSuite(FrameworkSuite):
    def agent(self, model, **changes):
        return Agent(model, instructions="You help.", **changes)

    async def plain(self, model):
        return (await self.agent(model).run("How warm is it?")).output

    async def tools(self, model):
        return (await self.agent(model, tools=[get_weather]).run("How warm is it?")).output

    async def structured(self, model):
        return (await self.agent(model, output_type=Weather).run("How warm is it?")).output

    async def streamed(self, model):
        agent = self.agent(model, tools=[get_weather])
        async with agent.run_stream("How warm is it?") as running:
            return [text async for text in running.stream_text(delta=True, debounce_by=None)]


class TestAnthropic(PydanticSuite):
    name = "PydanticAI, Anthropic"

    @asynccontextmanager
    async def client(self, url):
        at = url and url.removesuffix("/v1")
        async with AsyncAnthropic(base_url=at, api_key="sk-a", max_retries=0) as client:
            provider = AnthropicProvider(anthropic_client=client)
            yield AnthropicModel("claude-sonnet-5", provider=provider)


class TestGemini(PydanticSuite):
    name = "PydanticAI, Gemini"

    @asynccontextmanager
    async def client(self, url):
        async with AsyncClient(timeout=60) as http:
            yield gemini(http, url)


def gemini(http, url):
    """Return a model over an HTTP client."""
    at = url and url.removesuffix("/v1")
    provider = GoogleProvider(api_key="sk-a", http_client=http, base_url=at)
    return GoogleModel("gemini-3-flash", provider=provider)


async def test_a_wrapped_http_client(api):
    """The HTTP client that Gemini is asked by may be a wrapped one."""
    api.program = Model()
    async with Cache.memory() as cache:
        for _ in range(2):
            async with cache.wrap(AsyncClient(timeout=60)) as http:
                run = Agent(gemini(http, api.base_url), tools=[get_weather]).run("How warm is it?")
                assert (await run).output == TEXT
    assert len(api.requests) == 2


@pytest.mark.parametrize(("normalize", "paid"), [(normalizers.call_ids, 2), (None, 3)])
async def test_a_gemini_that_gives_calls_no_ids(api, normalize, paid):
    """Gemini 2.5 does so. PydanticAI makes ids up and sends them; `call_ids` sees past that."""
    api.program = Model(call_ids=False)
    async with Cache.memory(normalize=normalize):
        with asynccache.instrument():
            for _ in range(2):
                async with AsyncClient(timeout=60) as http:
                    agent = Agent(gemini(http, api.base_url), tools=[get_weather])
                    assert (await agent.run("How warm is it?")).output == TEXT
    assert len(api.requests) == paid
    (part,) = api.requests[1].body["contents"][-1]["parts"]
    assert part["functionResponse"]["id"].startswith("pyd_ai_")
