"""AutoGen 0.7's clients, cached: what is shared and what isn't, by plain calls and by agents."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import CancellationToken, FunctionCall
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    UserMessage,
)
from autogen_core.tools import FunctionTool
from autogen_ext.models.openai import AzureOpenAIChatCompletionClient, OpenAIChatCompletionClient
from pydantic import BaseModel

import asynccache
from asynccache import Cache, ReplayMiss
from asynccache.integrations.autogen import CachedChatCompletionClient
from tests.helpers.autogen_client import HELLO, close_all, kept, openai_client
from tests.helpers.openai_server import (
    COMPLETION,
    DONE,
    Gate,
    choice,
    chunk,
    completion,
    good,
    running,
    sse,
    state,
)

pytest_plugins = ("tests.helpers.autogen_fixtures",)


@pytest.fixture
async def api(api):
    """A server, whose clients are closed when their test is over."""
    yield api
    await close_all()


MESSAGE = {"content": None, "refusal": None, "role": "assistant"}


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def subtract(a: int, b: int) -> int:
    """Subtract one number from another."""
    return a - b


class Sum(BaseModel):
    total: int


class Total(BaseModel):
    total: int


ADD = FunctionTool(add, description="Add two numbers.")
SUBTRACT = FunctionTool(subtract, description="Subtract.")


async def test_second_call_is_a_hit(api, cache):
    """The same request is paid for once; only the hit says `cached`, on an object of its own."""
    client = CachedChatCompletionClient(openai_client(api), cache)
    first = await client.create(HELLO)
    second = await client.create(list(HELLO))
    assert len(api.requests) == 1
    assert (first.cached, second.cached) == (False, True)
    assert first is not second
    assert first.model_copy(update={"cached": True}) == second
    assert first.model_dump() == {**second.model_dump(), "cached": False}
    assert (state(first).outcome, state(second).outcome) == ("miss", "hit")
    second.content = "changed by its caller"
    assert (await client.create(HELLO)).content == "Hello!"


async def test_many_at_once_pay_once(api, cache):
    """Fifty callers at the same moment make one request, and none of theirs is a hit."""
    client = CachedChatCompletionClient(openai_client(api), cache)
    answers = await asyncio.gather(*(client.create(HELLO) for _ in range(50)))
    assert len(api.requests) == 1
    assert len({id(answer) for answer in answers}) == 50
    assert {answer.cached for answer in answers} == {False}
    assert sorted({state(answer).outcome for answer in answers}) == ["joined", "miss"]


DIFFERENT = {
    "model": {"model": "gpt-4o"},  # served by the same one
    "temperature": {"temperature": 0.5},
    "seed": {"seed": 7},
    "an argument that its component config doesn't name": {"max_completion_tokens": 5},
    "stop": {"stop": ["x"]},
    "headers": {"default_headers": {"x-variant": "b"}},
    "names in messages": {"include_name_in_message": False},
}


@pytest.mark.parametrize("changes", DIFFERENT.values(), ids=DIFFERENT)
async def test_other_clients_never_share(api, cache, changes):
    """Clients with another model, temperature, seed or any other argument have other answers."""
    one = CachedChatCompletionClient(openai_client(api), cache)
    other = CachedChatCompletionClient(openai_client(api, **changes), cache)
    assert not (await one.create(HELLO)).cached
    assert not (await other.create(HELLO)).cached
    assert len(api.requests) == 2
    assert (await one.create(HELLO)).cached
    assert (await other.create(HELLO)).cached


async def test_other_servers_never_share(api, cache, monkeypatch):
    """Two servers with the same model don't share, named by argument or by the environment."""
    with running() as elsewhere:
        one = CachedChatCompletionClient(openai_client(api), cache)
        other = CachedChatCompletionClient(openai_client(elsewhere), cache)
        await one.create(HELLO)
        assert not (await other.create(HELLO)).cached
        named = []
        for server in (api, elsewhere):
            monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
            client = kept(OpenAIChatCompletionClient(model="gpt-4o-2024-08-06", api_key="sk-x"))
            named.append(CachedChatCompletionClient(client, cache))
        await named[0].create(HELLO, extra_create_args={"seed": 1})
        assert not (await named[1].create(HELLO, extra_create_args={"seed": 1})).cached


async def test_headers_of_the_environment_never_share(api, cache, monkeypatch):
    """Headers that the SDK takes from the environment are in the key; credentials there aren't."""
    cached = []
    for headers in ("x-persona: pirate", "x-persona: poet", "Authorization: Bearer sk-other"):
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", headers)
        client = CachedChatCompletionClient(openai_client(api), cache)
        cached.append((await client.create(HELLO)).cached)
    monkeypatch.delenv("OPENAI_CUSTOM_HEADERS")
    cached.append(
        (await CachedChatCompletionClient(openai_client(api), cache).create(HELLO)).cached
    )
    assert cached == [False, False, False, True]
    assert [seen.headers.get("x-persona") for seen in api.requests] == ["pirate", "poet", None]


async def test_headers_set_later_are_another_request(api, cache):
    """What the SDK's client sends along is looked at in each call, as its address is."""
    inner = openai_client(api)
    client = CachedChatCompletionClient(inner, cache)
    await client.create(HELLO)
    inner._client._custom_headers["x-persona"] = "poet"
    assert not (await client.create(HELLO)).cached
    inner._client._custom_query["version"] = "2"
    assert not (await client.create(HELLO)).cached
    assert (await client.create(HELLO)).cached
    assert api.requests[2].headers["x-persona"] == "poet"


@pytest.mark.parametrize("name", ["X-Goog-Api-Key", "traceparent", "X-Request-Id"])
async def test_headers_of_callers_and_traces_are_in_no_key(api, cache, name):
    """Callers whose clients or calls differ in such a header alone share an answer."""
    for headers in ({}, {name: "one"}, {name: "two"}):
        client = CachedChatCompletionClient(openai_client(api, default_headers=headers), cache)
        await client.create(HELLO)
        await client.create(HELLO, extra_create_args={"extra_headers": headers})
    assert (await CachedChatCompletionClient(openai_client(api), cache).create(HELLO)).cached
    assert len(api.requests) == 1


CALLS: dict[str, dict] = {
    "plain": {},
    "tools": {"tools": [ADD]},
    "other tools": {"tools": [ADD, SUBTRACT]},
    "tool_choice required": {"tools": [ADD], "tool_choice": "required"},
    "tool_choice none": {"tools": [ADD], "tool_choice": "none"},
    "tool_choice by tool": {"tools": [ADD, SUBTRACT], "tool_choice": ADD},
    "tool_choice by other tool": {"tools": [ADD, SUBTRACT], "tool_choice": SUBTRACT},
    "json": {"json_output": True},
    "no json": {"json_output": False},
    "structured": {"json_output": Sum},
    "structured by another name": {"json_output": Total},
    "extra arguments": {"extra_create_args": {"temperature": 1.0}},
    "other extra arguments": {"extra_create_args": {"temperature": 0.1}},
    "int keys": {"extra_create_args": {"logit_bias": {50256: -100}}},
}


# AutoGen's client dumps the SDK's parsed answer for its log.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
async def test_every_argument_is_in_the_key(api, cache):
    """Calls that differ in any argument have answers of their own; the same call again has one."""

    async def number(seen):
        content = json.dumps({"total": len(api.requests)})
        message = {"role": "assistant", "content": content, "refusal": None}
        await seen.answer(choice(message=message))

    api.program = number
    client = CachedChatCompletionClient(openai_client(api), cache)
    answers = [await client.create(HELLO, **arguments) for arguments in CALLS.values()]
    assert len(api.requests) == len(CALLS) == len({answer.content for answer in answers})
    again = [await client.create(HELLO, **arguments) for arguments in CALLS.values()]
    assert [answer.content for answer in again] == [answer.content for answer in answers]
    assert all(answer.cached for answer in again)
    assert len(api.requests) == len(CALLS)


async def test_messages_are_in_the_key_whole(api, cache):
    """Source, thought, tool calls and their ids, and results all matter."""

    def conversation(**changes):
        call = {"id": "call_1", "name": "add", "arguments": '{"a": 1}', **changes}
        done = FunctionExecutionResult(
            content=changes.get("result", "3"), name="add", call_id=call["id"], is_error=False
        )
        made = FunctionCall(id=call["id"], name=call["name"], arguments=call["arguments"])
        return [
            UserMessage(content="1 + 2?", source=changes.get("source", "user")),
            AssistantMessage(content=[made], thought=changes.get("thought"), source="a"),
            FunctionExecutionResultMessage(content=[done]),
        ]

    client = CachedChatCompletionClient(openai_client(api), cache)
    variants: list[dict] = [
        {}, {"id": "call_2"}, {"name": "plus"}, {"arguments": "{}"}, {"result": "4"},
        {"source": "someone"}, {"thought": "Hm."},
    ]  # fmt: skip
    for variant in variants:
        assert not (await client.create(conversation(**variant))).cached
    for variant in variants:
        assert (await client.create(conversation(**variant))).cached
    assert len(api.requests) == len(variants)


async def test_credentials_are_in_nothing(api, caplog, tmp_path):
    """Another key of the same client finds the answer; no key is logged, shown or stored."""
    caplog.set_level(logging.DEBUG, "asynccache")
    async with Cache.disk(cache_path_root=tmp_path, keep_requests=True) as cache:
        for key in ("sk-secret-one", "sk-secret-two"):
            headers = {"Authorization": f"Bearer {key}", "x-tenant": "t"}
            inner = openai_client(
                api, api_key=key, default_headers=headers, organization=f"org-{key}"
            )
            client = CachedChatCompletionClient(inner, cache)
            await client.create(HELLO)
            assert key not in repr(client)
            portable = CachedChatCompletionClient(inner)
            assert f'"{key}"' not in portable.dump_component().model_dump_json()
    assert len(api.requests) == 1
    assert "sk-secret" not in caplog.text
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"Be brief" in kept  # requests are kept as asked, so that this looks in the right place
    assert b"sk-secret" not in kept


async def test_refusal_of_one_key_is_not_anothers(api, cache):
    """Who asks with a good key at the same moment doesn't get the 401 of a bad one."""
    asked = Gate()

    async def check(seen):
        if seen.key == "sk-bad":
            await asked.wait()
            await seen.answer({"error": {"message": "no"}}, status=401)
        else:
            await good(seen)

    api.program = check
    bad = CachedChatCompletionClient(openai_client(api, api_key="sk-bad"), cache)
    fine = CachedChatCompletionClient(openai_client(api, api_key="sk-good"), cache)
    calls = [asyncio.ensure_future(bad.create(HELLO)) for _ in range(2)]
    await api.arrived()
    calls.append(asyncio.ensure_future(fine.create(HELLO)))
    await asyncio.sleep(0)
    asked.open()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(answer, "status_code", None) for answer in found] == [401, 401, None]
    assert len(api.requests) == 2


async def test_cancelled_caller_leaves_alone(api, cache):
    """A cancelled token ends its own caller's wait; others get the answer of the same call."""
    going = Gate()

    async def slowly(seen):
        await going.wait()
        await seen.answer(COMPLETION)

    api.program = slowly
    client = CachedChatCompletionClient(openai_client(api), cache)
    token = CancellationToken()
    starter = asyncio.ensure_future(client.create(HELLO, cancellation_token=token))
    await api.arrived()
    other = asyncio.ensure_future(client.create(HELLO, cancellation_token=CancellationToken()))
    await asyncio.sleep(0)
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starter
    going.open()
    assert (await other).content == "Hello!"
    assert len(api.requests) == 1
    with pytest.raises(asyncio.CancelledError):  # as the wrapped client, even if there is a hit
        await client.create(HELLO, cancellation_token=token)


async def test_last_caller_leaving_ends_the_call(api, cache):
    """When every token was cancelled, the request is given up and nothing is stored."""

    async def never(seen):
        await seen.hang()

    api.program = never
    client = CachedChatCompletionClient(openai_client(api), cache)
    token = CancellationToken()
    calls = [
        asyncio.ensure_future(client.create(HELLO, cancellation_token=token)) for _ in range(3)
    ]
    seen = await api.arrived()
    token.cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in found} == {asyncio.CancelledError}
    await seen.disconnected.wait()
    assert cache.stats().abandoned == 1
    assert cache.stats().stored == 0


async def test_content_filter_is_not_stored(api, cache):
    """An answer that a content filter ended is delivered, but not kept."""

    async def filtered(seen):
        await seen.answer(choice(finish_reason="content_filter"))

    api.program = filtered
    client = CachedChatCompletionClient(openai_client(api), cache)
    for _ in range(2):
        assert (await client.create(HELLO)).finish_reason == "content_filter"
        await asyncio.sleep(0.01)
    assert len(api.requests) == 2


async def test_usage_is_the_clients(api, cache):
    """Hits and joined callers count in neither usage, as with AutoGen's own cache."""
    inner = openai_client(api)
    client = CachedChatCompletionClient(inner, cache)
    await asyncio.gather(*(client.create(HELLO) for _ in range(3)))
    await client.create(HELLO)
    assert client.actual_usage() == inner.actual_usage()
    assert client.total_usage() == inner.total_usage()
    assert (client.total_usage().prompt_tokens, client.total_usage().completion_tokens) == (9, 3)
    assert client.model_info == inner.model_info
    with pytest.warns(DeprecationWarning, match="model_info"):
        assert client.capabilities == inner.model_info
    assert cache.stats().tokens_saved == 36


async def test_cache_in_force_is_used(api):
    """Without a cache of its own the client follows the blocks around its calls."""
    client = CachedChatCompletionClient(openai_client(api))
    for _ in range(2):
        assert not (await client.create(HELLO)).cached
    async with Cache.memory() as outer:
        await client.create(HELLO)
        assert (await client.create(HELLO)).cached
        with asynccache.options(cache=None):
            assert asynccache.status(await client.create(HELLO)) is None
        async with Cache.memory():
            assert not (await client.create(HELLO)).cached
    assert len(api.requests) == 5
    assert outer.stats().hits == 1


async def test_options_hold(api, cache):
    """Modes, samples and seeds mean what they mean elsewhere."""
    client = CachedChatCompletionClient(openai_client(api), cache)
    with asynccache.options(mode="replay"), pytest.raises(ReplayMiss):
        await client.create(HELLO)
    with asynccache.options(mode="read_only"):
        await client.create(HELLO)
    assert cache.stats().not_stored == {"mode": 1}
    await client.create(HELLO)
    with asynccache.options(mode="replay"):
        assert (await client.create(HELLO)).cached
    with asynccache.options(mode="refresh"):
        assert not (await client.create(HELLO)).cached
    with asynccache.options(mode="off"):
        assert asynccache.status(await client.create(HELLO)) is None
    with asynccache.options(cache_seed=7):
        assert not (await client.create(HELLO)).cached
    with asynccache.options(sample="each"):
        votes = [await client.create(HELLO) for _ in range(3)]
    assert [vote.cached for vote in votes] == [True, False, False]
    assert len(api.requests) == 7
    assert await cache.forget(votes[0])
    assert not (await client.create(HELLO)).cached


async def test_closed_cache_is_passed_by(api, caplog):
    """A cache that isn't open costs a counter and one warning; in replay it is an error."""
    cache = Cache.memory()
    client = CachedChatCompletionClient(openai_client(api), cache)
    for _ in range(2):
        assert not (await client.create(HELLO)).cached
    assert cache.stats().bypassed == 2
    assert len([r for r in caplog.records if "isn't open" in r.getMessage()]) == 1
    with asynccache.options(mode="replay"), pytest.raises(asynccache.CacheClosedError):
        await client.create(HELLO)


async def test_calls_are_told_to_who_watches(api, cache):
    """`asynccache.record` lists the calls, with the model and the tokens."""
    client = CachedChatCompletionClient(openai_client(api), cache)
    with asynccache.record() as calls:
        await client.create(HELLO)
        await client.create(HELLO)
        async for _ in client.create_stream(HELLO):
            pass
        with asynccache.options(mode="off"):
            await client.create(HELLO)
    told = [(call.outcome, call.endpoint, call.model, call.tokens) for call in calls]
    assert told[:2] == [
        ("miss", "autogen.create", "gpt-4o-2024-08-06", 12),
        ("hit", "autogen.create", "gpt-4o-2024-08-06", 12),
    ]
    assert [call[:2] for call in told[2:]] == [
        ("miss", "autogen.create_stream"), ("bypass", "autogen.create"),
    ]  # fmt: skip


async def test_answer_survives_a_new_process(api, tmp_path):
    """From disk, an answer equals what was first given, tool calls and thought included."""
    call = {"id": "call_9", "type": "function", "function": {"name": "add", "arguments": "{}"}}

    async def tool(seen):
        message = {**MESSAGE, "content": "Let me see.", "tool_calls": [call]}
        await seen.answer(choice(message=message, finish_reason="tool_calls"))

    api.program = tool
    answers = []
    for _ in range(2):
        async with Cache.disk(cache_path_root=tmp_path) as cache:
            client = CachedChatCompletionClient(openai_client(api), cache)
            answers.append(await client.create(HELLO, tools=[ADD]))
    first, second = answers
    assert second.cached
    assert second.content == [FunctionCall(id="call_9", name="add", arguments="{}")]
    assert second.thought == "Let me see."
    assert first.model_copy(update={"cached": True}) == second
    assert len(api.requests) == 1


async def test_azure_never_shares_deployments(api, cache):
    """Azure's deployment, version and endpoint are in the key; its token provider isn't."""

    def client(**changes):
        arguments = {
            "model": "gpt-4o-2024-08-06", "azure_endpoint": api.base_url, "api_version": "v1",
            "azure_deployment": "one", "azure_ad_token_provider": lambda: "token",
        }  # fmt: skip
        return CachedChatCompletionClient(
            kept(AzureOpenAIChatCompletionClient(**{**arguments, **changes})), cache
        )

    assert not (await client().create(HELLO)).cached
    assert (await client().create(HELLO)).cached
    assert not (await client(azure_deployment="two").create(HELLO)).cached
    assert not (await client(api_version="v2").create(HELLO)).cached
    assert not (await client(temperature=0.1).create(HELLO)).cached


@pytest.mark.parametrize("upstream", [None, "azure"], ids=["address", "name"])
async def test_azure_version_of_the_environment_never_shares(api, cache, monkeypatch, upstream):
    """Azure's version is in the key where the environment names it, too."""
    answers = []
    for version in ("2024-01-01", "2025-01-01", "2024-01-01"):
        monkeypatch.setenv("OPENAI_API_VERSION", version)
        inner = AzureOpenAIChatCompletionClient(
            model="gpt-4o-2024-08-06", azure_endpoint=api.base_url, azure_deployment="one",
            api_key="sk-x",
        )  # fmt: skip
        client = CachedChatCompletionClient(kept(inner), cache, upstream=upstream)
        answers.append((await client.create(HELLO)).cached)
    assert answers == [False, False, True]
    assert [seen.query for seen in api.requests] == [
        "api-version=2024-01-01",
        "api-version=2025-01-01",
    ]


# -- agents --------------------------------------------------------------------------------------


async def by_turns(seen):
    """Ask for a tool first; answer once its result is there."""
    asked = [message["role"] for message in seen.body["messages"]]
    if seen.body.get("tools") and "tool" not in asked:
        function = {"name": "add", "arguments": '{"a": 1, "b": 2}'}
        call = {"id": f"call_{len(asked)}", "type": "function", "function": function}
        message = {**MESSAGE, "tool_calls": [call]}
        await seen.answer(choice(message=message, finish_reason="tool_calls"))
    else:
        message = {**MESSAGE, "content": f"Said after {len(asked)}."}
        await seen.answer(completion(choices=[{**choice()["choices"][0], "message": message}]))


async def test_agent_with_tools_runs_again_for_nothing(api, cache):
    """An agent that calls a tool and reflects on it makes no request the second time."""
    api.program = by_turns
    said = []
    for _ in range(2):
        client = CachedChatCompletionClient(openai_client(api), cache)
        agent = AssistantAgent("adder", client, tools=[add], reflect_on_tool_use=True)
        result = await agent.run(task="What is 1 + 2?")
        said.append([message.to_text() for message in result.messages])
        assert len(api.requests) == 2
    assert said[0] == said[1]
    assert any("3" in text for text in said[0])


async def test_group_chat_runs_again_for_nothing(api, cache):
    """Two agents in turn, one of them streaming, make no request the second time."""

    async def answer(seen):
        await (good(seen) if seen.body.get("stream") else by_turns(seen))

    api.program = answer
    said, requests = [], []
    for _ in range(2):
        client = CachedChatCompletionClient(openai_client(api), cache)
        agents = [
            AssistantAgent("writer", client, model_client_stream=True),
            AssistantAgent("critic", client),
        ]
        team = RoundRobinGroupChat(agents, termination_condition=MaxMessageTermination(5))
        result = await team.run(task="Write a line.")
        said.append([message.to_text() for message in result.messages])
        requests.append(len(api.requests))
    assert said[0] == said[1]
    assert len(said[0]) == 5
    assert requests == [4, 4]


@pytest.mark.parametrize("kind", ["json", "tools", "stream"])
async def test_malformed_answers_are_asked_for_anew(api, cache, kind):
    """What isn't JSON where it is demanded is no hit, but a replay gives it."""
    texts = ["It is warm.", '{"degrees": 21}']

    async def program(seen):
        text = texts.pop(0)
        said = {"role": "assistant", "content": text}
        if seen.body.get("stream"):
            await seen.stream(sse(chunk(text, finish="stop")), DONE)
            return
        if kind == "tools":
            call = {"name": "look", "arguments": text}
            calls = [{"id": "c", "type": "function", "function": call}]
            said = {"role": "assistant", "content": None, "tool_calls": calls}
        reason = "tool_calls" if kind == "tools" else "stop"
        await seen.answer(choice(message=said, finish_reason=reason))

    api.program = program
    client = CachedChatCompletionClient(openai_client(api), cache)
    tools = [{"name": "look", "parameters": {"type": "object"}}] if kind == "tools" else []
    arguments = {"tools": tools, "json_output": kind != "tools"}

    async def ask():
        if kind != "stream":
            return await client.create(HELLO, **arguments)
        return [item async for item in client.create_stream(HELLO, **arguments)][-1]

    first = await ask()
    with asynccache.options(mode="replay"):
        assert (await ask()).content == first.content
    found = [asynccache.status(await ask()).outcome for _ in range(2)]
    assert (found, len(api.requests)) == (["miss", "hit"], 2)
