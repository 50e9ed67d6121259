"""Embeddings, input by input: each is paid once, and answers look as the bare client's do."""

from __future__ import annotations

import asyncio
import itertools
import json

import openai
import pytest
from hypothesis import given, settings, strategies as st
from openai import AsyncOpenAI
from openai.types import CreateEmbeddingResponse
from pydantic import BaseModel

import asynccache
from asynccache import Cache, CacheClosedError, ReplayMiss
from asynccache.stores.memory import MemoryStore
from asynccache.testing import FaultyStore
from tests.helpers.inside import engine_of, flights_of
from tests.helpers.openai_embeddings import (
    MODEL,
    embed,
    embeddings,
    give,
    how,
    inputs_of,
    item,
    seen_in,
    sent,
    vector,
    vectors,
)
from tests.helpers.openai_server import Gate, running, state, stored
from tests.helpers.turns import IN_A_TURN, largest_step, sampled, spend_turns

pytest_plugins = ("tests.helpers.openai_fixtures",)

ERROR = {"error": {"message": "no"}}


@pytest.fixture(autouse=True)
def embedding_api(api):
    """The server answers embeddings requests."""
    api.program = embed


@pytest.fixture
async def slow_cache():
    """An open cache whose lookups have to be awaited, so that flights have all their phases."""
    store = FaultyStore(MemoryStore(), hide_inline=True)
    async with Cache.from_store(store) as cache:
        yield cache, store


async def begun(*awaitables):
    """Start calls, so that each has its flights when this returns."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def settled(tasks):
    """Return results and errors of tasks."""
    return await asyncio.gather(*tasks, return_exceptions=True)


def gated(gate, answer=embed):
    """Return a program that waits, then answers."""

    async def program(seen):
        await gate.wait()
        await answer(seen)

    return program


# -- what goes upstream ------------------------------------------------------------------------


async def test_only_inputs_that_arent_there_go_upstream(cached, api, api_cache):
    """Known inputs are served, all others are sent in one call, and answers stand in order."""
    await give(cached, ["a", "b"])
    await stored(api_cache, 2)
    found = await give(cached, ["c", "a", "d", "b"])
    assert vectors(found) == [vector(one) for one in "cadb"]
    assert [one.index for one in found.data] == [0, 1, 2, 3]
    assert sent(api) == [["a", "b"], ["c", "d"]]
    assert how(found) == "miss"


async def test_only_inputs_that_arent_in_flight_go_upstream(cached, api):
    """Who asks for an input that is under way waits for it, and sends the rest at once."""
    gate = Gate()
    api.program = gated(gate)
    calls = await begun(give(cached, ["a", "b"]), give(cached, ["b", "c"]), give(cached, ["c"]))
    await api.arrived(2)
    gate.open()
    first, second, third = await asyncio.gather(*calls)
    assert [vectors(found) for found in (first, second, third)] == [
        [vector("a"), vector("b")],
        [vector("b"), vector("c")],
        [vector("c")],
    ]
    assert sorted(sent(api)) == [["a", "b"], ["c"]]
    assert [how(found) for found in (first, second, third)] == ["miss", "miss", "joined"]


async def test_repeated_inputs(cached, bare, api, api_cache):
    """A call that repeats an input is sent as it is; only what others lack is sent once."""
    expected = seen_in(await give(bare, ["a", "b", "a"]))
    assert seen_in(await give(cached, ["a", "b", "a"])) == expected
    await stored(api_cache, 2)
    assert seen_in(await give(cached, ["a", "b", "a"])) == expected
    found = await give(cached, ["c", "a", "c"])
    assert vectors(found) == [vector("c"), vector("a"), vector("c")]
    assert sent(api) == [["a", "b", "a"], ["a", "b", "a"], ["c"]]


KINDS = {
    "a text": "hello",
    "texts": ["hello", "world", ""],
    "tokens": [1, 2, 3],
    "lists of tokens": [[1, 2, 3], [4], [1, 2]],
    "odd text": ['"', "\\", "\u2028é𝄞", "/", "\x00\x7f"],
}


@pytest.mark.parametrize("dimensions", [None, 2])
@pytest.mark.parametrize("encoding", [None, "float", "base64"])
@pytest.mark.parametrize("kind", KINDS)
async def test_every_form_of_input(  # noqa: PLR0917 - fixtures
    kind, encoding, dimensions, cached, bare, api, api_cache
):
    """Miss, hit and what is joined equal the bare client's answer in all that can be seen."""
    options: dict = {} if encoding is None else {"encoding_format": encoding}
    if dimensions is not None:
        options["dimensions"] = dimensions
    expected = await give(bare, KINDS[kind], **options)
    miss, joined = await asyncio.gather(*(give(cached, KINDS[kind], **options) for _ in range(2)))
    await stored(api_cache)
    hit = await give(cached, KINDS[kind], **options)
    assert [how(found) for found in (miss, joined, hit)] == ["miss", "joined", "hit"]
    for found in (miss, joined, hit):
        assert seen_in(found) == seen_in(expected)
        assert found == expected
    bare_request, our_request = api.requests
    assert our_request.raw == bare_request.raw


@pytest.mark.parametrize("make", [tuple, iter, list], ids=["tuple", "iterator", "list"])
@pytest.mark.parametrize("encoding", [None, "float"])
@pytest.mark.parametrize("inputs", [["a", "b"], [[1, 2], [3]], [7, 8]], ids=str)
async def test_inputs_that_are_no_list(make, encoding, inputs, cached, api):
    """Tuples and generators are what they give: split, sent whole, and found again as a list."""
    options: dict = {} if encoding is None else {"encoding_format": encoding}
    found = await give(cached, make(inputs), **options)
    again = await give(cached, inputs, **options)
    expected = [vector(one) for one in inputs_of({"input": inputs})]
    assert vectors(found) == vectors(again) == expected
    assert how(again) == "hit"
    assert sent(api) == [inputs_of({"input": inputs})]


async def test_a_generator_of_inputs_some_of_which_are_known(cached, api, api_cache):
    """What a generator gave is read once: known inputs are left out, the others sent."""
    await give(cached, "b")
    await stored(api_cache)
    found = await give(cached, (one for one in "abc"))
    assert vectors(found) == [vector(one) for one in "abc"]
    assert sent(api)[1:] == [["a", "c"]]


async def test_what_makes_another_embedding_is_in_the_key(cached, api):
    """Model, dimensions, encoding, user, headers and query make other embeddings of one input."""
    changes: list[dict] = [
        {},
        {"model": "other"},
        {"dimensions": 2},
        {"encoding_format": "float"},
        {"user": "u"},
        {"extra_headers": {"x-mine": "1"}},
        {"extra_query": {"version": "1"}},
        {"extra_body": {"truncate": True}},
    ]
    for change in changes:
        await give(cached, ["a"], **change)
    assert len(api.requests) == len(changes)
    for change in changes:
        assert how(await give(cached, ["b", "a"][1:], **change)) == "hit"


async def test_one_text_is_a_list_of_one(cached, api):
    """A text, a list of it, and the input of an extra body share an entry; so do token lists."""
    await give(cached, "a")
    assert how(await give(cached, ["a"])) == "hit"
    assert how(await give(cached, "ignored", extra_body={"input": ["a"]})) == "hit"
    await give(cached, [[1, 2]])
    assert how(await give(cached, [1, 2])) == "hit"
    assert len(api.requests) == 2


async def test_no_input_is_no_empty_input(cached, bare, api):
    """No input at all and a single empty one are two requests, whatever a server makes of them."""

    async def program(seen):
        given = seen.body["input"]
        data = [item(one, at, seen.body) for at, one in enumerate(given)]
        await seen.answer(embeddings({**seen.body, "input": "x"}, data=data))

    api.program = program
    assert vectors(await give(cached, [[]])) == [vector([])]
    for client in (bare, cached):
        with pytest.raises(ValueError, match="No embedding data received"):
            await give(client, [])


async def test_an_input_in_the_extra_body_is_sent_there(cached, api, api_cache):
    """What isn't there of an extra body's inputs goes upstream in their place."""
    await give(cached, "a", extra_body={"input": ["a", "b"]})
    await stored(api_cache, 2)
    found = await give(cached, "a", extra_body={"input": ["b", "c"]})
    assert vectors(found) == [vector("b"), vector("c")]
    assert sent(api) == [["a", "b"], ["c"]]


class Extra(BaseModel):
    """Something that isn't plain data."""

    truncate: bool = True


async def test_objects_in_the_extra_body(cached, bare, api):
    """What has to be turned into JSON first is, with the encoding left to the SDK too."""
    extra = {"options": Extra()}
    expected = seen_in(await give(bare, ["a"], extra_body=extra))
    assert seen_in(await give(cached, ["a"], extra_body=extra)) == expected
    assert api.requests[0].body == api.requests[1].body


# -- equality ----------------------------------------------------------------------------------


async def test_a_mixed_answer_equals_the_bare_clients(cached, bare, api, api_cache):
    """Of inputs partly stored, partly in flight, partly new, all but usage equals the bare's."""
    await give(cached, ["a"])
    await stored(api_cache)
    gate = Gate()
    api.program = gated(gate)
    calls = await begun(give(cached, ["b"]), give(cached, ["a", "b", "c"]))
    await api.arrived(3)
    gate.open()
    _, mixed = await asyncio.gather(*calls)
    expected = await give(bare, ["a", "b", "c"])
    assert expected.usage.prompt_tokens == 3
    assert mixed.usage.prompt_tokens == 1
    expected.usage.prompt_tokens = expected.usage.total_tokens = 1
    assert seen_in(mixed) == seen_in(expected)


async def test_the_request_id_is_that_of_what_was_sent(cached, api, api_cache):
    """An answer for which something was sent names that request, else the recorded one."""
    numbers = itertools.count(1)

    async def program(seen):
        seen.send_id = f"req_{next(numbers)}"
        body = json.dumps(embeddings(seen.body)).encode()
        await seen._send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"x-request-id", seen.send_id.encode()),
                ],
            }
        )
        await seen.send(body, more=False)

    api.program = program
    assert (await give(cached, ["a"]))._request_id == "req_1"
    await stored(api_cache)
    mixed = await give(cached, ["a", "b"])
    assert mixed._request_id == "req_2"
    await stored(api_cache, 2)
    assert (await give(cached, ["b"]))._request_id == "req_2"
    assert (await give(cached, ["a"]))._request_id == "req_1"


@pytest.mark.parametrize("encoding", [None, "float"])
async def test_raw_responses(encoding, cached, bare, api, api_cache):
    """A raw response's JSON, status, kept headers and parsed object equal the bare client's."""
    options: dict = {} if encoding is None else {"encoding_format": encoding}
    expected = await bare.embeddings.with_raw_response.create(
        model=MODEL, input=["a", "b"], **options
    )
    for outcome in ("miss", "hit"):
        found = await cached.embeddings.with_raw_response.create(
            model=MODEL, input=["a", "b"], **options
        )
        assert state(found).outcome == outcome
        assert json.loads(found.content) == json.loads(expected.content)
        assert found.headers["x-request-id"] == expected.headers["x-request-id"]
        assert found.status_code == expected.status_code == 200
        assert seen_in(found.parse()) == seen_in(expected.parse())
        assert how(found.parse()) == outcome
        await stored(api_cache, 2)
    async with cached.embeddings.with_streaming_response.create(
        model=MODEL, input=["a", "b"], **options
    ) as response:
        assert seen_in(await response.parse()) == seen_in(expected.parse())
    assert len(api.requests) == 2


@pytest.mark.parametrize("cast_to", [CreateEmbeddingResponse, object, dict[str, object]], ids=str)
async def test_client_post(cast_to, cached, bare, api, api_cache):
    """The same request by the client's own `post` shares the entries, and looks as it would."""
    body = {"input": ["a", "b"], "model": MODEL, "encoding_format": "base64"}
    expected = await bare.post("/embeddings", body=body, cast_to=cast_to)
    miss = await cached.post("/embeddings", body=body, cast_to=cast_to)
    await stored(api_cache, 2)
    hit = await cached.post("/embeddings", body=body, cast_to=cast_to)
    assert miss == hit == expected
    assert type(miss) is type(hit) is type(expected)
    assert vectors(await give(cached, ["b", "a"])) == [vector("b"), vector("a")]
    assert len(api.requests) == 2


async def test_client_post_sends_what_is_missing(cached, api, api_cache):
    """The net beneath splits inputs too."""
    await give(cached, "a")
    await stored(api_cache)
    body = {"input": ["a", "b"], "model": MODEL, "encoding_format": "base64"}
    found = await cached.post("/embeddings", body=body, cast_to=CreateEmbeddingResponse)
    assert [one.index for one in found.data] == [0, 1]
    assert sent(api) == [["a"], ["b"]]


async def test_client_post_without_input(cached, bare, api):
    """A request that lacks what has to be in it is sent as it is, and gets the server's error."""

    async def program(seen):
        await seen.answer(ERROR, 400)

    api.program = program
    for client in (bare, cached):
        with pytest.raises(openai.BadRequestError):
            await client.post("/embeddings", body={"model": MODEL}, cast_to=object)
    assert api.requests[0].raw == api.requests[1].raw


async def test_results_are_fresh_objects(cached, api_cache):
    """Changing an answer changes nobody else's, nor what is stored."""
    calls = [give(cached, ["a", "a"]) for _ in range(3)]
    results = [*await asyncio.gather(*calls)]
    await stored(api_cache)
    results += [await give(cached, ["a", "a"])]
    for found in results:
        assert vectors(found) == [vector("a")] * 2
        for one in found.data:
            one.embedding.clear()
        found.usage.prompt_tokens = -1
    assert vectors(await give(cached, "a")) == [vector("a")]


# -- usage -------------------------------------------------------------------------------------


async def test_usage_is_that_of_what_was_sent(cached, api, api_cache):
    """The same inputs again: the recorded usage. Others: that of the inputs sent for this call."""
    assert (await give(cached, ["aaa", "bb"])).usage.prompt_tokens == 5
    await stored(api_cache, 2)
    assert (await give(cached, ["aaa", "bb"])).usage.prompt_tokens == 5
    assert (await give(cached, ["bb", "cccc"])).usage.prompt_tokens == 4
    assert (await give(cached, ["bb"])).usage.model_dump() == {
        "prompt_tokens": 0,
        "total_tokens": 0,
    }
    assert (await give(cached, ["bb", "aaa"])).usage.prompt_tokens == 0  # another order
    assert (await give(cached, ["aaa", "bb"])).usage.prompt_tokens == 5


async def test_stats_count_one_call_per_call(cached, api, api_cache):
    """Calls are counted as calls, and tokens in proportion to the inputs."""
    await give(cached, ["aaaa", "aa"])
    await stored(api_cache, 2)
    await give(cached, ["aaaa", "aa"])
    await give(cached, ["aaaa", "b"])
    await stored(api_cache, 3)
    stats = api_cache.stats()
    assert (stats.misses, stats.hits, stats.joined, stats.bypassed) == (2, 1, 0, 0)
    assert (stats.upstream_calls, stats.upstream_errors, stats.stored) == (2, 0, 3)
    assert stats.tokens_paid == 6 + 1
    assert 6 + 3 <= stats.tokens_saved <= 6 + 5  # "aaaa" is the larger part of six
    assert stats.seconds_paid > 0


async def test_events_tell_one_call_per_call(cached, api_cache):
    """Each call is one event, whatever it was put together from."""
    with asynccache.record() as calls:
        await give(cached, ["a", "b"])
        await stored(api_cache, 2)
        await give(cached, ["b", "a"])
        await give(cached, ["b", "c"])
    assert [call.outcome for call in calls] == ["miss", "hit", "miss"]
    assert {call.endpoint for call in calls} == {"/embeddings"}
    assert {call.model for call in calls} == {MODEL}


# -- errors ------------------------------------------------------------------------------------


def refusing(bad, status=400):
    """Return an answer that refuses requests which hold an input, or come with a key."""

    async def answer(seen):
        if bad in inputs_of(seen.body) or seen.key == bad:
            await seen.answer(ERROR, status)
        else:
            await embed(seen)

    return answer


async def test_a_bad_input_is_its_callers_own(cached, api):
    """Who shares a good input with a refused call gets it, by one new call between them."""
    gate = Gate()
    api.program = gated(gate, refusing("bad"))
    calls = await begun(
        give(cached, ["bad", "shared"]), *(give(cached, ["shared", str(n)]) for n in range(3))
    )
    await api.arrived(4)
    gate.open()
    refused, *rest = await settled(calls)
    assert isinstance(refused, openai.BadRequestError)
    assert [vectors(found) for found in rest] == [
        [vector("shared"), vector(str(n))] for n in range(3)
    ]
    assert sorted(sent(api)) == [["0"], ["1"], ["2"], ["bad", "shared"], ["shared"]]


async def test_a_refusal_is_shared_by_those_who_ask_just_the_same(cached, api):
    """A hundred callers with the same bad inputs are told by one call, each by its own error."""
    gate = Gate()
    api.program = gated(gate, refusing("bad"))
    calls = await begun(*(give(cached, ["bad", "shared"]) for _ in range(100)))
    await api.arrived(1)
    gate.open()
    errors = await settled(calls)
    assert {type(error) for error in errors} == {openai.BadRequestError}
    assert len({id(error) for error in errors}) == 100
    assert len(api.requests) == 1


@pytest.mark.parametrize("status", [401, 429])
async def test_errors_of_an_account_are_its_own(status, cached, api):
    """Callers of the same credentials share it; those of others get the answer by one call."""
    gate = Gate()
    api.program = gated(gate, refusing("sk-a", status))
    other = cached.with_options(api_key="sk-b")
    calls = await begun(
        give(cached, ["a", "b"]), give(cached, ["b"]), give(other, ["b"]), give(other, ["a", "b"])
    )
    await api.arrived(1)
    gate.open()
    results = await settled(calls)
    assert [getattr(error, "status_code", None) for error in results] == [
        status,
        status,
        None,
        None,
    ]
    assert api.requests[0].key == "sk-a"
    paid = [one for seen in api.requests[1:] for one in inputs_of(seen.body)]
    assert sorted(paid) == ["a", "b"]


async def test_an_error_of_the_server_is_shared_with_all(cached, api):
    """A 500 is true for everybody who waited for one of the inputs."""
    gate = Gate()
    api.program = gated(gate, refusing("bad", 500))
    calls = await begun(give(cached, ["bad", "shared"]), give(cached, ["shared"]))
    await api.arrived(1)
    gate.open()
    errors = await settled(calls)
    assert {type(error) for error in errors} == {openai.InternalServerError}
    assert len({id(error) for error in errors}) == 2
    assert len(api.requests) == 1


# -- fates -------------------------------------------------------------------------------------

PHASES = {"lookup": "get_many", "claim": "claim", "call": None, "store": "set_many"}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("leave", ["cancel", "timeout"])
async def test_a_caller_who_leaves_disturbs_nobody(phase, leave, bare, api, slow_cache):
    """In each phase, whoever shares an input with one who has left gets it, paid once."""
    cache, store = slow_cache
    client = cache.wrap(bare)
    gate = Gate()
    held = None
    if phase == "call":
        api.program = gated(gate)
    else:
        gate.open()
        held = store.stall(PHASES[phase], times=1)
    # Where the call itself is to be under way or over, a slow machine needs time to get there.
    timeout = {"call": 1.0, "store": 30.0}.get(phase, 0.1) if leave == "timeout" else 30.0
    leaving = asyncio.ensure_future(give(client, ["a", "b"], timeout=timeout))
    if held is None:
        await api.arrived(1)
    else:
        await held.arrived()
    staying = await begun(give(client, ["b", "c"]), give(client, ["b"]))
    if leave == "cancel":
        leaving.cancel()
        await asyncio.sleep(0)
    elif phase != "store":  # there it has its answer already
        await asyncio.wait([leaving])
    gate.open()
    if held is not None:
        held.release()
    first, second = await asyncio.gather(*staying)
    assert vectors(first) == [vector("b"), vector("c")]
    assert vectors(second) == [vector("b")]
    (left,) = await settled([leaving])
    if phase != "store":
        expected = asyncio.CancelledError if leave == "cancel" else openai.APITimeoutError
        assert isinstance(left, expected)
    paid = [one for inputs in sent(api) for one in inputs]
    if (leave, phase) == ("timeout", "call"):  # the call itself ended, as the SDK's does
        assert sorted(set(paid)) == ["a", "b", "c"]
    else:
        assert paid.count("b") == paid.count("c") == 1
    assert vectors(await give(client, ["b", "c"])) == [vector("b"), vector("c")]


async def test_when_all_have_left_the_call_is_ended(cached, api, api_cache):
    """The connection is closed when nobody waits for any of a call's inputs, not before."""

    async def program(seen):
        await seen.hang()

    api.program = program
    both, one = await begun(give(cached, ["a", "b"]), give(cached, ["b"]))
    seen = await api.arrived(1)
    both.cancel()
    await settled([both])
    assert not seen.disconnected._event.is_set()
    one.cancel()
    await seen.disconnected.wait()
    await settled([one])
    assert api_cache.stats().abandoned == 2
    api.program = embed
    assert vectors(await give(cached, ["a", "b"])) == [vector("a"), vector("b")]


async def test_closing_the_cache_ends_waiting_calls(bare, api):
    """Who waits for embeddings when the cache closes is told so, and the call ends."""

    async def program(seen):
        await seen.hang()

    api.program = program
    async with Cache.memory() as cache:
        calls = await begun(give(cache.wrap(bare), ["a", "b"]), give(cache.wrap(bare), ["b"]))
        seen = await api.arrived(1)
    errors = await settled(calls)
    assert {type(error) for error in errors} == {CacheClosedError}
    await seen.disconnected.wait()


async def test_inputs_changed_after_the_call_began_are_not_sent(bare, api, slow_cache):
    """What is stored under an input's key is the answer to just that input."""
    cache, store = slow_cache
    client = cache.wrap(bare)
    held = store.stall("get_many", times=1)
    inputs = ["a", "b"]
    (call,) = await begun(give(client, inputs))
    await held.arrived()
    inputs[:] = ["x", "y"]
    held.release()
    assert vectors(await call) == [vector("a"), vector("b")]
    assert sent(api) == [["a", "b"]]


# -- answers that can't be split ---------------------------------------------------------------


def odd(make):
    """Return a program whose answer is made from the right one."""

    async def program(seen):
        await seen.answer(make(embeddings(seen.body)))

    return program


def doubled(answer):
    """Give the first two items one index."""
    answer["data"][1]["index"] = answer["data"][0]["index"]
    return answer


def without_index(answer):
    """Leave the first item's index out."""
    del answer["data"][0]["index"]
    return answer


ODD = {
    "too few": lambda answer: {**answer, "data": answer["data"][:1]},
    "too many": lambda answer: {**answer, "data": answer["data"] * 2},
    "doubled index": doubled,
    "no index": without_index,
    "no data": lambda answer: {"object": "list", "model": MODEL},
    "error beside": lambda answer: {**answer, "error": {"message": "m"}},
    "an error": lambda answer: {"error": {"message": "m"}},
}


@pytest.mark.parametrize("name", ODD)
async def test_answers_that_cant_be_split(name, cached, bare, api, api_cache):
    """They are delivered as the bare client would, by one call, and not stored."""
    api.program = odd(ODD[name])
    options: dict = {"encoding_format": "float"}
    expected = await give(bare, ["a", "b"], **options)
    found = await give(cached, ["a", "b"], **options)
    assert found == expected
    assert found.model_dump() == expected.model_dump()
    assert found._request_id == expected._request_id
    assert len(api.requests) == 2
    assert await give(cached, ["a", "b"], **options) == expected
    assert len(api.requests) == 3
    stats = api_cache.stats()
    assert stats.stored == 0
    assert sum(stats.not_stored.values())
    assert (stats.misses, stats.upstream_calls, stats.upstream_errors) == (2, 2, 0)


async def test_an_answer_without_data_fails_as_the_bare_clients(cached, bare, api):
    """With the encoding left to the SDK, what it raises for no data is raised."""
    api.program = odd(lambda answer: {**answer, "data": []})
    for client in (bare, cached, cached):
        with pytest.raises(ValueError, match="No embedding data received"):
            await give(client, ["a", "b"])
    assert len(api.requests) == 3


async def test_text_is_delivered(cached, bare, api):
    """A proxy's text with status 200 is what the bare client makes of it, and not stored."""

    async def program(seen):
        await seen.answer(b"hello", content_type="text/plain")

    api.program = program
    options: dict = {"encoding_format": "float"}
    assert await give(bare, ["a"], **options) == await give(cached, ["a"], **options) == "hello"
    assert await give(cached, ["a"], **options) == "hello"
    assert len(api.requests) == 3


async def test_an_answer_that_cant_be_split_is_shared_by_the_same_request(cached, api):
    """Callers who ask just the same get it by one call; who shares an input asks anew."""
    gate = Gate()

    async def program(seen):
        await gate.wait()
        inputs = inputs_of(seen.body)
        data = [item(one, 0, seen.body) for one in inputs]
        await seen.answer(embeddings(seen.body, data=data))

    api.program = program
    calls = await begun(*(give(cached, ["a", "b"]) for _ in range(20)), give(cached, ["b", "c"]))
    await api.arrived(1)
    gate.open()
    *same, other = await asyncio.gather(*calls)
    assert {str(vectors(found)) for found in same} == {str([vector("a"), vector("b")])}
    assert vectors(other) == [vector("b"), vector("c")]
    assert sent(api).count(["a", "b"]) == 1


async def test_items_out_of_order_are_put_in_order(cached, api, api_cache):
    """An item belongs to the input that its index names."""
    api.program = odd(lambda answer: {**answer, "data": answer["data"][::-1]})
    found = await give(cached, ["a", "b", "c"])
    assert vectors(found) == [vector(one) for one in "abc"]
    await stored(api_cache, 3)
    assert vectors(await give(cached, ["c", "a"])) == [vector("c"), vector("a")]


async def test_extra_members_are_kept(cached, bare, api, api_cache):
    """Members that nobody knows are in miss and hit as in the bare client's answer."""

    def extra(answer):
        for one in answer["data"]:
            one["note"] = f"note {one['index']}"
        return {**answer, "warnings": ["w"], "usage": {**answer["usage"], "more": {"x": 1}}}

    api.program = odd(extra)
    expected = seen_in(await give(bare, ["a", "b"]))
    assert seen_in(await give(cached, ["a", "b"])) == expected
    await stored(api_cache, 2)
    assert seen_in(await give(cached, ["a", "b"])) == expected
    other = await give(cached, ["b"])
    assert (other.data[0].index, other.data[0].model_extra) == (0, {"note": "note 1"})


ILL_TYPED = {
    "numbers as text": lambda one: {**one, "embedding": ["0.5", "1"]},
    "whole numbers": lambda one: {**one, "embedding": [1, 0, 2]},
    "no vector": lambda one: {**one, "embedding": None},
    "no object": lambda one: {"index": one["index"], "embedding": one["embedding"]},
}


@pytest.mark.parametrize("name", ILL_TYPED)
async def test_ill_typed_items(name, cached, bare, api, api_cache):
    """Items that aren't as declared are what the bare client makes of them, miss and hit."""
    api.program = odd(
        lambda answer: {**answer, "data": [ILL_TYPED[name](one) for one in answer["data"]]}
    )
    options: dict = {"encoding_format": "float"}
    expected = seen_in(await give(bare, ["a", "b"], **options))
    assert seen_in(await give(cached, ["a", "b"], **options)) == expected
    await stored(api_cache, 2)
    assert seen_in(await give(cached, ["a", "b"], **options)) == expected


# -- stores ------------------------------------------------------------------------------------


async def test_a_lease_held_elsewhere_holds_no_other_input_up(bare, api):
    """Inputs that another process is asking for are waited for; the rest are sent at once."""
    store = FaultyStore(MemoryStore(), hide_inline=True)
    gate = Gate()
    api.program = gated(gate)
    async with Cache.from_store(store) as here, Cache.from_store(store) as there:
        (first,) = await begun(give(there.wrap(bare), ["b"]))
        await api.arrived(1)
        (second,) = await begun(give(here.wrap(bare), ["a", "b", "c"]))
        await api.arrived(2)  # though the first one's lease is held
        assert sent(api) == [["b"], ["a", "c"]]
        gate.open()
        assert vectors(await second) == [vector(one) for one in "abc"]
        assert vectors(await first) == [vector("b")]
        assert how(await first) == "miss"
    assert len(api.requests) == 2


async def test_two_processes_that_wait_for_each_other(bare, api):
    """Each holds a lease that the other needs: both call for their own, and share."""
    store = FaultyStore(MemoryStore(), hide_inline=True)
    gate = Gate()
    api.program = gated(gate)
    async with Cache.from_store(store) as here, Cache.from_store(store) as there:
        (first,) = await begun(give(here.wrap(bare), ["a", "b"]))
        await api.arrived(1)
        (second,) = await begun(give(there.wrap(bare), ["b", "c", "a"]))
        await api.arrived(2)
        (third,) = await begun(give(here.wrap(bare), ["c", "d"]))
        await api.arrived(3)
        gate.open()
        results = await asyncio.gather(first, second, third)
    assert [vectors(found) for found in results] == [
        [vector(one) for one in inputs] for inputs in ("ab", "bca", "cd")
    ]
    assert sent(api) == [["a", "b"], ["c"], ["d"]]


async def test_a_holder_that_gives_up_is_followed(bare, api):
    """When the call elsewhere ends without an answer, the waiting input is sent after all."""
    store = FaultyStore(MemoryStore(), hide_inline=True)

    async def program(seen):
        if len(api.requests) == 1:
            await seen.hang()
        else:
            await embed(seen)

    api.program = program
    async with Cache.from_store(store) as here, Cache.from_store(store) as there:
        (first,) = await begun(give(there.wrap(bare), ["b"]))
        await api.arrived(1)
        (second,) = await begun(give(here.wrap(bare), ["a", "b"]))
        await api.arrived(2)
        first.cancel()
        found = await second
    assert vectors(found) == [vector("a"), vector("b")]
    assert found.usage.prompt_tokens == 2  # two calls were made for it
    assert sent(api) == [["b"], ["a"], ["b"]]


@pytest.mark.parametrize("method", ["get_many", "claim", "set_many", "release"])
async def test_a_failing_store_takes_no_call_down(method, bare, api, slow_cache):
    """Whatever the store can't do, callers get their embeddings."""
    cache, store = slow_cache
    client = cache.wrap(bare)
    store.fail(method)
    for _ in range(3):
        found = await asyncio.gather(give(client, ["a", "b"]), give(client, ["b", "c"]))
        assert [vectors(one) for one in found] == [
            [vector("a"), vector("b")],
            [vector("b"), vector("c")],
        ]
    store.heal()
    assert cache.stats().store_errors


@pytest.mark.parametrize("cut", [10, -1])
async def test_a_damaged_entry_is_a_miss_of_its_input(cut, bare, api, slow_cache):
    """Damage to one input's entry costs that input alone."""
    cache, store = slow_cache
    client = cache.wrap(bare)
    store.corrupt_writes(cut=cut, times=1)
    await give(client, ["a"])
    await stored(cache)
    await give(client, ["b"])
    await stored(cache, 2)
    found = await give(client, ["a", "b"])
    assert vectors(found) == [vector("a"), vector("b")]
    assert sent(api) == [["a"], ["b"], ["a"]]


async def test_what_was_deleted_meanwhile_is_not_stored(cached, api, api_cache):
    """A `clear` while the call is under way: delivered, and not stored."""
    gate = Gate()
    api.program = gated(gate)
    (call,) = await begun(give(cached, ["a", "b"]))
    await api.arrived(1)
    await api_cache.clear()
    gate.open()
    assert vectors(await call) == [vector("a"), vector("b")]
    await give(cached, ["a", "b"])
    assert len(api.requests) == 2
    assert api_cache.stats().not_stored == {"deleted": 2}


async def test_forget_removes_every_input(cached, api, api_cache):
    """A bad answer's inputs are all forgotten, those of others stay."""
    first = await give(cached, ["a", "b"])
    await give(cached, ["c"])
    await stored(api_cache, 3)
    assert await api_cache.forget(first)
    await give(cached, ["c"])
    await give(cached, ["a", "c", "b"])
    assert sent(api) == [["a", "b"], ["c"], ["a", "b"]]


async def test_forget_while_another_call_is_under_way(cached, api, api_cache):
    """What is under way for a forgotten input is delivered and not stored; the rest is."""
    first = await give(cached, ["a"])
    await stored(api_cache)
    gate = Gate()
    api.program = gated(gate)
    with asynccache.options(mode="refresh"):
        (call,) = await begun(give(cached, ["a", "b"]))
    await api.arrived(2)
    await api_cache.forget(first)
    gate.open()
    assert vectors(await call) == [vector("a"), vector("b")]
    await stored(api_cache, 2)
    await give(cached, ["b", "a"])
    assert sent(api) == [["a"], ["a", "b"], ["a"]]


# -- modes and samples -------------------------------------------------------------------------


async def test_mode_read_only(cached, api, api_cache):
    """Known inputs are served, others sent and not stored."""
    await give(cached, ["a"])
    await stored(api_cache)
    with asynccache.options(mode="read_only"):
        for _ in range(2):
            assert vectors(await give(cached, ["a", "b"])) == [vector("a"), vector("b")]
    assert sent(api) == [["a"], ["b"], ["b"]]
    assert api_cache.stats().stored == 1


async def test_mode_refresh(cached, api, api_cache):
    """Everything is sent again, and overwrites."""
    await give(cached, ["a", "b"])
    await stored(api_cache, 2)
    with asynccache.options(mode="refresh"):
        assert how(await give(cached, ["b", "c"])) == "miss"
    await stored(api_cache, 4)
    assert how(await give(cached, ["a", "b", "c"])) == "hit"
    assert sent(api) == [["a", "b"], ["b", "c"]]


async def test_mode_replay(cached, api, api_cache):
    """Known inputs are served; one that isn't raises, and nothing is sent."""
    await give(cached, ["a", "b"])
    await stored(api_cache, 2)
    with asynccache.options(mode="replay"):
        assert vectors(await give(cached, ["b", "a"])) == [vector("b"), vector("a")]
        with pytest.raises(ReplayMiss):
            await give(cached, ["a", "c"])
    assert len(api.requests) == 1
    assert api_cache.stats().replay_misses == 1


async def test_mode_off(cached, api):
    """As if there were no cache."""
    with asynccache.options(mode="off"):
        for _ in range(2):
            assert asynccache.status(await give(cached, ["a"])) is None
    assert len(api.requests) == 2


async def test_sample_each(cached, api, api_cache):
    """The k-th identical call of a block asks for its own embeddings, in every run the same."""
    for _ in range(2):
        with asynccache.options(sample="each"):
            found = await asyncio.gather(*(give(cached, ["a", "b"]) for _ in range(3)))
        assert len(found) == 3
        await stored(api_cache, 6)
    assert sent(api) == [["a", "b"]] * 3


async def test_ttl_and_a_key_of_its_own_for_each_namespace(cached, api):
    """Another `cache_seed` has other embeddings."""
    for seed in (1, 2, 1):
        with asynccache.options(cache_seed=seed):
            await give(cached, ["a"])
    assert len(api.requests) == 2


async def test_a_patch_that_changes_the_inputs_costs_the_entries(
    cached, api, api_cache, monkeypatch
):
    """What isn't sent as the keys say isn't stored under them."""
    kind = type(cached.embeddings)
    original = kind.create

    async def create(self, **kwargs):
        if isinstance(kwargs["input"], list):
            kwargs["input"] = [text.upper() for text in kwargs["input"]]
        return await original(self, **kwargs)

    monkeypatch.setattr(kind, "create", create)
    for _ in range(2):
        assert vectors(await give(cached, ["a", "b"])) == [vector("A"), vector("B")]
    assert len(api.requests) == 2
    assert api_cache.stats().not_stored == {"changed": 4}


# -- in general --------------------------------------------------------------------------------

WAVES = st.lists(
    st.lists(
        st.tuples(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4), st.booleans()),
        min_size=1,
        max_size=5,
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("awaited", [False, True], ids=["inline", "awaited"])
async def test_new_inputs_are_served_in_slices(awaited, bare, api, monkeypatch):
    """A call with two thousand new inputs is one call, begun and ended over many turns."""
    spend_turns(monkeypatch)
    inputs = [f"input {number}" for number in range(2048)]
    store = FaultyStore(MemoryStore(), hide_inline=awaited)
    async with Cache.from_store(store) as cache:
        engine = engine_of(cache)

        def ended():
            return sum(flight.ended for flight in engine._flying.values())

        async with sampled(lambda: len(engine._flying)) as begun, sampled(ended) as over:
            found = await give(cache.wrap(bare), inputs)
        assert vectors(found) == [vector(one) for one in inputs]
        assert max(begun) == len(inputs)  # all were begun before the call was made
        assert largest_step(begun) <= IN_A_TURN
        assert largest_step(over) <= 512  # the largest slice
    assert sent(api) == [inputs]


async def test_who_leaves_while_it_begins_leaves_nobody_waiting(
    cached, api, api_cache, monkeypatch
):
    """A caller cancelled before all its flights have begun lets those who joined some go on."""
    spend_turns(monkeypatch)
    inputs = [f"input {number}" for number in range(300)]
    first = asyncio.ensure_future(give(cached, inputs))
    await asyncio.sleep(0)
    while not flights_of(engine_of(api_cache)):
        await asyncio.sleep(0)
    second = asyncio.ensure_future(give(cached, inputs[:20]))
    await asyncio.sleep(0)
    first.cancel()
    async with asyncio.timeout(30):
        assert vectors(await second) == [vector(one) for one in inputs[:20]]
    assert {one for sent_inputs in sent(api) for one in sent_inputs} == set(inputs[:20])


@pytest.fixture(scope="module")
def busy_api():
    """A server for the property, which has a client in a loop of its own."""
    with running() as server:
        server.program = embed
        yield server


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "awaited"])
@settings(max_examples=40)
@given(waves=WAVES)
def test_each_input_is_paid_once(inline, waves, busy_api):
    """However calls overlap, each input is paid once, but for those that all have left."""
    busy_api.requests = []

    async def go():
        store = FaultyStore(MemoryStore(), hide_inline=not inline)
        allowed: dict[str, int] = dict.fromkeys("abcdef", 1)
        async with (
            AsyncOpenAI(api_key="k", base_url=busy_api.base_url, max_retries=0) as bare,
            Cache.from_store(store) as cache,
        ):
            client = cache.wrap(bare)
            patient_calls = 0
            for wave in waves:
                tasks = [asyncio.ensure_future(give(client, inputs)) for inputs, _ in wave]
                await asyncio.sleep(0)
                patient = {one for inputs, leaves in wave if not leaves for one in inputs}
                for (inputs, leaves), task in zip(wave, tasks, strict=True):
                    if leaves:
                        task.cancel()
                        for one in set(inputs) - patient:
                            allowed[one] += 1
                results = await asyncio.gather(*tasks, return_exceptions=True)
                for (inputs, leaves), found in zip(wave, results, strict=True):
                    if isinstance(found, asyncio.CancelledError):
                        assert leaves
                        continue
                    assert vectors(found) == [vector(one) for one in inputs]
                    patient_calls += 1
            assert cache.stats().calls == patient_calls
        paid = [one for seen in busy_api.requests for one in set(inputs_of(seen.body))]
        for one, most in allowed.items():
            assert paid.count(one) <= most

    asyncio.run(go())
