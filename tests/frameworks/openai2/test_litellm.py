"""LiteLLM with the cache as ``litellm.cache``, against a real HTTP server."""

from __future__ import annotations

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches one when it is imported

import asyncio

import litellm
import pytest

import asynccache
from asynccache import Cache
from asynccache.integrations.litellm import LiteLLMCache
from tests.helpers.openai_server import EVENTS, MESSAGES, running

# LiteLLM's types, as pydantic sees them.
pytestmark = pytest.mark.filterwarnings("ignore:.*ReadOnly.*:UserWarning")


@pytest.fixture
def server():
    """Run a server for each test."""
    with running() as app:
        yield app


@pytest.fixture
async def cache():
    """Open a cache, and make it LiteLLM's."""
    async with Cache.memory() as opened:
        litellm.cache = LiteLLMCache()
        yield opened
        litellm.cache = None


def asked(server, **changes):
    """Return a call's arguments."""
    return {"model": "openai/gpt-4o", "messages": MESSAGES, "api_base": server.base_url,
            "api_key": "sk-1", **changes}  # fmt: skip


async def stored(cache, count=1):
    """Wait until LiteLLM, which stores behind the caller's back, has stored so many."""
    while cache.stats().stored < count:
        await asyncio.sleep(0.01)


async def test_second_acompletion_is_a_hit(server, cache):
    """The second identical call makes no request, with another key, call id and timeout too."""
    first = await litellm.acompletion(**asked(server))
    await stored(cache)
    second = await litellm.acompletion(**asked(server, api_key="sk-2", timeout=7, metadata={"a": 1}))
    assert len(server.requests) == 1
    assert second.model_dump() == first.model_dump()
    assert cache.stats().hits == 1
