"""Fixtures of LiteLLM's tests: a server, the cache as LiteLLM's, and a call's arguments."""

from __future__ import annotations

import litellm
import openai
import pytest

from asynccache import Cache
from asynccache.integrations.litellm import LiteLLMCache
from tests.helpers.openai_server import MESSAGES, running


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


@pytest.fixture
async def asked(server):
    """Return a maker of a call's arguments, with a client whose connections end with the test."""
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="sk-1") as client:
        yield lambda **changes: {
            "model": "openai/gpt-4o", "messages": MESSAGES, "client": client, **changes
        }  # fmt: skip
