"""LangChain under `instrument_openai()`: shared calls and streams, which its own caches lack."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.globals import set_llm_cache
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient
from pydantic import SecretStr

import asynccache
from asynccache import Cache
from asynccache.integrations.langchain import LangChainCache
from tests.helpers.openai_server import COMPLETION, Gate, halted, running


@pytest.fixture
def server():
    """Run a server for each test."""
    with running() as app:
        yield app


@pytest.fixture
async def model(server):
    """Return a LangChain client that nobody has wrapped, in a process whose clients are cached."""
    with asynccache.instrument_openai():
        async with DefaultAsyncHttpxClient() as http, Cache.memory():
            yield ChatOpenAI(
                model="gpt-4o",
                base_url=server.base_url,
                api_key=SecretStr("sk-1"),
                http_async_client=http,
            )


async def test_twenty_at_once_pay_once(server, model):
    """Twenty identical `ainvoke` at once make one call, and all get its answer."""
    gate = Gate()

    async def held(seen):
        await gate.wait()
        await seen.answer(COMPLETION)

    server.program = held
    asking = [asyncio.ensure_future(model.ainvoke("Hello?")) for _ in range(20)]
    await server.arrived()
    gate.open()
    answers = await asyncio.gather(*asking)
    assert len(server.requests) == 1
    assert [answer.content for answer in answers] == ["Hello!"] * 20
    assert (await model.ainvoke("Hello?")).content == "Hello!"
    assert len(server.requests) == 1


async def test_langchains_own_cache_beside_it(server, model):
    """Equal calls at once are paid for once, and LangChain then finds them where it looks."""
    set_llm_cache(LangChainCache())
    try:
        answers = await asyncio.gather(*(model.ainvoke("Hello?") for _ in range(20)))
        asynccache.uninstrument()
        answers.append(await model.ainvoke("Hello?"))
    finally:
        set_llm_cache(None)
    assert len(server.requests) == 1
    assert {answer.content for answer in answers} == {"Hello!"}


async def test_three_streams_at_once_pay_once(server, model):
    """Three identical `astream` make one call, and yield the same chunks; so does a fourth."""
    gate = Gate()

    async def chunks():
        # The id is LangChain's own, made anew for each run.
        return [chunk.model_dump(exclude={"id"}) async for chunk in model.astream("Hello?")]

    server.program = halted(gate)
    asking = [asyncio.ensure_future(chunks()) for _ in range(3)]
    await server.arrived()
    gate.open()
    one, two, three = await asyncio.gather(*asking)
    assert one == two == three == await chunks()
    assert "".join(chunk["content"] for chunk in one) == "One two three"
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["X-Goog-Api-Key", "traceparent", "X-Request-Id"])
async def test_headers_of_callers_and_traces_are_in_no_key(server, model, name):
    """Two models that differ in such a header alone share an answer."""
    await model.ainvoke("Hello?")
    for value in ("one", "two"):
        other = ChatOpenAI(
            model="gpt-4o",
            base_url=server.base_url,
            api_key=SecretStr("sk-1"),
            default_headers={name: value},
            http_async_client=model.http_async_client,
        )
        await other.ainvoke("Hello?")
        await model.ainvoke("Hello?", extra_headers={name: value})
    assert len(server.requests) == 1


async def test_response_headers(server, model):
    """`include_response_headers` shows all that came with the paid call, and less later."""

    async def limited(seen):
        await seen.answer(COMPLETION, headers=[("x-ratelimit-remaining-requests", "41")])

    server.program = limited
    model.include_response_headers = True
    paid, hit = [(await model.ainvoke("Hello?")).response_metadata["headers"] for _ in range(2)]
    assert len(server.requests) == 1
    assert paid["x-ratelimit-remaining-requests"] == "41"
    assert paid["x-request-id"] == hit["x-request-id"] == "req_1"
    assert "x-ratelimit-remaining-requests" not in hit
