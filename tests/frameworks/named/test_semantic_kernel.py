"""Semantic Kernel: its chat completion agent."""

from __future__ import annotations

import warnings
from contextlib import asynccontextmanager

import pytest
from openai import AsyncOpenAI

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it asks pydantic by its old names
    from semantic_kernel.agents import ChatCompletionAgent
    from semantic_kernel.connectors.ai.open_ai import (
        OpenAIChatCompletion,
        OpenAIChatPromptExecutionSettings,
    )
    from semantic_kernel.functions import KernelArguments, kernel_function

from tests.helpers.frameworks_suite import FrameworkSuite, Weather

pytest_plugins = ("tests.helpers.openai_fixtures",)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ASKED = "How warm is it?"


class Plugin:
    @kernel_function
    def get_weather(self, city: str) -> str:
        """Tell the degrees in a city."""
        return "21"


class TestSemanticKernel(FrameworkSuite):
    name = "Semantic Kernel"
    by_name = True

    @asynccontextmanager
    async def client(self, url):
        async with AsyncOpenAI(base_url=url, api_key="sk-a", max_retries=0) as client:
            yield client

    def agent(self, client, **changes):
        service = OpenAIChatCompletion(ai_model_id="gpt-4o", async_client=client)
        return ChatCompletionAgent(service=service, name="Assistant", **changes)

    async def plain(self, client):
        return str(await self.agent(client).get_response(messages=ASKED))

    async def tools(self, client):
        return str(await self.agent(client, plugins=[Plugin()]).get_response(messages=ASKED))

    async def structured(self, client):
        settings = OpenAIChatPromptExecutionSettings(response_format=Weather)
        agent = self.agent(client, arguments=KernelArguments(settings))
        return Weather.model_validate_json(str(await agent.get_response(messages=ASKED)))

    async def streamed(self, client):
        agent = self.agent(client, plugins=[Plugin()])
        return [str(part.content) async for part in agent.invoke_stream(messages=ASKED)]
