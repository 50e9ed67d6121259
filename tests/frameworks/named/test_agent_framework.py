"""Microsoft Agent Framework, over both of its clients."""

from __future__ import annotations

from contextlib import asynccontextmanager

from agent_framework import Agent
from agent_framework.openai import OpenAIChatClient, OpenAIChatCompletionClient
from openai import AsyncOpenAI

from tests.helpers.frameworks_suite import FrameworkSuite, Weather

pytest_plugins = ("tests.helpers.openai_fixtures",)

ASKED = "How warm is it?"


def get_weather(city: str) -> str:
    """Tell the degrees in a city."""
    return "21"


class AgentFrameworkSuite(FrameworkSuite):
    kind: type

    @asynccontextmanager
    async def client(self, url):
        async with AsyncOpenAI(base_url=url, api_key="sk-a", max_retries=0) as client:
            yield client

    def agent(self, client, **changes):
        model = self.kind(model="gpt-4o", async_client=client)
        return Agent(client=model, instructions="You help.", **changes)

    async def plain(self, client):
        return (await self.agent(client).run(ASKED)).text

    async def tools(self, client):
        return (await self.agent(client, tools=[get_weather]).run(ASKED)).text

    async def structured(self, client):
        return (await self.agent(client).run(ASKED, options={"response_format": Weather})).value

    async def streamed(self, client):
        running = self.agent(client, tools=[get_weather]).run(ASKED, stream=True)
        return [update.text async for update in running]


class TestResponses(AgentFrameworkSuite):
    name = "Microsoft Agent Framework, Responses"
    by_name = True
    kind = OpenAIChatClient


class TestChat(AgentFrameworkSuite):
    name = "Microsoft Agent Framework, Chat"
    by_name = True
    kind = OpenAIChatCompletionClient
