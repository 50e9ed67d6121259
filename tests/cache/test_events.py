"""What people see of calls: `record` around a block, `observer=` on a cache."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from typing import Any

import openai
import pytest

import asynccache
from asynccache import Cache, CallEvent, ReplayMiss, record
from asynccache.cache import events
from asynccache.stores.memory import MemoryStore
from asynccache.testing import FaultyStore
from tests.helpers.openai_answers import answer, response_events
from tests.helpers.openai_embeddings import MODEL, give
from tests.helpers.openai_server import (
    COMPLETION,
    DONE,
    EVENTS,
    MESSAGES,
    Gate,
    ask,
    chunk,
    events_of,
    good,
    sse,
    state,
    stored,
)

pytest_plugins = ("tests.helpers.openai_fixtures",)

ERROR = {"error": {"message": "no"}}


def outcomes(calls):
    """Return the outcomes of events, in order."""
    return [call.outcome for call in calls]


async def spin(calls, count=1):
    """Wait until so many events were told: some are posted to the loop."""
    while len(calls) < count:
        await asyncio.sleep(0)


# -- what an event says ------------------------------------------------------------------------


async def test_an_event_says_what_happened(cached, api_cache):
    """Outcome, endpoint, key, model, tokens and seconds, as the answer and its status say."""
    with record() as calls:
        first = await ask(cached)
        await stored(api_cache)
        second = await ask(cached)
    miss, hit = calls
    assert outcomes(calls) == ["miss", "hit"]
    for call, found in zip(calls, (first, second), strict=True):
        assert call.endpoint == "/chat/completions"
        assert call.key == state(found).key
        assert call.model == found.model
        assert (call.input_tokens, call.output_tokens, call.tokens) == (9, 3, 12)
        assert call.reason == ""
        assert call.provider == "openai"
    assert miss.seconds == hit.seconds > 0
    assert hit.age >= miss.age >= 0
    with pytest.raises(AttributeError):
        miss.outcome = "hit"  # type: ignore[misc]  # frozen, as is shown


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://me:secret@generativelanguage.googleapis.com/v1beta/openai/", "gemini"),
        ("http://localhost:11434/v1", "ollama"),
        ("http://localhost:8000/v1", "openai"),
    ],
)
async def test_the_address_says_who_is_asked(url, provider):
    """The SDK asks other providers as well. A server that isn't known speaks OpenAI's protocol."""
    client = openai.AsyncOpenAI(api_key="k", base_url=url, max_retries=0)
    async with Cache.memory(mode="replay") as cache:
        with record() as calls, pytest.raises(ReplayMiss):
            await ask(cache.wrap(client))
    assert [call.provider for call in calls] == [provider]


async def test_tokens_of_the_providers_own_cache(cached, api, api_cache):
    """Those that OpenAI read from its cache of prompts are told and counted."""
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}

    async def program(seen):
        await seen.answer({
            **COMPLETION, "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 4}}
        })  # fmt: skip

    api.program = program
    with record() as calls:
        await ask(cached)
        await ask(cached)
    assert [(call.input_tokens, call.cache_read_tokens) for call in calls] == [(9, 4)] * 2
    assert api_cache.stats().cache_read_tokens == 4


DOORS = {
    "chat": (ask, "/chat/completions"),
    "chat streamed": (lambda client: ask(client, stream=True), "/chat/completions"),
    "chat parsed": (
        lambda client: client.chat.completions.parse(model="m", messages=MESSAGES),
        "/chat/completions",
    ),
    "raw": (
        lambda client: client.chat.completions.with_raw_response.create(
            model="m", messages=MESSAGES
        ),
        "/chat/completions",
    ),
    "responses": (lambda client: client.responses.create(model="m", input="x"), "/responses"),
    "responses streamed": (
        lambda client: client.responses.create(model="m", input="x", stream=True),
        "/responses",
    ),
    "text": (lambda client: client.completions.create(model="m", prompt="x"), "/completions"),
    "embeddings": (lambda client: give(client, ["a"]), "/embeddings"),
    "post": (
        lambda client: client.post("/responses", body={"input": "x"}, cast_to=object),
        "/responses",
    ),
}


@pytest.mark.parametrize("name", DOORS)
async def test_every_door_tells_one_event_per_call(name, cached, api, api_cache):
    """Miss, joined and hit are told once each, and once to the observer."""
    api.program = answer
    call, endpoint = DOORS[name]
    told: list[CallEvent] = []

    async def use(client):
        found = await call(client)
        if hasattr(found, "__aiter__"):
            await events_of(found)

    async with Cache.memory(observer=told.append) as cache:
        client = cache.wrap(cached)
        with record() as calls:
            await asyncio.gather(use(client), use(client))
            await stored(cache)
            await use(client)
        assert sorted(outcomes(calls)) == ["hit", "joined", "miss"]
        assert {one.endpoint for one in calls} == {endpoint}
        assert len({one.key for one in calls}) == 1
        assert told == calls
        assert all(one is other for one, other in zip(told, calls, strict=True))
        stats = cache.stats()
        assert (stats.misses, stats.joined, stats.hits) == (1, 1, 1)


@pytest.mark.parametrize("name", DOORS)
async def test_every_door_tells_errors(name, cached, api, api_cache):
    """A call that raised is told once, with the error's name, the model asked for, and its key."""

    async def refuse(seen):
        await seen.answer(ERROR, 400)

    api.program = refuse
    call, endpoint = DOORS[name]
    with record() as calls:
        with pytest.raises(openai.BadRequestError):
            await call(cached)
        with asynccache.options(mode="replay"), pytest.raises(asynccache.ReplayMiss):
            await call(cached)
    assert outcomes(calls) == ["error", "error"]
    assert [one.reason for one in calls] == ["BadRequestError", "ReplayMiss"]
    assert {one.endpoint for one in calls} == {endpoint}
    assert len({one.key for one in calls}) == 1
    assert calls[0].key
    assert calls[0].model in {"m", "gpt-4o", MODEL, ""}


@pytest.mark.parametrize("name", DOORS)
async def test_every_door_tells_bypasses(name, cached, api):
    """A call past the cache is told once, with the reason if there is one."""
    api.program = answer
    call, endpoint = DOORS[name]
    with record() as calls, asynccache.options(mode="off"):
        found = await call(cached)
        if hasattr(found, "close"):
            await found.close()
    assert outcomes(calls) == ["bypass"]
    assert calls[0].endpoint == endpoint
    assert (calls[0].key, calls[0].reason) == ("", "")


async def test_bypasses_say_why(cached, api):
    """What has no key, and what is never cached, that fails or not."""
    api.program = answer
    with record() as calls:
        await cached.responses.create(model="m", input="x", background=True)
        with asynccache.options(mode="replay"), pytest.raises(asynccache.ReplayMiss):
            await cached.responses.create(model="m", input="x", background=True)

        async def refuse(seen):
            await seen.answer(ERROR, 404)

        api.program = refuse
        with pytest.raises(openai.NotFoundError):
            await cached.models.retrieve("m")
    assert outcomes(calls) == ["bypass", "error", "error"]
    assert "state at the server" in calls[0].reason
    assert [one.reason for one in calls[1:]] == ["ReplayMiss", "NotFoundError"]
    assert [one.endpoint for one in calls] == ["/responses", "/responses", "/models/m"]


async def test_a_cancelled_call_is_told(cached, api):
    """A caller who left is an event; the others have their own."""
    gate = Gate()

    async def program(seen):
        await gate.wait()
        await good(seen)

    api.program = program
    with record() as calls:
        leaving, staying = asyncio.ensure_future(ask(cached)), asyncio.ensure_future(ask(cached))
        await api.arrived(1)
        leaving.cancel()
        await asyncio.wait([leaving])
        gate.open()
        await staying
    assert outcomes(calls) == ["error", "joined"]
    assert calls[0].reason == "CancelledError"


# -- streams -----------------------------------------------------------------------------------


async def test_a_stream_is_told_when_it_was_read(cached, api, api_cache):
    """Not before its end, and with what it took; a recorded one when it is given."""
    with record() as calls:
        stream = await ask(cached, stream=True)
        assert calls == []
        await events_of(stream)
        assert outcomes(calls) == ["miss"]
        assert calls[0].seconds > 0
        await stored(api_cache)
        await events_of(await ask(cached, stream=True))
    assert outcomes(calls) == ["miss", "hit"]


@pytest.mark.parametrize("leave", ["close", "break", "cancel"])
async def test_a_stream_that_was_left_is_told(leave, cached, api):
    """Closing it, dropping it, and cancelling a read end a call as well."""

    async def program(seen):
        await seen.start()
        await seen.send(sse(chunk("One ")))
        await seen.hang()

    api.program = program
    with record() as calls:
        stream = await ask(cached, stream=True)
        await anext(stream)
        if leave == "close":
            await stream.close()
        elif leave == "cancel":
            reading = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
        del stream
        gc.collect()
        await spin(calls)
    assert outcomes(calls) == ["error" if leave == "cancel" else "miss"]


BROKEN = {
    "error event": (EVENTS[0], sse({"error": {"message": "m"}}), DONE),
    "bad event": (EVENTS[0], b"data: {nonsense\n\n", DONE),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_stream_that_failed_is_told_as_an_error(name, cached, api):
    """An error that came in a stream, or that reading it raised, is the call's."""

    async def program(seen):
        await seen.stream(*BROKEN[name])

    api.program = program
    with record() as calls:
        _, error = await events_of(await ask(cached, stream=True))
        assert error is not None
    assert outcomes(calls) == ["error"]
    assert calls[0].reason == type(error).__name__


async def test_a_stream_whose_connection_broke_is_told_as_an_error(cached, api):
    """The starter and who joined are told the same."""
    from tests.helpers.openai_server import CutError

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        raise CutError

    api.program = program
    with record() as calls:

        async def read():
            return await events_of(await ask(cached, stream=True))

        (_, first), (_, second) = await asyncio.gather(read(), read())
    assert first is not None
    assert second is not None
    assert outcomes(calls) == ["error", "error"]
    assert {one.reason for one in calls} == {"APIConnectionError"}


async def test_a_block_that_was_left_hears_nothing_more(cached, api_cache):
    """A stream that is read later is no event of the block's."""
    with record() as calls:
        stream = await ask(cached, stream=True)
    await events_of(stream)
    await ask(cached)
    assert calls == []


# -- blocks ------------------------------------------------------------------------------------


async def test_blocks_are_nested(cached):
    """Each block has a list of its own, and hears of what is inside it."""
    with record() as outer:
        await ask(cached, seed=1)
        with record() as inner:
            await ask(cached, seed=2)
        await ask(cached, seed=3)
    await ask(cached, seed=4)
    assert len(outer) == 3
    assert inner == [outer[1]]


async def test_tasks_started_inside_count(cached, api):
    """Whoever awaits them, and wherever; those started outside don't."""
    gate = Gate()

    async def program(seen):
        await gate.wait()
        await good(seen)

    api.program = program
    outside = asyncio.ensure_future(ask(cached, seed=1))
    with record() as calls:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask(cached, seed=1))
            group.create_task(ask(cached, seed=2))
            await api.arrived(2)
            gate.open()
        await outside
    assert sorted(outcomes(calls)) == ["joined", "miss"]


async def test_calls_that_frameworks_hide(cached, api, api_cache):
    """A call that a framework makes in its own way, and parses itself, is told as any other."""

    class Framework:
        """Calls raw and keeps the bytes, as LangChain does; takes its method once."""

        def __init__(self, client):
            self._create = client.chat.completions.with_raw_response.create

        async def invoke(self, text):
            raw = await self._create(model="m", messages=[{"role": "user", "content": text}])
            return raw.parse().choices[0].message.content

    framework = Framework(cached)
    with record() as calls:
        results = await asyncio.gather(*(framework.invoke("x") for _ in range(3)))
        await stored(api_cache)
        results.append(await framework.invoke("x"))
    assert results == ["Hello!"] * 4
    assert sorted(outcomes(calls)) == ["hit", "joined", "joined", "miss"]
    assert {call.tokens for call in calls} == {12}


async def test_functions_are_told_too():
    """`get_or_create` and `memoize`: miss, hit, joined, error and bypass."""
    paid = 0

    async def make():
        nonlocal paid
        paid += 1
        await asyncio.sleep(0)
        return {"paid": paid}

    async def fail():
        raise KeyError("k")

    async with Cache.memory() as cache:

        @cache.memoize()
        async def double(number: int) -> int:
            return 2 * number

        with record() as calls:
            await asyncio.gather(cache.get_or_create("k", make), cache.get_or_create("k", make))
            await stored(cache)
            await cache.get_or_create("k", make)
            with pytest.raises(KeyError):
                await cache.get_or_create("other", fail)
            with asynccache.options(mode="off"):
                await cache.get_or_create("k", make)
            await cache.get_or_create(object(), make)
            await double(2)
        assert sorted(outcomes(calls)[:2]) == ["joined", "miss"]
        assert outcomes(calls)[2:] == ["hit", "error", "bypass", "bypass", "miss"]
        assert [call.endpoint for call in calls] == ["value"] * 6 + ["memoize"]
        assert len({call.key for call in calls[:3]}) == 1
        assert calls[0].key
        assert calls[3].reason == "KeyError"
        assert calls[5].reason


# -- observers ---------------------------------------------------------------------------------


async def test_an_observer_that_raises_breaks_nothing(bare, api, caplog):
    """Calls go on, plain and streamed, and what it raised is logged."""
    api.program = answer

    def observer(event):
        raise RuntimeError("the observer's own")

    with caplog.at_level(logging.WARNING, logger="asynccache"):
        async with Cache.memory(observer=observer) as cache:
            client = cache.wrap(bare)
            with record() as calls:
                assert (await ask(client)).choices
                assert (await events_of(await ask(client, stream=True)))[1] is None
                assert (await give(client, ["a"])).data
                await client.post("/other", body={}, cast_to=object)
                await cache.get_or_create("k", lambda: asyncio.sleep(0, "value"))
    assert outcomes(calls) == ["miss", "miss", "miss", "bypass", "miss"]
    assert caplog.text.count("the observer's own") == 1


async def test_an_observer_that_raises_base_exceptions_is_heard(bare):
    """Ctrl-C in an observer is Ctrl-C."""

    def observer(event):
        raise KeyboardInterrupt

    async with Cache.memory(observer=observer) as cache:
        with pytest.raises(KeyboardInterrupt):
            await ask(cache.wrap(bare))


async def test_nothing_is_made_where_nobody_watches(cached, api, api_cache, monkeypatch):
    """Without a block and an observer no event and no watch is built."""

    def built(*args, **kwargs):
        raise AssertionError("an event was built for nobody")

    api.program = answer
    monkeypatch.setattr(events, "CallEvent", built)
    monkeypatch.setattr(events, "CallWatch", built)
    for _ in range(2):
        for call, _ in DOORS.values():
            found = await call(cached)
            if hasattr(found, "__aiter__"):
                await events_of(found)
        await cached.post("/other", body={}, cast_to=object)
        await api_cache.get_or_create("k", lambda: asyncio.sleep(0, "value"))
    with record():
        pass
    await ask(cached)


async def test_a_response_cut_off_is_told_as_any_other(cached, api):
    """Tokens and model of a streamed response are those of its last event."""

    async def program(seen):
        await seen.stream(*response_events())

    api.program = program
    with record() as calls:
        await events_of(await cached.responses.create(model="m", input="x", stream=True))
    assert [(call.model, call.tokens) for call in calls] == [("gpt-4o-2024-08-06", 12)]


# -- what an event says beside the answer's figures ----------------------------------------------


async def test_namespace_tenant_and_the_callers_own_seconds(bare, api):
    """Beside the recorded ones: a hit took the caller no time, and once took the server some."""
    told: list[Any] = []

    async def slow(seen):
        await asyncio.sleep(0.05)
        await answer(seen)

    api.program = slow
    async with Cache.memory(7, observer=told.append) as cache:
        client = cache.wrap(bare)
        with asynccache.options(tenant="acme"):
            for _ in range(2):
                await ask(client)
            stream = await ask(client, stream=True)
            await asyncio.sleep(0.05)
            await events_of(stream)
        await client.post("/other", body={}, cast_to=object)
    assert [event.outcome for event in told] == ["miss", "hit", "miss", "bypass"]
    assert [(event.namespace.seed, event.tenant) for event in told] == [
        *[("7", "acme")] * 3, ("7", None),
    ]  # fmt: skip
    miss, hit, streamed, bypass = told
    assert miss.waited >= miss.seconds >= 0.05 > hit.waited > 0
    assert hit.seconds == miss.seconds
    assert streamed.waited >= 0.1
    assert bypass.waited == bypass.seconds > 0


@pytest.mark.parametrize("asked", ["record", "option", "not"])
async def test_paths_of_a_miss_when_asked(bare, api, asked):
    """Where those of two misses differ, the requests do; without being asked there are none."""
    api.program = answer
    async with Cache.memory(event_paths=asked == "option") as cache:
        client = cache.wrap(bare)
        with record(paths=asked == "record") as calls:
            for text in ("one", "two", "one"):
                await ask(client, messages=[{"role": "user", "content": text}])
            await cache.get_or_create("key", lambda: asyncio.sleep(0, 1))
            with asynccache.options(mode="replay"), pytest.raises(ReplayMiss):
                await ask(client, messages=[{"role": "user", "content": "three"}])
    one, two, hit, value, replay = (call.paths for call in calls)
    assert not hit
    assert not value
    if asked == "not":
        assert not one
        assert not replay
        return
    assert {path for path in one if one[path] != two[path]} == {"messages.0.content"}
    assert one.keys() == replay.keys() > {"model", "messages.0.role", "@path", "@upstream"}


async def test_failures_of_the_store_are_told():
    """By name, with the store's; those who record a block hear of calls alone."""
    told: list[Any] = []
    store = FaultyStore(MemoryStore(), hide_inline=True)
    async with Cache.from_store(store, 7, observer=told.append) as cache:
        store.fail()
        with record() as calls:
            await cache.get_or_create("key", lambda: asyncio.sleep(0, 1))
    failed = [event for event in told if event.outcome == "store_error"]
    assert failed
    assert {(event.endpoint, event.reason, event.namespace.seed) for event in failed} == {
        ("FaultyStore", "unavailable", "7")
    }
    assert len(failed) == cache.stats().store_errors["unavailable"]
    assert [call.outcome for call in calls] == ["miss"]


@pytest.mark.parametrize("key", [json.dumps({"messages": [], "model": "m"}), {"messages": []}])
def test_what_autogen_looks_up_counts(key):
    """As AutoGen 0.2 and AG2 do it: a miss, then a hit; other values aren't calls."""
    told: list[Any] = []
    with Cache.memory(observer=told.append) as cache:
        assert cache.get(key) is None
        cache.set(key, {"a": 1})
        assert cache.get(key) == {"a": 1}
        assert cache.get("another key", 7) == 7
        with asynccache.options(mode="off"):
            assert cache.get(key) is None
    assert (cache.stats().misses, cache.stats().hits, cache.stats().bypassed) == (1, 1, 1)
    assert [(event.outcome, event.endpoint) for event in told] == [
        ("miss", "autogen"), ("hit", "autogen"), ("bypass", "autogen"),
    ]  # fmt: skip
    assert told[0].key == told[1].key != ""
