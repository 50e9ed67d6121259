"""LlamaIndex: its models and its function agents."""

from __future__ import annotations

from contextlib import asynccontextmanager

import httpx
import pytest
from llama_index.core.agent.workflow import AgentStream, FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI, OpenAIResponses

from tests.helpers.frameworks_suite import FrameworkSuite, Weather

pytest_plugins = ("tests.helpers.openai_fixtures",)
# LlamaIndex asks pydantic by its old names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ASKED = "How warm is it?"


def get_weather(city: str) -> str:
    """Tell the degrees in a city."""
    return "21"


class LlamaIndexSuite(FrameworkSuite):
    model: type

    @asynccontextmanager
    async def client(self, url):
        async with httpx.AsyncClient() as http:
            yield self.model(
                model="gpt-4o", api_base=url, api_key="sk-a", max_retries=0, async_http_client=http
            )

    async def plain(self, model):
        return (await model.achat([ChatMessage(ASKED)])).message.content

    async def tools(self, model):
        return str(await FunctionAgent(tools=[get_weather], llm=model).run(ASKED))

    async def structured(self, model):
        return (await model.as_structured_llm(Weather).achat([ChatMessage(ASKED)])).raw

    async def streamed(self, model):
        running = FunctionAgent(tools=[get_weather], llm=model).run(ASKED)
        found = [
            event.delta async for event in running.stream_events() if isinstance(event, AgentStream)
        ]
        await running
        return found


class TestChat(LlamaIndexSuite):
    name = "LlamaIndex, Chat"
    by_name = True
    model = OpenAI


class TestResponses(LlamaIndexSuite):
    name = "LlamaIndex, Responses"
    by_name = True
    model = OpenAIResponses
