"""AG2 1.x, over both of its configurations of OpenAI. It makes its clients itself."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

from ag2 import Agent, tool
from ag2.config import OpenAIConfig, OpenAIResponsesConfig
from ag2.events import ModelMessageChunk
from openai import DefaultAsyncHttpxClient

from tests.helpers.frameworks_suite import FrameworkSuite, Weather

pytest_plugins = ("tests.helpers.openai_fixtures",)


@tool
async def get_weather(city: str) -> str:
    """Tell the degrees in a city."""
    return "21"


class AG2Suite(FrameworkSuite):
    config: type

    @asynccontextmanager
    async def client(self, url):
        # A transport of ours, as AG2 never closes its own.
        async with DefaultAsyncHttpxClient() as http:
            yield partial(
                self.config, model="gpt-4o", base_url=url, api_key="sk-a", http_client=http
            )

    async def plain(self, config):
        reply = await Agent("assistant", prompt="You help.", config=config()).ask("How warm is it?")
        return reply.body

    async def tools(self, config):
        agent = Agent("assistant", prompt="You help.", config=config(), tools=[get_weather])
        return (await agent.ask("How warm is it?")).body

    async def structured(self, config):
        agent = Agent("assistant", config=config(), response_schema=Weather)
        return await (await agent.ask("How warm is it?")).content()

    async def streamed(self, config):
        agent = Agent("assistant", config=config(streaming=True), tools=[get_weather])
        texts = []

        def note(event):
            if isinstance(event, ModelMessageChunk):
                texts.append(event.content)

        async with agent.run("How warm is it?") as run:
            run.stream.subscribe(note)
            await run.result()
        return texts


class TestResponses(AG2Suite):
    name = "AG2 1.x, Responses"
    config = OpenAIResponsesConfig


class TestChat(AG2Suite):
    name = "AG2 1.x, Chat"
    config = OpenAIConfig
