"""The rows of LangChain and LangGraph: their OpenAI models under `instrument()`."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent
from openai import DefaultAsyncHttpxClient

from tests.helpers.frameworks_suite import FrameworkSuite, Weather

pytest_plugins = ("tests.helpers.openai_fixtures",)
# LangGraph wants agents made by another package; they are what they were.
pytestmark = pytest.mark.filterwarnings("ignore:create_react_agent has been moved")


@tool
def get_weather(city: str) -> str:
    """Tell the degrees in a city."""
    return "21"


@asynccontextmanager
async def model_of(url, *, responses=False):
    """Yield a model whose connections end with the block."""
    async with DefaultAsyncHttpxClient() as http:
        yield ChatOpenAI(
            model="gpt-4o", base_url=url, api_key="sk-a", http_async_client=http,
            use_responses_api=responses, max_retries=0,
        )  # fmt: skip


class LangChainSuite(FrameworkSuite):
    requests = {**FrameworkSuite.requests, "streamed": 1}  # noqa: RUF012 - a ClassVar above
    responses: bool

    def client(self, url):
        return model_of(url, responses=self.responses)

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


class TestLangChainResponses(LangChainSuite):
    name = "LangChain, Responses"
    responses = True


class TestLangChainChat(LangChainSuite):
    name = "LangChain, Chat"
    responses = False


class TestLangGraph(FrameworkSuite):
    name = "LangGraph"
    requests = {**FrameworkSuite.requests, "structured": 2}  # noqa: RUF012 - asked after the text
    asked = {"messages": [HumanMessage("How warm is it?", id="1")]}  # noqa: RUF012 - read only

    def client(self, url):
        return model_of(url)

    async def plain(self, model):
        return (await create_react_agent(model, []).ainvoke(self.asked))["messages"][-1].text

    async def tools(self, model):
        agent = create_react_agent(model, [get_weather])
        return (await agent.ainvoke(self.asked))["messages"][-1].text

    async def structured(self, model):
        agent = create_react_agent(model, [], response_format=Weather)
        return (await agent.ainvoke(self.asked))["structured_response"]

    async def streamed(self, model):
        agent = create_react_agent(model, [get_weather])
        streaming = agent.astream(self.asked, stream_mode="messages")
        return [message.text async for message, _ in streaming if message.type != "tool"]
