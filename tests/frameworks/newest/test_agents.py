"""Frameworks that know nothing of any cache, under instrumentation: the second run pays nothing.

Each run makes its own client and agent, as a program that is started anew would.
"""

from __future__ import annotations

import asyncio

import agents
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from smolagents import OpenAIModel

from asynccache import instrument_openai
from tests.helpers.openai_server import EVENTS, choice, completion

pytest_plugins = ("tests.helpers.openai_fixtures",)


class Weather(BaseModel):
    """What a structured answer is parsed into."""

    city: str


@pytest.fixture(autouse=True)
def instrumented(api_cache):
    """The SDK, instrumented, with a cache in force, and no traces sent anywhere."""
    agents.set_tracing_disabled(disabled=True)
    with instrument_openai():
        yield


def lookup(city: str) -> str:
    """Return the weather of a city."""
    return f"sunny in {city}"


async def answering(seen):
    """Answer as a model that calls a tool where there is one, and then says what it got."""
    body = seen.body
    tools = body.get("tools")
    if body.get("stream"):
        await seen.stream(*EVENTS)
    elif body.get("response_format"):
        message = {"role": "assistant", "content": '{"city": "Vienna"}', "refusal": None}
        await seen.answer(choice(message=message))
    elif tools and body["messages"][-1]["role"] != "tool":
        call = {"name": tools[0]["function"]["name"], "arguments": '{"city": "Vienna"}'}
        tool_call = {"id": "call_1", "type": "function", "function": call}
        message = {"role": "assistant", "content": None, "tool_calls": [tool_call]}
        await seen.answer(choice(message=message, finish_reason="tool_calls"))
    else:
        await seen.answer(completion())


async def agents_sdk(api, kind):
    """Run an agent of the OpenAI Agents SDK over chat completions."""
    async with AsyncOpenAI(api_key="k", base_url=api.base_url) as client:
        agent = agents.Agent(
            name="a",
            instructions="Be short.",
            model=agents.OpenAIChatCompletionsModel(model="gpt-4o", openai_client=client),
            tools=[agents.function_tool(lookup)] if kind == "tools" else [],
            output_type=Weather if kind == "structured" else None,
        )
        if kind == "streamed":
            run = agents.Runner.run_streamed(agent, "Hello?")
            async for _ in run.stream_events():
                pass
            return run.final_output
        return (await agents.Runner.run(agent, "Hello?")).final_output


async def pydantic_ai(api, kind):
    """Run an agent of PydanticAI."""
    async with DefaultAsyncHttpxClient() as http:
        client = AsyncOpenAI(api_key="k", base_url=api.base_url, http_client=http)
        model = OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=client))
        agent = Agent(
            model,
            output_type=NativeOutput(Weather) if kind == "structured" else str,
            tools=[lookup] if kind == "tools" else [],
        )
        if kind == "streamed":
            async with agent.run_stream("Hello?") as run:
                return await run.get_output()
        return (await agent.run("Hello?")).output


async def smolagents_model(api, kind):
    """Ask a model of smolagents, which is synchronous, from a thread."""

    def ask():
        model = OpenAIModel(model_id="gpt-4o", api_base=api.base_url, api_key="k")
        messages = [{"role": "user", "content": [{"type": "text", "text": "Hello?"}]}]
        if kind == "streamed":
            return "".join(part.content or "" for part in model.generate_stream(messages))
        return model.generate(messages).content

    return await asyncio.to_thread(ask)


EXPECTED = {
    "plain": "Hello!",
    "tools": "Hello!",
    "structured": Weather(city="Vienna"),
    "streamed": "One two three",
}
RUNS = [
    *[(agents_sdk, kind) for kind in EXPECTED],
    *[(pydantic_ai, kind) for kind in EXPECTED],
    *[(smolagents_model, kind) for kind in ("plain", "streamed")],
]


@pytest.mark.parametrize(
    ("run", "kind"), RUNS, ids=[f"{run.__name__}-{kind}" for run, kind in RUNS]
)
async def test_second_run_pays_nothing(api, run, kind):
    """The first run pays for its turns, the second gives the same without a request."""
    api.program = answering
    first = await run(api, kind)
    paid = len(api.requests)
    assert paid == (2 if kind == "tools" else 1)
    assert await run(api, kind) == first == EXPECTED[kind]
    assert len(api.requests) == paid


@pytest.mark.parametrize("run", [agents_sdk, pydantic_ai, smolagents_model])
async def test_many_identical_runs_at_once_pay_once(api, run):
    """Fifty runs at once, each with its own client, make one request."""
    api.program = answering
    results = await asyncio.gather(*(run(api, "plain") for _ in range(50)))
    assert results == ["Hello!"] * 50
    assert len(api.requests) == 1
