"""What LangChain's and LangGraph's caches are made with: either face of a cache."""

from __future__ import annotations

import pytest
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


@pytest.mark.parametrize("made", [LangChainCache, LangGraphCache])
@pytest.mark.parametrize("bad", ["disk:", 5, {}, Cache])
def test_what_is_no_cache_is_refused(made, bad):
    """A URL, or whatever else isn't a cache, is refused where it is given, and not repeated."""
    said = r"a SyncCache or None, not (an? \w+|the class Cache): pass what Cache"
    with pytest.raises(TypeError, match=said):
        made(bad)


@pytest.mark.parametrize("bad", ["x", [Generation(text="1")], Generation, 5])
def test_what_are_no_classes_is_refused(bad):
    """Names and objects in ``allowed`` are refused: it takes classes."""
    with pytest.raises(TypeError, match="allowed"):
        LangGraphCache(allowed=bad)
