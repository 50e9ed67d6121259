"""What AutoGen's documentation says of its wrapper's cache, sentence by sentence, and the rest."""

from __future__ import annotations

import asyncio
import logging

import openai
import pytest

import asynccache
from asynccache import Cache, ReplayMiss
from asynccache.openai import OpenAIWrapper
from tests.helpers.openai_server import MESSAGES, Gate, completion, state
from tests.helpers.wrapper import client_of, entry_of, say

pytest_plugins = ("tests.helpers.wrapper_fixtures",)

# One for each store there is.
STORES = {
    "disk": lambda path: Cache.disk(cache_path_root=path / "handed"),
    "memory": lambda path: Cache.memory(),
}


# -- AutoGen's documentation on caching ---------------------------------------------------------


async def test_requests_are_cached_so_that_they_can_be_reused(entry, numbered, folder):
    """The same request again gives the same answer, and isn't made again."""
    wrapper = OpenAIWrapper(config_list=[entry])
    assert [await say(wrapper), await say(wrapper)] == [1, 1]
    assert await say(wrapper, temperature=0.5) == 2
    assert len(numbered.requests) == 2


async def test_another_cache_seed_gives_another_answer(entry, numbered, folder):
    """Seed 1 has answers of its own, beside those of the default, 41, and both are kept."""
    default, one = OpenAIWrapper(**entry), OpenAIWrapper(**entry, cache_seed=1)
    assert [await say(default), await say(one)] == [1, 2]
    assert [await say(one), await say(default), await say(default, cache_seed=1)] == [2, 1, 2]
    assert await say(one, cache_seed=41) == 1


async def test_the_cache_is_on_by_default_in_dot_cache_with_seed_41(entry, numbered, folder):
    """Without a word about caches, answers go to `.cache/41`, where `Cache.disk` finds them."""
    wrapper = OpenAIWrapper(**entry)
    await say(wrapper)
    assert (folder / ".cache" / "41" / "asynccache.db").exists()
    assert [path.name for path in folder.iterdir()] == [".cache"]
    async with Cache.disk(41):
        assert await say(wrapper) == 1


@pytest.mark.parametrize("level", ["constructor", "entry", "call"])
async def test_cache_path_root_sets_the_folder(entry, numbered, folder, level):
    """`cache_path_root` puts the implicit cache elsewhere, wherever it is said."""
    root = {"cache_path_root": folder / "elsewhere"}
    entries = [{**entry, **(root if level == "entry" else {})}]
    wrapper = OpenAIWrapper(config_list=entries, **(root if level == "constructor" else {}))
    await say(wrapper, **(root if level == "call" else {}))
    assert [path.name for path in folder.iterdir()] == ["elsewhere"]
    assert (folder / "elsewhere" / "41").is_dir()


@pytest.mark.parametrize("level", ["constructor", "entry", "call"])
@pytest.mark.parametrize("around", [None, "ambient", "default"])
async def test_none_switches_caching_off(entry, numbered, folder, level, around):
    """`cache_seed=None` makes two requests although `seed=` is set, whatever cache is in force."""
    none = {"cache_seed": None}
    entries = [{**entry, **(none if level == "entry" else {})}]
    wrapper = OpenAIWrapper(config_list=entries, **(none if level == "constructor" else {}))
    words = {"seed": 7, **(none if level == "call" else {})}
    if around == "ambient":
        async with Cache.memory():
            assert [await say(wrapper, **words), await say(wrapper, **words)] == [1, 2]
    else:
        cache = await Cache.memory().open()
        asynccache.set_default_cache(cache if around else None)
        assert [await say(wrapper, **words), await say(wrapper, **words)] == [1, 2]
        asynccache.set_default_cache(None)
        await cache.aclose()
    assert all(seen.body["seed"] == 7 for seen in numbered.requests)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("store", STORES)
async def test_a_cache_can_be_handed_to_the_call(entry, numbered, folder, store):
    """`cache=` is used for the call, whatever the seed says, and nothing goes to `.cache`."""
    wrapper = OpenAIWrapper(**entry, cache_seed=None)
    async with STORES[store](folder) as cache, Cache.memory():
        assert [await say(wrapper, cache=cache), await say(wrapper, cache=cache)] == [1, 1]
        assert cache.stats().hits == cache.stats().misses == 1
        assert await say(wrapper) == 2
        assert await say(wrapper, cache=cache, cache_seed=None) == 1
    assert not (folder / ".cache").exists()


async def test_calls_as_autogens_agents_make_them(entry, numbered, folder):
    """Agent, cache and context are always named there, as None where there are none."""
    wrapper = OpenAIWrapper(
        **entry, price=1, context={"name": "Ada"}, allow_format_str_template=True
    )
    plain = OpenAIWrapper(**entry, price=1)
    asked = {"messages": [{"role": "user", "content": "I am {name}"}], "agent": object()}
    first, second = Cache.memory(), Cache.memory()
    await first.open()
    async with second:
        for cache in (first, first, second, None, first):
            for one in (wrapper, plain):
                answer = await one.acreate(**asked, cache=cache, context=None)
                assert answer.cost == pytest.approx(0.012)
    await first.aclose()
    assert (first.stats().misses, first.stats().hits) == (2, 4)
    assert (second.stats().misses, second.stats().hits) == (2, 2)
    contents = [seen.body["messages"][0]["content"] for seen in numbered.requests]
    assert contents == ["I am Ada", "I am {name}"] * 2


@pytest.mark.parametrize("store", STORES)
async def test_wrappers_inside_a_block_share_its_cache(entry, numbered, folder, store):
    """All wrappers inside the context manager use its cache, also in tasks started there."""
    first, second = OpenAIWrapper(**entry), OpenAIWrapper(config_list=[entry])
    async with STORES[store](folder) as cache:
        task = asyncio.create_task(say(first))
        assert [await task, await say(second)] == [1, 1]
        assert cache.stats().hits == 1
    assert not (folder / ".cache").exists()


# -- which cache, further -----------------------------------------------------------------------


async def test_an_explicit_seed_picks_that_namespace_in_the_cache_in_force(entry, numbered, folder):
    """With a cache in force, `cache_seed` names a namespace of it instead of a folder."""
    async with Cache.memory(cache_seed=42):
        plain, seven = OpenAIWrapper(**entry), OpenAIWrapper(**entry, cache_seed=7)
        assert [await say(plain), await say(seven), await say(seven)] == [1, 2, 2]
        assert await say(plain, cache_seed=7) == 2
        assert await say(seven, cache_seed=42) == 1
    assert list(folder.iterdir()) == []


async def test_a_block_outdoes_the_constructor_and_a_call_the_block(entry, numbered, folder):
    """What is nearer to the call wins: the call, then `options`, then entry and constructor."""
    async with Cache.memory() as first, Cache.memory() as second:
        wrapper = OpenAIWrapper(config_list=[{**entry, "cache": first}], cache_seed=1)
        assert await say(wrapper) == 1
        with asynccache.options(cache=second):
            assert await say(wrapper) == 2
            assert await say(wrapper, cache=first) == 1
        with asynccache.options(cache=None):
            assert await say(wrapper) == 3
            assert await say(wrapper) == 4
        with asynccache.options(cache_seed=9):
            assert await say(wrapper) == 5
            assert await say(wrapper, cache_seed=42) == 1
        assert await say(OpenAIWrapper(**entry, cache_seed=9, cache=first)) == 1
        assert await say(wrapper, cache_seed=None) == 6


async def test_options_reach_the_implicit_cache(entry, numbered, folder):
    """Mode, sample and seed of a block hold for the implicit cache; off doesn't even make it."""
    wrapper = OpenAIWrapper(**entry)
    with asynccache.options(mode="off"):
        assert [await say(wrapper), await say(wrapper)] == [1, 2]
    assert list(folder.iterdir()) == []
    with asynccache.options(mode="refresh"):
        assert [await say(wrapper), await say(wrapper)] == [3, 4]
    with asynccache.options(sample=2):
        assert [await say(wrapper), await say(wrapper)] == [5, 5]
    with asynccache.options(cache_seed="other"):
        assert await say(wrapper) == 6
    assert await say(wrapper) == 4


async def test_a_cache_that_isnt_open_is_passed_by_with_one_warning(
    entry, numbered, folder, caplog
):
    """As with a wrapped client: calls go upstream, and the log says so once."""
    cache = Cache.memory()
    wrapper = OpenAIWrapper(**entry)
    with caplog.at_level(logging.WARNING, "asynccache"):
        assert [await say(wrapper, cache=cache), await say(wrapper, cache=cache)] == [1, 2]
    assert sum("isn't open" in message for message in caplog.messages) == 1
    async with cache:
        assert [await say(wrapper, cache=cache), await say(wrapper, cache=cache)] == [3, 3]


async def test_many_at_once_pay_once(entry, numbered, folder):
    """A hundred callers of a wrapper that nobody has used yet open one cache and pay one call."""
    wrapper = OpenAIWrapper(config_list=[entry])
    assert set(await asyncio.gather(*(say(wrapper) for _ in range(100)))) == {1}
    assert len(numbered.requests) == 1


async def test_a_wrapper_keeps_few_caches(entry, numbered, folder):
    """A wrapper that is handed a new cache each time holds on to a few of them only."""
    wrapper = OpenAIWrapper(config_list=[entry])
    for _ in range(30):
        async with Cache.memory() as cache:
            await say(wrapper, cache=cache)
    assert len(client_of(wrapper)._wrapped) <= 8


async def test_keys_are_exact_where_autogens_are_not(api, numbered, folder):
    """Two servers with one model's name don't share answers, and key order makes no difference."""
    wrapper = OpenAIWrapper(config_list=[entry_of(api)])
    other = OpenAIWrapper(config_list=[entry_of(api, base_url=f"{api.base_url}/")])
    elsewhere = OpenAIWrapper(config_list=[entry_of(api, base_url=f"{api.base_url}/other")])
    assert [await say(wrapper), await say(other), await say(elsewhere)] == [1, 1, 2]
    backwards = [{name: message[name] for name in reversed(message)} for message in MESSAGES]
    assert await say(wrapper, messages=backwards) == 1


# -- the list -----------------------------------------------------------------------------------


def failing(*models, status=500, code=None):
    """Return a program that fails for some models."""

    async def program(seen):
        if seen.body["model"] in models:
            body = {"error": {"message": "no", "code": code}}
            await seen.answer(body, status=status)
        else:
            await seen.answer(completion(model=seen.body["model"]))

    return program


def three(api, **words):
    """Return a wrapper of models a, b and c."""
    return OpenAIWrapper(config_list=[entry_of(api, model=name) for name in "abc"], **words)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_the_next_entry_is_asked_after_an_error(api, folder, status):
    """Entries are tried in order; the answer tells which one gave it, and is cached as its own."""
    api.program = failing("a", status=status)
    wrapper = three(api)
    first, second = [await wrapper.acreate(messages=MESSAGES) for _ in range(2)]
    assert [seen.body["model"] for seen in api.requests] == ["a", "b", "a"]
    assert (first.model, first.config_id, first.pass_filter) == ("b", 1, True)
    assert (state(first).outcome, state(second).outcome) == ("miss", "hit")


async def test_a_server_that_cant_be_reached_is_passed_over(api, folder):
    """A refused connection and a timeout are errors of the SDK too."""
    gate = Gate()

    async def program(seen):
        if seen.body["model"] == "slow":
            await gate.wait()
        await seen.answer(completion(model=seen.body["model"]))

    api.program = program
    wrapper = OpenAIWrapper(
        config_list=[
            entry_of(api, base_url="http://127.0.0.1:9/v1"),
            entry_of(api, model="slow", timeout=0.05),
            entry_of(api, model="good"),
        ]
    )
    response = await wrapper.acreate(messages=MESSAGES)
    assert response.config_id == 2
    gate.open()


async def test_the_last_error_is_raised_as_it_is(api, folder):
    """When every entry fails, the error of the last one is the SDK's own."""
    api.program = failing("a", "b", "c", status=429)
    with pytest.raises(openai.RateLimitError):
        await three(api).acreate(messages=MESSAGES)
    assert [seen.body["model"] for seen in api.requests] == ["a", "b", "c"]


async def test_what_a_content_filter_refuses_isnt_asked_elsewhere(api, folder):
    """As in AutoGen, an error with the code "content_filter" ends the list."""
    api.program = failing("a", status=400, code="content_filter")
    with pytest.raises(openai.BadRequestError):
        await three(api).acreate(messages=MESSAGES)
    assert len(api.requests) == 1


async def test_a_replay_miss_isnt_swallowed(api, folder):
    """In mode "replay" the first entry without an answer raises, and nothing is asked upstream."""
    async with Cache.memory(mode="replay") as cache:
        with pytest.raises(ReplayMiss):
            await three(api).acreate(messages=MESSAGES, cache=cache)
    with asynccache.options(mode="replay"), pytest.raises(ReplayMiss):
        await three(api).acreate(messages=MESSAGES)
    assert api.requests == []


async def test_a_cancelled_call_asks_nobody_else(api, folder):
    """Cancelling isn't an error to recover from."""

    async def program(seen):
        await seen.hang()

    api.program = program
    task = asyncio.create_task(three(api).acreate(messages=MESSAGES))
    seen = await api.arrived()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await seen.disconnected.wait()
    assert len(api.requests) == 1


async def test_wrong_arguments_are_nobodys_failure(api, folder):
    """A parameter that the SDK doesn't know raises its TypeError at once."""
    with pytest.raises(TypeError, match="temprature"):
        await three(api).acreate(messages=MESSAGES, temprature=1)
    assert api.requests == []


# -- filters ------------------------------------------------------------------------------------


async def test_a_rejected_answer_is_passed_over_and_not_stored(api, folder):
    """The filter sees context and response; what it rejects is paid, not stored, and moved past."""
    api.program = failing()
    seen = []

    def only_b(*, context, response):
        seen.append((context, response.model))
        return response.model == "b"

    async with Cache.memory() as cache:
        wrapper = three(api, filter_func=only_b)
        for _ in range(2):
            response = await wrapper.acreate(messages=MESSAGES, context={"k": 1})
            assert (response.config_id, response.pass_filter) == (1, True)
        assert [seen.body["model"] for seen in api.requests] == ["a", "b", "a"]
        assert await wrapper.acreate(messages=MESSAGES, filter_func=None)
        assert len(api.requests) == 4
    assert seen == [({"k": 1}, name) for name in "abab"]
    assert cache.stats().hits == 1
    # Never stored, not even for the moment until it would be removed again.
    assert cache.stats().not_stored == {"store_if": 2}


async def test_the_last_answer_is_returned_even_if_rejected(api, folder):
    """As in AutoGen; it says so in `pass_filter`, and it isn't stored either."""
    api.program = failing()
    wrapper = three(api, filter_func=lambda context, response: False)
    for asked in (3, 6):
        response = await wrapper.acreate(messages=MESSAGES)
        assert (response.config_id, response.pass_filter) == (2, False)
        assert len(api.requests) == asked


async def test_a_stored_answer_that_a_filter_rejects_stays(api, folder):
    """An answer that others are content with is theirs: another's filter doesn't remove it."""
    api.program = failing()
    wrapper = three(api)
    await wrapper.acreate(messages=MESSAGES)
    strict = await wrapper.acreate(
        messages=MESSAGES, filter_func=lambda context, response: response.model == "b"
    )
    assert strict.config_id == 1
    again = await wrapper.acreate(messages=MESSAGES)
    assert (again.config_id, state(again).outcome) == (0, "hit")
    assert len(api.requests) == 2


async def test_a_stream_cant_be_filtered(entry, api, folder):
    """A filter would have to read the stream first, so the two together are refused."""
    wrapper = OpenAIWrapper(**entry, filter_func=lambda context, response: True)
    with pytest.raises(ValueError, match="can't judge a stream"):
        await wrapper.acreate(messages=MESSAGES, stream=True)
    assert api.requests == []
