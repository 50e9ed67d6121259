"""LlamaIndex: its models of Anthropic and of Gemini, and its function agents over them."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from llama_index.core.agent.workflow import AgentStream, FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.llms.anthropic import Anthropic
from llama_index.llms.google_genai import GoogleGenAI

from tests.helpers.frameworks_suite import FrameworkSuite, Weather

pytest_plugins = ("tests.helpers.openai_fixtures",)
# LlamaIndex asks pydantic by its old names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ASKED = "How warm is it?"


def get_weather(city: str) -> str:
    """Tell the degrees in a city."""
    return "21"


class LlamaIndexSuite(FrameworkSuite):
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


class TestAnthropic(LlamaIndexSuite):
    name = "LlamaIndex, Anthropic"
    by_name = True

    @asynccontextmanager
    async def client(self, url):
        at = url and url.removesuffix("/v1")
        model = Anthropic(model="claude-sonnet-4-5", base_url=at, api_key="sk-a", max_retries=0)
        async with model._aclient:
            yield model
        model._client.close()


class TestGemini(LlamaIndexSuite):
    name = "LlamaIndex, Gemini"
    by_name = True

    @asynccontextmanager
    async def client(self, url):
        model = GoogleGenAI(
            model="gemini-3-flash", api_key="sk-a", max_retries=0, max_tokens=99,
            context_window=9999, http_options={"base_url": url and url.removesuffix("/v1")},
        )  # fmt: skip
        try:
            yield model
        finally:
            await model._client.aio.aclose()
            model._client.close()
