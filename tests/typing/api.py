"""The public names as a type checker sees them. Checked by mypy and pyright, never run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_type

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

import asynccache
from asynccache import MISSING, Answer, AsyncCache, Cache, Missing, Stats, Status, SyncCache
from asynccache.openai import OpenAIWrapper


async def caches() -> None:
    """Factories return an unopened cache; ``async with`` yields it."""
    async with Cache.disk(cache_seed=1, cache_path_root="c", ttl=3600, mode="read_write") as cache:
        assert_type(cache, AsyncCache)
    async with Cache.memory(max_bytes=2**20, ttl=timedelta(hours=1)) as cache:
        assert_type(cache.stats(), Stats)
        assert_type(cache.stats().as_dict(), dict[str, int | float | str | dict[str, int]])
        assert_type(asynccache.__version__, str)
    assert_type(Cache.from_url("disk:?ttl=1"), AsyncCache)
    assert_type(asynccache.current_cache(), AsyncCache | None)


async def values(cache: AsyncCache) -> None:
    """A type asked for is the type returned."""
    assert_type(await cache.get("key", type=int), int | None)
    assert_type(await cache.get("key", 0, type=int), int)
    found: dict[str, int] = await cache.get("key", MISSING)
    number = await cache.get("key", MISSING, type=int)
    assert_type(number, int | Missing)
    if number is asynccache.MISSING:
        return
    assert_type(number, int)
    if text := await cache.get("key", MISSING, type=str):
        assert_type(text, str)
    several = await cache.get_many(["key"], MISSING, type=int)
    assert_type(several, list[int | Missing])
    assert_type([one for one in several if one is not MISSING], list[int])
    assert_type(await cache.get_many(["key"], type=int), list[int | None])
    assert_type(await cache.get_many(["key"]), list[Any])
    union: int | str | None = await cache.get("key", type=int | str)
    unions: list[int | str] = await cache.get_many(["key"], 0, type=int | str)
    assert_type(await cache.set(union, unions), bool)
    assert_type(await cache.set("key", found), bool)

    async def create() -> int:
        return 1

    assert_type(await cache.get_or_create("key", create), int)
    assert_type(await cache.get_or_create("key", create, type=str), str)
    either: int | None = await cache.get_or_create("key", create, type=int | None)
    assert_type(await cache.forget(key=str(either)), bool)
    assert_type(await cache.clear(), int)


@asynccache.memoize(ttl=60, ignore=["top"])
async def search(query: str, top: int = 3) -> list[str]:
    """Keep the signature of what is decorated."""
    return [query] * top


async def clients(cache: AsyncCache) -> None:
    """A wrapped client has the type of the client."""
    assert_type(await search("q", top=1), list[str])
    client = cache.wrap(AsyncOpenAI())
    assert_type(client, AsyncOpenAI)
    completion = await client.chat.completions.create(model="m", messages=[])
    assert_type(completion, ChatCompletion)
    assert_type(asynccache.status(completion), Status | None)
    assert_type(await cache.forget(completion), bool)

    def keep(answer: Answer) -> bool:
        return not answer.filtered

    Cache.memory(store_if=keep)
    with asynccache.options(mode="refresh", sample="each", ttl=None):
        pass


def bound(cache: AsyncCache) -> None:
    """Binding keeps a function's type."""

    def double(number: int) -> int:
        return 2 * number

    assert_type(cache.bind(double)(2), int)


async def wrappers(cache: AsyncCache) -> None:
    """The SDK's objects come back, with what the wrapper notes on them."""
    wrapper = OpenAIWrapper(config_list=[{"model": "m"}], cache_seed=None)
    messages = [{"role": "user", "content": "Hello?"}]
    completion = await wrapper.acreate(messages=messages, cache=cache)
    plain: ChatCompletion = completion
    assert_type(plain.choices[0].message.content, str | None)
    assert_type(completion.config_id, int)
    assert_type(completion.pass_filter, bool)
    stream = await wrapper.acreate(messages=messages, stream=True)
    assert_type(stream.cost, float)
    assert_type([event async for event in stream], list[ChatCompletionChunk])
    text = await wrapper.acreate(prompt="Hello?")
    assert_type(text.choices[0].text, str)


def without_awaiting() -> None:
    """``with`` yields the face for code that can't await, typed like the other."""
    with Cache.memory() as cache:
        assert_type(cache, SyncCache)
    assert_type(cache.asynchronous, AsyncCache)
    assert_type(cache.get("key", type=int), int | None)
    assert_type(cache.get("key", 0, type=int), int)
    assert_type(cache.get_many(["key"], type=int), list[int | None])
    union: int | str = cache.get("key", 0, type=int | str)
    assert_type(cache.forget(key=str(union)), bool)
    assert_type(cache.set("key", 1), bool)
    assert_type(cache.get_or_create("key", lambda: 1), int)
    assert_type(cache.get_or_create("key", lambda: 1, type=str), str)
    assert_type(cache.stats(), Stats)
    assert_type(cache.wrap(OpenAI()), OpenAI)

    @cache.memoize(ttl=60)
    def double(number: int) -> int:
        return 2 * number

    assert_type(double(number=2), int)
    with OpenAIWrapper(config_list=[{"model": "m"}]) as wrapper:
        messages = [{"role": "user", "content": "Hello?"}]
        completion = wrapper.create(messages=messages, cache=cache)
        assert_type(completion.choices[0].message.content, str | None)
        assert_type(completion.config_id, int)
        with wrapper.create(messages=messages, stream=True) as stream:
            assert_type(list(stream), list[ChatCompletionChunk])
            assert_type(stream.cost, float)
        assert_type(wrapper.create(prompt="Hello?").choices[0].text, str)
