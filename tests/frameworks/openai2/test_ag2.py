"""AG2 before 1.0 on this library's cache."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from asynccache import Cache
from asynccache.cache.cache import values_of
from asynccache.cache.computing import VALUE_META
from asynccache.cache.objects import packed
from asynccache.entries.entry import Meta
from asynccache.entries.values import encode_value
from asynccache.runtime.background import call
from tests.helpers.autogen_examples import *  # noqa: F403 - its tests
from tests.helpers.autogen_own_clients import *  # noqa: F403 - its tests
from tests.helpers.openai_server import COMPLETION, MESSAGES, choice

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about optional packages
    from autogen import OpenAIWrapper
    from autogen.llm_clients.models import (
        AudioContent,
        CitationContent,
        GenericContent,
        ImageContent,
        ReasoningContent,
        TextContent,
        ToolCallContent,
        ToolResultContent,
        UnifiedMessage,
        UnifiedResponse,
        VideoContent,
        normalize_role,
    )

pytest_plugins = ("tests.helpers.openai_fixtures",)

TEXT = {"type": "output_text", "text": "Hello!", "annotations": []}
SAID = {
    "type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [TEXT]
}  # fmt: skip
RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1700000000, "status": "completed",
    "model": "gpt-4o", "output": [SAID], "parallel_tool_calls": True, "tool_choice": "auto",
    "tools": [], "temperature": 1.0, "top_p": 1.0, "error": None, "incomplete_details": None,
    "instructions": None, "metadata": {},
    "usage": {
        "input_tokens": 9, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 12,
    },
}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
KINDS = {
    "chat": {}, "tools": {"tools": [TOOL]}, "openai_v2": {"api_type": "openai_v2"},
    "openai_v2 with tools": {"api_type": "openai_v2", "tools": [TOOL]},
    "responses": {"api_type": "responses"}, "responses_v2": {"api_type": "responses_v2"},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_client_of_ag2s_is_asked_once(api, kind):
    """A hit is the object that the client gave: with its class, text, calls, usage and cost."""

    async def program(seen):
        if seen.path.endswith("/responses"):
            await seen.answer(RESPONSE)
        elif seen.body.get("tools"):
            said = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL]}
            await seen.answer(choice(finish_reason="tool_calls", message=said))
        else:
            await seen.answer(COMPLETION)

    api.program = program

    def asked(cache):
        entry = {"model": "gpt-4o", "api_key": f"sk-{'a' * 48}", "base_url": api.base_url, **kind}
        wrapper = OpenAIWrapper(config_list=[entry])
        found = wrapper.create(messages=MESSAGES, cache=cache)
        usage = wrapper.total_usage_summary
        return found, wrapper.extract_text_or_completion_object(found), found.cost, usage

    bare, *rest = asked(None)
    with Cache.memory() as cache:
        for _ in range(2):
            found, *same = asked(cache)
            assert type(found) is type(bare)
            assert same == rest
            if isinstance(bare, UnifiedResponse):
                assert repr(found) == repr(bare)
        stats = cache.stats()
        assert (stats.misses, stats.hits, stats.stored) == (1, 1, 1)
    assert len(api.requests) == 2


def unified(*content, **changes):
    """Return an answer of AG2's clients."""
    message = UnifiedMessage(role=changes.pop("role", "assistant"), content=list(content))
    usage = {"prompt_tokens": 1, "total_cost": 0.5}
    arguments = {"id": "1", "model": "m", "messages": [message], "usage": usage, "provider": "p"}
    return UnifiedResponse(**{**arguments, **changes})


BLOCKS = {
    type(block).__name__: block
    for block in (
        TextContent(text="Hello!", more={"a": 1}, extra={"b": [2.5]}),
        ReasoningContent(reasoning="Hm.", summary=None),
        CitationContent(url="u", title="t", snippet="s", relevance_score=0.5),
        ToolCallContent(id="1", name="f", arguments="{}"),
        ToolResultContent(tool_call_id="1", output="3"),
        ImageContent(data_uri="data:image/png;base64,AA=="),
        AudioContent(data_uri="data:audio/mp3;base64,AA=="),
        VideoContent(),
        GenericContent(type="reflection", confidence=0.87),
    )
}
KEY = {"model": "m", "messages": []}


@pytest.mark.parametrize("role", ["assistant", normalize_role("assistant"), "critic"])
@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_every_block_comes_back(block, role):
    """Each kind of content comes back as it was, whether roles are texts or an enum's members."""
    value = unified(block, role=role)
    value.cost = 0  # as clients say that don't know
    with Cache.memory() as cache:
        assert cache.set(KEY, value)
        found = cache.get(KEY)
    assert found == value
    assert repr(found) == repr(value)
    assert found is not value


@pytest.mark.parametrize(
    "changes",
    [{"provider_metadata": {"raw": object()}}, {"provider_metadata": {"pair": (1, 2)}}],
    ids=["an object", "a tuple"],
)
def test_answer_that_would_come_back_otherwise_is_not_stored(changes):
    """What its data can't say is no answer for the next one who asks."""
    with Cache.memory() as cache:
        assert not cache.set(KEY, unified(TextContent(text="Hello!"), **changes))
        assert cache.get(KEY) is None
        assert cache.stats().bypassed == 1
    block = GenericContent(type="text", text="of another class than its type says")
    with Cache.memory() as cache:
        assert not cache.set(KEY, unified(block))


def test_answer_of_another_version_is_a_miss():
    """Data that this version of AG2 can't build an answer of is asked for anew."""
    meta, _ = packed(unified(TextContent(text="Hello!")), Any)
    assert meta.content_type == f"{VALUE_META.content_type}; class=autogen.UnifiedResponse"
    with Cache.memory() as cache:
        for data in ({"id": "1"}, {"id": 1, "messages": 2}):
            packing = (Meta(meta.kind, content_type=meta.content_type), encode_value(data))

            def planted(_, type, packing=packing):
                return packing

            call(values_of(cache.asynchronous).put, [(KEY, None)], planted)
            assert cache.get(KEY) is None
            assert cache.get_many([KEY], "none") == ["none"]
