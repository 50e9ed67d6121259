"""The pages' examples with the frameworks of this environment work as they stand."""

from __future__ import annotations

import pytest

from tests.helpers.frameworks_pages import Example, check_example, examples_of

pytest_plugins = ("tests.helpers.openai_fixtures",)

MESSAGES = 'messages = [{"role": "user", "content": "How warm is it?"}]\n'
LITELLM = "import asyncio, litellm\nfrom asynccache import Cache\n" + MESSAGES
EXAMPLES = examples_of({
    ("retries.md", "instructor"): [
        Example(
            """
import instructor
from asynccache import Cache
from openai import AsyncOpenAI
from pydantic import BaseModel


class Weather(BaseModel):
    city: str
    degrees: int


cache = await Cache.disk().open()
""",
            "await cache.aclose()",
        )
    ],
    ("frameworks.md", "instructor"): [
        Example(
            MESSAGES + """
import instructor
from asynccache import Cache
from openai import AsyncOpenAI

cache = await Cache.disk().open()
""",
            """
await client.create(model="gpt-4o", messages=messages, response_model=None)
await cache.aclose()
""",
        )
    ],
    ("from-litellm.md", "Move from LiteLLM's cache"): [Example(MESSAGES)],
    ("litellm.md", "`LiteLLMCache`"): [Example(LITELLM)],
    ("litellm.md", "Share calls in progress"): [
        Example(LITELLM + 'call = {"model": "openai/gpt-4o-mini", "messages": messages}'),
        Example("", requests=0),
    ],
})  # fmt: skip


@pytest.fixture
def anyio_backend():
    """Run on one loop: an example has its own."""
    return "asyncio", {"use_uvloop": False}


@pytest.mark.parametrize(
    ("block", "example"), EXAMPLES, ids=lambda value: getattr(value, "heading", "")
)
async def test_example_pays_once(api, tmp_path, block, example):
    """An example makes its calls, and none when it is run again."""
    await check_example(api, tmp_path, block, example)
