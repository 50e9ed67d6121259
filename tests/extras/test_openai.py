"""`asynccache[openai]` alone: clients of both kinds, wrapped and instrumented."""

from __future__ import annotations

import asyncio

from openai import AsyncOpenAI, OpenAI

import asynccache
from asynccache import Cache
from tests.extras.answering import answering

CHAT: dict = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello?"}]}


def test_clients():
    """Each call is paid for once: plain, streamed, raw, embeddings, in threads, by a wrapper."""

    async def use(url):
        async with Cache.memory() as cache, AsyncOpenAI(api_key="k", base_url=url) as bare:
            client = cache.wrap(bare)
            for _ in range(2):
                await client.chat.completions.create(**CHAT)
                await client.chat.completions.with_raw_response.create(**CHAT)
                stream = await client.chat.completions.create(**CHAT, stream=True)
                assert [event async for event in stream]
                await client.embeddings.create(model="m", input="a")
            with asynccache.instrument_openai(), OpenAI(api_key="k", base_url=url) as sync:
                await asyncio.to_thread(sync.chat.completions.create, **CHAT)

    with answering() as (url, asked):
        asyncio.run(use(url))
        assert sorted(asked) == [
            "/v1/chat/completions", "/v1/chat/completions", "/v1/embeddings",
        ]  # fmt: skip
