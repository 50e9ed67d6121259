"""What a hostile reader broke: each test failed before its mend."""

from __future__ import annotations

import pytest
from openai.types import CreateEmbeddingResponse

from tests.helpers.openai_api import whole_api
from tests.helpers.openai_server import state

pytest_plugins = ("tests.helpers.openai_fixtures",)

EMBED = {"model": "text-embedding-3-small", "input": ["only"]}


@pytest.fixture(autouse=True)
def whole(api):
    """Let the server answer as the whole API does."""
    api.program = whole_api


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
