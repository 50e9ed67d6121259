"""A flight is one attempt: each caller retries by the SDK's rules, and each attempt asks anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from asynccache import Cache, instrument_openai, uninstrument_openai
from tests.helpers.openai_embeddings import embed, give
from tests.helpers.openai_server import COMPLETION, MESSAGES, Gate, ask, good, state, stored

pytest_plugins = ("tests.helpers.openai_fixtures",)

ERROR = {"error": {"message": "no"}}
SOON = ("retry-after-ms", "20")
PATIENT = 30.0
HASTY = 0.4


@pytest.fixture(autouse=True)
def _plain_sdk():
    yield
    uninstrument_openai()


async def chat(client):
    """Ask for a completion."""
    return await ask(client)


async def streamed(client):
    """Ask for a stream and read it."""
    return [event async for event in await ask(client, stream=True)]


async def posted(client):
    """Ask by the client's own method."""
    body = {"model": "gpt-4o", "messages": MESSAGES}
    return await client.post(
        "/chat/completions", cast_to=openai.types.chat.ChatCompletion, body=body
    )


async def parsed(client):
    """Ask by the method that parses."""
    return await client.chat.completions.parse(model="gpt-4o", messages=MESSAGES)


async def embedded(client):
    """Ask for embeddings."""
    return await give(client, ["a", "b"])


async def in_thread(client):
    """Ask by a synchronous client."""
    return await asyncio.to_thread(ask, client)


async def streamed_in_thread(client):
    """Ask for a stream by a synchronous client and read it."""
    return await asyncio.to_thread(lambda: list(ask(client, stream=True)))


async def embedded_in_thread(client):
    """Ask for embeddings by a synchronous client."""
    return await asyncio.to_thread(give, client, ["a", "b"])


CALLS = [chat, streamed, posted, parsed, embedded]
THREAD_CALLS = [in_thread, streamed_in_thread, embedded_in_thread]


class Way(NamedTuple):
    """A kind of client, what is called on it, and how it comes to a cache."""

    kind: Any
    call: Any
    instrumented: bool


WAYS = [
    pytest.param(Way(kind, call, instrumented), id=f"{call.__name__}-{name}")
    for instrumented, name in ((False, "wrapped"), (True, "instrumented"))
    for kind, calls in ((AsyncOpenAI, CALLS), (OpenAI, THREAD_CALLS))
    for call in calls
]


@pytest.fixture
async def bare_client(api):
    """Return what makes clients of the SDK, with its own number of retries."""
    clients = []

    def make(kind: Callable[..., Any], **changes: Any):
        clients.append(kind(**{"api_key": "sk-a", "base_url": api.base_url, **changes}))
        return clients[-1]

    yield make
    for client in clients:
        if isinstance(client, AsyncOpenAI):
            await client.close()
        else:
            client.close()


@pytest.fixture
def made(bare_client, api_cache):
    """Return what makes cached clients, wrapped or by instrumenting the SDK."""

    def make(kind: Callable[..., Any], *, instrumented: bool = False, **changes: Any):
        client = bare_client(kind, **changes)
        if instrumented:
            instrument_openai(api_cache)
            return client
        return api_cache.wrap(client)

    return make


async def answer(seen):
    """Answer whatever was asked."""
    await (embed if seen.path.endswith("/embeddings") else good)(seen)


@pytest.fixture
def back_off(monkeypatch):
    """A gate in the place of the time that the SDK waits before a retry."""
    gate = Gate()

    async def sleep(client, **_):
        await gate.wait()

    def sleep_in_thread(client, **_):
        assert gate._event.wait(30)

    monkeypatch.setattr(AsyncOpenAI, "_sleep_for_retry", sleep)
    monkeypatch.setattr(OpenAI, "_sleep_for_retry", sleep_in_thread)
    return gate


def refusing(*refusals, gate=None, bad_keys=("sk-a",)):
    """Return a program that gives these statuses and headers in turn to some keys, then answers."""
    left = list(refusals)

    async def program(seen):
        if gate is not None and left:
            await gate.wait()
        if left and seen.key in bad_keys:
            status, *headers = left.pop(0)
            await seen.answer(ERROR, status, headers=headers)
        else:
            await answer(seen)

    return program


async def test_a_leader_told_to_wait_keeps_nobody_waiting(made, api):
    """A follower with a good key has its answer while the leader waits as the server says."""
    gate = Gate()
    api.program = refusing((429, ("retry-after", "3")), gate=gate)
    leader = asyncio.ensure_future(ask(made(AsyncOpenAI)))
    await api.arrived(1)
    follower = asyncio.ensure_future(ask(made(AsyncOpenAI, api_key="sk-b")))
    await asyncio.sleep(
        0.1
    )  # so that it has joined; else it begins a call of its own, all the same
    gate.open()
    done, _ = await asyncio.wait([leader, follower], return_when=asyncio.FIRST_COMPLETED)
    assert done == {follower}
    assert state(await leader).outcome == "hit"
    assert [seen.key for seen in api.requests] == ["sk-a", "sk-b"]


@pytest.mark.parametrize("way", WAYS)
async def test_nobody_waits_for_anothers_back_off(way, made, api, back_off):
    """It is so by every way in, and the leader finds the answer when it comes back."""
    gate = Gate()
    api.program = refusing((429,), gate=gate)
    leader = asyncio.ensure_future(way.call(made(way.kind, instrumented=way.instrumented)))
    await api.arrived(1)
    follower = asyncio.ensure_future(
        way.call(made(way.kind, instrumented=way.instrumented, api_key="sk-b"))
    )
    await asyncio.sleep(0.1)  # as above
    gate.open()
    assert await follower
    assert not leader.done()
    back_off.open()
    assert await leader
    assert [seen.key for seen in api.requests] == ["sk-a", "sk-b"]


@pytest.mark.parametrize("way", WAYS)
async def test_nobody_waits_for_retries_of_anothers_timeout(way, made, api, back_off):
    """A leader in a hurry costs a patient follower one attempt, not all its retries."""

    async def program(seen):
        if len(api.requests) == 1:
            await seen.hang()
        await answer(seen)

    api.program = program
    hurry = openai.Timeout(PATIENT, read=HASTY)  # it connects however long that takes
    hasty = made(way.kind, instrumented=way.instrumented, timeout=hurry)
    leader = asyncio.ensure_future(way.call(hasty))
    await api.arrived(1)
    patient = made(way.kind, instrumented=way.instrumented, api_key="sk-b", timeout=PATIENT)
    assert await way.call(patient)
    assert not leader.done()
    back_off.open()
    assert await leader
    assert [seen.key for seen in api.requests] == ["sk-a", "sk-b"]


REFUSALS: list[Any] = [
    [(400,)],
    [(408, SOON)],
    [(409, SOON)],
    [(429, SOON), (500, SOON)],
    [(500, SOON), (503, SOON), (502, SOON)],
    [(500, ("x-should-retry", "false"))],
    [(400, ("x-should-retry", "true"), SOON)],
    [(429, ("retry-after", "999"), ("x-should-retry", "false"))],
    [(429, ("retry-after", "0.01"))],
    [(401, SOON), (401, SOON)],
]


@pytest.mark.parametrize("most", [0, 1, 2])
@pytest.mark.parametrize(
    ("kind", "call"), [(AsyncOpenAI, chat), (AsyncOpenAI, embedded), (OpenAI, in_thread)]
)
async def test_retries_are_the_sdks_own(kind, call, most, bare_client, api):
    """A cached client sends as often, and ends as a bare one does."""

    async def endings(client):
        for refusals in REFUSALS:
            api.requests, api.program = [], refusing(*refusals)
            try:
                await call(client)
            except openai.APIStatusError as exc:
                end = exc.status_code
            else:
                end = 200
            yield end, [seen.headers.get("x-stainless-retry-count") for seen in api.requests]

    client = bare_client(kind, max_retries=most)
    bare = [ending async for ending in endings(client)]
    async with Cache.memory(mode="refresh") as cache:
        assert [ending async for ending in endings(cache.wrap(client))] == bare


@pytest.mark.parametrize("changes", [{"max_retries": 3}, {"options": True}], ids=str)
async def test_a_calls_own_number_of_retries_counts(changes, made, api):
    """So does that of a client's copy, and that in a request's options."""
    api.program = refusing(*[(500, SOON)] * 3)
    client = made(AsyncOpenAI, max_retries=0)
    if "options" in changes:
        body = {"model": "gpt-4o", "messages": MESSAGES}
        found = await client.post(
            "/chat/completions",
            cast_to=openai.types.chat.ChatCompletion,
            body=body,
            options={"max_retries": 3},
        )
    else:
        found = await ask(client.with_options(**changes))
    assert found.choices
    assert len(api.requests) == 4


async def test_a_failed_connection_is_retried(made, api):
    """As the SDK does, where a server goes away before it answers."""

    async def program(seen):
        if len(api.requests) < 3:
            raise ConnectionError
        await answer(seen)

    api.program = program
    found = await ask(made(AsyncOpenAI, max_retries=2))
    assert state(found).outcome == "miss"
    assert [seen.headers["x-stainless-retry-count"] for seen in api.requests] == ["0", "1", "2"]


async def raw(client):
    """Return the raw response to a call."""
    return await client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES)


async def raw_in_thread(client):
    """Return the raw response to a synchronous client's call."""
    create = client.chat.completions.with_raw_response.create
    return await asyncio.to_thread(create, model="gpt-4o", messages=MESSAGES)


async def raw_streaming(client):
    """Return the raw response that a block gets."""
    create = client.chat.completions.with_streaming_response.create
    async with create(model="gpt-4o", messages=MESSAGES) as response:
        return response


@pytest.mark.parametrize(
    ("kind", "call"),
    [(AsyncOpenAI, raw), (AsyncOpenAI, raw_streaming), (OpenAI, raw_in_thread)],
)
async def test_raw_responses_say_how_often_their_caller_retried(kind, call, made, api, api_cache):
    """The leader says its own retries; who joined its last attempt, or finds the answer, none."""
    gate = Gate()

    async def program(seen):
        if len(api.requests) <= 2:
            await seen.answer(ERROR, 500, headers=[SOON])
        else:
            await gate.wait()
            await answer(seen)

    api.program = program
    client = made(kind)
    leader = asyncio.ensure_future(call(client))
    await api.arrived(3)
    follower = asyncio.ensure_future(call(client))
    await asyncio.sleep(0.1)
    gate.open()
    retries = [found.retries_taken for found in await asyncio.gather(leader, follower)]
    assert retries == [2, 0]
    await stored(api_cache)
    assert (await call(client)).retries_taken == 0
    assert len(api.requests) == 3


async def test_a_header_that_the_caller_sets_stays(made, api):
    """The SDK's header that counts retries can be set or left out by the caller."""
    name = "x-stainless-retry-count"
    for value, expected in (("7", ["7", "7"]), (openai.omit, [None, None])):
        api.requests, api.program = [], refusing((500, SOON))
        await ask(made(AsyncOpenAI), extra_headers={name: value}, seed=len(expected[0] or ""))
        assert [seen.headers.get(name) for seen in api.requests] == expected


async def test_what_a_caller_changes_meanwhile_is_not_sent(made, api, back_off):
    """A retry sends what was asked for, whatever becomes of the caller's lists."""
    api.program = refusing((500,))
    messages = [dict(MESSAGES[0])]
    call = asyncio.ensure_future(ask(made(AsyncOpenAI), messages=messages))
    await api.arrived(1)
    messages[0]["content"] = "Something else"
    back_off.open()
    assert state(await call).outcome == "miss"
    assert api.requests[0].body == api.requests[1].body


async def test_callers_of_one_failure_come_back_to_one_flight(made, api, api_cache):
    """Ten callers share a failure, wait each for itself, and pay for one more call."""
    gate = Gate()
    api.program = refusing((503, SOON), gate=gate)
    client = made(AsyncOpenAI)
    calls = [asyncio.ensure_future(ask(client)) for _ in range(10)]
    await api.arrived(1)
    gate.open()
    outcomes = [state(found).outcome for found in await asyncio.gather(*calls)]
    assert outcomes.count("miss") == 1
    assert len(api.requests) == 2
    stats = api_cache.stats()
    assert (stats.upstream_calls, stats.upstream_errors, stats.misses) == (2, 1, 1)


async def test_another_cache_need_not_wait_for_a_back_off(tmp_path, api, back_off):
    """While a caller waits to retry, it holds no lease that others would wait for."""
    api.program = refusing((429,))
    async with (
        Cache.disk(cache_path_root=tmp_path) as one,
        Cache.disk(cache_path_root=tmp_path) as other,
        AsyncOpenAI(api_key="sk-a", base_url=api.base_url) as refused,
        AsyncOpenAI(api_key="sk-b", base_url=api.base_url) as served,
    ):
        leader = asyncio.ensure_future(ask(one.wrap(refused)))
        await api.arrived(1)
        assert (await ask(other.wrap(served))).choices
        assert not leader.done()
        back_off.open()
        assert state(await leader).outcome != "miss"
    assert [seen.key for seen in api.requests] == ["sk-a", "sk-b"]


async def test_embeddings_keep_what_they_have(made, api):
    """An attempt asks for nothing again that an earlier one has brought."""
    gate = Gate()

    async def program(seen):
        if seen.key == "sk-b":
            await gate.wait()
        if seen.key == "sk-a" and len(api.requests) == 2:
            await seen.answer(ERROR, 500, headers=[SOON])
        else:
            await embed(seen)

    api.program = program
    other = asyncio.ensure_future(give(made(AsyncOpenAI, api_key="sk-b"), ["shared"]))
    await api.arrived(1)
    call = asyncio.ensure_future(give(made(AsyncOpenAI), ["shared", "own"]))
    await api.arrived(3)
    gate.open()
    await asyncio.gather(call, other)
    assert [seen.body["input"] for seen in api.requests] == [["shared"], ["own"], ["own"]]


async def test_a_caller_can_be_cancelled_while_it_waits(made, api, api_cache, back_off):
    """Nothing is sent for who has gone."""
    api.program = refusing((429,))
    call = asyncio.ensure_future(ask(made(AsyncOpenAI)))
    await api.arrived(1)
    while api_cache.stats().upstream_errors < 1:
        await asyncio.sleep(0.01)
    call.cancel()
    back_off.open()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len(api.requests) == 1


async def test_wrong_numbers_of_retries_are_the_sdks_to_refuse(made, bare_client, api):
    """Whatever the SDK says of them is said."""
    for wrong in (None, "2"):
        bare = bare_client(AsyncOpenAI)
        bare.max_retries = wrong
        with pytest.raises(TypeError):
            await ask(bare)
        client = made(AsyncOpenAI)
        client.max_retries = wrong
        with pytest.raises(TypeError):
            await ask(client)
    assert api.requests == []


async def test_the_last_error_is_what_the_caller_gets(made, api):
    """Nothing of the attempts before hangs on it."""
    api.program = refusing((500, SOON), (503, SOON))
    with pytest.raises(openai.InternalServerError) as last:
        await ask(made(AsyncOpenAI, max_retries=1))
    assert last.value.status_code == 503
    context: Any = last.value.__context__
    assert "503" in str(context)
    assert last.value.__cause__ is context.__context__ is None
    api.program = answer
    assert (await ask(made(AsyncOpenAI))).id == COMPLETION["id"]
