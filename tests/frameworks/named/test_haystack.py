"""Haystack: its generator, and its agent."""

from __future__ import annotations

import contextlib

from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import tool
from haystack.utils import Secret

from tests.helpers.frameworks_suite import FrameworkSuite, Weather

pytest_plugins = ("tests.helpers.openai_fixtures",)

ASKED = [ChatMessage.from_user("How warm is it?")]


@tool
def get_weather(city: str) -> str:
    """Tell the degrees in a city."""
    return "21"


class TestHaystack(FrameworkSuite):
    name = "Haystack"
    by_name = True

    @contextlib.asynccontextmanager
    async def client(self, url):
        made = []

        def generator(**changes):
            made.append(
                OpenAIChatGenerator(
                    api_key=Secret.from_token("sk-a"), model="gpt-4o", api_base_url=url,
                    max_retries=0, **changes,
                )
            )  # fmt: skip
            return made[-1]

        try:
            yield generator
        finally:
            for one in made:
                for name in ("async_client", "client"):
                    client = getattr(one, name, None)
                    if client is not None:
                        closed = client.close()
                        if closed is not None:
                            await closed

    @contextlib.asynccontextmanager
    async def shared(self, url):
        async with self.client(url) as generator:
            yield generator()

    async def light(self, generator):
        return (await generator.run_async(ASKED))["replies"][0].text

    async def plain(self, generator):
        return (await generator().run_async(ASKED))["replies"][0].text

    async def tools(self, generator):
        agent = Agent(chat_generator=generator(), tools=[get_weather])
        return (await agent.run_async(ASKED))["last_message"].text

    async def structured(self, generator):
        asked = generator(generation_kwargs={"response_format": Weather})
        return Weather.model_validate_json((await asked.run_async(ASKED))["replies"][0].text)

    async def streamed(self, generator):
        pieces = []

        async def note(chunk):
            pieces.append(chunk.content)

        agent = Agent(chat_generator=generator(), tools=[get_weather])
        await agent.run_async(ASKED, streaming_callback=note)
        return pieces
