"""The cache as LangGraph's: nodes with a policy run once, and namespaces are cleared one by one."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
from typing import TypedDict

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import CachePolicy

import asynccache
from asynccache import Cache, ReplayMiss
from asynccache.integrations.langgraph import LangGraphCache
from tests.helpers.redis_servers import Valkey

ONE, TWO = (("a",), "1"), (("a",), "2")
OTHER, JOINED = (("b",), "1"), (("a", "b"), "1")


@dataclasses.dataclass
class Place:
    """A class of the user's."""

    name: str


class State(TypedDict):
    """What the graph works on."""

    asked: str
    answer: object


@pytest.fixture(scope="module")
def valkey():
    """Run a real server for the module."""
    with Valkey() as server:
        yield server


@pytest.fixture(params=["memory", "disk", "redis"])
async def cache(request, tmp_path):
    """Open an empty cache on each store, in force for the test."""
    if request.param == "memory":
        unopened = Cache.memory()
    elif request.param == "disk":
        unopened = Cache.disk(cache_path_root=tmp_path)
    else:
        valkey = request.getfixturevalue("valkey")
        with valkey.client() as client:
            client.flushall()
        unopened = Cache.redis(redis_url=valkey.url)
    async with unopened as opened:
        yield opened


@pytest.fixture
async def memory():
    """Open a cache in memory, in force for the test."""
    async with Cache.memory() as opened:
        yield opened


def graph(cache, ran, value="found", **policy):
    """Return a graph of one node, which notes that it ran."""

    async def look(state):
        ran.append(state["asked"])
        return {"answer": value}

    builder = StateGraph(State)
    builder.add_node("look", look, cache_policy=CachePolicy(**policy))
    builder.add_edge(START, "look")
    builder.add_edge("look", END)
    return builder.compile(cache=cache)


async def test_second_run_runs_no_node(cache):
    """The second run of a graph, by another object of it, runs no node and has the same result."""
    ran: list[str] = []
    message = AIMessage(content="Hi", tool_calls=[{"name": "f", "args": {"x": 1}, "id": "c"}])
    first = await graph(LangGraphCache(cache, name="g"), ran, message).ainvoke({"asked": "x"})
    second = await graph(LangGraphCache(name="g"), ran, message).ainvoke({"asked": "x"})
    assert ran == ["x"]
    assert first == second == {"asked": "x", "answer": message}
    await graph(LangGraphCache(name="g"), ran, message).ainvoke({"asked": "y"})
    assert ran == ["x", "y"]


async def test_sync_run_runs_no_node(cache):
    """A graph run by `invoke` in a thread finds what was stored, and stores."""
    ran: list[str] = []

    def look(state):
        ran.append(state["asked"])
        return {"answer": [1, 2]}

    builder = StateGraph(State)
    builder.add_node("look", look, cache_policy=CachePolicy(ttl=60))
    builder.add_edge(START, "look")
    compiled = builder.compile(cache=LangGraphCache(cache))
    first, second = [
        await asyncio.to_thread(lambda: compiled.invoke({"asked": "x"})) for _ in range(2)
    ]
    assert first == second
    assert ran == ["x"]


async def test_clear_forgets_those_namespaces_and_no_others(cache):
    """Clearing a namespace leaves others, also those that begin alike; later values stay."""
    found = LangGraphCache(cache)
    await found.aset({ONE: ("1", None), TWO: ("2", None), OTHER: ("3", 60), JOINED: ("4", None)})
    assert len(await found.aget([ONE, TWO, OTHER, JOINED])) == 4
    await found.aclear([("a",)])
    assert await found.aget([ONE, TWO, OTHER, JOINED]) == {OTHER: "3", JOINED: "4"}
    await found.aset({ONE: ("5", None)})
    assert await found.aget([ONE, TWO, OTHER]) == {ONE: "5", OTHER: "3"}
    await found.aclear()
    assert await found.aget([ONE, OTHER, JOINED]) == {}


async def test_sync_face(cache):
    """The sync methods do the same, also on the thread of the cache's own loop."""
    found = LangGraphCache(cache)
    found.set({ONE: (None, None), OTHER: ([1], 60)})
    assert found.get([ONE, OTHER, TWO]) == {ONE: None, OTHER: [1]}
    found.clear([("a",)])
    assert found.get([ONE, OTHER]) == {OTHER: [1]}
    found.clear()
    assert found.get([ONE, OTHER]) == {}


async def test_two_writers_share_a_namespace(memory):
    """Those who first store in a namespace at the same time find each other's values."""
    one, two = LangGraphCache(memory), LangGraphCache(memory)
    await asyncio.gather(one.aset({ONE: ("1", None)}), two.aset({TWO: ("2", None)}))
    assert await one.aget([ONE, TWO]) == {ONE: "1", TWO: "2"}


async def test_ttl_is_each_values_own(memory):
    """A value that has expired before it is stored isn't; the rest keep their own time."""
    found = LangGraphCache(memory)
    with asynccache.options(ttl=1000):
        await found.aset({ONE: ("1", 0), TWO: ("2", 60)})
    assert await found.aget([ONE, TWO]) == {TWO: "2"}


async def test_modes_hold(memory):
    """A refresh overwrites one value and no others; a replay raises on a miss."""
    found = LangGraphCache(memory)
    await found.aset({ONE: ("1", None), TWO: ("2", None)})
    with asynccache.options(mode="refresh"):
        assert await found.aget([ONE]) == {}
        await found.aset({ONE: ("3", None)})
    with asynccache.options(mode="replay"):
        assert await found.aget([ONE, TWO]) == {ONE: "3", TWO: "2"}
        with pytest.raises(ReplayMiss):
            await found.aget([ONE, OTHER])
    with asynccache.options(mode="read_only"):
        await found.aset({OTHER: ("4", None)})
    assert await found.aget([OTHER]) == {}


async def test_only_named_classes_are_built(memory, caplog):
    """A class that isn't named isn't stored: it would come back bare; a named one is whole."""
    strict = LangGraphCache(memory)
    await strict.aset({ONE: ([("answer", Place("x"))], None)})
    assert await strict.aget([ONE]) == {}
    assert "allowed=" in caplog.text
    naming = LangGraphCache(memory, allowed=[Place])
    await naming.aset({ONE: ([Place("x"), {"b", "a", "c"}], None)})
    assert await naming.aget([ONE]) == {ONE: [Place("x"), {"a", "b", "c"}]}


async def test_planted_pickles_are_misses(memory):
    """A pickle, or bytes of nothing, under a right key is a miss, and runs nothing."""
    found = LangGraphCache(memory)
    await found.aset({ONE: ("1", None)})
    [token_key] = [("asynccache.langgraph.namespace/1", ONE[0])]
    token = await memory.get(token_key)
    planted = ["pickle", pickle.dumps(print)], ["msgpack", b"\xc1"], "nothing"
    for bad in planted:
        await memory.set(("asynccache.langgraph/1", ONE[0], token, ONE[1]), bad)
        assert await found.aget([ONE]) == {}
