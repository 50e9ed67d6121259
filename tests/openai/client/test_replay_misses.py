"""Every `ReplayMiss` that is raised is counted, whoever raises it."""

from __future__ import annotations

import asyncio

import pytest
from openai import OpenAI

from asynccache import Cache, ReplayMiss, options, store_good
from tests.helpers.openai_server import ask, choice, events_of, state

pytest_plugins = ("tests.helpers.openai_fixtures",)


async def create():
    """Return a value."""
    return 1


CALLS = {
    "plain": lambda client, cache: ask(client),
    "streamed": lambda client, cache: ask(client, stream=True),
    "embeddings": lambda client, cache: client.embeddings.create(model="m", input=["a", "b"]),
    "never cached": lambda client, cache: client.models.list(),
    "stateful": lambda client, cache: client.responses.create(
        model="m", input="a", conversation="c"
    ),
    "a value": lambda client, cache: cache.get_or_create("key", create),
    "a value without a key": lambda client, cache: cache.get_or_create(object(), create),
}


async def missed(call):
    """Await a call that can't be replayed."""
    with pytest.raises(ReplayMiss):
        await call


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_each_caller_that_it_is_raised_to_counts(call, cached, api, api_cache):
    """One call counts once, and three at once three times."""
    with options(mode="replay"):
        await missed(call(cached, api_cache))
        assert api_cache.stats().replay_misses == 1
        await asyncio.gather(*[missed(call(cached, api_cache)) for _ in range(3)])
    assert api_cache.stats().replay_misses == 4
    assert api_cache.stats().calls == 0
    assert not api.requests


async def test_a_miss_of_a_call_inside_is_not_the_outer_ones(cached):
    """A value whose making is a call that can't be replayed counts in that call's cache alone."""
    async with Cache.memory() as outer, Cache.memory(mode="replay") as inner:
        with pytest.raises(ReplayMiss):
            await outer.get_or_create("key", lambda: inner.get_or_create("key", create))
    assert outer.stats().replay_misses == 0
    assert inner.stats().replay_misses == 1


@pytest.mark.parametrize("in_thread", [True, False])
async def test_a_synchronous_clients_never_cached_call(api, in_thread):
    """It can't be replayed, with or without a loop on its thread."""
    async with Cache.memory(mode="replay") as cache:
        with OpenAI(api_key="k", base_url=api.base_url, max_retries=0) as bare:
            for call in (cache.wrap(bare).models.list, cache.wrap(bare).files.list):
                with pytest.raises(ReplayMiss, match="is never cached"):
                    await asyncio.to_thread(call) if in_thread else call()
    assert cache.stats().replay_misses == 2
    assert not api.requests


# -- the default rule ----------------------------------------------------------------------------


async def test_a_rule_of_ones_own_with_the_default_one(api, bare):
    """The default rule is there to be called; alone, one's own takes its place."""
    asked = []

    def named(answer):
        asked.append(answer.meta.status)
        return answer.meta.model != "another"

    async def program(seen):
        await seen.answer(choice(finish_reason="content_filter"))

    api.program = program
    for rule, outcome in (
        (named, "hit"),
        (lambda answer: store_good(answer) and named(answer), "miss"),
    ):
        async with Cache.memory(store_if=rule) as cache:
            client = cache.wrap(bare)
            await ask(client)
            await asyncio.sleep(0)
            assert state(await ask(client)).outcome == outcome
    assert asked == [200]


async def test_a_rule_is_never_asked_about_a_status_that_raises(api, bare):
    """As the docs say: there is no answer."""
    asked = []

    def rule(answer):
        asked.append(answer)
        return True

    async def program(seen):
        await seen.answer({"error": {"message": "no"}}, status=400)

    api.program = program
    async with Cache.memory(store_if=rule) as cache:
        for stream in (False, True):
            with pytest.raises(Exception, match="no"):
                await events_of(await ask(cache.wrap(bare), stream=stream))
    assert not asked
    assert cache.stats().stored == 0
