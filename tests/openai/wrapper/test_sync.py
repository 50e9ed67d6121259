from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai import Stream
from openai.types.chat import ChatCompletion, ChatCompletionChunk

import asynccache
from asynccache import Cache, ReplayMiss
from asynccache.openai import OpenAIWrapper
from asynccache.runtime import background
from tests.helpers.openai_server import DONE, EVENTS, MESSAGES, chunk, sse, state
from tests.helpers.wrapper import entry_of

pytest_plugins = ("tests.helpers.wrapper_fixtures",)


@pytest.fixture
def wrapper(api):
    """A wrapper of one entry, whose clients are closed at the end."""
    with OpenAIWrapper(config_list=[entry_of(api, price=[0.1, 0.2])]) as made:
        yield made


@pytest.fixture
def cache():
    """A cache as `with` gives it."""
    with Cache.memory() as face:
        yield face


def ask(wrapper, **changes):
    """Make the one call that nearly all tests make."""
    return wrapper.create(**{"messages": MESSAGES, **changes})


def test_answer_comes_as_from_acreate(wrapper, cache, numbered):
    """`create` returns the SDK's object with what the wrapper notes, and pays once."""
    first = ask(wrapper, cache=cache)
    again = ask(wrapper, cache=cache)
    assert isinstance(first, ChatCompletion)
    assert again == first
    assert (again.config_id, again.pass_filter, again.cost) == (0, True, pytest.approx(0.0015))
    assert [state(first).outcome, state(again).outcome] == ["miss", "hit"]
    assert len(numbered.requests) == 1
    assert wrapper.actual_usage_summary["total_cost"] == pytest.approx(0.0015)
    assert wrapper.total_usage_summary["total_cost"] == pytest.approx(0.003)


def test_either_face_may_be_passed(wrapper, cache, numbered):
    """`cache=` takes what `with` gives and what `async with` gives, in both kinds of call."""
    ask(wrapper, cache=cache)
    ask(wrapper, cache=cache.asynchronous)

    async def awaited():
        async with OpenAIWrapper(config_list=[entry_of(numbered)], cache=cache) as other:
            return await other.acreate(messages=MESSAGES, cache=cache)

    assert state(asyncio.run(awaited())).outcome == "hit"
    assert len(numbered.requests) == 1


def test_cache_in_force_is_used(wrapper, numbered):
    """The block around the call, and options in it, hold for a call that names no cache."""
    with Cache.memory():
        ask(wrapper)
        assert state(ask(wrapper)).outcome == "hit"
        with asynccache.options(mode="replay"), pytest.raises(ReplayMiss):
            ask(wrapper, temperature=1)
    assert len(numbered.requests) == 1


def test_implicit_cache_is_on_disk(wrapper, numbered, folder):
    """Where nobody names a cache, it is AutoGen's default, as in `acreate`."""
    ask(wrapper)
    assert state(ask(wrapper)).outcome == "hit"
    assert (folder / ".cache" / "41" / "asynccache.db").exists()


def test_fifty_threads_pay_once(wrapper, cache, numbered):
    """Threads share a call, as coroutines do."""
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: ask(wrapper, cache=cache).id, range(50)))
    assert answers == ["chatcmpl-1"] * 50


def test_error_is_the_sdks(wrapper, cache, api):
    """The last entry's error is raised in the calling thread."""

    async def refuse(seen):
        await seen.answer({"error": {"message": "no"}}, 401)

    api.program = refuse
    with pytest.raises(openai.AuthenticationError):
        ask(wrapper, cache=cache)


def test_filter_is_called_in_the_background(wrapper, cache, numbered):
    """A filter decides as in `acreate`; it runs in the background loop's thread."""
    seen = []

    def good(*, context, response):
        seen.append(threading.current_thread())
        return True

    assert ask(wrapper, cache=cache, filter_func=good).pass_filter
    assert seen
    assert threading.current_thread() not in seen


@pytest.mark.parametrize("again", [False, True], ids=["live", "replayed"])
def test_stream_is_read_without_awaiting(wrapper, cache, api, again):
    """A stream is an iterator of the SDK's events with the wrapper's notes, live or replayed."""
    if again:
        with ask(wrapper, cache=cache, stream=True) as stream:
            list(stream)
    stream = ask(wrapper, cache=cache, stream=True)
    events = list(stream)
    assert isinstance(stream, Stream)
    assert all(type(event) is ChatCompletionChunk for event in events)
    assert [event.choices[0].delta.content for event in events] == ["One ", "two ", "three"]
    assert next(stream, None) is None
    assert stream.response.status_code == 200
    notes: Any = stream
    assert (notes.config_id, notes.pass_filter) == (0, True)
    assert state(stream).outcome == ("hit" if again else "miss")
    assert len(api.requests) == 1


def test_stream_counts_its_cost(wrapper, cache, api):
    """A stream's cost is known once the events have told it."""
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}

    async def program(seen):
        await seen.stream(*EVENTS[:-1], sse(chunk(usage=usage)), DONE)

    api.program = program
    stream = ask(wrapper, cache=cache, stream=True)
    assert stream.cost == 0
    list(stream)
    assert stream.cost == pytest.approx(0.0015)


def test_stream_is_whole_only_when_it_is(wrapper, cache, api):
    """Leaving a stream early ends the call upstream, and stores nothing."""
    gone = []

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        await seen.hang()
        gone.append(seen)

    api.program = program
    with ask(wrapper, cache=cache, stream=True) as stream:
        assert next(iter(stream)).choices[0].delta.content == "One "
    asyncio.run(api.requests[0].disconnected.wait())
    vars(api).pop("program")
    assert len(list(ask(wrapper, cache=cache, stream=True))) == 3
    assert len(api.requests) == 2


async def test_works_in_the_thread_of_a_loop(wrapper, cache, numbered):
    """Called in a coroutine it holds the loop up, and works."""
    assert ask(wrapper, cache=cache) == ask(wrapper, cache=cache)
    assert len(numbered.requests) == 1


def test_background_loop_is_told(wrapper):
    """In the background loop itself it says so instead of waiting for ever."""

    async def inside():
        with pytest.raises(RuntimeError, match="wait for itself"):
            ask(wrapper)

    background.call(inside)


def test_closed_wrapper_goes_on(wrapper, cache, numbered):
    """`close` closes what was made, and the wrapper may be used again."""
    ask(wrapper, cache=cache)
    wrapper.close()
    wrapper.close()
    ask(wrapper, cache=cache, temperature=1)
    assert len(numbered.requests) == 2
