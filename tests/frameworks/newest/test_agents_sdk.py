"""The OpenAI Agents SDK, over both of its HTTP models."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

import asynccache
from asynccache import Cache
from tests.helpers.frameworks_server import TEXT, Model
from tests.helpers.frameworks_suite import FrameworkSuite, Weather

pytest_plugins = ("tests.helpers.openai_fixtures",)


@pytest.fixture(scope="module", autouse=True)
def no_tracing():
    """Send no traces to OpenAI."""
    set_tracing_disabled(disabled=True)


@function_tool
def get_weather(city: str) -> str:
    """Tell the degrees in a city."""
    return "21"


class AgentsSuite(FrameworkSuite):
    model: type

    @asynccontextmanager
    async def client(self, url):
        async with AsyncOpenAI(base_url=url, api_key="sk-a") as client:
            yield client

    def agent(self, client, **changes):
        model = self.model(model="gpt-4o", openai_client=client)
        return Agent(name="Assistant", instructions="You help.", model=model, **changes)

    async def plain(self, client):
        return (await Runner.run(self.agent(client), "How warm is it?")).final_output

    async def tools(self, client):
        agent = self.agent(client, tools=[get_weather])
        return (await Runner.run(agent, "How warm is it?")).final_output

    async def structured(self, client):
        agent = self.agent(client, output_type=Weather)
        return (await Runner.run(agent, "How warm is it?")).final_output

    async def streamed(self, client):
        agent = self.agent(client, tools=[get_weather])
        running = Runner.run_streamed(agent, "How warm is it?")
        return [
            event.data.delta
            async for event in running.stream_events()
            if event.type == "raw_response_event"
            and event.data.type == "response.output_text.delta"
        ]


class TestResponses(AgentsSuite):
    name = "OpenAI Agents SDK, Responses"
    model = OpenAIResponsesModel


class TestChat(AgentsSuite):
    name = "OpenAI Agents SDK, Chat"
    model = OpenAIChatCompletionsModel


async def test_a_wrapped_client(api):
    """A client that was wrapped works in the place of a bare one."""
    api.program = Model()
    async with Cache.memory() as cache:
        for _ in range(2):
            async with AsyncOpenAI(base_url=api.base_url, api_key="sk-a") as client:
                model = OpenAIResponsesModel(model="gpt-4o", openai_client=cache.wrap(client))
                agent = Agent(name="Assistant", model=model, tools=[get_weather])
                assert (await Runner.run(agent, "How warm is it?")).final_output == TEXT
    assert len(api.requests) == 2


@pytest.fixture
def script_loop():
    """The loop that `run_sync` takes, which it leaves open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    pending = asyncio.all_tasks(loop)
    for task in pending:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    asyncio.set_event_loop(None)
    loop.close()


def test_scripts(api, script_loop):
    """`run_sync` in a plain `with` pays for its first run alone."""
    api.program = Model()
    with Cache.memory(), asynccache.instrument_openai():
        for _ in range(2):
            client = AsyncOpenAI(base_url=api.base_url, api_key="sk-a")
            model = OpenAIResponsesModel(model="gpt-4o", openai_client=client)
            agent = Agent(name="Assistant", model=model, tools=[get_weather])
            assert Runner.run_sync(agent, "How warm is it?").final_output == TEXT
            script_loop.run_until_complete(client.close())
    assert len(api.requests) == 2


async def test_at_the_official_address(official_api):
    """There it adds a random `prompt_cache_key`, which no model sees: it is in no key."""
    official_api.program = Model()
    async with Cache.memory() as cache, AsyncOpenAI(max_retries=0) as client:
        for model in (OpenAIResponsesModel, OpenAIChatCompletionsModel):
            official_api.requests = []
            for _ in range(2):
                agent = Agent(
                    name="Assistant",
                    model=model(model="gpt-4o", openai_client=cache.wrap(client)),
                    tools=[get_weather],
                )
                assert (await Runner.run(agent, "How warm is it?")).final_output == TEXT
            assert len(official_api.requests) == 2
            assert all("prompt_cache_key" in seen.body for seen in official_api.requests)
