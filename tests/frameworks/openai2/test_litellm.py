"""LiteLLM with the cache as ``litellm.cache``, against a real HTTP server."""

from __future__ import annotations

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches one when it is imported

import asyncio
import copy
import pickle

import litellm
import openai
import pytest
from litellm.caching.caching import Cache as TheirCache
from pydantic import BaseModel

import asynccache
from asynccache import Cache, ReplayMiss
from asynccache.integrations.litellm import LiteLLMCache
from asynccache.stores.memory import MemoryStore
from asynccache.testing import FaultyStore
from tests.helpers.litellm_calls import embed, stored, text_of, user
from tests.helpers.openai_server import DONE, EVENTS, MESSAGES, choice, chunk, sse

pytest_plugins = ("tests.helpers.litellm_fixtures",)
# LiteLLM's types, as pydantic sees them; and what LiteLLM itself does with its answers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*ReadOnly.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]
RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1700000000, "model": "gpt-4o",
    "status": "completed", "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    "output": [{
        "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Hello!", "annotations": []}],
    }],
    "usage": {
        "input_tokens": 9, "output_tokens": 3, "total_tokens": 12,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    },
}  # fmt: skip


async def respond(seen):
    """Answer as the Responses API does."""
    await seen.answer(RESPONSE)


async def test_second_acompletion_is_a_hit(server, cache, asked):
    """The second identical call makes no request, whatever its key, id, timeout and metadata."""
    first = await litellm.acompletion(**asked())
    await stored(cache)
    second = await litellm.acompletion(
        **asked(api_key="sk-2", timeout=7, metadata={"a": 1}, litellm_call_id="x", num_retries=2)
    )
    assert len(server.requests) == 1
    assert second.model_dump() == first.model_dump()
    assert (cache.stats().hits, cache.stats().misses) == (1, 1)


async def test_beside_instrumented_clients_calls_are_shared(server, cache, asked):
    """Under `instrument()` too, equal calls at once are paid for once, and LiteLLM has its own."""
    with asynccache.instrument():
        found = await asyncio.gather(*(litellm.acompletion(**asked()) for _ in range(20)))
        await stored(cache, 2)
    found.append(await litellm.acompletion(**asked()))
    assert len(server.requests) == 1
    assert {one.choices[0].message.content for one in found} == {"Hello!"}


async def test_tool_calls_are_found(server, cache, asked):
    """An answer with tool calls comes back with them."""

    async def calls(seen):
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        await seen.answer(choice(message=message, finish_reason="tool_calls"))

    server.program = calls
    first = await litellm.acompletion(**asked())
    await stored(cache)
    second = await litellm.acompletion(**asked())
    assert len(server.requests) == 1
    assert second.choices[0].message.tool_calls[0].id == "c1"
    assert second.model_dump() == first.model_dump()


async def test_sync_completion(server, cache):
    """`completion` is served in a thread, and on the thread of the cache's own loop."""
    with openai.OpenAI(base_url=server.base_url, api_key="sk-1") as client:
        call = {"model": "openai/gpt-4o", "messages": MESSAGES, "client": client}
        first = await asyncio.to_thread(litellm.completion, **call)
        await stored(cache)
        second = litellm.completion(**call)
    assert len(server.requests) == 1
    assert second.model_dump() == first.model_dump()


async def test_everything_is_in_the_key(server, cache):
    """No two requests that differ in anything share a key; LiteLLM's own forgets some of it."""
    own = litellm.cache
    base: dict = {"model": "ollama/llama3", "messages": MESSAGES}
    changed: list[dict] = [
        {"num_ctx": 1024}, {"num_ctx": 2048}, {"temperature": 0}, {"temperature": 1},
        {"api_base": "http://a"}, {"api_base": "http://b"}, {"custom_llm_provider": "openai"},
        {"extra_body": {"x": 1}}, {"extra_headers": {"x-tenant": "a"}}, {"stream": True},
        {"api_version": "2"}, {"model": "ollama/llama4"}, {"seed": 1}, {"seed": "1"},
        {"cache": {"namespace": "a"}}, {"anything": [1]}, {"messages": MESSAGES * 2}, {"_own": 1},
        {"client": openai.AsyncOpenAI(base_url="http://c", api_key="k")},
        {"client": openai.AsyncOpenAI(base_url="http://d", api_key="k")},
    ]  # fmt: skip
    keys = [own.get_cache_key(**{**base, **more}) for more in [{}, *changed]]
    assert len(set(keys)) == len(keys)
    theirs = TheirCache()
    assert theirs.get_cache_key(**base, num_ctx=1) == theirs.get_cache_key(**base, num_ctx=2)
    secret = {"extra_headers": {"Authorization": "Bearer x"}}
    hidden = {"extra_headers": {"Authorization": "Bearer y"}}
    assert own.get_cache_key(**base, **secret) == own.get_cache_key(**base, **hidden)
    assert own.get_cache_key(**base, _litellm_control={}) == keys[0]


@pytest.mark.parametrize("name", ["X-Goog-Api-Key", "traceparent", "X-Request-Id", "b3"])
@pytest.mark.parametrize("argument", ["extra_headers", "headers"])
async def test_headers_of_callers_and_traces_are_in_no_key(server, cache, asked, argument, name):
    """Calls with other credentials and traces, or with none, hit the same entry."""
    await litellm.acompletion(**asked(**{argument: {name: "one"}}))
    await stored(cache)
    await litellm.acompletion(**asked(**{argument: {name: "two"}}))
    await litellm.acompletion(**asked())
    assert server.requests[0].headers[name.lower()] == "one"
    assert len(server.requests) == 1


async def test_where_a_server_routes_a_request_to_is_in_no_key(cache):
    """`prompt_cache_key` is left out, as an argument and in `extra_body`."""
    key, base = litellm.cache.get_cache_key, {"model": "openai/gpt-4o", "messages": MESSAGES}
    hint = {"prompt_cache_key": "a"}
    assert len({key(**base), key(**base, **hint), key(**base, extra_body=hint)}) == 1
    assert key(**base, extra_body={"seed": 1}) != key(**base)


async def test_credentials_in_addresses_are_in_no_key(cache):
    """User-info and keys in an address or a query are left out; the rest of them counts."""
    key, base = litellm.cache.get_cache_key, {"model": "openai/gpt-4o", "messages": MESSAGES}
    plain = key(**base, api_base="http://a/v1")
    assert key(**base, api_base="http://u:p@a/v1?api-key=x") == plain
    assert key(**base, api_base="http://a/v1?version=2") != plain
    assert key(**base, extra_query={"api-key": "x"}) == key(**base)
    clients = [
        openai.AsyncOpenAI(
            base_url=f"http://{user}@a", api_key="k", default_headers={"x-request-id": user},
            default_query={"sig": user},
        )
        for user in ("b", "c")
    ]  # fmt: skip
    assert len({key(**base, client=client) for client in clients}) == 1


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", "OPENAI_BASE_URL"), ("openai/x", "OPENAI_CUSTOM_HEADERS"),
        ("claude-sonnet-4-5", "ANTHROPIC_BASE_URL"), ("claude-sonnet-4-5", "ANTHROPIC_API_BASE"),
        ("fireworks_ai/x", "FIREWORKS_API_BASE"), ("together_ai/x", "TOGETHERAI_API_BASE"),
        ("huggingface/x", "HF_API_BASE"), ("watsonx/x", "WATSONX_URL"), ("watsonx/x", "WX_REGION"),
        ("databricks/x", "DATABRICKS_HOST"), ("vertex_ai/x", "VERTEXAI_LOCATION"),
        ("gemini-2.5-pro", "VERTEXAI_PROJECT"), ("bedrock/x", "AWS_REGION_NAME"),
        ("anthropic.claude-v2", "AWS_REGION_NAME"), ("nobody-knows", "AWS_REGION_NAME"),
        ("unheard/of", "WATSONX_URL"), ("azure/x", "AZURE_API_VERSION"),
    ],
)  # fmt: skip
async def test_addresses_of_the_environment_are_in_the_key(cache, monkeypatch, model, name):
    """A server that only the environment names is another key, whatever its variable is called."""
    request = {"model": model, "messages": MESSAGES}
    keys = {litellm.cache.get_cache_key(**request)}
    for value in ("http://a", "http://b"):
        monkeypatch.setenv(name, value)
        keys.add(litellm.cache.get_cache_key(**request))
    assert len(keys) == 3


@pytest.mark.parametrize("name", ["AWS_REGION_NAME", "CI_JOB_URL", "DATABASE_URL", "HOSTNAME"])
async def test_the_rest_of_the_environment_is_in_no_key(cache, monkeypatch, name):
    """What differs between machines and runs, and has nothing to do with the model."""
    request = {"model": "openai/gpt-4o", "messages": MESSAGES}
    key = litellm.cache.get_cache_key(**request)
    monkeypatch.setenv(name, "other")
    assert litellm.cache.get_cache_key(**request) == key


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("api_base", ["http://a", "http://b"]), ("add_function_to_prompt", [False, True]),
        ("modify_params", [False, True]), ("headers", [{"x": "1"}, {"x": "2"}]),
        ("model_alias_map", [{"openai/smart": "openai/a"}, {"openai/smart": "openai/b"}]),
        ("gemini_include_thoughts_default", [False, True]),
    ],
)  # fmt: skip
async def test_settings_of_the_module_are_in_the_key(cache, monkeypatch, name, values):
    """What LiteLLM's module is told changes requests, too."""
    keys = set()
    for value in values:
        monkeypatch.setattr(litellm, name, value)
        keys.add(litellm.cache.get_cache_key(model="openai/smart", messages=MESSAGES))
    assert len(keys) == 2


async def test_what_has_no_key_goes_upstream(server, cache, asked):
    """State at the server, and objects without a canonical form, are not cached; it is counted."""
    assert litellm.cache.get_cache_key(model="m", input="x", conversation="c") is None
    for _ in range(2):
        await litellm.acompletion(**asked(extra=object(), drop_params=True, mock_response="x"))
    assert cache.stats().stored == 0
    assert cache.stats().bypassed == 2


async def test_stream_is_stored_when_whole(server, cache, asked):
    """The second stream makes no request, and holds the same text."""

    async def text():
        stream = await litellm.acompletion(**asked(stream=True))
        return "".join([c.choices[0].delta.content or "" async for c in stream])

    assert await text() == "One two three"
    await stored(cache)
    assert await text() == "One two three"
    assert len(server.requests) == 1


@pytest.mark.parametrize("events", [EVENTS[:2], EVENTS[:1]])
async def test_cut_stream_is_not_stored(server, cache, asked, events):
    """A stream that ends before its finish reason isn't stored as a whole one."""

    async def cut(seen):
        await seen.stream(*events)

    server.program = cut
    stream = await litellm.acompletion(**asked(stream=True))
    with pytest.raises(litellm.exceptions.MidStreamFallbackError):
        [c async for c in stream]
    await asyncio.sleep(0.2)  # LiteLLM stores behind the caller's back, if it does
    assert cache.stats().stored == 0


async def test_abandoned_stream_is_not_stored(server, cache, asked):
    """A stream whose reader leaves isn't stored."""

    async def endless(seen):
        await seen.start()
        await seen.send(sse(chunk("One ")))
        await seen.hang()

    server.program = endless
    stream = await litellm.acompletion(**asked(stream=True))
    await anext(stream)
    await stream.aclose()
    await asyncio.sleep(0.1)
    assert cache.stats().stored == 0


async def test_embeddings_input_by_input(server, cache, asked):
    """Inputs that were embedded before aren't sent again, though their list differs."""
    server.program = embed
    call = asked(model="openai/e")
    del call["messages"]
    await litellm.aembedding(**call, input=["a", "bb"])
    await stored(cache, 2)
    second = await litellm.aembedding(**call, input=["bb", "ccc", "a"])
    assert [item["embedding"] for item in second.data] == [[2.0], [3.0], [1.0]]
    assert [seen.body["input"] for seen in server.requests] == [["a", "bb"], ["ccc"]]


async def test_sync_embedding_is_no_single_input(server, cache, asked):
    """A sync embedding isn't answered with what one input of an async call was stored as."""
    server.program = embed
    call = asked(model="openai/e", input="bb")
    del call["messages"]
    await litellm.aembedding(**call)
    await stored(cache)
    with openai.OpenAI(base_url=server.base_url, api_key="sk-1") as client:
        for _ in range(2):
            found = await asyncio.to_thread(litellm.embedding, **{**call, "client": client})
            assert found.data[0]["embedding"] == [2.0]
    assert len(server.requests) == 2


async def test_responses(server, cache, asked):
    """A response of the Responses API is found again."""
    server.program = respond
    call = {"model": "openai/gpt-4o", "input": "Hi", "api_base": server.base_url, "api_key": "k"}
    first = await litellm.aresponses(**call)
    await stored(cache)
    second = await litellm.aresponses(**call)
    assert len(server.requests) == 1
    assert first.output[0].content[0].text == second.output[0].content[0].text == "Hello!"
    await litellm.close_litellm_async_clients()


async def test_controls(server, cache, asked):
    """`no-cache`, `no-store`, `s-maxage` and `namespace` do what LiteLLM says of them."""
    await litellm.acompletion(**asked(cache={"no-store": True}))
    await litellm.acompletion(**asked())
    await stored(cache)
    assert len(server.requests) == 2
    await litellm.acompletion(**asked(cache={"no-cache": True, "no-store": True}))
    await litellm.acompletion(**asked(cache={"namespace": "n", "no-store": True}))
    await litellm.acompletion(**asked(cache={"s-maxage": 0, "no-store": True}))
    assert len(server.requests) == 5
    await litellm.acompletion(**asked(cache={"s-maxage": 600}))
    assert len(server.requests) == 5


async def test_ttl_of_zero(server, cache, asked, caplog):
    """What expires at once isn't stored, and nothing is said of it."""
    for control in ({"cache": {"ttl": 0}}, {"ttl": 0}):
        await litellm.acompletion(**asked(**control))
    await litellm.acompletion(**asked(messages=MESSAGES * 2))
    await stored(cache)  # in the order of the calls
    await litellm.acompletion(**asked())
    assert len(server.requests) == 4
    assert "add_cache" not in caplog.text


async def test_key_of_ones_own(server, cache, asked):
    """A key that the caller gives is what is looked up and stored, plain and streamed."""
    for stream in (False, True):
        for text in ("Hello?", "Anything else?"):
            call = asked(messages=[user(text)], stream=stream, cache_key=f"mine {stream}")
            await text_of(await litellm.acompletion(**call))
            await stored(cache, 1 + stream)
    assert len(server.requests) == 2


async def test_copies_of_answers(server, cache, asked):
    """An answer may be copied and pickled, and the key that LiteLLM puts into it is plain text."""
    for _ in range(2):
        found = await litellm.acompletion(**asked())
        await stored(cache)
    for copied in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert type(copied._hidden_params["cache_key"]) is str


@pytest.mark.parametrize("wrong", ["redis", 5, {}])
def test_what_is_no_cache_is_refused(wrong):
    """Neither a cache nor None, but what LiteLLM's own cache might be made with."""
    with pytest.raises(TypeError, match="AsyncCache"):
        LiteLLMCache(wrong)


async def test_lookups_are_told_of(server, cache, asked):
    """Who watches hears of each lookup, and of what has no key."""
    with asynccache.record() as calls:
        for _ in range(2):
            await litellm.acompletion(**asked())
            await stored(cache)
        await litellm.acompletion(**asked(extra=object(), drop_params=True, mock_response="x"))
    assert [call.outcome for call in calls] == ["miss", "hit", "bypass"]
    assert {call.endpoint for call in calls} == {"litellm"}
    assert calls[0].key == calls[1].key != ""


async def test_modes_and_no_cache(server, cache, asked):
    """No cache in force: nothing is stored. In a replay a miss raises, and nothing is sent."""
    with asynccache.options(cache=None):
        await litellm.acompletion(**asked())
    with asynccache.options(mode="replay"), pytest.raises(ReplayMiss):
        await litellm.acompletion(**asked())
    assert len(server.requests) == 1
    assert cache.stats().stored == 0


async def test_failing_store_takes_no_call_down(server, asked):
    """Whatever fails at the store, calls are answered, and the failures counted."""
    store = FaultyStore(MemoryStore(), hide_inline=True)
    async with Cache.from_store(store) as cache:
        store.fail()
        litellm.cache = LiteLLMCache(cache)
        for _ in range(2):
            assert (await litellm.acompletion(**asked())).choices[0].message.content == "Hello!"
        while sum(cache.stats().store_errors.values()) < 4:  # two lookups, two writes
            await asyncio.sleep(0.01)
        litellm.cache = None
    assert len(server.requests) == 2


async def test_long_conversations_are_cached(server, cache, asked):
    """More messages than LiteLLM's own limit of four are no reason."""
    call = asked(messages=MESSAGES * 9)
    await litellm.acompletion(**call)
    await stored(cache)
    await litellm.acompletion(**call)
    assert len(server.requests) == 1


async def test_delete_flush_and_ping(server, cache, asked):
    """LiteLLM's own housekeeping reaches the cache."""
    first = await litellm.acompletion(**asked())
    await stored(cache)
    assert await litellm.cache.ping()
    found = await litellm.acompletion(**asked())
    await litellm.cache.delete_cache_keys([found._hidden_params["cache_key"]])
    await litellm.acompletion(**asked())
    await stored(cache, 2)
    litellm.cache.cache.flush_cache()
    await litellm.acompletion(**asked())
    assert len(server.requests) == 3
    assert first.choices[0].message.content == "Hello!"


@pytest.mark.parametrize("kind", ["json", "tools", "class", "streamed"])
async def test_malformed_answers_are_asked_for_anew(server, cache, asked, kind):
    """What isn't JSON where it is demanded is no hit, but a replay gives it."""
    texts = ["It is warm.", '{"degrees": 21}']

    class Weather(BaseModel):
        degrees: int

    async def program(seen):
        text = texts.pop(0) if len(texts) > 1 else texts[0]
        said = {"role": "assistant", "content": text}
        if seen.body.get("stream"):
            await seen.stream(sse(chunk(text)), sse(chunk("", finish="stop")), DONE)
            return
        if kind == "tools":
            function = {"name": "look", "arguments": text}
            calls = [{"id": "c", "type": "function", "function": function}]
            said = {"role": "assistant", "content": None, "tool_calls": calls}
        await seen.answer(choice(message=said))

    server.program = program
    more: dict = {"response_format": Weather if kind == "class" else {"type": "json_object"}}
    if kind == "tools":
        function = {"name": "look", "parameters": {"type": "object", "properties": {}}}
        more = {"tools": [{"type": "function", "function": function}]}

    async def ask():
        answer = await litellm.acompletion(**asked(stream=kind == "streamed", **more))
        if kind == "tools":
            return answer.choices[0].message.tool_calls[0].function.arguments
        return await text_of(answer)

    first = await ask()
    await stored(cache)
    with asynccache.options(mode="replay"):
        assert await ask() == first == "It is warm."
    requests = 0
    while len(server.requests) > requests:  # LiteLLM stores behind the caller's back
        requests = len(server.requests)
        assert await ask() == '{"degrees": 21}'
        await asyncio.sleep(0.05)
    assert cache.stats().unusable > 0
