"""The SDK's synchronous client: cached from threads, never in the way of a loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading

import openai
import pytest
from openai import AzureOpenAI, OpenAI, Stream
from pydantic import BaseModel

import asynccache
from asynccache import Cache, ReplayMiss
from asynccache.runtime import background
from tests.helpers.openai_answers import answer
from tests.helpers.openai_embeddings import embed
from tests.helpers.openai_server import (
    COMPLETION,
    DONE,
    EVENTS,
    MESSAGES,
    CutError,
    Gate,
    ask,
    choice,
    chunk,
    halted,
    sse,
    state,
    stored,
)

pytest_plugins = ("tests.helpers.openai_fixtures",)

WAIT = 60  # seconds until a watchdog ends what hangs


class Answer(BaseModel):
    """What an answer is parsed into."""

    number: int


@pytest.fixture
def plain(api):
    """A bare synchronous client that never retries."""
    with OpenAI(api_key="sk-a", base_url=api.base_url, max_retries=0) as client:
        yield client


@pytest.fixture
def wrapped(plain, api_cache):
    """The same, cached."""
    return api_cache.wrap(plain)


def in_threads(count, work):
    """Return what work returned in as many threads at once."""
    found, errors = [], []

    def one():
        try:
            found.append(work())
        except Exception as exc:  # noqa: BLE001 - shown by the test
            errors.append(exc)

    threads = [threading.Thread(target=one, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert not errors, errors
    assert len(found) == count
    return found


def together(count, work):
    """Do as `in_threads`, away from the loop."""
    return asyncio.to_thread(in_threads, count, work)


def dump(result):
    """Return what can be compared of a result."""
    return result.model_dump() if isinstance(result, BaseModel) else result


def raw_json(client):
    """Ask for a raw response and parse it."""
    response = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
    assert response.headers["x-request-id"] == "req_1"
    return response.parse()


def streamed(client):
    """Ask for a stream and read it."""
    with ask(client, stream=True) as stream:
        assert isinstance(stream, Stream)
        return [dump(event) for event in stream]


def streaming_raw(client):
    """Ask for a raw response that is read bit by bit."""
    create = client.chat.completions.with_streaming_response.create
    with create(model="m", messages=MESSAGES) as response:
        return response.parse()


def streaming_raw_stream(client):
    """Ask for a raw response of a stream."""
    create = client.chat.completions.with_streaming_response.create
    with create(model="m", messages=MESSAGES, stream=True) as response:
        return list(response.iter_lines())


def helper(client):
    """Use the SDK's own helper for streams."""
    with client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
        return [event.type for event in stream], stream.get_final_completion().model_dump()


DOORS = {
    "create": ask,
    "post": lambda client: client.post(
        "/chat/completions",
        body={"model": "m", "messages": MESSAGES},
        cast_to=openai.types.chat.ChatCompletion,
    ),
    "raw": raw_json,
    "streaming raw": streaming_raw,
    "streaming raw of a stream": streaming_raw_stream,
    "streamed": streamed,
    "stream helper": helper,
    "with_options": lambda client: ask(client.with_options(timeout=5)),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
async def test_every_door_pays_once_and_gives_what_the_bare_client_gives(plain, wrapped, api, door):
    """Fifty threads at once pay for one call, later ones for none, and all get equal answers."""
    expected = dump(await asyncio.to_thread(door, plain))
    api.requests.clear()
    results = await together(50, lambda: dump(door(wrapped)))
    assert len(api.requests) == 1
    results.append(dump(await asyncio.to_thread(door, wrapped)))
    assert len(api.requests) == 1
    assert all(result == expected for result in results)


async def test_parse_gives_each_caller_the_parsed_class(api, plain, wrapped):
    """What the SDK parses into a class comes parsed, on a hit as on a miss."""
    answer = choice(message={"role": "assistant", "content": '{"number": 7}', "refusal": None})

    async def program(seen):
        await seen.answer(answer)

    api.program = program

    def parse(client):
        return client.chat.completions.parse(model="m", messages=MESSAGES, response_format=Answer)

    for _ in range(2):
        parsed = await asyncio.to_thread(parse, wrapped)
        assert parsed.choices[0].message.parsed == Answer(number=7)
    assert len(api.requests) == 1


async def test_both_kinds_of_client_share_their_answers(api, wrapped, cached, api_cache):
    """One wire request has one key: an asynchronous client's answer serves a synchronous one."""
    first = await ask(cached)
    await stored(api_cache)
    second = await asyncio.to_thread(ask, wrapped)
    assert dump(first) == dump(second)
    assert [state(first).outcome, state(second).outcome] == ["miss", "hit"]
    assert len(api.requests) == 1


async def test_a_thread_joins_the_call_of_a_task(api, wrapped, cached, api_cache):
    """A call under way in the loop is waited for by a thread, and the other way round."""
    gate = Gate()

    async def program(seen):
        await gate.wait()
        await seen.answer(COMPLETION)

    api.program = program
    calls = [asyncio.ensure_future(ask(cached)), asyncio.to_thread(ask, wrapped)]
    waiting = asyncio.gather(*calls)
    await api.arrived()
    gate.open()
    assert len({result.id for result in await waiting}) == 1
    assert len(api.requests) == 1


async def test_embeddings_are_shared_input_by_input(api, wrapped):
    """Only inputs that aren't known go upstream."""
    api.program = embed

    def ask_for(*inputs):
        return wrapped.embeddings.create(model="m", input=list(inputs))

    first = await asyncio.to_thread(ask_for, "a", "b")
    second = await asyncio.to_thread(ask_for, "b", "c")
    assert [seen.body["input"] for seen in api.requests] == [["a", "b"], ["c"]]
    assert first.data[1].embedding == second.data[0].embedding
    assert ask_for("c", "a").data[1].embedding == first.data[0].embedding  # on the loop's thread


async def test_errors_are_the_sdks_own_and_not_stored(api, wrapped):
    """A refused request raises what it raises without a cache, each time."""

    async def program(seen):
        await seen.answer({"error": {"message": "no"}}, status=400)

    api.program = program
    for _ in range(2):
        with pytest.raises(openai.BadRequestError):
            await asyncio.to_thread(ask, wrapped)
    assert len(api.requests) == 2


async def test_a_stream_comes_as_it_comes(api, wrapped):
    """A reader has the first event while the server still holds back the second."""
    gate = Gate()

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        await gate.wait()
        await seen.send(EVENTS[1])
        await seen.send(DONE)
        await seen.end()

    api.program = program

    def read():
        stream = iter(ask(wrapped, stream=True))
        first = next(stream)
        gate.open()
        return first, list(stream)

    first, rest = await asyncio.to_thread(read)
    assert first.choices[0].delta.content == "One "
    assert len(rest) == 1


async def test_a_stream_that_all_have_left_is_hung_up(api, wrapped, api_cache):
    """When the only reader leaves, the server sees it at once, and nothing is stored."""

    async def program(seen):
        await seen.start()
        await seen.send(sse(chunk("One ")))
        await seen.hang()

    api.program = program

    def leave():
        with ask(wrapped, stream=True) as stream:
            return next(iter(stream))

    await asyncio.to_thread(leave)
    await api.requests[0].disconnected.wait()
    assert api_cache.stats().stored == 0


async def test_one_thread_may_leave_a_stream_that_others_read(api, wrapped):
    """Leaving early disturbs nobody else."""
    gate, left, reading = Gate(), threading.Event(), threading.Event()
    api.program = halted(gate)

    def leave():
        with ask(wrapped, stream=True) as stream:
            next(iter(stream))
        left.set()

    def stay():
        stream = iter(ask(wrapped, stream=True))
        found = [next(stream)]
        reading.set()
        assert left.wait(WAIT)
        gate.open()
        return found + list(stream)

    staying = asyncio.create_task(asyncio.to_thread(stay))
    assert await asyncio.to_thread(reading.wait, WAIT)
    await asyncio.to_thread(leave)
    assert len(await staying) == 3
    assert len(api.requests) == 1


async def test_collecting_a_left_stream_waits_for_nothing(api, plain):
    """A stream left by a bare ``break`` may be collected in a thread that holds any lock."""
    lock, wanted = threading.Lock(), threading.Event()

    def observer(_):
        wanted.set()
        with lock:
            pass

    async def program(seen):
        if not seen.body.get("stream"):
            await seen.answer(COMPLETION)
            return
        await seen.start()
        await seen.send(EVENTS[0])
        await seen.hang()

    api.program = program

    def scene():
        with Cache.memory(observer=observer) as cache:
            client = cache.wrap(plain)
            next(iter(ask(client, stream=True)))
            asking = threading.Thread(target=ask, args=(client,), daemon=True)
            with lock:
                asking.start()
                assert wanted.wait(WAIT)  # the background loop waits for the lock
                gc.collect()
            asking.join(WAIT)
            return asking.is_alive()

    gc.disable()
    try:
        assert not await asyncio.to_thread(scene)
    finally:
        gc.enable()
    await api.requests[0].disconnected.wait()


async def test_a_script_may_end_with_a_left_stream(api):
    """Nothing is printed about a stream that a script has left in the middle."""
    script = textwrap.dedent(f"""
        from openai import OpenAI
        from asynccache import Cache

        cache = Cache.memory().__enter__()
        client = cache.wrap(OpenAI(api_key="k", base_url={api.base_url!r}, max_retries=0))
        for event in client.chat.completions.create(model="m", messages=[], stream=True):
            print(event.choices[0].delta.content)
            break
    """)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("One \n", "")


async def test_a_cut_stream_is_not_stored(api, wrapped, api_cache):
    """What breaks off breaks off for its reader, and is asked for again."""

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        raise CutError

    api.program = program

    def read():
        with pytest.raises(Exception, match=r"(?i)incomplete|connection|peer"):
            list(ask(wrapped, stream=True))

    await asyncio.to_thread(read)
    await asyncio.to_thread(read)
    assert len(api.requests) == 2
    assert api_cache.stats().stored == 0


async def test_many_streams_at_once_are_one(api, wrapped):
    """Fifty threads reading one stream make one request, and each reads all of it."""
    results = await together(50, lambda: len(list(ask(wrapped, stream=True))))
    assert results == [3] * 50
    assert len(api.requests) == 1


# -- on the loop's own thread --------------------------------------------------------------------


async def test_on_the_loops_thread_as_in_a_notebook(api, wrapped, api_cache):
    """A call is cached there, too: the loop stands still, as it does in the SDK's own call."""
    api.program = answer
    assert state(ask(wrapped)).outcome == "miss"
    assert len(list(ask(wrapped, stream=True))) == 3
    assert len(wrapped.embeddings.create(model="m", input=["a", "b"]).data) == 2
    await stored(api_cache, 4)
    assert state(ask(wrapped)).outcome == "hit"
    assert len(list(ask(wrapped, stream=True))) == 3
    assert len(wrapped.embeddings.create(model="m", input=["b", "a"]).data) == 2
    assert len(api.requests) == 3
    assert api_cache.stats().bypassed == 0


async def test_in_a_notebook_with_a_plain_block(api, plain, tmp_path):
    """So it is where a cell opens the cache by `with`, on disk, and another cell asks again."""
    with Cache.disk(cache_path_root=tmp_path) as cache:
        client = cache.wrap(plain)
        first = dump(ask(client))
    with cache:
        assert dump(ask(client)) == first
    assert len(api.requests) == 1


async def test_on_the_loops_thread_a_call_under_way_is_not_waited_for(
    api, wrapped, cached, api_cache, caplog
):
    """A task's call that this very thread would have to go on with is no reason to hang."""
    gate = Gate()

    async def program(seen):
        if len(api.requests) == 1:
            await gate.wait()
        await seen.answer(COMPLETION)

    api.program = program
    under_way = asyncio.ensure_future(ask(cached))
    await api.arrived()
    with caplog.at_level(logging.WARNING, "asynccache"):
        assert asynccache.status(ask(wrapped)) is None
        assert state(ask(wrapped, model="other")).outcome == "miss"
    assert "stands still" in caplog.text
    gate.open()
    assert state(await under_way).outcome == "miss"
    assert len(api.requests) == 3
    assert api_cache.stats().bypassed == 1


async def test_on_the_loops_thread_replay_serves_or_raises(api, plain, api_cache, wrapped):
    """In mode "replay" nothing goes upstream, whichever thread asks."""
    await asyncio.to_thread(ask, wrapped)
    await stored(api_cache)
    with asynccache.options(mode="replay"):
        assert state(ask(wrapped)).outcome == "hit"
        for call in (lambda: ask(wrapped, model="other"), wrapped.models.list):
            with pytest.raises(ReplayMiss):
                call()
            with pytest.raises(ReplayMiss):
                await asyncio.to_thread(call)
    assert len(api.requests) == 1


def test_in_the_background_loop_it_goes_past(api, plain, caplog):
    """An observer that asks a model of its own has its answer, uncached."""
    told = []

    def observer(event):
        told.append(event.outcome)
        if len(told) == 1:
            ask(client, model="other")

    with caplog.at_level(logging.WARNING, "asynccache"), Cache.memory(observer=observer) as cache:
        client = cache.wrap(plain)
        ask(client)
        assert cache.stats().bypassed == 1
    assert told == ["miss", "bypass"]
    assert "background loop" in caplog.text
    assert len(api.requests) == 2


# -- the rest ------------------------------------------------------------------------------------


async def test_past_the_cache_it_is_the_bare_client(api, wrapped, plain, api_cache):
    """Closed, switched off, or asked for what no cache keeps: the call is made as it came."""

    async def program(seen):
        await seen.answer({"object": "list", "data": []})

    api.program = program
    await asyncio.to_thread(wrapped.models.list)
    api.program = type(api).program
    with asynccache.options(mode="off"):
        await asyncio.to_thread(ask, wrapped)
        await asyncio.to_thread(streamed, wrapped)
    with asynccache.options(cache=None):
        await asyncio.to_thread(ask, wrapped)
    closed = Cache.memory().wrap(plain)
    await asyncio.to_thread(ask, closed)
    assert len(api.requests) == 5
    assert api_cache.stats().bypassed == 3


async def test_azure_deployments_are_cached_too(api, api_cache):
    """Azure's synchronous client is wrapped like the other."""
    azure = AzureOpenAI(
        api_key="k", api_version="2024-06-01", azure_endpoint=f"http://127.0.0.1:{api.port}"
    )
    with azure:
        wrapped = api_cache.wrap(azure)
        first = await asyncio.to_thread(ask, wrapped)
        assert dump(await asyncio.to_thread(ask, wrapped)) == dump(first)
    assert len(api.requests) == 1


async def test_options_of_the_thread_hold(api, wrapped):
    """What a thread has set around its call goes with it."""

    def two_samples():
        with asynccache.options(sample="each"):
            return [state(ask(wrapped)).outcome for _ in range(2)]

    assert await asyncio.to_thread(two_samples) == ["miss", "miss"]
    assert await asyncio.to_thread(two_samples) == ["hit", "hit"]


async def test_answers_are_each_callers_own(api, wrapped):
    """No two callers share an object."""
    results = await together(20, lambda: ask(wrapped))
    assert len({id(result) for result in results}) == 20
    results[0].choices[0].message.content = "changed"
    assert all(result.choices[0].message.content == "Hello!" for result in results[1:])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork on this platform")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
async def test_a_child_process_gets_right_answers(api, wrapped, api_cache):
    """After a fork calls go past the parent's cache, or through one that the child opens."""
    await asyncio.to_thread(ask, wrapped)
    asked = len(api.requests)

    def in_child():
        child = os.fork()
        if child == 0:
            signal.alarm(WAIT)
            status = 1
            try:
                asyncio._set_running_loop(None)
                logging.disable()
                client = OpenAI(api_key="sk-a", base_url=api.base_url, max_retries=0)
                past = asynccache.status(ask(api_cache.wrap(client)))
                with Cache.memory() as cache:
                    own = [state(ask(cache.wrap(client))).outcome for _ in range(2)]
                status = 0 if (past, own) == (None, ["miss", "hit"]) else 2
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert await asyncio.to_thread(in_child) == 0
    assert len(api.requests) == asked + 2


async def test_a_threads_own_timeout_is_kept(api, wrapped):
    """A caller's own timeout is kept, and the others' calls go on."""
    gate = Gate()

    async def program(seen):
        await gate.wait()
        await seen.answer(COMPLETION)

    api.program = program
    patient = asyncio.create_task(asyncio.to_thread(ask, wrapped))
    await api.arrived()
    with pytest.raises(openai.APITimeoutError):
        await asyncio.to_thread(ask, wrapped, timeout=0.05)
    gate.open()
    assert (await patient).id == COMPLETION["id"]
    assert len(api.requests) == 1


def test_without_any_loop(api, tmp_path):
    """A script that knows nothing of asyncio is served too."""

    async def opened():
        return await Cache.disk(cache_path_root=tmp_path).open()

    cache = background.call(opened)
    try:
        with OpenAI(api_key="k", base_url=api.base_url, max_retries=0) as client:
            wrapped = cache.wrap(client)
            assert [state(ask(wrapped)).outcome for _ in range(3)] == ["miss", "hit", "hit"]
    finally:
        background.call(cache.aclose)
    assert len(api.requests) == 1
