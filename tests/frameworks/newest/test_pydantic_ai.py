"""PydanticAI, over both of its models of OpenAI."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

import asynccache
from asynccache import Cache, normalizers
from tests.helpers.frameworks_server import TEXT, Model
from tests.helpers.frameworks_suite import FrameworkSuite, Weather

pytest_plugins = ("tests.helpers.openai_fixtures",)


def get_weather(city: str) -> str:
    """Tell the degrees in a city."""
    return "21"


class PydanticSuite(FrameworkSuite):
    model: type

    @asynccontextmanager
    async def client(self, url):
        async with AsyncOpenAI(base_url=url, api_key="sk-a") as client:
            yield client

    def agent(self, client, **changes):
        model = self.model("gpt-4o", provider=OpenAIProvider(openai_client=client))
        return Agent(model, instructions="You help.", **changes)

    async def plain(self, client):
        return (await self.agent(client).run("How warm is it?")).output

    async def tools(self, client):
        return (await self.agent(client, tools=[get_weather]).run("How warm is it?")).output

    async def structured(self, client):
        return (await self.agent(client, output_type=Weather).run("How warm is it?")).output

    async def streamed(self, client):
        agent = self.agent(client, tools=[get_weather])
        async with agent.run_stream("How warm is it?") as running:
            return [text async for text in running.stream_text(delta=True, debounce_by=None)]


class TestResponses(PydanticSuite):
    name = "PydanticAI, Responses"
    model = OpenAIResponsesModel


class TestChat(PydanticSuite):
    name = "PydanticAI, Chat"
    model = OpenAIChatModel


async def ask(url, wrap=lambda client: client):
    """Run an agent with a tool, made anew."""
    async with AsyncOpenAI(base_url=url, api_key="sk-a") as client:
        model = OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=wrap(client)))
        return (await Agent(model, tools=[get_weather]).run("How warm is it?")).output


async def test_a_wrapped_client(api):
    """A client that was wrapped works in the place of a bare one."""
    api.program = Model()
    async with Cache.memory() as cache:
        for _ in range(2):
            assert await ask(api.base_url, cache.wrap) == TEXT
    assert len(api.requests) == 2


@pytest.mark.parametrize(("normalize", "paid"), [(normalizers.call_ids, 2), (None, 3)])
async def test_a_server_without_ids_of_calls(api, normalize, paid):
    """The ids that PydanticAI then makes up are others in each run; `call_ids` sees past that."""
    api.program = Model(call_ids=False)
    async with Cache.memory(normalize=normalize):
        with asynccache.instrument_openai():
            for _ in range(2):
                assert await ask(api.base_url) == TEXT
    assert len(api.requests) == paid
    sent = api.requests[1].body["messages"][-1]["tool_call_id"]
    assert sent.startswith("pyd_ai_")
