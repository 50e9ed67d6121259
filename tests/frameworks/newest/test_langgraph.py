"""The cache as LangGraph's: nodes with a policy run once, and namespaces are cleared one by one."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import pickle
import sys
import threading
import types
from typing import TypedDict

import pytest
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import CachePolicy

import asynccache
from asynccache import Cache, ReplayMiss
from asynccache.integrations.langgraph import LangGraphCache
from asynccache.runtime import background
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
    compiled = builder.compile(cache=LangGraphCache(cache, name="g"))
    first, second = [
        await asyncio.to_thread(lambda: compiled.invoke({"asked": "x"})) for _ in range(2)
    ]
    assert first == second
    assert ran == ["x"]


def look(state):
    """Answer, as a function of an imported module."""
    return {"answer": "known"}


async def look_async(state):
    """Answer, as a function that LangGraph doesn't name."""
    return {"answer": "unknown"}


class Looking:
    """Has a method that is a node."""

    def __init__(self, answer):
        self.answer = answer

    def look(self, state):
        """Answer as each object does."""
        return {"answer": self.answer}


def looking(answer):
    """Return a closure that is a node."""
    return lambda state: {"answer": answer}


def compiled_of(node, **options):
    """Return a graph of one node."""
    builder = StateGraph(State)
    builder.add_node("look", node, cache_policy=CachePolicy())
    builder.add_edge(START, "look")
    return builder.compile(cache=LangGraphCache(**options))


def answering(answer):
    """Return an async closure that is a node."""

    async def node(state):
        return {"answer": answer}

    return node


async def test_nodes_that_may_be_anothers_need_a_name(memory, caplog, monkeypatch):
    """They run, counted, and it says why; a function of a module is known without a name."""
    scripts = []
    for module in ("__main__", "__mp_main__"):  # the latter in what `multiprocessing` has started
        script = types.FunctionType(look.__code__, {}, "look")
        script.__module__ = module
        monkeypatch.setitem(sys.modules, module, sys.modules["__main__"])
        monkeypatch.setattr(sys.modules[module], "look", script, raising=False)
        scripts.append(script)
    others = [look_async, Looking(1).look, looking(1), functools.partial(look), *scripts]
    for node in others:
        for _ in range(2):
            await compiled_of(node).ainvoke({"asked": "x"})
    assert memory.stats().stored == memory.stats().hits == 0
    assert memory.stats().bypassed == 12
    assert caplog.text.count('LangGraphCache(name="...")') == 1
    for _ in range(2):
        await compiled_of(look).ainvoke({"asked": "x"})
    assert memory.stats().hits == 1


async def test_names_keep_graphs_apart(memory):
    """Graphs of one name share results, others none, whatever LangGraph calls their nodes."""
    for make in (lambda answer: Looking(answer).look, looking, answering):
        for _ in range(2):
            for number, name in enumerate(("a", "b")):
                compiled = compiled_of(make(number), name=f"{name} of {make}")
                assert (await compiled.ainvoke({"asked": "x"}))["answer"] == number
    assert memory.stats().hits == 6
    with asynccache.options(mode="replay"), pytest.raises(ReplayMiss, match="Name it"):
        await compiled_of(look_async).ainvoke({"asked": "x"})


async def test_tasks_that_are_no_functions(memory, caplog):
    """Tasks that nothing tells apart run, also in a graph with a name; functions are found."""
    ran: list[object] = []

    async def add(more, number):
        ran.append(more)
        return number + more

    policy = CachePolicy()
    plus_one = task(functools.partial(add, 1), cache_policy=policy)
    plus_two = task(functools.partial(add, 2), cache_policy=policy)

    @task(cache_policy=policy)
    async def plus_three(number):
        return await add(3, number)

    @entrypoint(cache=LangGraphCache(name="g"))
    async def flow(number):
        return [await plus_one(number), await plus_two(number), await plus_three(number)]

    for _ in range(2):
        assert await flow.ainvoke(1) == [2, 3, 4]
    assert ran == [1, 2, 3, 1, 2]
    assert "tasks" in caplog.text


async def test_messages_are_found_in_the_second_run(memory):
    """Nodes that hand messages on are found at once, if their key is of what messages say."""
    ran: list[int] = []

    def saying(number):
        async def say(state):
            ran.append(number)
            return {"messages": [AIMessage(str(number), id=str(number))]}

        return say

    builder = StateGraph(MessagesState)
    for number in range(3):
        policy = CachePolicy(key_func=dumps)
        builder.add_node(f"say{number}", saying(number), cache_policy=policy)
        builder.add_edge(f"say{number - 1}" if number else START, f"say{number}")
    compiled = builder.compile(cache=LangGraphCache(name="g"))
    first, second = [
        await compiled.ainvoke({"messages": [HumanMessage("q", id="h")]}) for _ in range(2)
    ]
    assert first == second
    assert ran == [0, 1, 2]


async def test_clear_knows_the_name(memory):
    """Clearing a namespace of one graph leaves that of another."""
    one, two = LangGraphCache(memory, name="one"), LangGraphCache(memory, name="two")
    await one.aset({ONE: ("1", None)})
    await two.aset({ONE: ("2", None)})
    await one.aclear([ONE[0]])
    assert await one.aget([ONE]) == {}
    assert await two.aget([ONE]) == {ONE: "2"}
    two.clear([ONE[0]])
    assert await two.aget([ONE]) == {}


@pytest.mark.parametrize(("name", "error"), [(5, TypeError), (b"g", TypeError), ("", ValueError)])
def test_name_is_checked(name, error):
    """A name that is none is refused."""
    with pytest.raises(error, match="name"):
        LangGraphCache(name=name)


async def test_clear_forgets_those_namespaces_and_no_others(cache):
    """Clearing a namespace leaves others, also those that begin alike; later values stay."""
    found = LangGraphCache(cache, name="g")
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


async def test_each_sample_runs_nodes(memory, caplog):
    """Under ``sample="each"`` nodes run, counted, and store nothing; numbers are in keys."""
    ran: list[str] = []
    compiled = graph(LangGraphCache(name="g"), ran)
    with asynccache.options(sample="each"):
        for _ in range(2):
            await compiled.ainvoke({"asked": "x"})
    assert len(ran) == 2
    assert memory.stats().bypassed == 2
    assert memory.stats().stored == 0
    assert "each" in caplog.text
    for sample in (0, 1, 0, 1):
        with asynccache.options(sample=sample):
            await compiled.ainvoke({"asked": "x"})
    assert len(ran) == 4


async def test_rule_for_answers_is_none_for_namespaces():
    """A cache whose rule refuses what isn't an answer of a model finds what nodes have stored."""
    async with Cache.memory(store_if=lambda answer: answer.meta.kind != "value") as cache:
        found = LangGraphCache(cache)
        await found.aset({ONE: ("1", None)})
        await found.aset({TWO: ("2", None)})
        assert await found.aget([ONE, TWO]) == {ONE: "1", TWO: "2"}


async def test_watchers_are_told(memory):
    """Each lookup of a step is told, with its key where there is one; namespaces are not."""
    found = LangGraphCache(memory)
    with asynccache.record() as calls:
        await found.aget([ONE])
        await found.aset({ONE: ("1", None)})
        await found.aget([ONE, TWO])
        await asyncio.to_thread(found.get, [ONE])
        with asynccache.options(mode="off"):
            await found.aget([ONE])
    told = [(call.outcome, call.endpoint) for call in calls]
    outcomes = ["miss", "hit", "miss", "hit", "bypass"]
    assert told == [(outcome, "langgraph") for outcome in outcomes]
    assert calls[1].key == calls[3].key != calls[2].key != ""


async def test_result_is_stored_as_it_was(memory):
    """What becomes of a result while it is being stored is no part of it, large or small."""
    found = LangGraphCache(memory)
    for text in ("x", "x" * 100_000):
        small = {"text": text, "more": [1]}
        storing = asyncio.ensure_future(found.aset({ONE: (small, None)}))
        await asyncio.sleep(0)
        small["more"].append(2)
        await storing
        assert await found.aget([ONE]) == {ONE: {"text": text, "more": [1]}}


def test_result_of_a_thread_is_stored_as_it_was(monkeypatch):
    """A thread's result is taken before its cache's loop has a part in it."""
    result = [1]
    call = background.call

    def later(*args):
        result.append(2)
        return call(*args)

    with Cache.memory() as cache:
        monkeypatch.setattr(background, "call", later)
        LangGraphCache(cache).set({ONE: (result, None)})
        assert LangGraphCache(cache).get([ONE]) == {ONE: [1]}


async def test_large_results_are_built_off_the_loop(memory, monkeypatch):
    """Objects are built of many bytes in another thread: when they are compared, and when found."""
    found = LangGraphCache(memory)
    threads = set()
    loads = found.serde.loads_typed

    def noted(data):
        threads.add(threading.current_thread())
        return loads(data)

    monkeypatch.setattr(found.serde, "loads_typed", noted)
    large = {"tags": {"a", "b"}, "text": "x" * 100_000}
    await found.aset({ONE: (large, None)})
    assert await found.aget([ONE]) == {ONE: large}
    assert threads
    assert threading.current_thread() not in threads
