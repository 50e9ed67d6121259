"""What `wrap` makes of a client: the same type and the same manners, with a cache behind them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import subprocess
import sys
import tomllib
from pathlib import Path

import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI
from openai.resources.chat.completions import AsyncCompletions

import asynccache
from asynccache import Cache, CacheClosedError, ReplayMiss
from asynccache.openai import version
from tests.helpers.openai_server import (
    COMPLETION,
    EVENTS,
    CutError,
    Gate,
    ask,
    choice,
    chunk,
    completion,
    events_of,
    sse,
    state,
    stored,
)

pytest_plugins = ("tests.helpers.openai_fixtures",)


class Subclass(AsyncOpenAI):
    """Wants another argument, as subclasses do, and keeps something of its own."""

    def __init__(self, server):
        super().__init__(api_key="k", base_url=server.base_url, max_retries=0)
        self.kept = ["something"]


# -- the client --------------------------------------------------------------------------------


async def test_the_wrapped_client_is_of_the_same_type(bare, cached):
    """Frameworks that look at the type find what they look for."""
    assert type(cached) is type(bare) is AsyncOpenAI


async def test_a_subclass_with_a_constructor_of_its_own_can_be_wrapped(api, api_cache):
    """Wrapping runs no constructor and loses nothing that was set on the client."""
    async with Subclass(api) as client:
        wrapped = api_cache.wrap(client)
        assert type(wrapped) is Subclass
        assert wrapped.kept is client.kept
        await ask(wrapped)
        await ask(wrapped)
    assert len(api.requests) == 1


@pytest.mark.parametrize("deployment", [None, "mine"])
async def test_azure(api, api_cache, deployment):
    """An Azure client is cached with its deployments and its API version in the request."""
    async with AsyncAzureOpenAI(
        api_key="k", azure_endpoint=f"http://127.0.0.1:{api.port}", api_version="v1",
        azure_deployment=deployment,
    ) as client:  # fmt: skip
        wrapped = api_cache.wrap(client)
        assert type(wrapped) is AsyncAzureOpenAI
        await ask(wrapped)
        await ask(wrapped.with_options(api_key="other"))
        await ask(wrapped.with_options(api_version="v2"))
    paths = [(seen.path, seen.query) for seen in api.requests]
    path = f"/openai/deployments/{deployment or 'gpt-4o'}/chat/completions"
    assert paths == [(path, "api-version=v1"), (path, "api-version=v2")]


async def test_create_looks_like_the_sdks_own(cached, bare):
    """It is a coroutine function of the same name, signature and documentation."""
    create = cached.chat.completions.create
    assert inspect.iscoroutinefunction(create)
    assert inspect.signature(create) == inspect.signature(bare.chat.completions.create)
    assert create.__name__ == "create"
    assert create.__doc__ == AsyncCompletions.create.__doc__


async def test_the_original_client_stays_as_it_was(bare, cached, api):
    """Calls of the client that was wrapped never see the cache, and its resources aren't ours."""
    await ask(cached)
    await ask(bare)
    await ask(bare)
    assert len(api.requests) == 3
    assert bare.chat is not cached.chat
    assert "create" not in vars(bare.chat.completions)
    cached.default_headers  # noqa: B018 - made from the copy's own dict
    cached._custom_headers["X-A"] = "1"
    assert "X-A" not in bare.default_headers


async def test_both_share_their_connections(bare, cached):
    """Wrapping opens no second pool."""
    assert cached._client is bare._client


async def test_with_options_and_copy_carry_the_cache_over(cached, api):
    """A client made from a wrapped one is wrapped, however often."""
    for client in (
        cached,
        cached.with_options(timeout=9),
        cached.copy().with_options(max_retries=1),
    ):
        await ask(client)
    assert len(api.requests) == 1
    assert inspect.signature(cached.copy) == inspect.signature(AsyncOpenAI(api_key="k").copy)


async def test_wrapping_twice_takes_the_client_to_the_second_cache(cached, api_cache, api):
    """A client has one cache: the one it was wrapped with last."""
    await ask(cached)
    async with Cache.memory() as second:
        again = second.wrap(cached)
        await ask(again.with_options(timeout=1))
        await ask(again)
        await ask(cached)
        assert len(api.requests) == 2
        assert second.stats().misses == second.stats().hits == 1
    assert api_cache.stats().hits == 1


async def test_what_is_no_client_is_refused(api_cache):
    """What can't be wrapped is refused with a sentence that says what to pass."""
    with pytest.raises(TypeError, match=r"can't wrap an object: pass a client of an SDK"):
        api_cache.wrap(object())


async def test_a_patch_laid_on_the_sdk_later_is_called(cached, api, monkeypatch):
    """Telemetry that replaces the SDK's method after wrapping sees the calls that are paid."""
    seen = []
    original = AsyncCompletions.create

    async def patched(self, **kwargs):
        seen.append(kwargs["model"])
        return await original(self, **kwargs)

    monkeypatch.setattr(AsyncCompletions, "create", patched)
    await ask(cached)
    await ask(cached)
    assert seen == ["gpt-4o"]


async def test_a_patch_laid_on_the_sdk_before_is_cached(bare, api_cache, api, monkeypatch):
    """A method that hides its signature is cached all the same."""
    original = AsyncCompletions.create

    async def patched(self, **kwargs):
        return await original(self, **kwargs)

    monkeypatch.setattr(AsyncCompletions, "create", patched)
    client = api_cache.wrap(bare)
    await ask(client)
    await ask(client)
    assert len(api.requests) == 1


# -- the ways past the cache -------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [{"modle": "gpt-4o"}, {"messages": None, "unknown": 1}, {}], ids=str
)
async def test_wrong_arguments_get_the_sdks_own_error(wrong, bare, cached, api):
    """The SDK says best what is wrong with a call, and nothing is sent."""
    with pytest.raises(TypeError) as expected:
        await bare.chat.completions.create(**wrong)
    with pytest.raises(TypeError) as found:
        await cached.chat.completions.create(**wrong)
    assert str(found.value) == str(expected.value)
    with pytest.raises(TypeError):
        await cached.chat.completions.create("positional")
    assert api.requests == []


async def test_a_cache_that_isnt_open_is_passed_by_with_one_warning(bare, api, caplog):
    """Calls go upstream, are counted, and the log says so once."""
    cache = Cache.memory()
    client = cache.wrap(bare)
    with caplog.at_level(logging.WARNING, "asynccache"):
        first, second = await ask(client), await ask(client)
    assert len(api.requests) == cache.stats().bypassed == 2
    assert [record.getMessage() for record in caplog.records].count(caplog.messages[0]) == 1
    assert len(caplog.records) == 1
    assert asynccache.status(first) is asynccache.status(second) is None
    async with cache:
        await ask(client)
        await ask(client)
    assert len(api.requests) == 3


async def test_replay_never_goes_upstream(bare, api):
    """In mode "replay" a miss, a closed cache and what can't be cached raise errors of ours."""
    cache = Cache.memory(mode="replay")
    client = cache.wrap(bare)
    with pytest.raises(CacheClosedError):
        await ask(client)
    async with cache:
        for call in (
            ask(client),
            ask(client, stream=True),
            ask(client, metadata={"a": b"bytes"}),
            client.chat.completions.with_raw_response.create(model="m", messages=[]),
        ):
            with pytest.raises(ReplayMiss):
                await call
    assert api.requests == []


async def test_a_replay_that_misses_says_what_it_looked_for(bare, api):
    """The error names endpoint, host, model and seed, and nothing of the address that is secret."""
    url = f"http://user:password@127.0.0.1:{api.port}/v1"
    async with Cache.memory(7, mode="replay") as cache:
        client = cache.wrap(bare.with_options(base_url=url, default_query={"token": "password"}))
        named = cache.wrap(bare, upstream="local model")
        with pytest.raises(ReplayMiss) as plain:
            await ask(client, model="gpt-x")
        with pytest.raises(ReplayMiss, match=r"/chat/completions at local model.*, streamed"):
            await ask(named, stream=True)
        with pytest.raises(ReplayMiss, match=r"/embeddings at local model, model 'e'"):
            await named.embeddings.create(model="e", input="a")
        with asynccache.options(sample=3), pytest.raises(ReplayMiss, match="sample 3"):
            await ask(client)
    place = f"127.0.0.1:{api.port}"
    said = f"nothing is stored for /chat/completions at {place}, model 'gpt-x' (cache_seed 7, key "
    assert str(plain.value).startswith(said)
    assert "password" not in str(plain.value)


async def test_replay_serves_what_was_recorded(cached, api):
    """A recorded call is answered in mode "replay", plain and streamed."""
    await ask(cached)
    await events_of(await ask(cached, stream=True))
    api.program = None  # nothing can be answered any more
    with asynccache.options(mode="replay"):
        assert (await ask(cached)).choices[0].message.content == "Hello!"
        events, error = await events_of(await ask(cached, stream=True))
    assert (len(events), error) == (3, None)


async def test_modes_off_and_no_cache(cached, api_cache, api):
    """Mode "off" is as if there were no cache, and so is options(cache=None); "off" is counted."""
    with asynccache.options(mode="off"):
        await ask(cached)
        await ask(cached)
    assert api_cache.stats().bypassed == 2
    with asynccache.options(cache=None):
        assert asynccache.status(await ask(cached)) is None
    assert api_cache.stats().calls == 2
    assert len(api.requests) == 3


async def test_mode_refresh_overwrites(cached, api):
    """A refresh pays again, and what it got is what is served from then on."""
    await ask(cached)

    async def newer(seen):
        await seen.answer(completion(id="newer"))

    api.program = newer
    with asynccache.options(mode="refresh"):
        assert (await ask(cached)).id == "newer"
    assert (await ask(cached)).id == "newer"
    assert len(api.requests) == 2


async def test_sample_each(cached, api):
    """Five identical calls in a gather are one answer; with sample="each" they are five."""
    await asyncio.gather(*(ask(cached) for _ in range(5)))
    assert len(api.requests) == 1
    for _ in range(2):
        with asynccache.options(sample="each"):
            answers = await asyncio.gather(*(ask(cached) for _ in range(5)))
        assert len({state(answer).key for answer in answers}) == 5
        assert len(api.requests) == 5  # the first is the one that was there


async def test_raw_responses_are_cached(cached, bare, api, api_cache):
    """with_raw_response and with_streaming_response share the entry, in the SDK's own types."""
    raw = await cached.chat.completions.with_raw_response.create(model="m", messages=[])
    plain = await bare.chat.completions.with_raw_response.create(model="m", messages=[])
    assert type(raw) is type(plain)
    assert raw.content == plain.content
    assert raw.parse() == plain.parse()
    assert state(raw).outcome == state(raw.parse()).outcome == "miss"
    async with cached.chat.completions.with_streaming_response.create(model="m", messages=[]) as r:
        assert (await r.parse()).id == COMPLETION["id"]
        assert state(r).outcome == "hit"
    again = await cached.chat.completions.create(model="m", messages=[])
    assert again == raw.parse()
    assert api_cache.stats().bypassed == 0
    assert len(api.requests) == 2


# -- status, forget, what is stored -------------------------------------------------------------


async def test_status_tells_how_an_answer_came(cached, api):
    """Miss, joined and hit can be told apart, on completions and on streams."""
    first, second = await asyncio.gather(ask(cached), ask(cached))
    third = await ask(cached)
    states = [state(answer) for answer in (first, second, third)]
    assert [state.outcome for state in states] == ["miss", "joined", "hit"]
    assert len({state.key for state in states}) == 1
    assert states[2].age >= 0
    async with await ask(cached, stream=True) as stream:
        assert state(stream).outcome == "miss"
        await events_of(stream)
    assert state(await ask(cached, stream=True)).outcome == "hit"


async def test_forget_removes_a_bad_answer(cached, api_cache, api):
    """After forget() the same request is paid for again, plain and streamed."""
    answer = await ask(cached)
    await stored(api_cache)
    assert await api_cache.forget(answer)
    await ask(cached)
    await stored(api_cache, 2)
    stream = await ask(cached, stream=True)
    await events_of(stream)
    await stored(api_cache, 3)
    assert await api_cache.forget(stream)
    await events_of(await ask(cached, stream=True))
    assert len(api.requests) == 4


async def test_forget_takes_a_status_or_its_key(cached, api_cache, api):
    """What `status` said of an answer does as well as the answer, in its own namespace."""
    with asynccache.options(cache_seed="other"):
        answer = await ask(cached)
    await stored(api_cache)
    seen = state(answer)
    assert not await api_cache.forget(key=seen.key)
    assert await api_cache.forget(seen)
    answer = await ask(cached)
    await stored(api_cache, 2)
    assert not await api_cache.delete(state(answer).key)  # which is no key of a value
    assert await api_cache.forget(key=state(answer).key)
    assert len(api.requests) == 2


@pytest.mark.parametrize(
    "door",
    [
        "asynccache.Cache.memory().wrap(openai.AsyncOpenAI(api_key='k'))",
        "asynccache.instrument_openai()",
        "from asynccache.openai import OpenAIWrapper",
    ],
)
def test_an_sdk_that_is_too_old_is_said_to_be(door):
    """Each door says which version is needed and which is there, before it uses anything of it."""
    script = f"import openai; openai.__version__ = '2.16.0'; import asynccache; {door}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: asynccache needs openai>=2.17, found 2.16.0")


def test_the_oldest_sdk_is_the_extras():
    """The version that is looked for is the one that the package's extra asks for."""
    path = Path(__file__).parents[3] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    oldest = f"openai>={'.'.join(map(str, version.OLDEST))},"
    assert any(each.startswith(oldest) for each in project["optional-dependencies"]["openai"])
    for fine in ("2.17.0", "2.17.0rc1", "3.0", "10.1", "unknown"):
        version.check(fine)
    with pytest.raises(ImportError, match=r"found 1\.99\.9"):
        version.check("1.99.9")


async def test_results_are_fresh_objects(cached):
    """What one caller does to its answer no other sees."""
    first, second = await asyncio.gather(ask(cached), ask(cached))
    first.choices[0].message.content = "changed"
    third = await ask(cached)
    assert second.choices[0].message.content == third.choices[0].message.content == "Hello!"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": {"message": "overloaded"}}, "store_if"),
        (choice(finish_reason="content_filter"), "store_if"),
        (b"[]", "store_if"),
        (b'"text"', "store_if"),
    ],
    ids=["error", "filter", "list", "text"],
)
async def test_answers_that_are_none_are_not_stored(body, reason, cached, api, api_cache):
    """An error with status 200 and a filtered answer are delivered and paid for each time."""

    async def program(seen):
        await seen.answer(body)

    api.program = program
    await ask(cached)
    await ask(cached)
    assert len(api.requests) == 2
    assert api_cache.stats().not_stored == {reason: 2}


async def test_an_answer_cut_by_a_token_limit_is_stored_and_counted(cached, api, api_cache):
    """The same request would be cut off again, so that it is worth keeping."""

    async def program(seen):
        await seen.answer(choice(finish_reason="length"))

    api.program = program
    await ask(cached)
    await ask(cached)
    await stored(api_cache)
    assert len(api.requests) == api_cache.stats().cut == 1


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ((sse({"error": {"message": "broken"}}), EVENTS[-1]), "store_if"),
        ((sse(chunk(finish="content_filter")), EVENTS[-1]), "store_if"),
        (EVENTS[:1], "incomplete"),
        ((sse("not json"), EVENTS[-1]), "store_if"),
        ((b"data: \xff\n\n", EVENTS[-1]), "store_if"),
    ],
    ids=["error", "filter", "truncated", "no json", "no text"],
)
async def test_streams_that_failed_are_not_stored(events, reason, cached, api, api_cache):
    """A stream with an error in it, filtered, or without its closing event, is not kept."""

    async def program(seen):
        await seen.stream(*events)

    api.program = program
    for _ in range(2):
        first = await ask(cached, stream=True)
        second = await ask(cached, stream=True)  # another reader sees the flight to its end
        await events_of(first)
        await events_of(second)
        await first.close()
    stats = api_cache.stats()
    assert stats.stored == 0
    assert len(api.requests) >= 2
    assert set(stats.not_stored) <= {reason}


@pytest.mark.parametrize("until", [1, 3])
async def test_who_hangs_up_after_the_finish_reason_leaves_a_whole_stream(
    until, cached, api, api_cache
):
    """What is left of it is read for a moment; before the reason, the call is given up."""
    gate = Gate()

    async def program(seen):
        await seen.start()
        for event in EVENTS[:until]:
            await seen.send(event)
        await gate.wait()
        for event in EVENTS[until:]:
            await seen.send(event)
        await seen.end()

    api.program = program
    stream = await ask(cached, stream=True)
    for _ in range(until):
        await anext(aiter(stream))
    await stream.close()
    gate.open()
    if until == 1:
        assert api_cache.stats().abandoned == 1
        return
    await stored(api_cache)
    again = await ask(cached, stream=True)
    assert state(again).outcome == "hit"
    events, error = await events_of(again)
    assert (len(events), error) == (3, None)
    assert len(api.requests) == 1
    assert api_cache.stats().abandoned == 0


async def test_a_stream_cut_by_a_token_limit_is_stored_and_counted(cached, api, api_cache):
    """As for plain answers."""

    async def program(seen):
        await seen.stream(sse(chunk(finish="length")), EVENTS[-1])

    api.program = program
    await events_of(await ask(cached, stream=True))
    await events_of(await ask(cached, stream=True))
    await stored(api_cache)
    assert len(api.requests) == api_cache.stats().cut == 1


async def test_store_if_is_asked(bare, api):
    """The user's own rule decides, and sees the answer; for a stream, its events."""
    seen = []

    def store_if(answer):
        seen.append(answer)
        return answer.meta.kind == "sse"

    async with Cache.memory(store_if=store_if) as cache:
        client = cache.wrap(bare)
        for _ in range(2):
            await ask(client)
            await events_of(await ask(client, stream=True))
    assert len(api.requests) == 3
    assert seen[0].json() == COMPLETION
    assert b"".join(EVENTS) in [answer.body for answer in seen]


async def test_a_connection_lost_while_the_answer_came_is_an_error(cached, bare, api, api_cache):
    """A plain answer cut short raises what the bare client raises, and is not stored."""

    async def program(seen):
        await seen.start(200, "application/json", [("content-length", "100")])
        await seen.send(b'{"id":')
        raise CutError

    api.program = program
    with pytest.raises(openai.APIConnectionError) as expected:
        await ask(bare)
    with pytest.raises(openai.APIConnectionError) as found:
        await ask(cached)
    assert type(found.value) is type(expected.value)
    assert api_cache.stats().stored == 0


@pytest.mark.parametrize("parameter", ["conversation", "background"])
async def test_state_at_the_server_is_not_cached(api, cached, api_cache, parameter):
    """What reads or changes state at the server goes upstream each time, and is counted."""
    for _ in range(2):
        await ask(cached, extra_body={parameter: "c"})
    assert len(api.requests) == 2
    assert api_cache.stats().bypassed == 2


class Rewriting(AsyncOpenAI):
    """Changes what is sent after the method was called."""

    async def _prepare_options(self, options):
        return options


async def test_a_client_that_rewrites_its_requests_is_not_cached(api, api_cache):
    """Where a subclass may change a request on its way, nobody can know its key."""
    async with Rewriting(api_key="k", base_url=api.base_url) as client:
        wrapped = api_cache.wrap(client)
        await ask(wrapped)
        await ask(wrapped)
    assert len(api.requests) == 2
    assert api_cache.stats().bypassed == 2
