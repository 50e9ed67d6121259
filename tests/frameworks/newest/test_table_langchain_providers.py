"""The rows of LangChain's models of Anthropic and of Gemini."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_anthropic._client_utils import _get_default_async_httpx_client
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI

from tests.helpers.frameworks_suite import FrameworkSuite, Weather

pytest_plugins = ("tests.helpers.openai_fixtures",)
# google-genai derives a class from aiohttp's, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")


@tool
def get_weather(city: str) -> str:
    """Tell the degrees in a city."""
    return "21"


class LangChainSuite(FrameworkSuite):
    requests = {**FrameworkSuite.requests, "streamed": 1}  # noqa: RUF012 - a ClassVar above

    async def plain(self, model):
        return (await model.ainvoke("How warm is it?")).text

    async def tools(self, model):
        bound = model.bind_tools([get_weather])
        messages = [HumanMessage("How warm is it?")]
        messages.append(await bound.ainvoke(messages))
        messages += [await get_weather.ainvoke(call) for call in messages[-1].tool_calls]
        return (await bound.ainvoke(messages)).text

    async def structured(self, model):
        return await model.with_structured_output(Weather).ainvoke("How warm is it?")

    async def streamed(self, model):
        return [chunk.text async for chunk in model.astream("How warm is it?")]


class TestAnthropic(LangChainSuite):
    name = "LangChain, Anthropic"

    @asynccontextmanager
    async def client(self, url):
        at = url and url.removesuffix("/v1")
        model = ChatAnthropic(model="claude-sonnet-5", base_url=at, api_key="sk-a", max_retries=0)
        async with model._async_client:
            yield model
        # LangChain would give the closed client to the next model.
        _get_default_async_httpx_client.cache_clear()


class TestGemini(LangChainSuite):
    name = "LangChain, Gemini"

    @asynccontextmanager
    async def client(self, url):
        at = url and url.removesuffix("/v1")
        model = ChatGoogleGenerativeAI(
            model="gemini-3-flash", base_url=at, api_key="sk-a", max_retries=0
        )
        try:
            yield model
        finally:
            await model.client.aio.aclose()
            model.client.close()
