"""Every client of the process is cached by one line, and is as it was by another."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import itertools
import logging

import pytest
from openai import AsyncOpenAI, OpenAI
from openai._base_client import AsyncAPIClient
from openai.resources.chat.completions import AsyncCompletions

import asynccache
from asynccache import Cache, instrument_openai, uninstrument_openai
from asynccache.cache.ambient import idle_watch
from tests.helpers.openai_embeddings import embed
from tests.helpers.openai_server import COMPLETION, MESSAGES, ask, state, stored

pytest_plugins = ("tests.helpers.openai_fixtures",)


@pytest.fixture(autouse=True)
def as_before():
    """Leave the SDK as it was found, whatever the test did, and begin to count anew."""
    idle_watch.over, idle_watch.numbers = False, itertools.count(1)
    yield
    uninstrument_openai()


@pytest.fixture
def instrumented():
    """The SDK, instrumented."""
    instrument_openai()


@pytest.fixture
def plain(api):
    """A bare synchronous client that never retries."""
    with OpenAI(api_key="sk-a", base_url=api.base_url, max_retries=0) as client:
        yield client


def read(result):
    """Return what can be compared of a result, which may be a raw response."""
    return (result.parse() if hasattr(result, "parse") else result).model_dump()


async def streamed(client, **changes):
    """Return a stream's events."""
    stream = await ask(client, stream=True, **changes)
    return [event.model_dump() async for event in stream]


async def test_every_client_is_cached_whoever_made_it(api, bare, api_cache, instrumented):
    """Clients from before and after, and copies of them, share what the cache in force holds."""
    assert state(await ask(bare)).outcome == "miss"
    async with AsyncOpenAI(api_key="sk-a", base_url=api.base_url) as later:
        assert state(await ask(later)).outcome == "hit"
        assert state(await ask(later.with_options(timeout=3))).outcome == "hit"
    assert len(api.requests) == 1


async def test_what_was_taken_before_is_cached_too(api, bare, api_cache):
    """Bound methods and raw-response objects that somebody holds since long go through it too."""
    create = bare.chat.completions.create
    raw = bare.chat.completions.with_raw_response
    streaming = bare.chat.completions.with_streaming_response
    beta = bare.beta.chat.completions
    instrument_openai()
    asked = {"model": "gpt-4o", "messages": MESSAGES}
    expected = read(await create(**asked))
    assert read(await raw.create(**asked)) == expected
    async with streaming.create(**asked) as response:
        assert (await response.parse()).model_dump() == expected
    assert read(await beta.parse(**asked))["choices"][0]["message"]["content"] == "Hello!"
    assert len(api.requests) == 2  # `parse` says "stream": false, which is another request


async def test_streams_are_shared(api, bare, api_cache, instrumented):
    """Three readers of the same stream make one request, and read the same."""
    results = await asyncio.gather(*(streamed(bare) for _ in range(3)))
    assert len(api.requests) == 1
    assert results[0] == results[1] == results[2]
    assert await streamed(bare) == results[0]
    assert len(api.requests) == 1


async def test_embeddings_go_input_by_input(api, bare, api_cache, instrumented):
    """The fast way of embeddings is taken as in a wrapped client."""
    api.program = embed
    await bare.embeddings.create(model="m", input=["a", "b"])
    await bare.embeddings.create(model="m", input=["b", "c"])
    assert [seen.body["input"] for seen in api.requests] == [["a", "b"], ["c"]]


async def test_synchronous_clients_share_the_same_answers(
    api, bare, plain, api_cache, instrumented
):
    """A thread that was started inside the block is inside it."""
    await ask(bare)
    await stored(api_cache)
    assert state(await asyncio.to_thread(ask, plain)).outcome == "hit"
    assert state(ask(plain)).outcome == "hit"  # on the loop's thread, without waiting
    assert len(api.requests) == 1


async def test_innermost_cache_in_force_is_used(api, bare, instrumented):
    """Blocks nest, and what is named for a block or the process is found."""
    async with Cache.memory(cache_seed=1) as outer:
        await ask(bare)
        async with Cache.memory(cache_seed=2) as inner:
            await ask(bare)
            with asynccache.options(cache=outer):
                await ask(bare)
            with asynccache.options(cache=None):
                await ask(bare)
        await ask(bare)
    assert (outer.stats().hits, outer.stats().misses) == (2, 1)
    assert (inner.stats().hits, inner.stats().misses) == (0, 1)
    assert len(api.requests) == 3


async def test_a_cache_of_its_own_serves_where_none_is_in_force(api, bare, plain):
    """With ``instrument_openai(cache)`` plain threads and workers need no block."""
    cache = await Cache.memory().open()
    try:
        instrument_openai(cache)
        await ask(bare)
        await stored(cache)
        found = await asyncio.get_running_loop().run_in_executor(None, ask, plain)
        assert state(found).outcome == "hit"
        assert cache.stats().hits == 1
        async with Cache.memory() as other:
            await ask(bare)
        assert other.stats().misses == 1
    finally:
        await cache.aclose()


async def test_without_a_cache_requests_are_the_same_bytes(api, bare, plain, monkeypatch):
    """Where no cache is in force, what is sent is what an uninstrumented client sends."""

    async def all_kinds():
        api.requests.clear()
        await ask(bare, temperature=0.5, extra_headers={"x-own": "1"}, extra_query={"q": "1"})
        await streamed(bare)
        await bare.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
        await asyncio.to_thread(ask, plain)
        return [(one.path, one.query, one.headers, one.raw) for one in api.requests]

    before = await all_kinds()
    instrument_openai()
    assert await all_kinds() == before
    assert asynccache.status(await ask(bare)) is None


async def test_wrapped_clients_keep_their_own_cache(api, cached, bare, api_cache, instrumented):
    """A wrapped client's calls pass through its cache alone."""
    async with Cache.memory() as inner:
        await ask(cached)
        assert state(await ask(cached)).outcome == "hit"
        assert inner.stats().misses == inner.stats().hits == 0
        await ask(inner.wrap(bare))
    assert (api_cache.stats().misses, api_cache.stats().hits) == (1, 1)
    assert inner.stats().misses == 1


async def test_it_is_idempotent_and_reversible(api, bare, api_cache):
    """Twice is once; afterwards the SDK's classes hold the very functions they came with."""
    places = [(AsyncCompletions, "create"), (AsyncOpenAI, "request"), (OpenAI, "request")]
    before = [vars(owner).get(name) for owner, name in places]
    instrument_openai()
    once = [vars(owner)[name] for owner, name in places]
    instrument_openai()
    assert [vars(owner)[name] for owner, name in places] == once
    assert all(new is not old for new, old in zip(once, before, strict=True))
    await ask(bare)
    uninstrument_openai()
    uninstrument_openai()
    assert [vars(owner).get(name) for owner, name in places] == before
    assert asynccache.status(await ask(bare)) is None
    instrument_openai()
    assert state(await ask(bare)).outcome == "hit"


async def test_as_a_context_manager_it_ends_with_its_block(bare, api_cache):
    """A block inside another leaves the outer one in force."""
    own = await Cache.memory().open()
    with instrument_openai():
        with instrument_openai(own):
            assert state(await ask(bare)).outcome == "miss"
        assert state(await ask(bare)).outcome == "hit"
    assert asynccache.status(await ask(bare)) is None
    await own.aclose()


def test_methods_look_like_the_sdks(instrumented):
    """Frameworks that look at signatures, or for coroutine functions, find what they look for."""
    assert inspect.iscoroutinefunction(AsyncCompletions.create)
    assert "messages" in inspect.signature(AsyncCompletions.create).parameters
    assert AsyncCompletions.create.__name__ == "create"
    assert inspect.iscoroutinefunction(AsyncOpenAI.request)
    assert not inspect.iscoroutinefunction(OpenAI.request)


async def test_blocks_may_overlap_and_be_entered_again(bare, api_cache):
    """What a block that is left takes along is its own, whatever the order."""
    first, second = instrument_openai(), instrument_openai()
    with contextlib.ExitStack() as later:
        with first:
            later.enter_context(second)
        assert state(await ask(bare)).outcome == "miss"
    assert asynccache.status(await ask(bare)) is None
    with second, second:
        assert state(await ask(bare)).outcome == "hit"
    assert asynccache.status(await ask(bare)) is None


async def test_a_blocks_cache_is_gone_with_it(bare):
    """No cache that only a block named serves calls outside it."""
    own, other = await Cache.memory().open(), await Cache.memory().open()
    try:
        first, second = instrument_openai(own), instrument_openai()
        with contextlib.ExitStack() as later:
            with first:
                later.enter_context(second)
                assert state(await ask(bare)).outcome == "miss"
            assert asynccache.status(await ask(bare)) is None
        instrument_openai()
        assert asynccache.status(await ask(bare)) is None
        with instrument_openai(other):
            assert state(await ask(bare)).outcome == "miss"
        assert asynccache.status(await ask(bare)) is None
        assert (own.stats().misses, other.stats().misses) == (1, 1)
    finally:
        await own.aclose()
        await other.aclose()


@pytest.mark.parametrize("first", ["theirs", "ours"])
async def test_other_patches_on_top_or_beneath_stay(api, bare, api_cache, monkeypatch, first):
    """Whoever patches the same method first or last is called, and is left in place."""
    seen = []

    def patch():
        original = AsyncCompletions.create

        @functools.wraps(original)
        async def theirs(self, *args, **kwargs):
            seen.append(kwargs["model"])
            return await original(self, *args, **kwargs)

        monkeypatch.setattr(AsyncCompletions, "create", theirs)

    if first == "theirs":
        patch()
        instrument_openai()
    else:
        instrument_openai()
        patch()
    outcomes = [state(await ask(bare)).outcome for _ in range(3)]
    assert outcomes == ["miss", "hit", "hit"]
    # Beneath, they see what is paid; on top, what is asked.
    assert len(seen) == (1 if first == "theirs" else 3)
    uninstrument_openai()
    assert asynccache.status(await ask(bare)) is None
    instrument_openai()
    assert state(await ask(bare)).outcome == "hit"
    assert len(api.requests) == 2


class Wrapper:
    """A method wrapped by an object that learns by its descriptor who is called, as wrapt does."""

    def __init__(self, wrapped, wrapper):
        functools.update_wrapper(self, wrapped)
        self._wrapped, self._wrapper = wrapped, wrapper

    def __eq__(self, other):
        return bool(self._wrapped == other)

    def __hash__(self):
        return hash(self._wrapped)

    def __get__(self, instance, owner):
        return Bound(self._wrapped.__get__(instance, owner), instance, self._wrapper)

    def __call__(self, *args, **kwargs):
        raise AssertionError("called past its descriptor")


class Bound:
    """The same, bound."""

    def __init__(self, bound, instance, wrapper):
        functools.update_wrapper(self, bound)
        self.__self__, self.__func__ = instance, getattr(bound, "__func__", bound)
        self._called = functools.partial(wrapper, bound, instance)

    async def __call__(self, *args, **kwargs):
        return await self._called(args, kwargs)


@pytest.mark.parametrize("place", [(AsyncCompletions, "create"), (AsyncOpenAI, "request")])
async def test_what_wraps_methods_by_descriptors_is_called_as_one(
    api, bare, api_cache, monkeypatch, place
):
    """An object beneath ours is bound to the client or resource it is called for."""
    owner, name = place
    seen = []

    async def wrapper(bound, instance, args, kwargs):
        seen.append(type(instance))
        return await bound(*args, **kwargs)

    instrument_openai()
    await ask(bare, temperature=0)
    uninstrument_openai()
    monkeypatch.setattr(owner, name, Wrapper(getattr(owner, name), wrapper))
    with asynccache.options(cache=None):
        await ask(bare)
    instrument_openai()
    with asynccache.options(cache=None):
        await ask(bare)
    outcomes = [state(await ask(bare)).outcome for _ in range(2)]
    assert outcomes == ["miss", "hit"]
    assert [event["model"] for event in await streamed(bare)]
    assert seen == [owner] * 4


async def test_tracing_of_requests_may_come_first(api, bare, plain, api_cache, monkeypatch):
    """Whoever has put a ``request`` of their own onto the clients stands beneath ours."""
    seen = []

    def traced(owner):
        original = owner.request

        @functools.wraps(original)
        def request(self, *args, **kwargs):
            seen.append(owner)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(owner, "request", request)

    traced(AsyncOpenAI)
    traced(OpenAI)
    instrument_openai()
    outcomes = [state(await ask(bare)).outcome for _ in range(2)]
    assert outcomes == ["miss", "hit"]
    outcomes = [state(await asyncio.to_thread(ask, plain, seed=1)).outcome for _ in range(2)]
    assert outcomes == ["miss", "hit"]
    assert seen == [AsyncOpenAI, OpenAI]
    uninstrument_openai()
    await ask(bare)
    assert seen == [AsyncOpenAI, OpenAI, AsyncOpenAI]


async def test_tracing_may_read_streams_through_an_iterator_of_its_own(
    api, bare, api_cache, monkeypatch
):
    """What tracing puts over a stream's ``_iterator`` sees each event, of misses and of hits."""
    seen = []
    instrument_openai()
    original = AsyncCompletions.create

    @functools.wraps(original)
    async def create(self, *args, **kwargs):
        stream = await original(self, *args, **kwargs)
        inner = stream._iterator

        async def noted():
            async for event in inner:
                seen.append(event.model_dump())
                yield event

        stream._iterator = noted()
        return stream

    monkeypatch.setattr(AsyncCompletions, "create", create)
    events = await streamed(bare)
    assert await streamed(bare) == events
    assert seen == events * 2
    assert len(api.requests) == 1
    async with await ask(bare, stream=True) as stream:
        assert (await anext(stream)).model_dump() == events[0]


async def test_what_is_put_beneath_meanwhile_is_called(api, bare, api_cache, monkeypatch):
    """Switched off and on again around somebody's patch, calls go through that patch."""
    seen = []
    instrument_openai()
    await ask(bare)
    uninstrument_openai()
    original = AsyncCompletions.create

    @functools.wraps(original)
    async def theirs(self, *args, **kwargs):
        seen.append(kwargs["model"])
        return await original(self, *args, **kwargs)

    monkeypatch.setattr(AsyncCompletions, "create", theirs)
    instrument_openai()
    assert state(await ask(bare, model="other")).outcome == "miss"
    assert seen == ["other"]


async def test_hundred_calls_without_a_cache_are_told_once(bare, instrumented, caplog):
    """If nothing was served in the first hundred calls, one line says why."""
    with caplog.at_level(logging.WARNING, "asynccache"):
        for _ in range(250):
            await ask(bare)
    (record,) = [found for found in caplog.records if "instrumented" in found.message]
    assert "there was no cache around it" in record.message


async def test_hundred_calls_past_a_closed_cache_are_told(bare, caplog):
    """The line names the reason: here the cache that was named isn't open."""
    instrument_openai(Cache.memory())
    with caplog.at_level(logging.WARNING, "asynccache"):
        for _ in range(100):
            await ask(bare)
    (record,) = [found for found in caplog.records if "instrumented" in found.message]
    assert "the cache isn't open" in record.message


async def test_hundred_calls_that_are_changed_beneath_are_told(bare, api_cache, caplog):
    """Whoever has hidden the request from us makes every call a paid one, and that is said."""
    bare.request = functools.partial(AsyncAPIClient.request, bare)
    instrument_openai()
    for _ in range(101):
        await ask(bare)
    assert [r.getMessage() for r in caplog.records if "no cache served any" in r.getMessage()]
    assert api_cache.stats().not_stored == {"changed": 101}


async def test_nothing_is_told_once_something_was_served(bare, api_cache, instrumented, caplog):
    """A program that is served now and then is left in peace."""
    await ask(bare)
    with caplog.at_level(logging.WARNING, "asynccache"), asynccache.options(cache=None):
        for _ in range(150):
            await ask(bare)
    assert not caplog.records


async def test_a_swarm_pays_once(api, bare, api_cache, instrumented):
    """A thousand at once make one request."""
    results = await asyncio.gather(*(ask(bare) for _ in range(1000)))
    assert len(api.requests) == 1
    assert {result.id for result in results} == {COMPLETION["id"]}


def test_what_is_no_cache_is_refused():
    """A wrong argument is said at once."""
    with pytest.raises(TypeError, match="AsyncCache, a SyncCache or None, not a str"):
        instrument_openai("redis://localhost")  # type: ignore[arg-type]
