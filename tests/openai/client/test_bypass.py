"""What isn't cached passes untouched, and what isn't whole or isn't sent as asked isn't stored."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json

import openai
import pytest
from openai import AsyncOpenAI
from openai.resources.chat.completions import AsyncCompletions
from openai.resources.responses import AsyncResponses

import asynccache
from asynccache import Cache, ReplayMiss
from tests.helpers.openai_answers import answer, event, response, response_events
from tests.helpers.openai_server import (
    DONE,
    MESSAGES,
    ask,
    chunk,
    completion,
    sse,
    state,
    stored,
)

pytest_plugins = ("tests.helpers.openai_fixtures",)

# -- what is never cached ----------------------------------------------------------------------


async def everything(client):
    """Ask something that is cached, so that the server's answer fits."""
    return await client.responses.create(model="gpt-4o", input="x", background=True)


async def pages(client):
    """Read a list page by page."""
    return [model async for model in client.files.list(limit=1)]


async def spoken(client):
    """Return bytes, and read them as a stream."""
    async with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="hello"
    ) as found:
        return [piece async for piece in found.iter_bytes()]


CALLS = {
    "background": everything,
    "conversation": lambda client: client.responses.create(
        model="gpt-4o", input="x", conversation="conv_1"
    ),
    "conversation parsed": lambda client: client.responses.parse(
        model="gpt-4o", input="x", conversation="conv_1"
    ),
    "background in the extra body": lambda client: client.responses.create(
        model="gpt-4o", input="x", extra_body={"background": True}
    ),
    "background by post": lambda client: client.post(
        "/responses", body={"input": "x", "background": True}, cast_to=object
    ),
    "a response again": lambda client: client.responses.retrieve("resp_1"),
    "cancelling": lambda client: client.responses.cancel("resp_1"),
    "a file": lambda client: client.files.create(file=("a.txt", b"content"), purpose="assistants"),
    "content of a file": lambda client: client.files.content("file-1"),
    "an image": lambda client: client.images.generate(prompt="a cat"),
    "an edited image": lambda client: client.images.edit(image=("a.png", b"png"), prompt="a cat"),
    "speech": lambda client: client.audio.speech.create(model="tts-1", voice="alloy", input="x"),
    "streamed speech": spoken,
    "a transcription": lambda client: client.audio.transcriptions.create(
        model="whisper-1", file=("a.wav", b"wav")
    ),
    "a batch": lambda client: client.batches.create(
        completion_window="24h", endpoint="/v1/responses", input_file_id="file-1"
    ),
    "moderation": lambda client: client.moderations.create(input="x"),
    "models": lambda client: client.models.list(),
    "a conversation": lambda client: client.conversations.create(),
    "stored completions": lambda client: client.chat.completions.list(),
    "an assistant": lambda client: client.beta.assistants.create(model="gpt-4o"),
    "a thread": lambda client: client.beta.threads.create(),
    "another method": lambda client: client.get("/chat/completions", cast_to=object),
    "another path": lambda client: client.post("/chat/completions/x", body={}, cast_to=object),
    "another server": lambda client: client.post(
        f"{str(client.base_url).replace('127.0.0.1', 'localhost')}chat/completions",
        body={"messages": MESSAGES, "model": "m"},
        cast_to=object,
    ),
}


async def anything(seen):
    """Answer whatever was asked with something the SDK can read."""
    if seen.path.endswith("/speech"):
        await seen.answer(b"sound", content_type="audio/mpeg")
    elif seen.path.endswith("/responses"):
        await seen.answer(response(status="queued"))
    else:
        await seen.answer({"id": "x", "object": "list", "data": [], "has_more": False})


def wire(seen):
    """Return what came of a request, less what differs from one to the next anyway."""
    headers = {
        name: value
        for name, value in seen.headers.items()
        if name not in {"idempotency-key", "x-stainless-retry-count"}
    }
    raw = seen.raw
    if "multipart" in headers.get("content-type", ""):
        boundary = headers["content-type"].partition("boundary=")[2]
        headers["content-type"] = headers["content-type"].replace(boundary, "")
        raw = raw.replace(boundary.encode(), b"")
    return seen.path, seen.query, headers, raw


@pytest.fixture(autouse=True)
def _deprecated():
    """Assistants are deprecated, and say so."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@pytest.mark.parametrize("name", CALLS)
async def test_what_isnt_cached_passes_untouched(name, cached, bare, api, api_cache):
    """The request is the bare client's to the byte, sent each time, and counted once each."""
    api.program = anything
    call = CALLS[name]
    expected = await call(bare)
    for number in (1, 2):
        with asynccache.record() as calls:
            found = await call(cached)
        assert type(found) is type(expected)
        assert asynccache.status(found) is None
        assert [one.outcome for one in calls] == ["bypass"]
        assert api_cache.stats().bypassed == api_cache.stats().calls == number
    first, *others = map(wire, api.requests)
    assert len(others) == 2
    assert others == [first, first]


@pytest.mark.parametrize("name", CALLS)
async def test_replay_sends_nothing_that_cant_be_replayed(name, cached, api, api_cache):
    """In mode "replay" it raises, before anything leaves the process."""
    with asynccache.options(mode="replay"), pytest.raises(ReplayMiss):
        await CALLS[name](cached)
    assert not api.requests
    assert api_cache.stats().bypassed == 0


async def test_a_list_is_counted_page_by_page(cached, api, api_cache):
    """Every page is a request of its own."""

    async def program(seen):
        last = "after=file-2" in seen.query
        data = [{"id": "file-3" if last else "file-2", "object": "file"}]
        await seen.answer({"object": "list", "data": data, "has_more": not last})

    api.program = program
    found = await pages(cached)
    assert [one.id for one in found] == ["file-2", "file-3"]
    assert api_cache.stats().bypassed == len(api.requests) == 2


async def test_websockets_are_counted_and_not_replayed(cached, api_cache):
    """A connection is counted and told when it is asked for; in mode "replay" that raises."""
    found = cached.responses
    if not hasattr(AsyncResponses, "connect"):
        assert openai.__version__.startswith("2."), "connections have another name: cache them"
        pytest.skip(f"openai {openai.__version__} has no responses.connect")
    with asynccache.record() as calls:
        assert type(found.connect()).__name__ == "AsyncResponsesConnectionManager"
    assert [one.outcome for one in calls] == ["bypass"]
    assert api_cache.stats().bypassed == 1
    with asynccache.options(mode="replay"), pytest.raises(ReplayMiss):
        found.connect()
    with asynccache.options(cache=None):
        found.connect()
    assert api_cache.stats().bypassed == 1


async def test_a_closed_cache_counts_each_call_once(bare, api):
    """Whichever door, and whether cacheable or not: counted once, and upstream each time."""
    api.program = answer
    cache = Cache.memory()
    client = cache.wrap(bare)
    doors = [
        lambda: ask(client),
        lambda: client.chat.completions.parse(model="m", messages=MESSAGES),
        lambda: client.responses.create(model="m", input="x"),
        lambda: client.responses.parse(model="m", input="x"),
        lambda: client.completions.create(model="m", prompt="x"),
        lambda: client.embeddings.create(model="m", input="x"),
        lambda: client.post("/responses", body={"input": "x"}, cast_to=object),
        lambda: client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES),
    ]
    for number, call in enumerate(doors, 1):
        await call()
        assert cache.stats().bypassed == len(api.requests) == number
    assert cache.stats().calls == len(doors)


async def test_no_cache_counts_nothing(cached, api, api_cache):
    """`options(cache=None)`: as if the client had never been wrapped."""
    api.program = answer
    with asynccache.options(cache=None), asynccache.record() as calls:
        await ask(cached)
        await cached.responses.create(model="m", input="x")
        await cached.embeddings.create(model="m", input="x")
        await cached.post("/responses", body={"input": "x"}, cast_to=object)
    assert len(api.requests) == 4
    assert api_cache.stats() == Cache.memory().stats()
    assert calls == []


# -- responses that aren't whole ---------------------------------------------------------------

UNFINISHED: dict[str, tuple[str, dict]] = {
    "failed": ("response.failed", {"status": "failed", "error": {"code": "x", "message": "m"}}),
    "failed without an error": ("response.failed", {"status": "failed"}),
    "in progress": ("response.completed", {"status": "in_progress"}),
    "queued": ("response.completed", {"status": "queued"}),
    "cancelled": ("response.completed", {"status": "cancelled"}),
    "filtered": (
        "response.incomplete",
        {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
    ),
    "incomplete": ("response.incomplete", {"status": "incomplete"}),
    "no status": ("response.completed", {"status": None}),
}


async def respond(client, *, stream, **changes):
    """Ask for a response, and read it whole; return its last event if it is streamed."""
    found = await client.responses.create(model="gpt-4o", input="x", stream=stream, **changes)
    if not stream:
        return found
    return [one async for one in found][-1]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("name", UNFINISHED)
async def test_unfinished_responses_are_not_stored(name, stream, cached, bare, api, api_cache):  # noqa: PLR0917 - fixtures
    """They are delivered as the bare client's, and asked for again."""
    end, changes = UNFINISHED[name]

    async def program(seen):
        if stream:
            await seen.stream(*response_events(end, **changes))
        else:
            await seen.answer(response(**changes))

    api.program = program
    expected = await respond(bare, stream=stream)
    for _ in range(2):
        assert await respond(cached, stream=stream) == expected
    assert len(api.requests) == 3
    stats = api_cache.stats()
    assert stats.stored == 0
    assert sum(stats.not_stored.values()) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_response_cut_by_a_token_limit_is_stored_and_counted(
    stream, cached, api, api_cache
):
    """The same request would be cut off again."""
    changes = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}

    async def program(seen):
        if stream:
            await seen.stream(*response_events("response.incomplete", **changes))
        else:
            await seen.answer(response(**changes))

    api.program = program
    first = await respond(cached, stream=stream)
    await stored(api_cache)
    assert await respond(cached, stream=stream) == first
    assert len(api.requests) == 1
    assert api_cache.stats().cut == 1


ENDLESS = {
    "no end": response_events()[:-1],
    "done instead of an end": (*response_events()[:-1], DONE),
    "an error event": (
        *response_events()[:-1],
        event("error", code="x", message="m", param=None, sequence_number=7),
    ),
    "an end cut short": (*response_events()[:-1], response_events()[-1][:-30]),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_streamed_responses_without_their_end_are_not_stored(name, cached, api, api_cache):
    """Only what came up to `response.completed` is an answer."""

    async def program(seen):
        await seen.stream(*ENDLESS[name])

    api.program = program
    for _ in range(2):
        stream = await cached.responses.create(model="gpt-4o", input="x", stream=True)
        try:
            async for _ in stream:
                pass
        except (openai.APIError, json.JSONDecodeError):
            pass
    assert len(api.requests) == 2
    assert api_cache.stats().stored == 0


async def test_breaking_at_the_completed_event_loses_no_entry(cached, api, api_cache):
    """Who stops reading at the closing event has an answer that is stored."""
    api.program = answer
    stream = await cached.responses.create(model="gpt-4o", input="x", stream=True)
    async for one in stream:
        if one.type == "response.completed":
            break
    await stream.close()
    await stored(api_cache)
    await respond(cached, stream=True)
    assert len(api.requests) == 1


async def test_the_helper_left_at_the_completed_event_loses_no_entry(cached, api, api_cache):
    """The same through `responses.stream`."""
    api.program = answer
    for _ in range(2):
        async with cached.responses.stream(model="gpt-4o", input="x") as stream:
            async for one in stream:
                if one.type == "response.completed":
                    break
        await stored(api_cache)
    assert len(api.requests) == 1


# -- patches -----------------------------------------------------------------------------------


def changed(original):
    """Send another model than was asked for."""

    @functools.wraps(original)
    async def create(self, **kwargs):
        return await original(self, **{**kwargs, "model": "other"})

    return create


def falls_back(original):
    """Send what was asked for, and something else when that fails."""

    @functools.wraps(original)
    async def create(self, **kwargs):
        try:
            return await original(self, **kwargs)
        except openai.BadRequestError:
            return await original(self, **{**kwargs, "model": "fallback"})

    return create


def asks_twice(original):
    """Send something else before, and answer with that."""

    @functools.wraps(original)
    async def create(self, **kwargs):
        found = await original(self, **{**kwargs, "model": "other"})
        await original(self, **kwargs)
        return found

    return create


async def refusing(seen):
    """Refuse the model that is asked for."""
    if seen.body["model"] == "gpt-4o":
        await seen.answer({"error": {"message": "no"}}, 400)
    else:
        await seen.answer(completion(model=seen.body["model"]))


async def echoing(seen):
    """Name the model that was sent."""
    if seen.body.get("stream"):
        await seen.stream(sse(chunk(model=seen.body["model"], finish="stop")), DONE)
    else:
        await seen.answer(completion(model=seen.body["model"]))


@pytest.mark.parametrize(
    ("patch", "program", "model"),
    [
        (changed, echoing, "other"),
        (falls_back, refusing, "fallback"),
        (asks_twice, echoing, "other"),
    ],
    ids=["changes", "falls back", "asks twice"],
)
async def test_a_patch_that_sends_something_else_makes_no_entry(  # noqa: PLR0917 - fixtures
    patch, program, model, cached, bare, api, api_cache, monkeypatch
):
    """What came for another request than the key's is delivered, and never stored under it."""
    api.program = program
    monkeypatch.setattr(AsyncCompletions, "create", patch(AsyncCompletions.create))
    for _ in range(2):
        assert (await ask(cached)).model == model
    assert api_cache.stats().not_stored == {"changed": 2}
    monkeypatch.undo()
    api.program = echoing
    assert (await ask(cached)).model == "gpt-4o"


async def test_a_patch_that_changes_a_stream_makes_no_entry(cached, api, api_cache, monkeypatch):
    """The same for streams."""
    api.program = echoing
    monkeypatch.setattr(AsyncCompletions, "create", changed(AsyncCompletions.create))
    for _ in range(2):
        assert [one.model async for one in await ask(cached, stream=True)] == ["other"]
    assert api_cache.stats().not_stored == {"changed": 2}


class Gateway(AsyncOpenAI):
    """Changes requests beneath all doors."""

    async def request(self, cast_to, options, **kwargs):
        options.json_data = {**options.json_data, "model": "routed"}
        return await super().request(cast_to, options, **kwargs)


async def test_a_client_that_changes_requests_below_the_net_makes_no_entry(api, api_cache):
    """A subclass with a `request` of its own isn't cached, as what it sends can't be known."""
    api.program = echoing
    async with Gateway(api_key="k", base_url=api.base_url, max_retries=0) as client:
        wrapped = api_cache.wrap(client)
        for _ in range(2):
            assert (await ask(wrapped)).model == "routed"
            found = await wrapped.post(
                "/chat/completions", body={"model": "m", "messages": MESSAGES}, cast_to=object
            )
            assert found["model"] == "routed"
    assert len(api.requests) == api_cache.stats().bypassed == 4


async def test_a_patch_that_only_watches_costs_nothing(cached, api, api_cache, monkeypatch):
    """Instrumentation below the cache sees calls upstream, and what it sees is stored."""
    api.program = answer
    seen_calls: list[str] = []

    def watching(name, original):
        @functools.wraps(original)
        async def create(self, *args, **kwargs):
            seen_calls.append(name)
            return await original(self, *args, **kwargs)

        return create

    for name in ("inner", "outer"):
        monkeypatch.setattr(AsyncResponses, "create", watching(name, AsyncResponses.create))
    for _ in range(2):
        await respond(cached, stream=False)
        await stored(api_cache)
    assert seen_calls == ["outer", "inner"]
    assert len(api.requests) == 1


async def test_a_patch_laid_on_top_keeps_working(cached, api, api_cache):
    """Two wrappers laid on the wrapped client see hits and misses, change arguments, nest."""
    api.program = echoing
    calls: list[str] = []

    def wrapper(name, original, **more):
        assert inspect.iscoroutinefunction(original)

        @functools.wraps(original)
        async def create(*args, **kwargs):
            calls.append(name)
            return await original(*args, **{**kwargs, **more})

        return create

    completions = cached.chat.completions
    completions.create = wrapper("inner", completions.create, seed=1)
    completions.create = wrapper("outer", completions.create, model="mine")
    first = await ask(cached)
    await stored(api_cache)
    second = await ask(cached)
    assert calls == ["outer", "inner"] * 2
    assert [state(found).outcome for found in (first, second)] == ["miss", "hit"]
    assert first == second
    assert [(seen.body["model"], seen.body["seed"]) for seen in api.requests] == [("mine", 1)]


async def test_a_call_made_beneath_a_call_is_its_own(cached, api, api_cache, monkeypatch):
    """A patch that asks another wrapped client first finds that client's cache at work."""
    api.program = echoing
    async with Cache.memory() as other_cache:
        other = other_cache.wrap(cached)
        original = AsyncCompletions.create

        async def create(self, **kwargs):
            if kwargs["model"] == "gpt-4o":
                await ask(other, model="judge")
            return await original(self, **kwargs)

        monkeypatch.setattr(AsyncCompletions, "create", create)
        results = [await ask(cached, seed=seed) for seed in range(3)]
        assert {found.model for found in results} == {"gpt-4o"}
        await stored(api_cache, 3)
        assert other_cache.stats().misses == 1
        assert other_cache.stats().hits == 2
        assert len(api.requests) == 4
        assert [state(await ask(cached, seed=seed)).outcome for seed in range(3)] == ["hit"] * 3


async def test_a_cancelled_bypass_is_cancelled(cached, api):
    """A call past the cache belongs to its caller alone: cancelling closes its connection."""

    async def program(seen):
        await seen.hang()

    api.program = program
    call = asyncio.ensure_future(cached.responses.retrieve("resp_1"))
    seen = await api.arrived(1)
    call.cancel()
    await seen.disconnected.wait()
    with pytest.raises(asyncio.CancelledError):
        await call
