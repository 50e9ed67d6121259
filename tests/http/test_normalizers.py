"""The ready normalizers on requests of Anthropic and Gemini: what of them is in no key."""

from __future__ import annotations

import httpx2
import pytest

import asynccache
from asynccache import Cache, normalizers

pytestmark = pytest.mark.parametrize("provider", ["anthropic", "gemini"])
URLS = {
    "anthropic": "https://api.anthropic.com/v1/messages",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/models/g:generateContent",
}


@pytest.fixture
async def key_of(provider):
    """Return a function that makes a request's key."""
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json={}))
    normalize = [normalizers.call_ids, normalizers.dates, normalizers.schema_order]
    async with (
        Cache.memory(normalize=normalize) as cache,
        cache.wrap(httpx2.AsyncClient(transport=transport)) as client,
    ):

        async def key(body):
            found = asynccache.status(await client.post(URLS[provider], json=body))
            assert found is not None
            return found.key

        yield key


def history(provider, made, answered, *, said="21"):
    """Return a request with two calls of these ids, and results under those."""
    results = [f"{said} {at}" for at in range(len(answered))]
    if provider == "anthropic":
        calls = [
            {"type": "tool_use", "id": one, "name": "f", "input": {"at": at}}
            for at, one in enumerate(made)
        ]
        told = [
            {"type": "tool_result", "tool_use_id": one, "content": text}
            for one, text in zip(answered, results, strict=True)
        ]
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": calls}]
        turns += [{"role": "user", "content": told}]
        return {"model": "m", "max_tokens": 9, "messages": turns}
    calls = [
        {"functionCall": {"id": one, "name": "f", "args": {"at": at}}}
        for at, one in enumerate(made)
    ]
    told = [
        {"functionResponse": {"id": one, "name": "f", "response": {"result": text}}}
        for one, text in zip(answered, results, strict=True)
    ]
    turns = [{"role": "user", "parts": [{"text": "?"}]}, {"role": "model", "parts": calls}]
    return {"contents": [*turns, {"role": "user", "parts": told}]}


async def test_ids_of_calls_make_no_difference(provider, key_of):
    """What differs in the ids of calls alone has one key."""
    first = await key_of(history(provider, "ab", "ab"))
    assert await key_of(history(provider, "xy", "xy")) == first
    assert await key_of(history(provider, "ba", "ba")) == first


async def test_which_result_is_whose_makes_one(provider, key_of):
    """Results that have changed places, of another text, or of calls that aren't there, differ."""
    others = [("ab", "ba", "21"), ("ab", "ab", "22"), ("aa", "aa", "21"), ("ab", "xy", "21")]
    keys = {await key_of(history(provider, *ids, said=said)) for *ids, said in others}
    keys.add(await key_of(history(provider, "ab", "ab")))
    assert len(keys) == len(others) + 1


def asked(provider, system, names):
    """Return a request with a system prompt, and a tool whose arguments these are."""
    schema = {"type": "object", "properties": {n: {} for n in "ab"}, "required": names}
    if provider == "anthropic":
        return {
            "model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}],
            "system": system, "tools": [{"name": "f", "input_schema": schema}],
        }  # fmt: skip
    tool = {"functionDeclarations": [{"name": "f", "parametersJsonSchema": schema}]}
    return {
        "contents": [{"parts": [{"text": "?"}]}], "tools": [tool],
        "systemInstruction": {"parts": [{"text": system}]},
        "generationConfig": {"responseJsonSchema": schema},
    }  # fmt: skip


async def test_dates_in_system_prompts_make_no_difference(provider, key_of):
    """A system prompt may say which day it is."""
    days = ("2026-11-30", "2026-12-01", "some day")
    one, two, none = [await key_of(asked(provider, f"It is {day}.", "ab")) for day in days]
    assert one == two != none


async def test_orders_of_schemas_make_no_difference(provider, key_of):
    """Lists of a schema stand in any order, wherever the provider has its schemas."""
    one, two, other = [await key_of(asked(provider, "", [*names])) for names in ("ab", "ba", "a")]
    assert one == two != other
