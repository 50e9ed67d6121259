"""smolagents, whose client is synchronous, in threads."""

from __future__ import annotations

import asyncio
import json

import pytest
from openai import OpenAI
from smolagents import CodeAgent, OpenAIModel, ToolCallingAgent, tool

import asynccache
from asynccache import Cache, normalizers
from tests.helpers.frameworks_server import TEXT, Model
from tests.helpers.frameworks_suite import FrameworkSuite, Weather
from tests.helpers.openai_server import choice

pytest_plugins = ("tests.helpers.openai_fixtures",)

ASKED = [{"role": "user", "content": "How warm is it?"}]


@tool
def get_weather(city: str) -> str:
    """Tell the degrees in a city.

    Args:
        city: Its name.
    """
    return "21"


def model_of(client):
    """Return a model over a client; without one it makes its own, which nobody closes."""
    return OpenAIModel("gpt-4o", client=client)


class TestSmolagents(FrameworkSuite):
    name = "smolagents"
    requests = {**FrameworkSuite.requests, "streamed": 1}  # noqa: RUF012 - a ClassVar above

    def client(self, url):
        return OpenAI(base_url=url, api_key="sk-a", max_retries=0)

    def plain(self, client):
        return model_of(client).generate(ASKED).content

    def tools(self, client):
        agent = ToolCallingAgent([get_weather], model_of(client), verbosity_level=0)
        return agent.run("How warm is it?")

    def structured(self, client):
        schema = {"name": "weather", "schema": Weather.model_json_schema()}
        form = {"type": "json_schema", "json_schema": schema}
        message = model_of(client).generate(ASKED, response_format=form)
        return Weather.model_validate_json(message.content)

    def streamed(self, client):
        return [delta.content for delta in model_of(client).generate_stream(ASKED)]


def run(url, make, wrap=lambda client: client):
    """Run an agent, made anew, in this thread; return what it gave and what came on the way."""
    with OpenAI(base_url=url, api_key="sk-a", max_retries=0) as client:
        steps = list(make(model_of(wrap(client))).run("How warm is it?", stream=True))
    return steps[-1].output, [type(step).__name__ for step in steps]


def streaming(model):
    """Return an agent that shows tokens as they come."""
    return ToolCallingAgent([get_weather], model, stream_outputs=True, verbosity_level=0)


def coding(model):
    """Return an agent whose model writes code."""
    return CodeAgent([get_weather], model, verbosity_level=0)


CODE = """Thought: I ask.
<code>
final_answer(f"It is {get_weather('Paris')} degrees in Paris.")
</code>"""


@pytest.mark.parametrize(
    ("make", "answer", "paid"), [(streaming, TEXT, 2), (coding, CODE, 1)], ids=["tokens", "code"]
)
async def test_agents(api, make, answer, paid):
    """An agent's second run makes no request, and goes the same way."""
    api.program = Model(answer)
    async with Cache.memory():
        with asynccache.instrument_openai():
            runs = [await asyncio.to_thread(run, api.base_url, make) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0][0] == TEXT
    assert len(api.requests) == paid


async def test_a_wrapped_client(api):
    """A synchronous client that was wrapped works in the place of a bare one."""
    api.program = Model()
    async with Cache.memory() as cache:
        for _ in range(2):
            output, _ = await asyncio.to_thread(run, api.base_url, streaming, cache.wrap)
            assert output == TEXT
    assert len(api.requests) == 2


async def test_calls_as_text(api):
    """Calls that a model writes as text get new ids, told to it in a text: a second run pays."""

    async def as_text(seen):
        told = "Observation:\\n21" in json.dumps(seen.body["messages"])
        name, arguments = ("final_answer", {"answer": TEXT}) if told else (
            "get_weather", {"city": "Paris"}
        )  # fmt: skip
        text = "Action:\n" + json.dumps({"name": name, "arguments": arguments})
        await seen.answer(choice(message={"role": "assistant", "content": text}))

    def calling(model):
        return ToolCallingAgent([get_weather], model, verbosity_level=0)

    api.program = as_text
    async with Cache.memory(normalize=normalizers.call_ids):
        with asynccache.instrument_openai():
            for _ in range(2):
                assert (await asyncio.to_thread(run, api.base_url, calling))[0] == TEXT
    assert len(api.requests) == 3


def test_scripts(api):
    """Agents in a plain `with` pay for their first run alone, with clients that they make."""
    api.program = Model()
    with Cache.memory(), asynccache.instrument_openai():
        for _ in range(2):
            model = OpenAIModel("gpt-4o", api_base=api.base_url, api_key="sk-a")
            agent = ToolCallingAgent([get_weather], model, verbosity_level=0)
            assert agent.run("How warm is it?") == TEXT
            model.client.close()
    assert len(api.requests) == 2
