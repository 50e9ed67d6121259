"""What `langgraph dev` switches on, a detector of blocking calls, finds nothing in this cache."""

from __future__ import annotations

import logging
from typing import TypedDict

import pytest
from langchain_core.globals import set_llm_cache
from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from pydantic import SecretStr

from asynccache import Cache
from asynccache.integrations.langchain import LangChainCache
from asynccache.integrations.langgraph import LangGraphCache
from asynccache.stores.disk import inline
from tests.helpers.detectors import ALLOWED, detecting
from tests.helpers.openai_server import ask, running


class State(TypedDict):
    """What the graph works on."""

    asked: str
    answers: list[object]


def graph(cache, model, client, ran):
    """Return a graph of one node that asks a model in two ways."""

    async def look(state):
        ran.append(state["asked"])
        message = await model.ainvoke(state["asked"])
        answer = await ask(client)
        return {"answers": [message.content, answer.choices[0].message.content]}

    builder = StateGraph(State)
    builder.add_node("look", look, cache_policy=CachePolicy())
    builder.add_edge(START, "look")
    return builder.compile(cache=LangGraphCache(cache, name="graph"))


@pytest.fixture
def server():
    """Run a server."""
    with running() as app:
        yield app


@pytest.mark.parametrize("detector", ALLOWED)
async def test_works_under_langgraph_dev(server, tmp_path, monkeypatch, detector, caplog):
    """Nodes, models and clients are cached on disk, by a cache that is made in the server."""
    inline.say_refused.cache_clear()
    monkeypatch.chdir(tmp_path)
    ran: list[str] = []
    async with DefaultAsyncHttpxClient() as http:
        model = ChatOpenAI(
            model="gpt-4o", base_url=server.base_url, api_key=SecretStr("k"), http_async_client=http
        )
        async with AsyncOpenAI(api_key="k", base_url=server.base_url, http_client=http) as bare:
            with caplog.at_level(logging.WARNING, "asynccache"), detecting(detector):
                for asked in (("x", "y"), ("x", "y", "x")):  # the second reads what was stored
                    async with Cache.disk() as cache:
                        set_llm_cache(LangChainCache(cache))
                        compiled = graph(cache, model, cache.wrap(bare), ran)
                        for each in asked:
                            state = await compiled.ainvoke({"asked": each})
                            assert state["answers"] == ["Hello!", "Hello!"]
                        assert cache.stats().store_errors == {}
                set_llm_cache(None)
    assert ran == ["x", "y"]
    assert len(server.requests) == 3  # the model's two questions, and the client's one
    assert sum("refuses" in record.message for record in caplog.records) == 1
