"""`normalizers.call_ids`: tool calls named by their order, in the key alone."""

from __future__ import annotations

import copy

import pytest
from openai.types.chat import ChatCompletion

from asynccache import Cache
from asynccache.normalizers import call_ids
from tests.helpers.openai_answers import answer
from tests.helpers.openai_server import MESSAGES, ask, state

pytest_plugins = ("tests.helpers.openai_fixtures",)


@pytest.fixture(autouse=True)
def responding(api):
    """Answer at both endpoints."""
    api.program = answer


@pytest.fixture
async def renaming(bare):
    """A client whose cache renames the ids of tool calls."""
    async with Cache.memory(normalize=call_ids) as cache:
        yield cache.wrap(bare)


def chat(made, answered, *, said="21"):
    """Return a history of two tool calls with these ids, answered under those."""
    calls = [
        {"id": one, "type": "function", "function": {"name": "f", "arguments": str(at)}}
        for at, one in enumerate(made)
    ]
    results = [
        {"role": "tool", "tool_call_id": one, "content": f"{said} {at}"}
        for at, one in enumerate(answered)
    ]
    return [*MESSAGES, {"role": "assistant", "content": None, "tool_calls": calls}, *results]


def items(made, answered, ids=("fc_1", "fc_2")):
    """Return the same as input of the Responses API, whose calls have ids of their own too."""
    calls = [
        {"type": "function_call", "call_id": one, "id": ids[at], "name": "f", "arguments": str(at)}
        for at, one in enumerate(made)
    ]
    results = [
        {"type": "function_call_output", "call_id": one, "output": f"21 {at}"}
        for at, one in enumerate(answered)
    ]
    return [*MESSAGES, *calls, *results]


async def chat_key(client, messages, **changes):
    """Return the key of a chat completion."""
    return state(await ask(client, messages=messages, **changes)).key


async def responses_key(client, given, **changes):
    """Return the key of a response."""
    return state(await client.responses.create(model="gpt-4o", input=given, **changes)).key


async def posted_key(client, messages):
    """Return the key of a chat completion that goes through the client's `request`."""
    raw = await client.chat.completions.with_raw_response.create(model="gpt-4o", messages=messages)
    return state(raw).key


BOTH = pytest.mark.parametrize(
    ("key_of", "history"),
    [(chat_key, chat), (posted_key, chat), (responses_key, items)],
    ids=["chat", "raw", "responses"],
)
SAME = [
    (("a", "b"), ("a", "b")),
    (("b", "a"), ("b", "a")),
    (("call_1", "call_2"), ("call_1", "call_2")),
    (("0", "[0]"), ("0", "[0]")),
]
OTHERS = [
    (("a", "b"), ("b", "a")),
    (("a", "b"), ("a", "a")),
    (("a", "a"), ("a", "a")),
    (("a", "b"), ("a", "c")),
    (("a", "b"), ("c", "d")),
    (("a", "b"), ("d", "c")),
    (("a",), ("a", "b")),
]


@BOTH
async def test_only_how_ids_pair_is_in_the_key(renaming, api, key_of, history):
    """Renamed throughout, ids make no difference; paired otherwise they do, each time another."""
    same = {await key_of(renaming, history(*ids)) for ids in SAME}
    assert len(same) == 1
    assert len(api.requests) == 1
    others = [await key_of(renaming, history(*ids)) for ids in OTHERS]
    assert len({*same, *others}) == 1 + len(OTHERS)
    assert len(api.requests) == 1 + len(OTHERS)


@BOTH
async def test_it_is_off_by_default(cached, key_of, history):
    """Without the option every id is in the key as it is."""
    assert len({await key_of(cached, history(*ids)) for ids in SAME}) == len(SAME)


async def test_what_is_sent_stays_as_it_is(renaming, api):
    """The server sees the caller's ids, and the caller's messages aren't changed."""
    messages, given = chat("ab", "ab"), items("ab", "ab")
    before = copy.deepcopy((messages, given))
    await ask(renaming, messages=messages)
    await renaming.responses.create(model="gpt-4o", input=given)
    body = {"model": "other", "messages": messages}
    await renaming.post("/chat/completions", cast_to=ChatCompletion, body=body)
    assert (messages, given) == before
    first, second, third = (seen.body for seen in api.requests)
    assert (first["messages"], second["input"]) == before
    assert third["messages"] == messages


async def test_all_else_is_in_the_key(renaming):
    """What is called, with what, and what came of it, tell requests apart as ever."""
    first = await chat_key(renaming, chat("ab", "ab"))
    assert await chat_key(renaming, chat("cd", "cd", said="22")) != first
    other = chat("ab", "ab")
    other[1]["tool_calls"][1]["function"]["arguments"] = "2"
    assert await chat_key(renaming, other) != first
    other = chat("ab", "ab")
    other[1]["tool_calls"].reverse()  # the same pairs: another order is another request
    assert await chat_key(renaming, other) != first


async def test_ids_of_items_that_are_calls_go_too(renaming):
    """An item that is a call bears two ids, and both are renamed."""
    first = await responses_key(renaming, items("ab", "ab"))
    assert await responses_key(renaming, items("cd", "cd", ("x", "y"))) == first
    assert await responses_key(renaming, items("cd", "cd", ("x", "x"))) != first


@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "{}"},
        {"type": "reasoning", "id": "{}", "summary": []},
        {"type": "function_call_output", "call_id": "{}", "output": "21"},
        {"type": "mcp_approval_response", "approval_request_id": "{}", "approve": True},
    ],
    ids=lambda item: item["type"],
)
async def test_names_of_what_lies_at_the_server_stay(renaming, item):
    """Ids that stand for something that isn't in the request tell requests apart."""
    one, two = (
        [*items("ab", "ab"), {name: v.replace("{}", there) if isinstance(v, str) else v
                              for name, v in item.items()}]
        for there in ("x_1", "x_2")
    )  # fmt: skip
    assert await responses_key(renaming, one) != await responses_key(renaming, two)


async def test_answers_to_calls_of_an_earlier_response(renaming):
    """Which of an earlier response's calls an output is for can't be told but by its id."""
    earlier = {"previous_response_id": "resp_1"}
    outputs = [items((), ids) for ids in ("ab", "ba")]
    assert len({await responses_key(renaming, one, **earlier) for one in outputs}) == 2
    # And a call of the body could have the name of one that lies there.
    calls = [items(ids, ids) for ids in ("ab", "ba")]
    assert len({await responses_key(renaming, one, **earlier) for one in calls}) == 2


async def test_renamed_keys_are_nobody_elses(bare, api):
    """No request of a cache that doesn't rename finds what was stored under renamed ids."""
    async with Cache.memory(normalize=call_ids) as cache:
        renamed = await chat_key(cache.wrap(bare), chat("ab", "ab"))
    async with Cache.memory() as cache:
        client = cache.wrap(bare)
        keys = {await chat_key(client, chat(ids, ids)) for ids in ("01", "12", ["[0]", "[1]"])}
    assert renamed not in keys


async def test_odd_bodies(renaming, api):
    """What has no such form, or calls without ids, goes its way unchanged."""
    calls: list = [None, {"id": None}, {"id": 7}, "call"]
    odd = [*MESSAGES, {"role": "assistant", "tool_calls": calls}, "message"]
    assert await chat_key(renaming, odd) == await chat_key(renaming, odd)
    assert await chat_key(renaming, [{"role": "assistant", "tool_calls": "abc"}])
    assert await responses_key(renaming, 'say "call_id"')
    mixed = [*items("ab", "ab"), "item", {"type": "function_call", "call_id": 1}]
    assert await responses_key(renaming, mixed)
    assert api.requests[0].body["messages"] == odd
    assert len(api.requests) == 4


async def test_with_ignored_paths_and_secrets(bare, api):
    """Ids are renamed beside what else is left out of the key."""
    async with Cache.memory(normalize=call_ids, ignore=["metadata.run"]) as cache:
        client = cache.wrap(bare)
        keys = {
            await responses_key(
                client,
                items(ids, ids),
                metadata={"run": ids},
                tools=[{"type": "mcp", "server_label": "s", "authorization": ids * 8}],
            )
            for ids in ("ab", "cd")
        }
    assert len(keys) == len(api.requests) == 1


async def test_in_a_url(bare):
    """One line of configuration can say it."""
    async with Cache.from_url("memory:?normalize=call_ids") as cache:
        client = cache.wrap(bare)
        keys = {await chat_key(client, chat(ids, ids)) for ids in ("ab", "cd")}
    assert len(keys) == 1
