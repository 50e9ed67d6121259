"""LangChain's retries ask anew where an answer was of no use, and replay as they were recorded."""

from __future__ import annotations

import json

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.output_parsers import PydanticOutputParser
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient
from pydantic import BaseModel, SecretStr, ValidationError
from tenacity import retry, retry_if_exception_type, stop_after_attempt

import asynccache
from asynccache import Cache
from asynccache.integrations.langchain import LangChainCache
from tests.helpers.openai_server import choice

pytest_plugins = ("tests.helpers.openai_fixtures",)


class Weather(BaseModel):
    """What the answer is made into."""

    degrees: int


GOOD, BAD = json.dumps({"degrees": 21}), "About 21 degrees."


@pytest.fixture
async def model(api):
    """A model whose calls are cached where a block has a cache."""
    with asynccache.instrument_openai():
        async with DefaultAsyncHttpxClient() as http:
            yield ChatOpenAI(
                model="gpt-4o", base_url=api.base_url, api_key=SecretStr("sk-1"),
                http_async_client=http, max_retries=0,
            )  # fmt: skip


def says(*texts):
    """Return a program that says one text after the other, or calls a tool with it."""
    left = list(texts)

    async def program(seen):
        text = left.pop(0)
        said = {"role": "assistant", "content": text}
        for tool in seen.body.get("tools") or ():
            call = {"name": tool["function"]["name"], "arguments": text}
            calls = [{"id": "c", "type": "function", "function": call}]
            said = {"role": "assistant", "content": None, "tool_calls": calls}
        await seen.answer(choice(message=said))

    return program


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
async def test_with_retry_succeeds(api, model, tmp_path, method):
    """The second attempt gets a new answer, which is a hit in the next run."""
    api.program = says(BAD, GOOD)
    asking = model.with_structured_output(Weather, method=method).with_retry(
        retry_if_exception_type=(ValidationError, OutputParserException), stop_after_attempt=2
    )
    for _ in range(2):
        async with Cache.disk(cache_path_root=tmp_path):
            assert await asking.ainvoke("How warm is it? As JSON.") == Weather(degrees=21)
    assert len(api.requests) == 2


async def test_malformed_arguments_are_asked_for_anew(api, model, tmp_path):
    """LangChain makes None of arguments that it can't read."""
    api.program = says(BAD, GOOD)
    asking = model.with_structured_output(Weather, method="function_calling")
    async with Cache.disk(cache_path_root=tmp_path):
        found = [await asking.ainvoke("How warm is it?") for _ in range(3)]
    assert found == [None, Weather(degrees=21), Weather(degrees=21)]
    assert len(api.requests) == 2


async def test_tenacity_succeeds(api, model, tmp_path):
    """So does anybody's own loop around the call."""
    api.program = says(BAD, BAD, GOOD)
    asking = model.with_structured_output(Weather)

    @retry(stop=stop_after_attempt(3), retry=retry_if_exception_type(ValidationError))
    async def ask():
        return await asking.ainvoke("How warm is it?")

    for _ in range(2):
        async with Cache.disk(cache_path_root=tmp_path):
            assert await ask() == Weather(degrees=21)
    assert len(api.requests) == 3


@pytest.mark.parametrize("method", ["json_mode", "function_calling", "model_kwargs"])
async def test_langchains_own_cache_asks_anew(api, tmp_path, method):
    """LangChain stores an answer before anybody parses it; a replay finds it all the same."""
    api.program = says(BAD, GOOD)
    async with DefaultAsyncHttpxClient() as http:

        def asking():
            kwargs = {"response_format": {"type": "json_object"}}
            model = ChatOpenAI(
                model="gpt-4o", base_url=api.base_url, api_key=SecretStr("sk-1"),
                http_async_client=http, max_retries=0, cache=LangChainCache(),
                model_kwargs=kwargs if method == "model_kwargs" else {},
            )  # fmt: skip
            if method == "model_kwargs":
                return model | PydanticOutputParser(pydantic_object=Weather)
            return model.with_structured_output(Weather, method=method)

        async def ask():
            try:
                return await asking().ainvoke("How warm is it? As JSON.")
            except OutputParserException:
                return None

        async with Cache.disk(cache_path_root=tmp_path) as cache:
            assert await ask() is None
            with asynccache.options(mode="replay"):
                assert await ask() is None
            assert [await ask() for _ in range(2)] == [Weather(degrees=21)] * 2
            assert cache.stats().unusable == 1
    assert len(api.requests) == 2
