"""Embeddings at the HTTP client: an entry for each input, shared with the SDK's own methods."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any

import aiohttp
import anyio
import pytest
from openai import AsyncOpenAI, BadRequestError

from asynccache import Cache, ReplayMiss, options, record
from tests.helpers.http import httpx
from tests.helpers.openai_embeddings import MODEL, embed, embeddings, give, sent, vectors
from tests.helpers.openai_server import Gate, state, stored

pytest_plugins = ("tests.helpers.openai_fixtures",)
pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

TRUSTED = ssl.create_default_context()  # made once, as it takes long


@pytest.fixture(autouse=True)
def embedding(api):
    """Answer with embeddings."""
    api.program = embed


@pytest.fixture
async def http(api, api_cache):
    """A client of the HTTP library, cached."""
    headers = {"user-agent": "OpenAI/Python 3", "authorization": "Bearer sk-a"}
    async with httpx.AsyncClient(base_url=api.base_url, headers=headers, verify=TRUSTED) as client:
        yield api_cache.wrap(client)


def post(http, inputs, **changes):
    """Ask for embeddings as the SDK does, and as its users don't."""
    return http.post("embeddings", json={"model": MODEL, "input": inputs, **changes})


def numbers(response):
    """Return the vectors of a response, in order of their indexes."""
    data = response.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return [item["embedding"] for item in data]


def lower(body):
    """Take the case away from texts."""
    return {**body, "input": [one.lower() for one in body["input"]]}


async def test_only_what_isnt_known_goes_upstream(http, api, api_cache):
    """In one call, in order, each once; the answer has all, as the server would have had it."""
    await post(http, ["a", "b"])
    await stored(api_cache, 2)
    response = await post(http, ["c", "b", "d", "c", "a"])
    assert sent(api) == [["a", "b"], ["c", "d"]]
    whole = embeddings({"model": MODEL, "input": ["c", "b", "d", "c", "a"]})
    usage = {"prompt_tokens": 2, "total_tokens": 2}  # of what was really sent
    assert response.json() == {**whole, "usage": usage}
    assert list(response.json()) == list(whole)
    assert response.headers["content-length"] == str(len(response.content))
    status = state(response)
    assert status.outcome == "miss"
    assert len(status.parts) == 4
    await stored(api_cache, 4)
    again = await post(http, ["d", "a"])
    assert state(again).outcome == "hit"
    assert numbers(again) == numbers(response)[2::2]
    assert len(api.requests) == 2


async def test_the_very_same_request_has_the_very_same_answer(http, api, api_cache):
    """Its usage too, and what else the server said."""

    async def program(seen):
        await seen.answer(embeddings(seen.body, id="e-1", created=7))

    api.program = program
    first = await post(http, ["a", "b"])
    await stored(api_cache, 2)
    assert (await post(http, ["a", "b"])).json() == first.json()
    assert first.json()["id"] == "e-1"
    assert len(api.requests) == 1


@pytest.mark.parametrize("first", ["http", "method"])
async def test_the_sdks_method_shares_the_entries(first, http, cached, api, api_cache):
    """Input by input, in both directions."""

    async def ask(way, inputs):
        if way == "http":
            return numbers(await post(http, inputs, encoding_format="float"))
        return vectors(await give(cached, inputs, encoding_format="float"))

    second = "method" if first == "http" else "http"
    one = await ask(first, ["a", "b"])
    await stored(api_cache, 2)
    other = await ask(second, ["b", "c"])
    assert one[1] == other[0]
    assert sorted(sent(api)) == [["a", "b"], ["c"]]
    await stored(api_cache, 3)
    assert await ask(first, ["c", "a"]) == [other[1], one[0]]
    assert len(api.requests) == 2


async def asked(api, count):
    """Wait until so many requests came."""
    with anyio.fail_after(20):
        while len(api.requests) < count:
            await asyncio.sleep(0.001)


async def test_both_ways_share_what_is_under_way(http, cached, api, api_cache):
    """One of them waits for the input that the other one asked for."""
    gate = Gate()

    async def program(seen):
        if len(api.requests) == 1:
            await gate.wait()
        await embed(seen)

    api.program = program
    calls = [asyncio.ensure_future(give(cached, ["a", "b"]))]
    await asked(api, 1)
    calls.append(asyncio.ensure_future(post(http, ["b", "c"], encoding_format="base64")))
    await asked(api, 2)
    gate.open()
    first, second = await asyncio.gather(*calls)
    assert sorted(sent(api)) == [["a", "b"], ["c"]]
    assert len(first.data) == len(second.json()["data"]) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"encoding_format": "base64"}),
        ({}, {"dimensions": 2}),
        ({}, {"model": "other"}),
        ({}, {"user": "u"}),
    ],
)
async def test_what_makes_another_embedding_is_in_the_key(one, other, http, api):
    """As in the SDK's method."""
    for changes in (one, other):
        await post(http, ["a"], **changes)
    assert len(api.requests) == 2


async def test_all_forms_of_inputs(http, api, api_cache):
    """A text, tokens, lists of each; one text is a list of one."""
    await post(http, ["a", [1, 2], "é"])
    await stored(api_cache, 3)
    for given in ("a", [1, 2], [[1, 2]], "é"):
        assert state(await post(http, given)).outcome == "hit"
    assert len(api.requests) == 1


async def test_a_refusal_is_a_response(http, cached, api, api_cache):
    """What the server refuses isn't stored; who asks for less than that isn't told so."""

    async def program(seen):
        if "bad" in seen.body["input"]:
            await seen.answer({"error": {"message": "bad"}}, 400)
        else:
            await embed(seen)

    api.program = program
    found: Any = await asyncio.gather(
        post(http, ["a", "bad"], encoding_format="base64"),
        give(cached, ["a", "bad"]),
        return_exceptions=True,
    )
    refused, error = found
    assert (refused.status_code, refused.json()) == (400, {"error": {"message": "bad"}})
    assert isinstance(error, BadRequestError)
    assert len(api.requests) == 1
    assert (await post(http, ["a"])).status_code == 200
    assert api_cache.stats().stored <= 1


async def test_an_answer_that_cant_be_taken_apart_is_given_as_it_came(http, api, api_cache):
    """And isn't stored."""

    async def program(seen):
        await seen.answer({"object": "list", "data": "?", "model": MODEL})

    api.program = program
    for _ in range(2):
        assert (await post(http, ["a", "b"])).json()["data"] == "?"
    assert len(api.requests) == 2
    assert api_cache.stats().stored == 0


async def test_normalized_and_ignored_parts(api, http):
    """`normalize` sees each input alone; what is ignored is in no input's key."""
    async with Cache.memory(normalize=[lower], ignore=["user"]) as cache:
        client = cache.wrap(http)
        await post(client, ["A", "b"], user="u")
        await stored(cache, 2)
        assert state(await post(client, ["B", "a"], user="v")).outcome == "hit"
    assert len(api.requests) == 1


async def test_modes_samples_and_events(api, http, api_cache):
    """As for any request: one call is one event, whatever was known of it."""
    with record() as told:
        await post(http, ["a"])
        await stored(api_cache)
        with options(mode="replay"):
            await post(http, ["a"])
            with pytest.raises(ReplayMiss):
                await post(http, ["a", "b"])
        with options(sample=1):
            await post(http, ["a"])
        with options(mode="off"):
            await post(http, ["a"])
    assert [one.outcome for one in told] == ["miss", "hit", "error", "miss", "bypass"]
    assert {one.endpoint for one in told} == {"/embeddings"}
    assert len(api.requests) == 3
    assert api_cache.stats().replay_misses == 1


async def test_a_synchronous_client(api):
    """Shares the entries too."""
    with Cache.memory() as cache:
        headers = {"user-agent": "OpenAI/Python 3"}
        with httpx.Client(base_url=api.base_url, headers=headers, verify=TRUSTED) as bare:
            client = cache.wrap(bare)

            def ask(*inputs):
                body = {"model": MODEL, "input": inputs}
                return numbers(client.post("embeddings", content=json.dumps(body)))

            first = await asyncio.to_thread(ask, "a", "b")
            while cache.stats().stored < 2:
                await asyncio.sleep(0)
            second = await asyncio.to_thread(ask, "c", "a")
    assert first[0] == second[1]
    assert sorted(sent(api)) == [["a", "b"], ["c"]]


async def test_the_sdk_over_a_cached_client(api, api_cache, http):
    """The SDK makes of the answer what it makes of the server's."""
    sdk = AsyncOpenAI(api_key="sk-a", base_url=api.base_url, http_client=http, max_retries=0)
    first = await give(sdk, ["a", "b"])
    await stored(api_cache, 2)
    second = await give(sdk, ["b", "c", "a"])
    assert vectors(second)[::2] == vectors(first)[::-1]
    assert sorted(sent(api)) == [["a", "b"], ["c"]]


async def test_aiohttp_sends_parts_too(api, api_cache, http):
    """And shares the entries."""
    await post(http, ["a", "b"])
    await stored(api_cache, 2)
    headers = {"user-agent": "OpenAI/Python 3", "authorization": "Bearer sk-a"}
    async with aiohttp.ClientSession(headers=headers) as bare:
        body = {"model": MODEL, "input": ["b", "c", "a"]}
        async with api_cache.wrap(bare).post(f"{api.base_url}/embeddings", json=body) as response:
            assert (await response.json())["data"] == embeddings(body)["data"]
    assert sorted(sent(api)) == [["a", "b"], ["c"]]
