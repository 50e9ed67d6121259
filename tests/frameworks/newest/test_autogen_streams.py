"""Streams of AutoGen's clients: replayed as recorded, shared while they come, whole or not kept."""

from __future__ import annotations

import asyncio
import gc

import pytest
from autogen_core import CancellationToken
from autogen_core.models import CreateResult, UserMessage
from openai import APIConnectionError

import asynccache
from asynccache import Cache, ReplayMiss
from asynccache.integrations.autogen import CachedChatCompletionClient
from tests.helpers.autogen_client import HELLO, Scripted, close_all, named, openai_client
from tests.helpers.openai_server import EVENTS, CutError, Gate, state, stored

pytest_plugins = ("tests.helpers.autogen_fixtures",)


@pytest.fixture
async def api(api):
    """A server, whose clients are closed when their test is over."""
    yield api
    await close_all()


CHUNKS = ["One ", "two ", "three"]


async def items_of(stream):
    """Return what a stream yields."""
    return [item async for item in stream]


def steps():
    """Return a program that sends one event per opened gate, and the gates."""
    gates = [Gate() for _ in EVENTS]

    async def program(seen):
        await seen.start()
        for gate, event in zip(gates, EVENTS, strict=True):
            await gate.wait()
            await seen.send(event)
        await seen.end()

    return program, gates


async def test_stream_is_replayed_as_recorded(api, cache):
    """A hit yields the same chunks, then an equal result that alone says `cached`."""
    client = CachedChatCompletionClient(openai_client(api), cache)
    first = await items_of(client.create_stream(HELLO))
    second = await items_of(client.create_stream(HELLO))
    assert first[:-1] == second[:-1] == CHUNKS
    assert first[-1].content == "One two three"
    assert (first[-1].cached, second[-1].cached) == (False, True)
    assert first[-1].model_copy(update={"cached": True}) == second[-1]
    assert (state(first[-1]).outcome, state(second[-1]).outcome) == ("miss", "hit")
    assert len(api.requests) == 1


async def test_plain_and_streamed_are_two_requests(api, cache):
    """What was streamed doesn't answer a plain call, nor the other way round."""
    client = CachedChatCompletionClient(openai_client(api), cache)
    await items_of(client.create_stream(HELLO))
    assert not (await client.create(HELLO)).cached
    assert len(api.requests) == 2


async def test_joiner_sees_chunks_as_they_come(api, cache):
    """Who joins late gets what was there at once, and the rest live; one request is made."""
    api.program, gates = steps()
    client = CachedChatCompletionClient(openai_client(api), cache)
    starter, joiner = client.create_stream(HELLO), client.create_stream(HELLO)
    gates[0].open()
    assert await anext(starter) == "One "
    assert await anext(joiner) == "One "
    waiting = asyncio.ensure_future(anext(joiner))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    for gate in gates[1:]:
        gate.open()
    assert await waiting == "two "
    rest, others = await asyncio.gather(items_of(joiner), items_of(starter))
    assert rest[0] == others[1] == "three"
    assert (rest[-1].cached, others[-1].cached) == (False, False)
    assert (state(rest[-1]).outcome, state(others[-1]).outcome) == ("joined", "miss")
    assert rest[-1] is not others[-1]
    assert len(api.requests) == 1


async def test_a_hundred_streams_pay_once(api, cache):
    """A hundred streams at the same moment make one request and yield the same."""
    client = CachedChatCompletionClient(openai_client(api), cache)
    found = await asyncio.gather(*(items_of(client.create_stream(HELLO)) for _ in range(100)))
    assert len(api.requests) == 1
    assert all(items[:-1] == CHUNKS and items[-1] == found[0][-1] for items in found)


@pytest.mark.parametrize("how", ["aclose", "token", "dropped"])
async def test_stream_left_early_is_not_stored(api, cache, how):
    """A stream whose only reader leaves is given up: by closing, by token, or by a bare break."""
    api.program, gates = steps()
    client = CachedChatCompletionClient(openai_client(api), cache)
    token = CancellationToken()
    stream = client.create_stream(HELLO, cancellation_token=token)
    gates[0].open()
    assert await anext(stream) == "One "
    if how == "aclose":
        await stream.aclose()
    elif how == "token":
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    else:
        del stream
        gc.collect()
    while cache.stats().abandoned == 0:
        await asyncio.sleep(0)
    for gate in gates:
        gate.open()
    assert cache.stats().stored == 0
    assert [*(await items_of(client.create_stream(HELLO)))][:-1] == CHUNKS
    assert len(api.requests) == 2


async def test_one_reader_leaving_leaves_the_others(api, cache):
    """The starter's token ends its own stream; who joined reads to the end, and it is stored."""
    api.program, gates = steps()
    client = CachedChatCompletionClient(openai_client(api), cache)
    token = CancellationToken()
    starter = client.create_stream(HELLO, cancellation_token=token)
    joiner = client.create_stream(HELLO)
    gates[0].open()
    assert [await anext(starter), await anext(joiner)] == ["One ", "One "]
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await anext(starter)
    for gate in gates[1:]:
        gate.open()
    assert (await items_of(joiner))[:-1] == CHUNKS[1:]
    await stored(cache)
    assert len(api.requests) == 1


async def test_stream_that_is_cut_is_not_stored(api, cache):
    """A connection that drops midway raises, and the next call goes upstream again."""

    async def cut(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        raise CutError

    api.program = cut
    client = CachedChatCompletionClient(openai_client(api), cache)
    stream = client.create_stream(HELLO)
    assert await anext(stream) == "One "
    with pytest.raises(APIConnectionError):
        await anext(stream)
    del api.program
    assert (await items_of(client.create_stream(HELLO)))[:-1] == CHUNKS
    assert len(api.requests) == 2


async def test_stream_without_a_result_is_not_stored(cache):
    """A client whose stream ends without a CreateResult is passed on as it is, and not kept."""
    inner = Scripted(["a", "b"])
    client = named(inner, cache)
    for _ in range(2):
        assert await items_of(client.create_stream(HELLO)) == ["a", "b"]
        await asyncio.sleep(0)
    assert inner.calls == 2
    while cache.stats().not_stored != {"incomplete": 2}:
        await asyncio.sleep(0)


async def test_who_stops_at_the_result_has_it_stored(cache):
    """Leaving at the CreateResult, without asking for more, isn't leaving early."""
    result = CreateResult(
        finish_reason="stop", content="ab", usage={"prompt_tokens": 1, "completion_tokens": 1},
        cached=False,
    )  # fmt: skip
    inner = Scripted(["a", "b", result], epilogue=True)
    client = named(inner, cache)
    stream = client.create_stream(HELLO)
    async for item in stream:
        if isinstance(item, CreateResult):
            break
    await stream.aclose()
    assert inner.finished == 1
    assert (await items_of(client.create_stream(HELLO)))[-1].cached
    assert inner.calls == 1


async def test_any_text_survives(cache):
    """Empty chunks, line breaks, braces and lone surrogates come back as they were."""
    chunks = ["", "{", '{"a": 1}', "a\nb\r\n", "\ud83d", "é\u2028"]
    result = CreateResult(
        finish_reason="stop", content="".join(chunks), cached=False,
        usage={"prompt_tokens": 1, "completion_tokens": 1},
    )  # fmt: skip
    client = named(Scripted([*chunks, result]), cache)
    for cached in (False, True):
        items = await items_of(client.create_stream(HELLO))
        assert items[:-1] == chunks
        assert (items[-1].content, items[-1].cached) == ("".join(chunks), cached)


async def test_options_hold_for_streams(api, cache):
    """Replay misses, no cache and a closed cache mean for streams what they mean elsewhere."""
    client = CachedChatCompletionClient(openai_client(api), cache)
    with asynccache.options(mode="replay"), pytest.raises(ReplayMiss):
        await items_of(client.create_stream(HELLO))
    with asynccache.options(cache=None):
        items = await items_of(client.create_stream(HELLO))
    assert asynccache.status(items[-1]) is None
    closed = CachedChatCompletionClient(openai_client(api), Cache.memory())
    assert (await items_of(closed.create_stream(HELLO)))[:-1] == CHUNKS
    with asynccache.options(sample=1):
        await items_of(client.create_stream(HELLO))
    assert len(api.requests) == 3
    with asynccache.options(mode="replay", sample=1):
        assert (await items_of(client.create_stream(HELLO)))[-1].cached


async def test_changing_messages_meanwhile_changes_nothing(api, cache):
    """A list of messages that grows after the call began isn't what is sent."""
    client = CachedChatCompletionClient(openai_client(api), cache)
    messages = list(HELLO)
    call = asyncio.ensure_future(client.create(messages))
    await asyncio.sleep(0)
    messages.append(UserMessage(content="More!", source="user"))
    await call
    assert len(api.requests[0].body["messages"]) == 2
