"""Callers of one flight: each gets the fate that is its own, and nobody disturbs the others."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref

import openai
import pytest
from openai import AsyncOpenAI
from openai._types import omit

import asynccache
from tests.helpers.http import httpx
from tests.helpers.openai_server import (
    COMPLETION,
    DONE,
    EVENTS,
    Gate,
    ask,
    events_of,
    good,
    state,
    stored,
)

pytest_plugins = ("tests.helpers.openai_fixtures",)

ERROR = {"error": {"message": "no"}}
PATIENT = 30.0
HASTY = 0.2


def gated(gate, *, bad_keys=(), status=401):
    """Return a program that waits, then refuses some keys and answers the others."""

    async def program(seen):
        await gate.wait()
        if seen.key in bad_keys:
            await seen.answer(ERROR, status)
        else:
            await good(seen)

    return program


async def settled(calls):
    """Return results and errors of tasks."""
    return await asyncio.gather(*calls, return_exceptions=True)


async def begun(*awaitables):
    """Start calls, so that each has joined its flight when this returns."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def content(client, *, stream, **changes):
    """Return the text of an answer, plain or streamed."""
    response = await ask(client, stream=stream, **changes)
    if not stream:
        return response.choices[0].message.content
    return "".join([event.choices[0].delta.content async for event in response])


# -- credentials -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_an_error_of_an_account_is_that_accounts_alone(stream, status, cached, api):
    """Followers with other credentials get the answer, by one new call however many they are."""
    gate = Gate()
    api.program = gated(gate, bad_keys={"sk-a"}, status=status)
    good_client = cached.with_options(api_key="sk-b")
    calls = await begun(
        *(content(cached, stream=stream) for _ in range(3)),
        *(content(good_client, stream=stream) for _ in range(5)),
    )
    await api.arrived(1)
    gate.open()
    results = await settled(calls)
    assert [type(result).__name__ for result in results[3:]] == ["str"] * 5
    errors = results[:3]
    assert {error.status_code for error in errors} == {status}
    assert len({id(error) for error in errors}) == 3
    assert [seen.key for seen in api.requests] == ["sk-a", "sk-b"]


@pytest.mark.parametrize(
    "changes",
    [
        {"api_key": "sk-b"},
        {"organization": "org"},
        {"project": "proj"},
        {"default_headers": {"Authorization": "Bearer b"}},
        {"default_headers": {"X-Api-Key": "b"}},
        {"default_query": {"api-key": "b"}},
    ],
    ids=str,
)
async def test_what_makes_an_account(changes, cached, api):
    """Whatever says whose call it is separates accounts, and nothing of it is in the key."""
    gate = Gate()

    async def program(seen):
        await gate.wait()
        if len(api.requests) == 1:
            await seen.answer(ERROR, 429)
        else:
            await good(seen)

    api.program = program
    calls = await begun(ask(cached), ask(cached.with_options(**changes)))
    await api.arrived(1)
    gate.open()
    refused, answered = await settled(calls)
    assert isinstance(refused, openai.RateLimitError)
    assert answered.choices
    assert len(api.requests) == 2


async def test_keys_of_one_call_make_an_account_too(cached, api):
    """A call's own authorization header and query are credentials as the client's are."""
    gate = Gate()
    api.program = gated(gate, bad_keys={"sk-a"})
    calls = await begun(
        ask(cached),
        ask(cached, extra_headers={"Authorization": "Bearer sk-b"}),
        ask(cached, extra_query={"api-key": "x"}, extra_headers={"Authorization": omit}),
    )
    await api.arrived(1)
    gate.open()
    first, second, third = await settled(calls)
    assert isinstance(first, openai.AuthenticationError)
    assert second.choices
    assert third.choices
    assert len(api.requests) == 2


async def test_keys_fetched_anew_are_one_account(api, api_cache):
    """A client whose key is fetched for each call shares errors with itself."""
    numbers = itertools.count()

    async def fetch():
        return f"sk-{next(numbers)}"

    gate = Gate()
    api.program = gated(gate, bad_keys={"sk-0", "sk-1"})
    async with AsyncOpenAI(api_key=fetch, base_url=api.base_url, max_retries=0) as client:
        wrapped = api_cache.wrap(client)
        calls = await begun(ask(wrapped))
        await api.arrived(1)  # with the first key
        calls += await begun(ask(wrapped))
        gate.open()
        assert [type(e) for e in await settled(calls)] == [openai.AuthenticationError] * 2
    assert len(api.requests) == 1


@pytest.mark.parametrize("status", [500, 503])
async def test_an_error_of_the_server_is_shared_with_all(status, cached, api):
    """What would be the same for everybody is told to all by one call, each with its own object."""
    gate = Gate()
    api.program = gated(gate, bad_keys={"sk-a"}, status=status)
    calls = await begun(
        ask(cached), ask(cached.with_options(api_key="sk-b")), ask(cached.with_options(timeout=3))
    )
    await api.arrived(1)
    gate.open()
    errors = await settled(calls)
    assert {error.status_code for error in errors} == {status}
    assert len({id(error) for error in errors}) == 3
    assert len({str(error) for error in errors}) == len({type(error) for error in errors}) == 1
    assert len(api.requests) == 1
    api.program = good
    await ask(cached)  # and it was not stored


# -- timeouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_leaders_timeout_is_its_own(stream, cached, api):
    """Followers who would wait longer start one new call between them."""

    async def program(seen):
        if len(api.requests) == 1:
            await seen.hang()
        else:
            await good(seen)

    api.program = program
    calls = await begun(
        content(cached, stream=stream, timeout=HASTY),
        *(content(cached, stream=stream, timeout=PATIENT) for _ in range(4)),
    )
    results = await settled(calls)
    assert isinstance(results[0], openai.APITimeoutError)
    assert [type(result).__name__ for result in results[1:]] == ["str"] * 4
    assert len(api.requests) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("timeout", [HASTY, httpx.Timeout(PATIENT, read=HASTY)], ids=["s", "httpx"])
async def test_a_followers_timeout_is_its_own(timeout, stream, cached, api):
    """A follower in a hurry gets the SDK's timeout while the leader and its call go on."""
    gate = Gate()
    api.program = gated(gate)
    calls = await begun(content(cached, stream=stream, timeout=PATIENT))
    await api.arrived(1)
    with pytest.raises(openai.APITimeoutError) as hasty:
        await content(cached, stream=stream, timeout=timeout)
    assert str(hasty.value) == "Request timed out."
    assert hasty.value.request.url.path == "/v1/chat/completions"
    gate.open()
    assert await calls[0]
    assert len(api.requests) == 1


# -- cancelling --------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    "gone", [g for k in range(1, 4) for g in itertools.combinations(range(4), k)], ids=str
)
async def test_cancelling_some_leaves_the_rest(gone, stream, cached, api):
    """Cancel any k of 4 callers, leader or not: the rest get the answer, paid once."""
    gate = Gate()
    api.program = gated(gate)
    calls = await begun(*(content(cached, stream=stream) for _ in range(4)))
    await api.arrived(1)
    for number in gone:
        calls[number].cancel()
    await asyncio.sleep(0)
    gate.open()
    for number, result in enumerate(await settled(calls)):
        assert isinstance(result, asyncio.CancelledError) == (number in gone)
    assert len(api.requests) == 1
    await content(cached, stream=stream)
    assert len(api.requests) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_cancelling_all_closes_the_request(stream, cached, api, api_cache):
    """When nobody waits any more the server sees it, and a newcomer starts afresh."""

    async def program(seen):
        if len(api.requests) > 1:
            await good(seen)
            return
        if stream:
            await seen.start()
            await seen.send(EVENTS[0])
        await seen.hang()

    api.program = program
    calls = await begun(*(content(cached, stream=stream) for _ in range(3)))
    first = await api.arrived(1)
    for call in calls:
        call.cancel()
    await settled(calls)
    newcomer = await begun(content(cached, stream=stream))
    await first.disconnected.wait()
    assert await newcomer[0]
    await stored(api_cache)
    stats = api_cache.stats()
    assert (stats.stored, stats.abandoned, len(api.requests)) == (1, 1, 2)


async def half_read(client):
    """Return a stream of which one event was read, and nothing more will come."""
    stream = await ask(client, stream=True)
    await anext(stream)
    return stream


async def stalled(seen):
    """Send one event, then nothing."""
    await seen.start()
    await seen.send(EVENTS[0])
    await seen.hang()


async def close(stream):
    """Leave by name."""
    await stream.close()


async def leave_block(stream):
    """Leave at the end of a block."""
    async with stream:
        pass


async def fail_in_block(stream):
    """Leave a block by an error."""
    with pytest.raises(LookupError):
        async with stream:
            raise LookupError


async def close_response(stream):
    """Leave as the SDK's helper does."""
    await stream.response.aclose()


async def cancel_a_read(stream):
    """Leave by being cancelled."""
    (reading,) = await begun(anext(stream))
    reading.cancel()
    await settled([reading])
    assert [event async for event in stream] == []  # as in the SDK, that was its end


@pytest.mark.parametrize(
    "leave", [close, leave_block, fail_in_block, close_response, cancel_a_read]
)
async def test_leaving_a_stream_ends_the_call_at_once(leave, cached, api, api_cache):
    """Every way out of a stream that says so closes the request when nobody else reads it."""
    api.program = stalled
    stream = await half_read(cached)
    await leave(stream)
    await api.requests[0].disconnected.wait()
    assert api_cache.stats().abandoned == 1


async def test_breaking_out_counts_once_the_stream_is_collected(cached, api):
    """After a bare break the call ends with the object, which is in no cycle."""
    api.program = stalled
    gc.disable()
    try:
        stream = await ask(cached, stream=True)
        async for _ in stream:
            break
        gone = weakref.ref(stream)
        assert not api.requests[0].disconnected._event.is_set()
        del stream
        assert gone() is None
        await api.requests[0].disconnected.wait()
    finally:
        gc.enable()


async def test_leaving_a_stream_disturbs_no_other_reader(cached, api):
    """Readers who close, break or are cancelled leave the flight to those who read on."""
    gate = Gate()

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        await gate.wait()
        await seen.send(b"".join(EVENTS[1:]))
        await seen.end()

    api.program = program
    streams = [await half_read(cached) for _ in range(4)]
    await streams[0].close()
    await cancel_a_read(streams[1])
    kept = streams[3]
    del streams[:]
    late = await half_read(cached)
    gate.open()
    assert [len((await events_of(stream))[0]) for stream in (kept, late)] == [2, 2]
    assert len(api.requests) == 1


async def test_a_stream_left_before_its_closing_event_is_not_stored(cached, api, api_cache):
    """The rule for a reader who leaves at the last word: not whole yet, and nobody else reads."""

    async def program(seen):
        await seen.start()
        await seen.send(b"".join(EVENTS[:-1]))
        if len(api.requests) == 1:
            await seen.hang()
        await seen.send(DONE)
        await seen.end()

    api.program = program
    stream = await ask(cached, stream=True)
    async for event in stream:
        if event.choices[0].finish_reason:
            break
    await stream.close()
    await api.requests[0].disconnected.wait()
    assert (await events_of(await ask(cached, stream=True)))[1] is None
    assert (len(api.requests), api_cache.stats().abandoned) == (2, 1)


async def test_a_stream_whose_closing_event_has_come_is_stored(cached, api, api_cache):
    """Who leaves at the last word, with the closing event right behind it, has it stored."""

    async def program(seen):
        await seen.stream(b"".join(EVENTS))

    api.program = program
    stream = await ask(cached, stream=True)
    async for event in stream:
        if event.choices[0].finish_reason:
            break
    await stream.close()
    await stored(api_cache)
    assert state(await ask(cached, stream=True)).outcome == "hit"
    assert len(api.requests) == 1


async def test_closing_the_cache_ends_waiting_calls(bare, api):
    """Who waits when the cache closes sees CacheClosedError, and the server sees them go."""
    cache = asynccache.Cache.memory()
    await cache.open()
    client = cache.wrap(bare)

    async def program(seen):
        await seen.hang()

    api.program = program
    calls = await begun(ask(client), ask(client), ask(client, stream=True))
    await api.arrived(2)
    await cache.aclose()
    assert {type(e) for e in await settled(calls)} == {asynccache.CacheClosedError}
    for seen in api.requests:
        await seen.disconnected.wait()


async def test_a_caller_who_left_leaves_the_request_as_it_was(cached, api):
    """The leader is cancelled and changes its messages: its followers get the answer to the old."""
    gate = Gate()
    api.program = gated(gate)
    messages = [{"role": "user", "content": "Hello?"}]
    leader, follower = await begun(ask(cached, messages=messages), ask(cached))
    leader.cancel()
    messages[0]["content"] = "Something else"
    gate.open()
    assert (await follower).id == COMPLETION["id"]
    assert api.requests[0].body["messages"] == [{"role": "user", "content": "Hello?"}]
