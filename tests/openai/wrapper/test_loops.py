"""The implicit cache and the wrapper's clients through the lives of loops and processes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import time

import pytest

import asynccache
from asynccache import Cache, ReplayMiss
from asynccache.openai import OpenAIWrapper
from asynccache.openai.wrapper import loop as wrapper_loop
from tests.helpers.openai_server import EVENTS, MESSAGES, Gate, good, running, state
from tests.helpers.wrapper import client_of, entry_of, say

pytest_plugins = ("tests.helpers.wrapper_fixtures",)


def wrapper_threads():
    """Return the threads of disk stores that are open."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("asynccache-")]


def none_left():
    """Return whether no thread is left, once those that are ending have ended."""
    for thread in wrapper_threads():
        thread.join(10)
    return wrapper_threads() == []


def run_closing(main):
    """Run a loop and end it by `close` alone, as old programs do."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


@pytest.fixture
def one(numbered, folder):
    """Return a wrapper that lives longer than any loop here."""
    return OpenAIWrapper(config_list=[entry_of(numbered)], price=1)


def test_what_one_loop_has_paid_for_the_next_one_finds(one, numbered):
    """The answer is stored although the loop ends at once; both loops have caches of their own."""
    first = asyncio.run(say(one))
    assert none_left()
    assert [first, asyncio.run(say(one)), asyncio.run(say(one))] == [1, 1, 1]
    assert len(numbered.requests) == 1
    assert one.actual_usage_summary["total_cost"] == pytest.approx(0.012)
    assert one.total_usage_summary["total_cost"] == pytest.approx(0.036)
    assert len(one._clients) == 1  # those of loops that are gone went too


def test_clients_belong_to_their_loop(one, numbered):
    """Connections of a loop that has ended aren't used in the next one, and are closed."""

    async def client():
        await say(one, cache_seed=None)
        return client_of(one).client

    first, second = asyncio.run(client()), asyncio.run(client())
    assert first is not second
    assert first.is_closed()
    assert second.is_closed()


def test_a_loop_that_was_just_closed_is_tidied_up_by_the_next_one(one, numbered):
    """Without a proper end nobody closes the cache; its answers are there all the same."""

    async def settled():
        number = await say(one)
        state = await wrapper_loop.loop_state()
        found = await state.cache(41, ".cache")
        assert found is not None
        while found.stats().stored + found.stats().hits < 1:
            await asyncio.sleep(0)
        await one.aclose()
        return number

    assert run_closing(settled()) == 1
    assert wrapper_threads() != []
    assert asyncio.run(say(one)) == 1
    assert none_left()


def test_loops_in_several_threads_share_the_folder(one, numbered):
    """Each thread's loop has a cache of its own over the same folder, and pays nothing twice."""
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(asyncio.run(say(one)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [1, 1, 1, 1]
    assert one.total_usage_summary["total_cost"] == pytest.approx(0.048)


async def test_a_wrapper_that_is_dropped_closes_its_connections(entry, api, folder):
    """Wrappers made for one call each leave no connections behind in a loop that goes on."""
    wrapper = OpenAIWrapper(**entry)
    await wrapper.acreate(messages=MESSAGES)
    http = client_of(wrapper).client._client
    held = (await wrapper_loop.loop_state())._connections
    assert http in held
    del wrapper
    while http in held:  # at first the answer is still being stored
        gc.collect()
        await asyncio.sleep(0)
    assert http.is_closed


@pytest.mark.parametrize("cached", [True, False])
async def test_a_call_outlives_the_wrapper_that_made_it(entry, api, folder, cached):
    """A stream is read to its end, and a joined call answered, although the wrapper was dropped."""
    gate = Gate()

    async def program(seen):
        if seen.body.get("stream"):
            await seen.start()
            await seen.send(EVENTS[0])
            await gate.wait()
            for event in EVENTS[1:]:
                await seen.send(event)
            await seen.end()
        else:
            await gate.wait()
            await good(seen)

    api.program = program
    off = {} if cached else {"cache_seed": None}
    stream = await OpenAIWrapper(**entry, **off).acreate(messages=MESSAGES, stream=True)
    first = asyncio.create_task(OpenAIWrapper(**entry).acreate(messages=MESSAGES))
    await api.arrived(2)
    joined = asyncio.create_task(OpenAIWrapper(**entry).acreate(messages=MESSAGES))
    await asyncio.sleep(0)  # it joins
    first.cancel()
    await asyncio.wait({first})
    del first
    gc.collect()
    await asyncio.sleep(0)
    gate.open()
    assert len([event async for event in stream]) == 3
    assert state(await joined).outcome == "joined"
    assert len(api.requests) == 2


async def test_aclose_closes_clients_and_leaves_caches(entry, numbered, folder):
    """`async with` closes what the wrapper has made; afterwards it may be used again."""
    async with OpenAIWrapper(**entry) as wrapper:
        assert await say(wrapper) == 1
        client = client_of(wrapper).client
    assert client.is_closed()
    assert await say(wrapper) == 1
    assert await say(wrapper, temperature=1) == 2
    assert not client_of(wrapper).client.is_closed()
    await wrapper.aclose()
    await wrapper.aclose()


async def test_a_cancelled_first_call_leaves_the_cache_to_the_others(entry, numbered, folder):
    """The cache is opened once for all who wait for it, whoever goes away."""
    wrapper = OpenAIWrapper(**entry)
    impatient = asyncio.create_task(say(wrapper))
    patient = asyncio.create_task(say(wrapper))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == 1
    with pytest.raises(asyncio.CancelledError):
        await impatient
    assert len(numbered.requests) == 1


async def test_where_it_caches_is_logged_once(entry, numbered, folder, caplog):
    """The path is told with the first use, with the way to switch it off."""
    with caplog.at_level(logging.INFO, "asynccache"):
        for seed in (None, 41, 41, 5):
            await say(OpenAIWrapper(**entry), cache_seed=seed)
    told = [message for message in caplog.messages if "cached in" in message]
    assert len(told) == 2
    assert str(folder / ".cache" / "41") in told[0]
    assert "cache_seed=None" in told[0]


async def test_a_folder_that_cant_be_used_means_no_caching_and_one_warning(
    entry, numbered, folder, caplog
):
    """Calls go upstream as without a cache; in mode "replay" they raise all the same."""
    (folder / "file").write_text("no folder")
    wrapper = OpenAIWrapper(**entry, cache_path_root="file")
    with caplog.at_level(logging.WARNING, "asynccache"):
        assert [await say(wrapper), await say(wrapper)] == [1, 2]
        assert await say(OpenAIWrapper(**entry, cache_path_root="file")) == 3
    told = [message for message in caplog.messages if "price" not in message]
    assert len(told) == 1
    assert "nothing is cached" in told[0]
    with asynccache.options(mode="replay"), pytest.raises(ReplayMiss, match="can't be used"):
        await say(wrapper)
    assert len(numbered.requests) == 3
    assert (folder / "file").read_text() == "no folder"


async def test_a_disk_that_fails_for_now_costs_the_caching_and_one_warning(
    entry, numbered, folder, caplog
):
    """Every call gets its answer; nothing is stored, and nobody claims that it is."""
    wrapper = OpenAIWrapper(**entry, cache_path_root="/proc/nothing-can-be-made-here")
    with caplog.at_level(logging.INFO, "asynccache"):
        assert [await say(wrapper), await say(wrapper)] == [1, 2]
    told = [record for record in caplog.records if "price" not in record.getMessage()]
    assert [record.levelname for record in told] == ["WARNING"]


SCRIPT = """
import asyncio, sys
from asynccache.openai import OpenAIWrapper

wrapper = OpenAIWrapper(model="gpt-4o", api_key="k", base_url=sys.argv[1])

async def main():
    await wrapper.acreate(messages=[{"role": "user", "content": "Hello?"}])
    print(wrapper.actual_usage_summary is not None, flush=True)

asyncio.run(main())
"""


def test_the_next_process_finds_what_the_last_one_paid_for(api, folder):
    """A program that closes nothing leaves nothing open, warns of nothing, and paid for good."""
    for paid in ("True", "False"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-X", "dev", "-c", SCRIPT, api.base_url],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == paid
        assert "ResourceWarning" not in done.stderr
    assert len(api.requests) == 1
    assert not list((folder / ".cache" / "41").glob("*-wal"))  # closed properly


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork on this platform")
def test_a_fork_opens_its_own(one, numbered):
    """A child that was forked goes on with a cache and connections of its own."""
    assert asyncio.run(say(one)) == 1
    child = os.fork()
    if not child:
        try:
            found = asyncio.run(say(one))
            second = asyncio.run(say(one, temperature=1))
        except BaseException:  # noqa: BLE001 - a child must not run on into the tests
            os._exit(1)
        os._exit(0 if (found, second) == (1, 2) else 2)
    deadline = time.monotonic() + 30
    while True:
        pid, ended = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        assert time.monotonic() < deadline, "the child hangs"
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended) == 0
    assert asyncio.run(say(one, temperature=1)) == 2


def test_calls_that_wait_as_the_loop_ends_end_with_it(folder):
    """Tasks that are left when `asyncio.run` ends are cancelled; nothing hangs, nothing leaks."""
    with running() as api:
        gate = Gate()

        async def program(seen):
            await gate.wait()
            await good(seen)

        api.program = program
        wrapper = OpenAIWrapper(**entry_of(api))

        async def main():
            task = asyncio.ensure_future(wrapper.acreate(messages=MESSAGES))
            await api.arrived()
            return task

        task = asyncio.run(main())
        assert task.cancelled()
        assert none_left()
        gate.open()


async def test_handed_caches_are_left_open(entry, numbered, folder):
    """What was handed in is its owner's to close."""
    async with Cache.memory() as cache:
        async with OpenAIWrapper(**entry, cache=cache) as wrapper:
            await say(wrapper)
        assert cache.is_open
        answer = await wrapper.acreate(messages=MESSAGES)
        assert state(answer).outcome == "hit"
