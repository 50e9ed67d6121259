"""Nothing secret at rest or in sight, and odd answers look as the bare client makes them."""

from __future__ import annotations

import json
import logging
import traceback

import openai
import pytest
from pydantic import BaseModel

import asynccache
from asynccache import Cache
from asynccache.entries.entry import Entry, Meta, encode_entry
from asynccache.stores.base import Record
from asynccache.stores.memory import MemoryStore
from tests.helpers.inside import engine_of
from tests.helpers.openai_answers import RESPONSE, TEXT, answer, event, response, response_events
from tests.helpers.openai_server import COMPLETION, MESSAGES, ask, events_of, state, stored

pytest_plugins = ("tests.helpers.openai_fixtures",)

WORD = "hunter2-"  # in every secret, so that nothing of one may be anywhere
API_KEY = f"sk-{WORD}of-the-account"


def mcp(number=0, **changes):
    """Return an MCP tool with credentials, which a number makes different ones."""
    return {
        "type": "mcp",
        "server_label": "store",
        "server_url": f"https://me:{WORD}{number}-url@mcp.example/sse?page=1&api_key={WORD}{number}",
        "authorization": f"Bearer {WORD}{number}-authorization",
        "headers": {"X-Token": f"{WORD}{number}-header", "X-Other": f"Basic {WORD}{number}-other"},
        "require_approval": "never",
        **changes,
    }


def shell(number=0):
    """Return a tool whose container gets secrets for domains."""
    secrets = [{"domain": "a.example", "name": "TOKEN", "value": f"{WORD}{number}-domain"}]
    policy = {"type": "allowlist", "allowed_domains": ["a.example"], "domain_secrets": secrets}
    return {"type": "shell", "environment": {"type": "container_auto", "network_policy": policy}}


def found_tools(number=0):
    """Return input that holds tools found by a search, credentials and all."""
    searched = {
        "type": "tool_search_output",
        "call_id": "call_1",
        "tools": [
            mcp(number),
            {"type": "namespace", "name": "n", "description": "d", "tools": [mcp(number)]},
        ],
    }
    return [searched, {"role": "user", "content": "what the user asks"}]


def respond(client, number=0, **changes):
    """Ask for a response with secrets wherever they may stand."""
    wanted = {
        "model": "gpt-4o",
        "input": found_tools(number),
        "tools": [mcp(number), shell(number)],
    }
    return client.responses.create(**{**wanted, **changes})


@pytest.fixture(params=["memory", "disk"])
def place(request, tmp_path):
    """Give a cache that keeps requests too, and a function that reads all it has at rest."""
    events: list[asynccache.CallEvent] = []
    options: dict = {"keep_requests": True, "observer": events.append}
    if request.param == "memory":
        store = MemoryStore()
        cache = Cache.from_store(store, **options)

        def at_rest():
            return b"".join(body for body, *_ in store._entries.values())
    else:
        cache = Cache.disk(cache_path_root=tmp_path / "cache", **options)

        def at_rest():
            return b"".join(
                path.read_bytes() + str(path).encode()
                for path in sorted(tmp_path.rglob("*"))
                if path.is_file()
            )

    return cache, at_rest, events


async def test_nothing_secret_at_rest_or_in_sight(place, bare, api, caplog):
    """Store, log, repr, exceptions, stats and events hold no credential, whatever the door."""
    caplog.set_level(logging.DEBUG, logger="asynccache")
    api.program = answer
    cache, at_rest, events = place
    base_url = f"http://me:{WORD}info@127.0.0.1:{api.port}/v1"
    secretive = bare.with_options(
        api_key=API_KEY,
        base_url=base_url,
        default_headers={"X-Api-Key": f"{WORD}of-a-proxy"},
        default_query={"api-key": f"{WORD}of-azure", "token": f"{WORD}of-the-query"},
    )
    client = cache.wrap(secretive)
    shown = []

    async def failing(call, *kinds):
        with pytest.raises(kinds) as caught:
            await call
        shown.append("".join(traceback.format_exception_only(caught.value)))
        shown.append(repr(caught.value))

    await ask(client)  # before it is opened: passed by
    async with cache:
        results = [
            await ask(client),
            await respond(client),
            await respond(client, 1),
            await client.responses.parse(model="m", input="x", tools=[mcp()]),
            await client.responses.with_raw_response.create(model="m", input="x", tools=[mcp(2)]),
            await client.embeddings.create(model="m", input=["a"]),
            await client.post(
                f"http://me:{WORD}info@localhost:{api.port}/v1/models?key={WORD}there",
                body={},
                cast_to=object,
            ),
            await client.post(f"/models?key={WORD}twice&key={WORD}", body={}, cast_to=object),
        ]
        await events_of(await respond(client, stream=True))
        shown += [repr(asynccache.status(found)) for found in results]
        await respond(client, conversation="conv_1")
        await failing(respond(client, metadata={"a": f"{WORD}".encode()}), TypeError)
        with asynccache.options(mode="replay"):
            await failing(respond(client, model="m2"), asynccache.ReplayMiss)
            await failing(respond(client, background=True), asynccache.ReplayMiss)

        async def refuse(seen):
            await seen.answer({"error": {"message": "no"}}, 400)

        api.program = refuse
        await failing(respond(client, model="m3"), openai.BadRequestError)

        async def hang(seen):
            await seen.hang()

        api.program = hang
        await failing(respond(client, model="m4", timeout=0.1), openai.APITimeoutError)
        await stored(cache, 5)
        shown += [repr(cache), repr(cache.settings), repr(engine_of(cache))]
        shown += [repr(client.responses.create), repr(client.request)]
    shown += [repr(cache.stats()), *map(repr, events), caplog.text]
    assert "what the user asks" not in "".join(shown)
    assert WORD not in "".join(shown)
    rest = at_rest()
    assert b"what the user asks" in rest  # the requests are really there
    assert b"mcp.example" in rest
    assert WORD.encode() not in rest
    assert API_KEY.encode() not in rest
    assert {one.outcome for one in events} == {"bypass", "miss", "hit", "error"}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_credentials_of_tools_are_not_in_the_key(stream, cached, api):
    """Two calls that differ in nothing else are one; what was sent is as it was given."""
    api.program = answer
    outcomes = []
    for number in range(3):
        found = await respond(cached, number, stream=stream)
        if stream:
            await events_of(found)
        outcomes.append(state(found).outcome)
    assert outcomes == ["miss", "hit", "hit"]
    (seen,) = api.requests
    assert seen.body["input"] == found_tools(0)
    assert seen.body["tools"] == [mcp(0), shell(0)]


@pytest.mark.parametrize(
    "changes",
    [
        {"server_url": "https://me:x@mcp.example/other"},
        {"server_url": "https://me:x@mcp.example/sse?page=2"},
        {"server_label": "other"},
        {"require_approval": "always"},
    ],
    ids=str,
)
async def test_what_else_a_tool_says_is_in_the_key(changes, cached, api):
    """Only credentials are left out of a tool."""
    api.program = answer
    await respond(cached, tools=[mcp()])
    assert state(await respond(cached, tools=[mcp(**changes)])).outcome == "miss"


async def test_headers_of_other_things_are_in_the_key(cached, api):
    """What looks like a tool's headers elsewhere, such as in a schema, is part of the request."""
    api.program = answer
    for word in ("a", "b"):
        function = {
            "type": "function",
            "name": "f",
            "strict": False,
            "parameters": {"type": "mcp", "headers": word, "authorization": word},
        }
        await respond(cached, tools=[function])
    assert len(api.requests) == 2


ECHOES: dict = {
    "as it was given": json.dumps,
    "without its scheme": lambda text: json.dumps(text.rpartition(" ")[2]),
    "escaped": lambda text: json.dumps(text).replace("/", "\\/"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("name", ECHOES)
@pytest.mark.parametrize("secret", ["Bearer abc/def+ghi==", 'Bearer schlüssel"\\dreizehn'])
async def test_an_answer_that_echoes_a_secret_is_not_stored(  # noqa: PLR0917 - fixtures
    secret, name, stream, cached, bare, api, api_cache
):
    """It is delivered as the bare client would, counted, and asked for again."""
    echo = json.dumps(response(instructions="ECHO")).replace('"ECHO"', ECHOES[name](secret))

    async def program(seen):
        if stream:
            *begun, _ = response_events()
            last = event("response.completed", response="IT", sequence_number=7)
            await seen.stream(*begun, last.replace(b'"IT"', echo.encode()))
        else:
            await seen.answer(echo.encode())

    api.program = program
    results = []
    for client in (bare, cached, cached):
        found = await respond(client, tools=[mcp(authorization=secret)], stream=stream)
        results.append(await events_of(found) if stream else found)
    assert results[1] == results[2] == results[0]
    assert len(api.requests) == 3
    assert api_cache.stats().not_stored == {"secret": 2}
    assert api_cache.stats().stored == 0


async def test_an_answer_that_echoes_another_calls_secret(cached, api, api_cache):
    """An answer is looked through for the secrets of the call that paid for it."""

    async def program(seen):
        await seen.answer(response(instructions=seen.body["tools"][0]["authorization"]))

    api.program = program
    for number in range(2):
        await respond(cached, number, tools=[mcp(number)])
    assert len(api.requests) == 2
    assert api_cache.stats().not_stored == {"secret": 2}


# -- odd answers -------------------------------------------------------------------------------


class Answer(BaseModel):
    """Something to parse an answer into."""

    text: str


def parsed(client):
    """Ask for a completion that is parsed."""
    return client.chat.completions.parse(model="m", messages=MESSAGES, response_format=Answer)


CHOICE = COMPLETION["choices"][0]
ODD: dict = {
    "a completion": (ask, {**COMPLETION, "created": "1700000000", "usage": {"total_tokens": "7"}}),
    "an odd choice": (ask, {**COMPLETION, "choices": [{**CHOICE, "logprobs": "none"}]}),
    "parsed": (
        parsed,
        {
            **COMPLETION,
            "created": 1.5,
            "choices": [{**CHOICE, "message": {**CHOICE["message"], "content": '{"text": "x"}'}}],
        },
    ),
    "a response": (
        lambda client: client.responses.create(model="m", input="x"),
        {**RESPONSE, "created_at": "soon", "temperature": "1", "output": [{"type": "new", "x": 1}]},
    ),
    "a parsed response": (
        lambda client: client.responses.parse(model="m", input="x"),
        {**RESPONSE, "created_at": "soon", "parallel_tool_calls": "yes"},
    ),
    "a text": (
        lambda client: client.completions.create(model="m", prompt="x"),
        {**TEXT, "created": "1700000000", "choices": [{"index": "0", "text": 5}]},
    ),
}


def seen_in(found):
    """Return all that a caller can see of an answer."""
    return {
        "type": type(found),
        "dump": found.model_dump(warnings=False),
        "json": found.model_dump_json(warnings=False),
        "unset": found.model_dump(exclude_unset=True, warnings=False),
        "fields": found.model_fields_set & type(found).model_fields.keys(),
        "id": found._request_id,
        "repr": repr(found),
    }


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # in the SDK's own parsing
@pytest.mark.parametrize("name", ODD)
async def test_ill_typed_answers(name, cached, bare, api, api_cache):
    """Whatever the door, miss and hit are what the bare client makes of such an answer."""
    call, body = ODD[name]

    async def program(seen):
        await seen.answer(body)

    api.program = program
    expected = seen_in(await call(bare))
    assert seen_in(await call(cached)) == expected
    await stored(api_cache)
    hit = await call(cached)
    assert state(hit).outcome == "hit"
    assert seen_in(hit) == expected


@pytest.mark.parametrize("choices", [None, []])
async def test_a_completion_without_choices_is_delivered_and_not_stored(
    choices, cached, bare, api, api_cache
):
    """A server that had nothing to say is asked again, as it may have next time."""

    async def program(seen):
        await seen.answer({**COMPLETION, "choices": choices})

    api.program = program
    expected = seen_in(await ask(bare))
    for _ in range(2):
        assert seen_in(await ask(cached)) == expected
    assert len(api.requests) == 3
    assert api_cache.stats().not_stored == {"incomplete": 2}


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # in the SDK's own parsing
@pytest.mark.parametrize("name", ODD)
async def test_planted_answers_of_wrong_types(name, bare, api):
    """An entry that somebody else has put there is data, read as the bare client would read it."""
    call, body = ODD[name]
    good_body = {"/chat/completions": COMPLETION, "/responses": RESPONSE, "/completions": TEXT}

    async def program(seen):
        body = good_body[seen.path.removeprefix("/v1")]
        if name == "parsed":
            body = ODD[name][1]
        await seen.answer(body)

    async def odd(seen):
        await seen.answer(body)

    store = MemoryStore()
    async with Cache.from_store(store) as cache:
        client = cache.wrap(bare)
        api.program = program
        status = state(await call(client))
        await stored(cache)
        meta = Meta("json", content_type="application/json", headers=(("x-request-id", "req_1"),))
        entry = Entry(status.digest, status.recorded, 0, meta, (json.dumps(body).encode(),))
        record = Record(key=status.digest, body=encode_entry(entry))
        await store.set_many(status.namespace, [record])
        found = await call(client)
        assert state(found).outcome == "hit"
    api.program = odd
    assert seen_in(found) == seen_in(await call(bare))
    assert len(api.requests) == 2
