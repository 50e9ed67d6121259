"""What a hostile reader broke: each test failed before its mend."""

from __future__ import annotations

import pytest
from openai import AsyncAzureOpenAI
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

import asynccache
from tests.helpers.openai_api import whole_api
from tests.helpers.openai_server import MESSAGES, state

pytest_plugins = ("tests.helpers.openai_fixtures",)

EMBED = {"model": "text-embedding-3-small", "input": ["only"]}


@pytest.fixture(autouse=True)
def whole(api):
    """Let the server answer as the whole API does."""
    api.program = whole_api


@pytest.fixture
async def azure(api, api_cache):
    """A client that names its deployments by the model, cached."""
    url = f"http://127.0.0.1:{api.port}"
    async with AsyncAzureOpenAI(api_key="a", api_version="v1", azure_endpoint=url) as client:
        yield api_cache.wrap(client)


async def test_a_list_of_one_input_is_a_hit_like_any_other(api, bare, cached):
    """An input's own entry, whose key is that of a list of it alone, is not taken for an answer."""
    expected = await bare.embeddings.create(**EMBED)
    await cached.embeddings.create(**EMBED)
    again = await cached.embeddings.create(**EMBED)
    posted = await cached.post("/embeddings", body=EMBED, cast_to=CreateEmbeddingResponse)
    raw = await cached.embeddings.with_raw_response.create(**EMBED)

    assert again == raw.parse() == expected
    assert state(again).outcome == "hit"
    assert posted.data[0].embedding == expected.data[0].embedding
    assert len(api.requests) == 3  # the bare one's, the miss, and the post's of other encoding


async def test_no_secret_of_an_odd_url_is_told_to_those_who_watch(api, cached):
    """An event names the path alone, without user-info and query."""
    foreign = api.base_url.replace("//", "//user:hidden@").replace("127.0.0.1", "localhost")
    with asynccache.record() as calls:
        await cached.post(f"{foreign}/other?key=hidden", body={}, cast_to=object)
        await cached.get("/files?key=hidden&key=hidden", cast_to=object)

    assert [call.outcome for call in calls] == ["bypass", "bypass"]
    assert "hidden" not in repr(calls)


async def test_azure_is_asked_for_each_spelling_of_a_path(api, azure):
    """Its client sends a known path to a deployment, and any other spelling elsewhere."""
    whole = f"http://127.0.0.1:{api.port}/openai/chat/completions"
    for url in ("/chat/completions", "chat/completions", whole):
        body = {"model": "gpt-4o", "messages": MESSAGES}
        await azure.post(url, body=body, cast_to=ChatCompletion)

    assert len(api.requests) == 3
