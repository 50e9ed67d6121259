"""The rows of LiteLLM: its calls by way of the SDK, and those that it sends itself."""

from __future__ import annotations

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches one when it is imported
os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"  # so with this at the first call

from contextlib import asynccontextmanager
from functools import partial
from typing import ClassVar

import litellm
import openai
import pytest

import asynccache
from asynccache import Cache
from asynccache.http import endpoint, register
from asynccache.integrations.litellm import LiteLLMCache
from tests.helpers.frameworks_server import ARGUMENTS, TOOL, Model
from tests.helpers.frameworks_suite import FrameworkSuite, Weather, stored

pytest_plugins = ("tests.helpers.openai_fixtures",)
# LiteLLM's types, as pydantic sees them; and what LiteLLM itself does with its answers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*ReadOnly.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    # LiteLLM leaves a stream over TLS before its end, with a cache and without.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

ASKED = [{"role": "user", "content": "How warm is it?"}]
SCHEMA = {"type": "object", "properties": {name: {"type": "string"} for name in ARGUMENTS}}


class LiteLLMSuite(FrameworkSuite):
    requests = {**FrameworkSuite.requests, "streamed": 1}  # noqa: RUF012 - a ClassVar above

    async def plain(self, ask):
        return (await ask(messages=ASKED)).choices[0].message.content

    async def tools(self, ask):
        tools = [{"type": "function", "function": {"name": TOOL, "parameters": SCHEMA}}]
        called = (await ask(messages=ASKED, tools=tools)).choices[0].message
        (call,) = called.tool_calls
        result = {"role": "tool", "tool_call_id": call.id, "content": "21"}
        history = [*ASKED, called.model_dump(), result]
        return (await ask(messages=history, tools=tools)).choices[0].message.content

    async def structured(self, ask):
        answer = await ask(messages=ASKED, response_format=Weather)
        return Weather.model_validate_json(answer.choices[0].message.content)

    async def streamed(self, ask):
        stream = await ask(messages=ASKED, stream=True)
        return [chunk.choices[0].delta.content async for chunk in stream]


class TestLiteLLM(LiteLLMSuite):
    name = "LiteLLM, OpenAI"

    @asynccontextmanager
    async def client(self, url):
        async with openai.AsyncOpenAI(base_url=url, api_key="sk-a", max_retries=0) as client:
            yield partial(litellm.acompletion, model="openai/gpt-4o", client=client)


class OwnHandlerSuite(LiteLLMSuite):
    model: ClassVar[str]

    @asynccontextmanager
    async def client(self, url):
        at = url and url.removesuffix("/v1")
        if at:  # LiteLLM says nowhere whose protocol it speaks there
            register(endpoint(at, like=self.model.partition("/")[0]))
        yield partial(
            litellm.acompletion, model=self.model, api_base=at, api_key="sk-a", max_retries=0
        )
        await closed()


class TestAnthropic(OwnHandlerSuite):
    name = "LiteLLM, Anthropic"
    model = "anthropic/claude-sonnet-5"


class TestGemini(OwnHandlerSuite):
    name = "LiteLLM, Gemini"
    model = "gemini/gemini-3-flash"


async def closed():
    """Close the clients that LiteLLM made, so that the next call makes new ones."""
    await litellm.close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()


@pytest.fixture
def server(api):
    """A server that answers agents, of which it is known that it speaks as OpenAI does."""
    api.program = Model()
    register(endpoint(api.base_url, like="openai"))
    return api


async def paid_once(server, ask):
    """Check that a call which LiteLLM sends by a client of its own is paid once, and counted so."""
    async with Cache.memory() as cache:
        with asynccache.instrument():
            for _ in range(2):
                await ask()
                await stored(cache, 1)
        await closed()
    assert [seen.path for seen in server.requests] == ["/v1/responses"]
    stats = cache.stats()
    assert (stats.misses, stats.hits, stats.bypassed) == (1, 1, 0)


async def test_responses(server):
    """What goes to the Responses API it sends itself."""
    at = {"api_base": server.base_url, "api_key": "sk-a"}
    await paid_once(server, lambda: litellm.aresponses(model="openai/gpt-4o", input="Hi", **at))


@pytest.mark.parametrize("model", ["gpt-5-pro", "gpt-5-codex", "o1-pro", "responses/gpt-4o"])
async def test_models_that_it_bridges_to_responses(model, server):
    """Their completions go the same way."""
    at = {"api_base": server.base_url, "api_key": "sk-a"}
    call = {"model": f"openai/{model}", "messages": ASKED, **at}
    await paid_once(server, lambda: litellm.acompletion(**call))


async def test_tools_that_it_bridges_at_the_official_address(official_api):
    """There it does so with newer models' tools, which a local address gets as they are."""
    official_api.program = Model()
    tools = [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]
    call = {"model": "openai/gpt-5.4", "messages": ASKED, "tools": tools}
    await paid_once(official_api, lambda: litellm.acompletion(**call))


async def test_the_openai_sdk_alone_sees_nothing_of_these(server):
    """`instrument_openai()` doesn't cache them, but LiteLLM's own lookup does."""
    call = {
        "model": "openai/gpt-5-pro", "messages": ASKED, "api_base": server.base_url,
        "api_key": "sk-a",
    }  # fmt: skip
    async with Cache.memory() as cache:
        with asynccache.instrument_openai():
            for _ in range(2):
                await litellm.acompletion(**call)
        assert len(server.requests) == 2
        assert cache.stats().misses == cache.stats().bypassed == 0
        litellm.cache = LiteLLMCache()
        try:
            for _ in range(2):
                await litellm.acompletion(**call)
                await stored(cache, 1)
        finally:
            litellm.cache = None
            await closed()
    assert len(server.requests) == 3
