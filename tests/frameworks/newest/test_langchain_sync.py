"""LangChain's and LangGraph's caches over what a plain ``with`` gives."""

from __future__ import annotations

from langchain_core.outputs import Generation

from asynccache import Cache
from asynccache.integrations.langchain import LangChainCache
from asynccache.integrations.langgraph import LangGraphCache

KEY = (("a",), "1")


def test_sync_cache_is_taken():
    """A `SyncCache`, named or in force, is used as the cache that it stands for."""
    with Cache.memory() as cache:
        LangChainCache(cache).update("p", "m", [Generation(text="1")])
        assert LangChainCache().lookup("p", "m") == [Generation(text="1")]
        LangGraphCache(cache).set({KEY: ("2", None)})
        assert LangGraphCache().get([KEY]) == {KEY: "2"}
