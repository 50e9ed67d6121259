"""`asynccache[langchain]` alone: the cache as LangChain's own."""

from __future__ import annotations

import asyncio

from langchain_core.language_models import FakeListChatModel

from asynccache import Cache
from asynccache.integrations.langchain import LangChainCache


def test_hits():
    """The model is asked once, awaited or not."""

    async def use():
        async with Cache.memory() as cache:
            model = FakeListChatModel(responses=["one", "two"], cache=LangChainCache(cache))
            found = [(await model.ainvoke("Hello?")).content for _ in range(2)]
            found.append((await asyncio.to_thread(model.invoke, "Hello?")).content)
            assert found == ["one"] * 3

    asyncio.run(use())
