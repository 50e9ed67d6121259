"""The row of AutoGen 0.7: agents over its OpenAI client, under `instrument()`."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import ModelClientStreamingChunkEvent
from autogen_ext.models.openai import OpenAIChatCompletionClient

from tests.helpers.frameworks_suite import FrameworkSuite, Weather

pytest_plugins = ("tests.helpers.openai_fixtures",)
# What AutoGen itself logs of the SDK's parsed answers.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")


async def get_weather(city: str) -> str:
    """Tell the degrees in a city."""
    return "21"


class TestAutoGen(FrameworkSuite):
    name = "AutoGen 0.7"

    @asynccontextmanager
    async def client(self, url):
        made = OpenAIChatCompletionClient(
            model="gpt-4o", base_url=url, api_key="sk-a", max_retries=0
        )
        yield made
        await made.close()

    async def asked(self, client, **changes):
        result = await AssistantAgent("assistant", client, **changes).run(task="How warm is it?")
        return result.messages[-1].content

    async def plain(self, client):
        return await self.asked(client)

    async def tools(self, client):
        return await self.asked(client, tools=[get_weather], reflect_on_tool_use=True)

    async def structured(self, client):
        return await self.asked(client, output_content_type=Weather)

    async def streamed(self, client):
        agent = AssistantAgent(
            "assistant", client, tools=[get_weather], reflect_on_tool_use=True,
            model_client_stream=True,
        )  # fmt: skip
        return [
            message.content
            async for message in agent.run_stream(task="How warm is it?")
            if isinstance(message, ModelClientStreamingChunkEvent)
        ]
