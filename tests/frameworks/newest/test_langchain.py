"""The cache as LangChain's: what comes out is what went in, whatever thread asks."""

from __future__ import annotations

import asyncio
import collections
import enum
import threading

import pytest
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    Generation,
    GenerationChunk,
)
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient
from pydantic import BaseModel, SecretStr

import asynccache
from asynccache import Cache, ReplayMiss
from asynccache.cache import values
from asynccache.integrations.langchain import LangChainCache
from asynccache.runtime import background
from asynccache.stores.memory import MemoryStore
from asynccache.testing import FaultyStore
from tests.helpers.openai_server import choice, running

MESSAGE = AIMessage(
    content=[{"type": "text", "text": "Hi"}, {"type": "reasoning", "extras": {"a": [1, None]}}],
    additional_kwargs={"refusal": None, "numbers": {1: 2.5}, "raw": b"\x00\xff"},
    response_metadata={"model_name": "gpt-4o", "logprobs": {"content": [{"logprob": -0.5}]}},
    tool_calls=[{"name": "look", "args": {"at": {"x": [1, 2]}}, "id": "call_1"}],
    invalid_tool_calls=[{"name": "bad", "args": "{", "id": "call_2", "error": "cut"}],
    usage_metadata={
        "input_tokens": 9, "output_tokens": 3, "total_tokens": 12,
        "input_token_details": {"cache_read": 4},
    },
    id="run-1", name="helper",
)  # fmt: skip
CHUNK = AIMessageChunk(
    content="Hi",
    tool_call_chunks=[{"name": "look", "args": '{"x": 1', "id": "call_1", "index": 0}],
    id="run-2",
    chunk_position="last",
)
GENERATIONS = [
    Generation(text="plain", generation_info={"finish_reason": "stop"}),
    GenerationChunk(text="piece"),
    ChatGeneration(message=MESSAGE, generation_info={"logprobs": None}),
    ChatGenerationChunk(message=CHUNK),
]


class Point(BaseModel):
    """What a model is asked for."""

    x: int
    y: int


class OddMessage(AIMessage):
    """A subclass, of which nothing is known."""


class Reason(enum.StrEnum):
    """What equals its text, and is none."""

    STOP = "stop"


@pytest.fixture
async def cache():
    """Open a cache in memory, in force for the test."""
    async with Cache.memory() as opened:
        yield opened


@pytest.fixture
def server():
    """Run a server for each test."""
    with running() as app:
        yield app


@pytest.fixture
def llm_cache():
    """Make the cache in force LangChain's own."""
    set_llm_cache(LangChainCache())
    yield
    set_llm_cache(None)


@pytest.fixture
async def model(server):
    """Return a maker of LangChain's clients of the server, whose connections end with the test."""
    with DefaultHttpxClient() as http:
        async with DefaultAsyncHttpxClient() as http_async:

            def made(**options):
                return ChatOpenAI(
                    model="gpt-4o",
                    base_url=server.base_url,
                    api_key=SecretStr("sk-1"),
                    http_client=http,
                    http_async_client=http_async,
                    **options,
                )

            yield made


@pytest.mark.parametrize("generation", GENERATIONS, ids=lambda g: type(g).__name__)
async def test_generation_comes_back_whole(cache, generation):
    """Every kind of generation equals what was stored, class by class, and is a fresh object."""
    found = LangChainCache(cache)
    await found.aupdate("p", "m", [generation])
    one, two = await found.alookup("p", "m"), await found.alookup("p", "m")
    assert one == two == [generation]
    assert type(one[0]) is type(generation)
    assert one[0].model_dump() == generation.model_dump()
    assert one[0] is not two[0]
    assert cache.stats().hits == 2


async def test_prompt_and_model_are_two_parts(cache):
    """Moving a letter from the prompt to the model is another key."""
    found = LangChainCache(cache)
    await found.aupdate("ab", "c", [Generation(text="1")])
    assert await found.alookup("a", "bc") is None
    assert await found.alookup("abc", "") is None
    assert await found.alookup("c", "ab") is None


async def test_what_plain_data_cannot_hold_is_not_stored(cache, caplog):
    """Subclasses, objects and tuples are not stored as something else; it is said once."""
    found = LangChainCache(cache)
    odd_values = (object(), (1, 2), Reason.STOP, collections.Counter("a"))
    for odd in (
        OddMessage(content="x"),
        *(AIMessage(content="x", additional_kwargs={"it": value}) for value in odd_values),
    ):
        await found.aupdate("p", "m", [ChatGeneration(message=odd)])
        assert await found.alookup("p", "m") is None
    assert cache.stats().stored == 0
    assert cache.stats().bypassed == 5
    assert caplog.text.count("plain data") == 1


@pytest.mark.parametrize(
    "stored",
    [
        "no list",
        [["os.system", {"command": "true"}, "", {}]],
        [["Generation", {"text": {"no": "text"}}, "", {}]],
        [["ChatGeneration", {}, "builtins.eval", {"content": "1"}]],
    ],
)
async def test_foreign_values_are_misses(cache, stored):
    """What isn't a list of generations of known classes is a miss, and builds nothing."""
    key = ("asynccache.langchain/1", "p", "m")
    await cache.set(key, stored)
    assert await LangChainCache(cache).alookup("p", "m") is None
    assert cache.stats().misses == 1


async def test_without_a_cache_all_is_a_miss(cache):
    """No cache in force, or one that is closed or off: a miss, and nothing is stored."""
    found = LangChainCache()
    with asynccache.options(cache=None):
        await found.aupdate("p", "m", GENERATIONS)
        assert await found.alookup("p", "m") is None
        found.update("p", "m", GENERATIONS)
        assert found.lookup("p", "m") is None
        found.clear()
    with asynccache.options(mode="off"):
        await found.aupdate("p", "m", GENERATIONS)
        assert await found.alookup("p", "m") is None
    assert await found.alookup("p", "m") is None
    closed = LangChainCache(Cache.memory())
    await closed.aupdate("p", "m", GENERATIONS)
    assert await closed.alookup("p", "m") is None
    with pytest.raises(asynccache.CacheClosedError):
        await closed.aclear()


async def test_modes_hold(cache):
    """A refresh looks nothing up and overwrites; a replay stores nothing and raises on a miss."""
    found = LangChainCache(cache)
    await found.aupdate("p", "m", [Generation(text="1")])
    with asynccache.options(mode="refresh"):
        assert await found.alookup("p", "m") is None
        await found.aupdate("p", "m", [Generation(text="2")])
    with asynccache.options(mode="replay"):
        assert await found.alookup("p", "m") == [Generation(text="2")]
        await found.aupdate("other", "m", [Generation(text="3")])
        with pytest.raises(ReplayMiss):
            await found.alookup("other", "m")
        with pytest.raises(ReplayMiss):
            found.lookup("other", "m")


async def test_watchers_are_told(cache):
    """A miss, a hit, a bypass and what replay refuses are told, each with its key if it has one."""
    found = LangChainCache(cache)
    with asynccache.record() as calls:
        await found.alookup("p", "m")
        await found.aupdate("p", "m", [Generation(text="1")])
        await found.alookup("p", "m")
        await asyncio.to_thread(found.lookup, "p", "m")
        with asynccache.options(sample=1):
            await found.alookup("p", "m")
        with asynccache.options(mode="off"):
            await found.alookup("p", "m")
        with asynccache.options(mode="replay"), pytest.raises(ReplayMiss):
            await found.alookup("other", "m")
    assert [call.outcome for call in calls] == ["miss", "hit", "hit", "miss", "bypass", "error"]
    assert {call.endpoint for call in calls} == {"langchain"}
    first, second, third, other, past, refused = calls
    assert first.key == second.key == third.key != other.key
    assert second.age > 0
    assert past.key == "" != refused.key
    assert refused.reason == "ReplayMiss"
    assert cache.stats().replay_misses == 1


async def test_observer_is_told():
    """An observer hears of lookups, and of those that find the cache closed."""
    told = []
    cache = Cache.memory(observer=told.append)
    found = LangChainCache(cache)
    await found.alookup("p", "m")
    async with cache:
        await found.alookup("p", "m")
    assert [(call.outcome, call.reason.partition(":")[0]) for call in told] == [
        ("bypass", "the cache isn't open"),
        ("miss", ""),
    ]


class Failing(FakeListChatModel):
    """Fails where it is told to."""

    failing: list[bool]

    def _call(self, *args, **kwargs):
        text = super()._call(*args, **kwargs)
        if self.failing and self.failing.pop(0):
            raise ConnectionError
        return text


def chat(*responses, failing=()):
    """Return a chat model that gives one response after another."""
    return Failing(responses=list(responses), failing=list(failing))


async def test_each_sample_is_found_again(cache, llm_cache):
    """Under ``sample="each"`` the k-th identical request has the k-th answer, in every run."""
    model = chat("a", "b", "c", "d")
    runs = []
    for _ in range(2):
        with asynccache.options(sample="each"):
            runs.append([(await model.ainvoke("q")).content for _ in range(3)])
    assert runs == [["a", "b", "c"]] * 2
    assert (await model.ainvoke("q")).content == "a"
    with asynccache.options(sample=2):
        assert (await model.ainvoke("q")).content == "c"


async def test_each_sample_of_many_at_once(cache, llm_cache):
    """Asked for at once, by tasks, threads or a batch, each answer is stored under its number."""
    for ask in (
        lambda model: asyncio.gather(*(model.ainvoke("q") for _ in range(4))),
        lambda model: asyncio.to_thread(model.batch, ["q"] * 4),
        lambda model: model.abatch(["q"] * 4),
    ):
        await cache.clear()
        model = chat("a", "b", "c", "d", "e")
        runs = []
        for _ in range(2):
            with asynccache.options(sample="each"):
                runs.append(sorted(answer.content for answer in await ask(model)))
        assert runs == [["a", "b", "c", "d"]] * 2


@pytest.mark.parametrize("name", ["generate", "agenerate"])
async def test_each_sample_of_equal_prompts(cache, llm_cache, name):
    """A list of equal prompts has an answer for each, in order, also where some are stored."""
    model = FakeListLLM(responses=["a", "b", "c", "d"])

    async def texts(count):
        with asynccache.options(sample="each"):
            result = getattr(model, name)(["q"] * count)
            result = await result if asyncio.iscoroutine(result) else result
        return [generation.text for [generation] in result.generations]

    first = await texts(2)
    assert await texts(2) == first == ["a", "b"]
    assert await texts(3) == [*first, "c"]
    assert await texts(3) == [*first, "c"]


async def test_failed_call_leaves_its_number(cache, llm_cache):
    """A call that fails has had a number; the answer of the next one goes under its own."""
    model = chat("lost", "a", "b", "c", failing=[True])

    def ask():
        return model.invoke("q").content

    with asynccache.options(sample="each"):
        with pytest.raises(ConnectionError):
            ask()
        assert ask() == "a"
    with asynccache.options(sample=1):
        assert ask() == "a"
    assert ask() == "b"


async def test_an_answer_nobody_asked_for_has_no_number(cache):
    """Under ``sample="each"`` an answer whose lookup isn't known is not stored."""
    found = LangChainCache(cache)
    with asynccache.options(sample="each"):
        await found.aupdate("p", "m", [Generation(text="1")])
    assert await found.alookup("p", "m") is None
    assert cache.stats().bypassed == 1


async def test_failing_store_takes_no_call_down(server, llm_cache, model):
    """Whatever fails at the store, calls are answered, and the failures counted."""
    store = FaultyStore(MemoryStore(), hide_inline=True)
    async with Cache.from_store(store) as cache:
        store.fail()
        for _ in range(2):
            assert (await model().ainvoke("Hello?")).content == "Hello!"
        assert sum(cache.stats().store_errors.values()) == 4  # two lookups, two writes
        await asyncio.to_thread(cache.bind(model().invoke), "Hello?")
    assert len(server.requests) == 3


async def test_sync_calls_on_the_loops_own_thread(cache, monkeypatch):
    """On the thread of the cache's own loop the sync methods answer, and don't wait for it."""
    monkeypatch.setattr(values, "_FOREIGN_SETTLE", 1000)
    found = LangChainCache(cache)
    await found.alookup("p", "m")
    found.update("p", "m", GENERATIONS)
    assert found.lookup("p", "m") == GENERATIONS
    assert await found.alookup("p", "m") == GENERATIONS
    found.clear()
    assert await found.alookup("p", "m") is None


async def test_sync_calls_on_the_background_loop(cache):
    """On the background loop itself, which can't wait for itself, a lookup is a miss."""

    async def inside():
        found = LangChainCache(cache)
        found.update("p", "m", GENERATIONS)
        return found.lookup("p", "m")

    assert await asyncio.to_thread(background.call, inside) is None
    assert cache.stats().bypassed == 1


async def test_sync_calls_from_many_threads(cache):
    """Fifty threads store and find each their own."""
    found = LangChainCache(cache)
    wrong = []

    def work(number):
        found.update(str(number), "m", [Generation(text=str(number))])
        if found.lookup(str(number), "m") != [Generation(text=str(number))]:
            wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert wrong == []
    assert cache.stats().hits == 50


async def test_clear_takes_this_namespace_alone(cache):
    """Clearing one namespace leaves another's answers."""
    found = LangChainCache(cache)
    await found.aupdate("p", "m", GENERATIONS)
    with asynccache.options(cache_seed="other"):
        await found.aupdate("p", "m", GENERATIONS)
    await found.aclear()
    assert await found.alookup("p", "m") is None
    with asynccache.options(cache_seed="other"):
        assert await found.alookup("p", "m") == GENERATIONS


async def test_model_is_paid_once(server, cache, llm_cache, model):
    """The second `ainvoke` and `invoke` make no request; another temperature does."""
    first = await model().ainvoke("Hello?")
    second = await model().ainvoke("Hello?")
    third = await asyncio.to_thread(cache.bind(model().invoke), "Hello?")
    assert len(server.requests) == 1
    assert first.content == second.content == third.content == "Hello!"
    assert first.response_metadata == second.response_metadata
    assert first.usage_metadata["total_tokens"] == second.usage_metadata["total_tokens"] == 12
    await model(temperature=0.5).ainvoke("Hello?")
    assert len(server.requests) == 2


async def test_tool_calls_are_found(server, cache, llm_cache, model):
    """An answer with tool calls comes back with them."""

    async def calls(seen):
        call = {
            "id": "c1",
            "type": "function",
            "function": {"name": "look", "arguments": '{"x": 1}'},
        }
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        await seen.answer(choice(message=message, finish_reason="tool_calls"))

    server.program = calls
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    bound = model().bind_tools([tool])
    first, second = await bound.ainvoke("Look"), await bound.ainvoke("Look")
    assert len(server.requests) == 1
    assert first.tool_calls == second.tool_calls != []


async def test_conversation_is_found_in_its_second_run(server, cache, llm_cache, model):
    """What LangChain notes on an answer from a cache doesn't make the next request another."""
    without_usage = chat("a", "b", "c", "d")
    for asked, answers in ((model(), ["Hello!"] * 3), (without_usage, ["a", "b", "c"])):
        for _ in range(2):
            said = [HumanMessage("Hello?")]
            for answer in answers:
                said += [await asked.ainvoke(said), ToolMessage("21", tool_call_id="1")]
                assert said[-2].content == answer
    assert len(server.requests) == 3
    assert cache.stats().misses == 6
    assert cache.stats().hits == 6


async def test_nothing_else_is_left_out_of_a_prompt(cache, llm_cache):
    """Another cost is another prompt; so is text that reads like messages, and odd JSON."""
    model, text = (
        chat("a", "b", "c", "other"),
        FakeListLLM(responses=["d", "e", "f", "g", "h", "i"]),
    )
    for cost, answer in ((0.5, "a"), (False, "b"), (None, "c")):
        said = AIMessage("x").model_copy(update={"usage_metadata": {"total_cost": cost}})
        for _ in range(2):
            assert (await model.ainvoke([said])).content == answer
    assert (await model.ainvoke([AIMessage("x")])).content == "other"
    bare = dumps([AIMessage("x")])
    marked = dumps([AIMessage("x").model_copy(update={"usage_metadata": {"total_cost": 0}})])
    prompts = [bare, marked, marked + " ", marked[:-1], '{"total_cost": 0}', '["total_cost": 0]']
    assert [await text.ainvoke(prompt) for prompt in prompts] == ["d", "e", "f", "g", "h", "i"]


async def test_structured_output_is_found(server, cache, llm_cache, model):
    """An answer parsed into a class of the user's is stored as data, and parsed anew."""

    async def point(seen):
        message = {"role": "assistant", "content": '{"x": 1, "y": 2}'}
        await seen.answer(choice(message=message))

    server.program = point
    asking = model().with_structured_output(Point)
    assert await asking.ainvoke("Where?") == Point(x=1, y=2)
    assert await asking.ainvoke("Where?") == Point(x=1, y=2)
    assert len(server.requests) == 1


@pytest.mark.parametrize("where", ["client", "call"])
@pytest.mark.parametrize("name", ["x-goog-api-key", "traceparent", "X-Request-Id"])
async def test_headers_of_callers_and_traces_are_in_no_key(name, where, llm_cache, model):
    """Two callers, two traces and two requests share an answer; other headers tell them apart."""

    async def ask(question, header, value):
        given = {header: value}
        if where == "client":
            await model(default_headers=given).ainvoke(question)
        else:
            await model().ainvoke(question, extra_headers=given)

    async with Cache.memory() as cache:
        for value in ("one", "two"):
            await ask("shared?", name, value)
        assert (cache.stats().hits, cache.stats().misses) == (1, 1)
        for value in ("one", "two"):
            await ask("told apart?", "x-version", value)
        assert (cache.stats().hits, cache.stats().misses) == (1, 3)


async def test_where_a_server_routes_a_request_to_is_in_no_key(llm_cache, model):
    """`prompt_cache_key` is left out of the model's arguments and the call's."""
    async with Cache.memory() as cache:
        for one in ("a", "b"):
            hint = {"prompt_cache_key": one}
            await model().ainvoke("shared?", **hint)
            await model().ainvoke("shared?", extra_body=hint)
            await model(model_kwargs=hint).ainvoke("of the model?")
            await model(extra_body=hint).ainvoke("of its body?")
        assert (cache.stats().hits, cache.stats().misses) == (4, 4)


@pytest.mark.parametrize("given", [
    {"tools": [{"function": {"name": "f", "parameters": {"headers": {"accept": 1}}}}]},
    {"extra_body": {"webhook": {"headers": {"Content-Type": "a"}}}},
    {"stop": ("headers", {"accept": "a"})},
    {"tools": [{"type": "mcp", "headers": {"Accept": "a"}}]},
])  # fmt: skip
async def test_what_a_question_calls_headers_is_in_its_key(given, cache):
    """Only the headers of a model or a call are left out, not those that a model is told of."""
    found = LangChainCache(cache)
    model = dumps(FakeListLLM(responses=[""]))
    described = [f"{model}---{sorted(each.items())}" for each in (given, {})]
    other = described[0].replace("'a'", "'b'").replace("'accept': 1", "'accept': 2")
    assert other != described[0]
    await found.aupdate("p", described[0], [Generation(text="1")])
    assert await found.alookup("p", described[0])
    assert await found.alookup("p", other) is None
