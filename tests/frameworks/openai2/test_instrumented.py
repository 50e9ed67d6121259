"""Frameworks on the SDK's 2.x, under instrumentation: the second run pays nothing."""

from __future__ import annotations

import asyncio
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches one when it is imported

import instructor
import litellm
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from asynccache import instrument_openai
from tests.helpers.openai_server import choice, good

# What LiteLLM imports late warns, of LiteLLM's own types.
pytestmark = pytest.mark.filterwarnings("ignore:.*ReadOnly.*:UserWarning")
pytest_plugins = ("tests.helpers.openai_fixtures",)


class Weather(BaseModel):
    """What an answer is parsed into."""

    city: str


@pytest.fixture(autouse=True)
def instrumented(api_cache):
    """The SDK, instrumented, with a cache in force."""
    with instrument_openai():
        yield


async def answering(seen):
    """Answer with a call of the tool that the framework has made of a class, else as usual."""
    tools = (seen.body or {}).get("tools")
    if not tools:
        await good(seen)
        return
    call = {"name": tools[0]["function"]["name"], "arguments": '{"city": "Vienna"}'}
    tool_call = {"id": "call_1", "type": "function", "function": call}
    message = {"role": "assistant", "content": None, "tool_calls": [tool_call]}
    await seen.answer(choice(message=message, finish_reason="tool_calls"))


async def instructor_async(api):
    """Ask for an instance of a class by a coroutine."""
    async with AsyncOpenAI(api_key="k", base_url=api.base_url) as bare:
        client = instructor.from_openai(bare)
        found = await client.chat.completions.create(
            model="gpt-4o",
            response_model=Weather,
            messages=[{"role": "user", "content": "Where?"}],
        )
        return found.city


async def instructor_sync(api):
    """Ask for an instance of a class in a thread."""

    def ask():
        with OpenAI(api_key="k", base_url=api.base_url) as bare:
            found = instructor.from_openai(bare).chat.completions.create(
                model="gpt-4o",
                response_model=Weather,
                messages=[{"role": "user", "content": "Where?"}],
            )
            return found.city

    return await asyncio.to_thread(ask)


async def litellm_sync(api):
    """Complete by LiteLLM's synchronous function, in a thread."""

    def ask():
        answer = litellm.completion(
            model="openai/gpt-4o",
            messages=[{"role": "user", "content": "Hello?"}],
            api_base=api.base_url,
            api_key="k",
        )
        return answer.choices[0].message.content

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (instructor_async, "Vienna"),
        (instructor_sync, "Vienna"),
        (litellm_sync, "Hello!"),
    ],
)
async def test_second_run_pays_nothing(api, run, expected):
    """The second run, with a client of its own, gives the same without a request."""
    api.program = answering
    assert await run(api) == expected
    assert await run(api) == expected
    assert len(api.requests) == 1


@pytest.mark.parametrize("run", [instructor_async, instructor_sync])
async def test_many_identical_runs_at_once_pay_once(api, run):
    """Fifty runs at once make one request."""
    api.program = answering
    results = await asyncio.gather(*(run(api) for _ in range(50)))
    assert results == ["Vienna"] * 50
    assert len(api.requests) == 1
