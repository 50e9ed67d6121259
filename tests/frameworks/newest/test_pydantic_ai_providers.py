"""PydanticAI, over its models of Anthropic and of Gemini."""

from __future__ import annotations

from contextlib import asynccontextmanager

from anthropic import AsyncAnthropic
from httpx2 import AsyncClient
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.google import GoogleProvider

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
        at = url and url.removesuffix("/v1")
        async with AsyncClient(timeout=60) as http:
            provider = GoogleProvider(api_key="sk-a", http_client=http, base_url=at)
            yield GoogleModel("gemini-3-flash", provider=provider)
