"""An answer that isn't what its request demands is given to nobody again, but replays."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, ValidationError, field_validator

import asynccache
from asynccache import Cache, ReplayMiss
from asynccache.providers.judging import Judge
from tests.helpers.openai_server import DONE, MESSAGES, Gate, choice, chunk, sse

pytest_plugins = ("tests.helpers.openai_fixtures",)

GOOD, BAD = '{"total": 3}', "Sorry, three."


class Sum(BaseModel):
    total: int


class OddSum(BaseModel):
    """Has the schema of `Sum`, under its name, and a rule that no schema tells of."""

    total: int

    @field_validator("total")
    @classmethod
    def is_odd(cls, total):
        if total % 2 == 0:
            raise ValueError("even")
        return total


OddSum.__name__ = "Sum"
OddSum.__doc__ = None
OddSum.model_rebuild(force=True)

SCHEMA = {
    "type": "object",
    "properties": {"total": {"type": "integer"}},
    "required": ["total"],
    "additionalProperties": False,
}
STRICT = {"name": "s", "schema": SCHEMA, "strict": True}
TOOL = {"name": "f", "parameters": SCHEMA}


def response(*items):
    """Return an answer of the Responses API."""
    return {
        "id": "resp_1", "object": "response", "created_at": 1700000000, "model": "m",
        "status": "completed", "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "output": list(items),
    }  # fmt: skip


def item(text):
    """Return an item of such an answer that says something."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {
        "type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [part]
    }  # fmt: skip


def tool_call(arguments):
    """Return a message that calls a tool."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


async def answer(seen, text):
    """Answer with a text, or with arguments for a tool where one is offered."""
    responses, tools = seen.path.endswith("/responses"), seen.body.get("tools")
    if responses:
        call = {"type": "function_call", "id": "i", "call_id": "c", "name": "f", "arguments": text}
        whole = response(call if tools else item(text))
        if not seen.body.get("stream"):
            await seen.answer(whole)
            return
        created = {"type": "response.created", "sequence_number": 0, "response": response()}
        done = {"type": "response.completed", "sequence_number": 1, "response": whole}
        await seen.stream(sse(created), sse(done))
    elif not seen.body.get("stream"):
        said = tool_call(text) if tools else {"role": "assistant", "content": text}
        await seen.answer(choice(message=said))
    else:
        deltas = [{"content": part} for part in text]
        if tools:
            first = {**tool_call("")["tool_calls"][0], "index": 0}
            more = [{"index": 0, "function": {"arguments": part}} for part in text]
            deltas = [{"tool_calls": [one]} for one in (first, *more)]
        told = [chunk(choices=[{"index": 0, "delta": delta}]) for delta in deltas]
        await seen.stream(*map(sse, told), sse(chunk("", finish="stop")), DONE)


def says(*texts):
    """Return a program that says one text after the other, the last one for ever."""
    left = list(texts)

    async def program(seen):
        await answer(seen, left.pop(0) if len(left) > 1 else left[0])

    return program


CHAT = {"model": "m", "messages": MESSAGES}
RESPONSES = {"model": "m", "input": "Hello?"}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "json_object": ("chat", {**CHAT, "response_format": {"type": "json_object"}}),
    "json_schema": (
        "chat",
        {**CHAT, "response_format": {"type": "json_schema", "json_schema": STRICT}},
    ),
    "tools": ("chat", {**CHAT, "tools": [{"type": "function", "function": TOOL}]}),
    "text.format": (
        "responses",
        {**RESPONSES, "text": {"format": {"type": "json_schema", **STRICT}}},
    ),
    "text.format object": ("responses", {**RESPONSES, "text": {"format": {"type": "json_object"}}}),
    "function": ("responses", {**RESPONSES, "tools": [{"type": "function", **TOOL}]}),
}


def outcome_of(response):
    """Return how a call was answered."""
    status = asynccache.status(response)
    assert status is not None
    return status.outcome


async def create(client, kind, *, streamed=False):
    """Make one of the requests; return its status, and of a plain one the answer."""
    endpoint, request = REQUESTS[kind]
    resource = client.responses if endpoint == "responses" else client.chat.completions
    found = (
        await resource.create(**request, stream=True)
        if streamed
        else await resource.create(**request)
    )
    if streamed:
        async for _ in found:
            pass
    return asynccache.status(found)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", REQUESTS)
async def test_an_unusable_answer_is_not_given_twice(api, cached, api_cache, kind, streamed):
    """What isn't JSON where the request demands it is asked for anew, and replaced."""
    api.program = says(BAD, GOOD)
    outcomes = [(await create(cached, kind, streamed=streamed)).outcome]
    with asynccache.options(mode="replay"):  # though it isn't even stored yet
        assert (await create(cached, kind, streamed=streamed)).outcome == "hit"
    outcomes += [(await create(cached, kind, streamed=streamed)).outcome for _ in range(2)]
    assert outcomes == ["miss", "miss", "hit"]
    assert api_cache.stats().unusable == 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", REQUESTS)
async def test_a_usable_answer_is_paid_once(api, cached, api_cache, kind, streamed):
    """The same requests, answered as they demand."""
    api.program = says(GOOD)
    outcomes = [(await create(cached, kind, streamed=streamed)).outcome for _ in range(3)]
    assert outcomes == ["miss", "hit", "hit"]
    assert (len(api.requests), api_cache.stats().unusable) == (1, 0)


async def test_what_does_not_fit_a_strict_schema(api, cached):
    """A strict schema is kept to; one that isn't strict is no promise."""
    api.program = says('{"total": "three"}')
    assert [(await create(cached, "json_schema")).outcome for _ in range(2)] == ["miss", "miss"]
    loose = {**STRICT, "strict": False}
    request = {**CHAT, "response_format": {"type": "json_schema", "json_schema": loose}}
    for outcome in ("miss", "hit"):
        found = await cached.chat.completions.create(**request)
        assert outcome_of(found) == outcome


async def test_replay_serves_it_and_other_modes_do_not(api, bare, tmp_path):
    """A recorded run replays as it was, on disk and in another cache object."""
    api.program = says(BAD)
    async with Cache.disk(cache_path_root=tmp_path) as cache:
        await create(cache.wrap(bare), "json_object")
    async with Cache.disk(cache_path_root=tmp_path, mode="replay") as cache:
        replaying = cache.wrap(bare)
        assert [(await create(replaying, "json_object")).outcome for _ in range(2)] == ["hit"] * 2
    for mode in ("read_only", "refresh", "read_write"):
        async with Cache.disk(cache_path_root=tmp_path, mode=mode) as cache:
            assert (await create(cache.wrap(bare), "json_object")).outcome == "miss"
    assert len(api.requests) == 4


async def test_a_run_with_its_repairs_replays(api, bare, tmp_path):
    """A repair asks about the bad answer, so that the run needs both."""

    async def run(client):
        first = await client.chat.completions.create(
            **CHAT, response_format={"type": "json_object"}
        )
        said = first.choices[0].message.content
        repair = [
            *MESSAGES,
            {"role": "assistant", "content": said},
            {"role": "user", "content": "?"},
        ]
        again = await client.chat.completions.create(
            model="m", messages=repair, response_format={"type": "json_object"}
        )
        return said, again.choices[0].message.content

    api.program = says(BAD, GOOD)
    async with Cache.disk(cache_path_root=tmp_path) as cache:
        recorded = await run(cache.wrap(bare))
    async with Cache.disk(cache_path_root=tmp_path, mode="replay") as cache:
        assert await run(cache.wrap(bare)) == recorded == (BAD, GOOD)
    assert len(api.requests) == 2


async def parsed(client, kind=Sum):
    """Return a parsed completion."""
    return await client.chat.completions.parse(**CHAT, response_format=kind)


async def test_parse_asks_anew_where_it_failed(api, cached, api_cache):
    """The error says where the answer came from; the next call asks anew."""
    api.program = says(BAD, GOOD)
    with pytest.raises(ValidationError) as raised:
        await parsed(cached)
    assert outcome_of(raised.value) == "miss"
    assert "mode='refresh'" in "".join(raised.value.__notes__)
    for outcome in ("miss", "hit"):
        found = await parsed(cached)
        assert found.choices[0].message.parsed == Sum(total=3)
        assert outcome_of(found) == outcome


async def raw_parsed(client, kind=Sum):
    """Return the same as LangChain does it."""
    raw = await client.chat.completions.with_raw_response.parse(**CHAT, response_format=kind)
    return raw.parse()


async def beta_parsed(client, kind=Sum):
    """Return the same by the older name, which only the client's ``request`` sees."""
    return await client.beta.chat.completions.parse(**CHAT, response_format=kind)


async def response_parsed(client, kind=Sum):
    """Return a parsed response."""
    return await client.responses.parse(**RESPONSES, text_format=kind)


async def sync_parsed(client, kind=Sum):
    """Return a completion that a synchronous client parses in a thread."""
    with OpenAI(api_key="sk-a", base_url=client.base_url, max_retries=0) as bare:
        call = client.cache.wrap(bare).chat.completions.parse
        return await asyncio.to_thread(lambda: call(**CHAT, response_format=kind))


async def streamed_chat(client, kind=Sum):
    """Return a completion that the SDK's helper parses out of a stream."""
    async with client.chat.completions.stream(**CHAT, response_format=kind) as stream:
        return await stream.get_final_completion()


async def streamed_response(client, kind=Sum):
    """Return a response that the SDK's helper parses out of a stream."""
    async with client.responses.stream(**RESPONSES, text_format=kind) as stream:
        return await stream.get_final_response()


PARSING = [
    parsed, raw_parsed, beta_parsed, response_parsed, sync_parsed, streamed_chat, streamed_response,
]  # fmt: skip


@pytest.fixture
def parsing_client(cached, api_cache):
    """The client, which knows its cache."""
    cached.cache = api_cache
    return cached


@pytest.mark.parametrize("parse", PARSING)
async def test_what_parse_fails_on_is_given_to_nobody_again(api, parsing_client, parse):
    """The answer fits its schema, so that only the caller's class can tell; a hit fails too."""
    client = parsing_client
    api.program = says('{"total": 4}', '{"total": 6}', GOOD)
    with pytest.raises(ValueError, match="even") as raised:
        await parse(client, OddSum)
    assert asynccache.status(raised.value) is not None
    assert "mode='refresh'" in "".join(raised.value.__notes__)
    with pytest.raises(ValueError, match="even"):
        await parse(client, OddSum)
    for _ in range(2):
        await parse(client, OddSum)
        assert len(api.requests) == 3


@pytest.mark.parametrize("parse", [parsed, raw_parsed, streamed_chat, streamed_response])
async def test_clients_that_are_cached_where_they_are_made(api, bare, api_cache, parse):
    """The same under `instrument_openai`."""
    api.program = says('{"total": 4}', '{"total": 6}', GOOD)
    with asynccache.instrument_openai():
        for _ in range(2):
            with pytest.raises(ValidationError, match="even") as raised:
                await parse(bare, OddSum)
            assert asynccache.status(raised.value) is not None
        for _ in range(2):
            await parse(bare, OddSum)
    assert len(api.requests) == 3


@pytest.fixture(scope="module")
def valkey():
    """Run a server for a module, where its driver is installed."""
    pytest.importorskip("redis", reason="redis isn't installed beside the SDK alone")
    from tests.helpers.redis_servers import Valkey

    with Valkey() as running:
        yield running


@pytest.fixture(scope="module")
def cosmos():
    """Run a server for a module, where its driver is installed."""
    pytest.importorskip("azure.cosmos", reason="azure-cosmos isn't installed beside the SDK alone")
    from tests.helpers.cosmos_servers import CosmosServer

    with CosmosServer() as running:
        yield running


@pytest.fixture(params=["disk", "redis", "cosmos"])
def place(request, tmp_path):
    """Return what opens a client of a cache in one place, in any mode."""
    if request.param == "redis":
        url = request.getfixturevalue("valkey").url
        request.getfixturevalue("valkey").empty()
        factory = functools.partial(Cache.redis, redis_url=url)
    elif request.param == "cosmos":
        server = request.getfixturevalue("cosmos")
        server.empty()
        factory = server.cache
    else:
        factory = functools.partial(Cache.disk, cache_path_root=tmp_path)

    @contextlib.asynccontextmanager
    async def opened(bare, mode="read_write"):
        async with factory(mode=mode) as cache:
            client = cache.wrap(bare)
            client.cache = cache
            yield client

    return opened


async def fails_as_a_hit_and_is_marked(api, bare, place, parse):
    """Another process finds the answer no more, and a replay finds it still."""
    api.program = says('{"total": 4}', GOOD)
    async with place(bare) as client:
        await parse(client, Sum)
    async with place(bare) as client:
        with pytest.raises(ValidationError, match="even") as raised:
            await parse(client, OddSum)
        assert outcome_of(raised.value) == "hit"
    async with place(bare, "replay") as client:
        for _ in range(2):
            with pytest.raises(ValidationError, match="even") as raised:
                await parse(client, OddSum)
        assert "replayed" in "".join(raised.value.__notes__)
    assert len(api.requests) == 1
    async with place(bare) as client:
        assert outcome_of(await parse(client, OddSum)) == "miss"
    async with place(bare) as client:
        assert outcome_of(await parse(client, OddSum)) == "hit"


@pytest.mark.parametrize("parse", PARSING[:5])
@pytest.mark.parametrize("place", ["disk"], indirect=True)
async def test_a_hit_that_parse_fails_on_is_marked_in_the_store(api, bare, place, parse):
    """Whichever way it was parsed."""
    await fails_as_a_hit_and_is_marked(api, bare, place, parse)


async def test_a_hit_is_marked_in_every_store(api, bare, place):
    """Wherever it is stored."""
    await fails_as_a_hit_and_is_marked(api, bare, place, parsed)


async def test_what_another_could_parse_stays(api, cached):
    """One caller's failure isn't another's."""
    api.program = says('{"total": 4}')
    await parsed(cached, Sum)
    with pytest.raises(ValidationError, match="even"):
        await parsed(cached, OddSum)
    assert outcome_of(await parsed(cached, Sum)) == "hit"
    assert len(api.requests) == 1


async def test_those_who_joined_get_what_the_flight_delivers(api, cached):
    """Ten callers, of whom five can't use the answer, are one call; and it stays."""
    api.program = says('{"total": 4}')
    kinds = [OddSum, Sum] * 5
    found = await asyncio.gather(*(parsed(cached, kind) for kind in kinds), return_exceptions=True)
    assert [isinstance(one, ValidationError) for one in found] == [True, False] * 5
    await parsed(cached, Sum)
    assert len(api.requests) == 1


async def test_a_newer_answer_is_not_marked(api, cached):
    """A caller that takes its time fails on an answer that was replaced meanwhile."""
    api.program = says('{"total": 4}', '{"total": 6}')
    late = await cached.chat.completions.with_raw_response.parse(**CHAT, response_format=OddSum)
    with asynccache.options(mode="refresh"):
        await cached.chat.completions.with_raw_response.parse(**CHAT, response_format=OddSum)
    with pytest.raises(ValidationError, match="even"):
        late.parse()
    found = await parsed(cached)
    assert found.choices[0].message.parsed == Sum(total=6)
    assert outcome_of(found) == "hit"


async def test_what_was_deleted_is_not_brought_back_by_its_mark(api, cached, api_cache):
    """The error is passed to `forget`, while the mark is on its way."""
    api.program = says('{"total": 4}')
    with pytest.raises(ValidationError) as raised:
        await parsed(cached, OddSum)
    assert await api_cache.forget(raised.value)
    with asynccache.options(mode="replay"), pytest.raises(ReplayMiss):
        await parsed(cached, OddSum)


async def test_newcomers_wait_for_the_judgement(api, cached, monkeypatch):
    """Who asks while an answer is judged gets it if it is usable, and asks anew if it isn't."""
    judging, gate = Gate(), Gate()
    quick = Judge.work

    def work(self, chunks, *, streamed):
        judged = quick(self, chunks, streamed=streamed)

        def slow(tick):
            judging.open()
            assert gate._event.wait(30)
            assert judged is not None
            return judged(tick)

        return slow

    monkeypatch.setattr(Judge, "work", work)
    api.program = says(BAD, GOOD)
    assert (await create(cached, "json_object")).outcome == "miss"
    waiting = [asyncio.ensure_future(create(cached, "json_object")) for _ in range(5)]
    streams = asyncio.ensure_future(create(cached, "json_object", streamed=True))
    await judging.wait()
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    gate.open()
    outcomes = sorted([(await one).outcome for one in waiting])
    assert outcomes == ["joined"] * 4 + ["miss"]
    await streams
    assert (await create(cached, "json_object")).outcome == "hit"


async def test_a_schema_that_cannot_be_read_is_counted_once(api, cached, api_cache):
    """What can't be decided counts as usable. Nothing is fetched."""
    api.program = says(GOOD)
    for name in ("a", "b"):
        shape = {"name": name, "schema": {"$ref": "https://example.com/s.json"}, "strict": True}
        request = {**CHAT, "response_format": {"type": "json_schema", "json_schema": shape}}
        for outcome in ("miss", "hit"):
            found = await cached.chat.completions.create(**request)
            assert outcome_of(found) == outcome
    assert api_cache.stats().unread_schemas == 1


async def test_judging_that_never_ends_holds_nobody_up(api, cached, monkeypatch):
    """The answer counts as usable, then."""
    monkeypatch.setattr("asynccache.core.usability._WITHIN", 0.05)
    gate = Gate()

    def work(self, chunks, *, streamed):
        return lambda tick: gate._event.wait(30) and (False, ())

    monkeypatch.setattr(Judge, "work", work)
    api.program = says(GOOD)
    outcomes = [(await create(cached, "json_object")).outcome for _ in range(2)]
    gate.open()
    assert outcomes == ["miss", "hit"]


def test_judged_also_where_the_loop_ends_at_once(api_thread, tmp_path):
    """A program that stops at the error leaves the answer marked behind."""
    api_thread.program = says(BAD, GOOD)

    async def run():
        cache = await Cache.disk(cache_path_root=tmp_path).open()
        async with AsyncOpenAI(api_key="sk-a", base_url=api_thread.base_url) as client:
            status = await create(cache.wrap(client), "json_object")
        asyncio.get_running_loop().create_task(cache.aclose())
        return status.outcome

    assert [asyncio.run(run()) for _ in range(2)] == ["miss", "miss"]
