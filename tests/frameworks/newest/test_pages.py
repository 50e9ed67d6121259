"""The pages' examples with the frameworks of this environment work as they stand."""

from __future__ import annotations

import pytest

from tests.helpers.frameworks_pages import Example, check_example, examples_of
from tests.helpers.frameworks_server import Model
from tests.helpers.redis_servers import Valkey

pytest_plugins = ("tests.helpers.openai_fixtures",)

OURS = """
import asyncio
import asynccache
from asynccache import Cache
from openai import AsyncOpenAI
"""
AGENTS = (
    OURS
    + """
from agents import Agent, Runner, set_default_openai_client, set_tracing_disabled

set_tracing_disabled(True)
agent = Agent(name="Assistant", model="gpt-4o")
"""
)
OPEN = "cache = await Cache.disk().open()\n"
CHAT = """
from langchain_openai import ChatOpenAI

model = ChatOpenAI(model="gpt-4o-mini")
"""
WEATHER = (
    OURS
    + """
from pydantic import BaseModel, ValidationError


class Weather(BaseModel):
    city: str
    degrees: int

"""
)
ASKED = """
print(await ask(cache.wrap(AsyncOpenAI())))
await cache.aclose()
"""
EXAMPLES = examples_of({
    ("retries.md", "The error says more"): [Example(OURS, "assert answer.choices")],
    ("retries.md", "Your own rules"): [Example(OURS + OPEN, ASKED)],
    ("retries.md", "tenacity"): [Example(WEATHER + OPEN, ASKED)],
    ("retries.md", "LangChain"): [
        Example(
            WEATHER
            + "from langchain_openai import ChatOpenAI\n\nasynccache.instrument_openai()\n"
        )
    ],
    ("frameworks.md", "OpenAI Agents SDK"): [
        Example(AGENTS),
        Example(
            AGENTS + OPEN,
            'print(await Runner.run(agent, "How warm is it?"))\nawait cache.aclose()',
        ),
    ],
    ("frameworks.md", "PydanticAI"): [
        Example(
            OURS + OPEN + """
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
""",
            'print(await Agent(model).run("How warm is it?"))\nawait cache.aclose()',
        )
    ],
    ("frameworks.md", "smolagents"): [
        Example(OURS + "from smolagents import CodeAgent, OpenAIModel")
    ],
    ("frameworks.md", "AG2 1.x"): [
        Example(OURS + "from ag2 import Agent\nfrom ag2.config import OpenAIConfig")
    ],
    ("frameworks.md", "Inspect"): [
        Example(
            OURS + """
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample

task = Task(dataset=[Sample(input="How warm is it?", target="21")])
"""
        )
    ],
    ("autogen.md", "`CachedChatCompletionClient`"): [Example("")],
    ("from-autogen.md", "AutoGen's `OpenAIWrapper`"): [Example("")],
    ("from-autogen.md", "AutoGen 0.7: `ChatCompletionCache`"): [Example("")],
    ("autogen.md", "Component config"): [
        Example(
            """
from asynccache.integrations.autogen import CachedChatCompletionClient
from autogen_core.models import ChatCompletionClient
from autogen_ext.models.openai import OpenAIChatCompletionClient

inner = OpenAIChatCompletionClient(model="gpt-4o-mini")
""",
            "assert type(copy) is CachedChatCompletionClient",
            requests=0,
        )
    ],
    ("langchain.md", "With `instrument_openai()`"): [Example("import asyncio")],
    ("langchain.md", "`LangChainCache`"): [Example(CHAT)],
    ("langgraph.md", "`LangGraphCache`"): [
        Example(
            """
from asynccache import Cache
from langgraph.graph import START, StateGraph

calls = []


def look(state):
    calls.append(state)
    return {"seen": state["asked"]}


builder = StateGraph(dict)
builder.add_edge(START, "look")
""",
            """
async with Cache.memory():
    for _ in range(2):
        assert await graph.ainvoke({"asked": 1}) == {"seen": 1}
assert len(calls) == 1
""",
            requests=0,
        )
    ],
})  # fmt: skip


@pytest.fixture
def anyio_backend():
    """Run on one loop: an example has its own."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(scope="module")
def valkey():
    """Run the pages' Redis."""
    with Valkey() as running:
        yield running


@pytest.mark.parametrize(
    ("block", "example"), EXAMPLES, ids=lambda value: getattr(value, "heading", "")
)
async def test_example_pays_once(api, tmp_path, valkey, block, example):
    """An example makes its calls, and none when it is run again."""
    code = block.heading == "smolagents"
    model = Model("Thought: done.\n<code>\nfinal_answer('21')\n</code>") if code else None
    if block.heading == "Your own rules":
        model = Model("morning")
    await check_example(api, tmp_path, block, example, model=model, redis_url=valkey.url)
