"""DSPy, whose default engine opens sockets itself, and whose other one is LiteLLM."""

from __future__ import annotations

import asyncio
import os
import warnings

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches one when it is imported

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dspy

import asynccache
from asynccache import Cache
from tests.helpers.frameworks_server import TEXT, Model

pytest_plugins = ("tests.helpers.openai_fixtures",)
pytestmark = pytest.mark.filterwarnings("default")  # what LiteLLM and pydantic say of each other


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("engine", "paid"), [({}, 2), ({"engine": "litellm"}, 1)])
async def test_the_engine_that_is_cacheable(engine, paid, api):
    """LiteLLM's calls are cached under `instrument_openai`; the default engine's go past it."""
    api.program = Model()

    def ask():
        model = dspy.LM(
            "openai/gpt-4o", api_base=api.base_url, api_key="sk-a", cache=False, **engine
        )
        return model("How warm is it?")

    async with Cache.memory():
        with asynccache.instrument_openai():
            for _ in range(2):
                assert await asyncio.to_thread(ask) == [TEXT]
    assert len(api.requests) == paid
