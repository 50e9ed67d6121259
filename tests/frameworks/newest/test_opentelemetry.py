"""OpenTelemetry's instrumentation and ours on the same methods, in either order."""

from __future__ import annotations

import asyncio

import openai
import pytest
from openai import OpenAI
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import asynccache
from asynccache import instrument_openai, uninstrument_openai
from tests.helpers.openai_server import ask, state, stored

pytest_plugins = ("tests.helpers.openai_fixtures",)


@pytest.fixture
def spans():
    """Where finished spans are kept."""
    return InMemorySpanExporter()


@pytest.fixture(params=["theirs first", "ours first"])
def both(request, spans):
    """Both instrumentations, put on in either order, and taken off the other way round."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    theirs = OpenAIInstrumentor()
    steps = [lambda: theirs.instrument(tracer_provider=provider), instrument_openai]
    undo = [uninstrument_openai, theirs.uninstrument]
    if request.param == "ours first":
        steps.reverse()
        undo.reverse()
    for step in steps:
        step()
    yield request.param
    for step in undo:
        step()


async def test_calls_are_traced_and_cached(api, bare, api_cache, both, spans):
    """What is paid is traced either way; with their patch on top, hits are traced as well."""
    outcomes = [state(await ask(bare)).outcome for _ in range(3)]
    assert outcomes == ["miss", "hit", "hit"]
    assert len(spans.get_finished_spans()) == (1 if both == "theirs first" else 3)
    await stored(api_cache)
    with OpenAI(api_key="sk-a", base_url=api.base_url, max_retries=0) as plain:
        assert state(await asyncio.to_thread(ask, plain)).outcome == "hit"
    assert len(api.requests) == 1


async def test_streams_are_traced_and_cached(api, bare, api_cache, both, spans):
    """Their wrapper around our stream gives the same events, from the call and from the cache."""
    results = []
    for _ in range(2):
        stream = await ask(bare, stream=True)
        results.append([event.model_dump() async for event in stream])
    assert results[0] == results[1]
    assert len(results[0]) == 3
    with OpenAI(api_key="sk-a", base_url=api.base_url, max_retries=0) as plain:
        read = await asyncio.to_thread(lambda: [e.model_dump() for e in ask(plain, stream=True)])
    assert read == results[0]
    assert len(api.requests) == 1


async def test_synchronous_streams_are_too(api, api_cache, both, spans):
    """The same where the call itself is made by a thread."""

    def read():
        return [event.model_dump() for event in ask(plain, stream=True)]

    with OpenAI(api_key="sk-a", base_url=api.base_url, max_retries=0) as plain:
        results = [await asyncio.to_thread(read) for _ in range(2)]
    assert results[0] == results[1]
    assert len(api.requests) == 1


@pytest.mark.parametrize("first", ["theirs", "ours"])
async def test_either_may_be_taken_off_first(api, bare, api_cache, spans, first):
    """Taking one off leaves the other at work; taking both off leaves the SDK's own."""
    original = openai.resources.chat.completions.AsyncCompletions.create
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    theirs = OpenAIInstrumentor()
    instrument_openai()
    theirs.instrument(tracer_provider=provider)
    if first == "ours":
        uninstrument_openai()
        assert asynccache.status(await ask(bare)) is None
        assert len(spans.get_finished_spans()) == 1
        theirs.uninstrument()
    else:
        theirs.uninstrument()
        assert state(await ask(bare)).outcome == "miss"
        assert not spans.get_finished_spans()
        uninstrument_openai()
    assert asynccache.status(await ask(bare)) is None
    uninstrument_openai()
    assert openai.resources.chat.completions.AsyncCompletions.create is original
