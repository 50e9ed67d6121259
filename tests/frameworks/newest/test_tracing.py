"""Tracing that stays where it was put, so that each order of patches has a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ("tests.helpers.openai_fixtures",)

ROOT = Path(__file__).parents[3]
# Of ten calls, five of them paid. Who patches `create` and is on top sees all; `request` isn't
# called for what an awaited client finds stored, and beneath, a raw stream's end isn't seen.
SPANS = {
    ("sentry", "ours"): 10,
    ("sentry", "theirs"): 7,  # the synchronous client's `create` is nobody's but theirs
    ("openinference", "ours"): 7,
    ("openinference", "theirs"): 4,
}
SCRIPT = """
import asyncio, json, sys
from contextlib import contextmanager, nullcontext
import asynccache
from asynccache import Cache
from openai import AsyncOpenAI, OpenAI
from tests.helpers.openai_server import ask, state

tracer, first, url = sys.argv[1:]
settings = {"api_key": "sk-a", "base_url": url, "max_retries": 0}


def sentry():
    import sentry_sdk
    from sentry_sdk.integrations.openai import OpenAIIntegration
    from sentry_sdk.transport import Transport

    class Kept(Transport):
        def capture_envelope(self, envelope):
            for item in envelope.items:
                if item.type == "span":
                    spans.extend(one["name"] for one in item.payload.json["items"])

    sentry_sdk.init(
        dsn="http://a@127.0.0.1:9/1", traces_sample_rate=1.0, transport=Kept,
        default_integrations=False, auto_enabling_integrations=False,
        integrations=[OpenAIIntegration()],
    )

    @contextmanager
    def transaction():
        with sentry_sdk.start_transaction(name="test"):
            yield
        sentry_sdk.flush()

    return transaction


def openinference():
    from openinference.instrumentation.openai import OpenAIInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    class Kept(InMemorySpanExporter):
        def export(self, found):
            spans.extend(span.name for span in found)
            return super().export(found)

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Kept()))
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    return nullcontext


def told(result):
    return [state(result).outcome, result.id]


async def awaited(client):
    results = [told(await ask(client)) for _ in range(2)]
    raw = [await client.chat.completions.with_raw_response.create(model="m", messages=[])
           for _ in range(2)]
    results += [one.parse().id for one in raw]
    for _ in range(2):
        stream = await ask(client, stream=True)
        results.append([event.choices[0].delta.content async for event in stream])
    return results


def waited(client):
    results = [told(ask(client, seed=1)) for _ in range(2)]
    for _ in range(2):
        results.append([e.choices[0].delta.content for e in ask(client, stream=True, seed=1)])
    return results


async def main():
    async with Cache.memory(), AsyncOpenAI(**settings) as client:
        with around():
            found = await awaited(client)
        with around(), OpenAI(**settings) as plain:
            return found + await asyncio.to_thread(waited, plain)


spans = []
if first == "ours":
    asynccache.instrument_openai()
around = {"sentry": sentry, "openinference": openinference}[tracer]()
asynccache.instrument_openai()
print(json.dumps([asyncio.run(main()), len(spans)]))
"""


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("tracer", ["openinference", "sentry"])
async def test_calls_are_cached_and_traced(api, tracer, first):
    """Every kind of call is paid once, gives what it should, and is seen by whoever traces."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", SCRIPT, tracer, first, api.base_url],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results, spans = json.loads(done.stdout)
    text = ["One ", "two ", "three"]
    answers = [["miss", "chatcmpl-1"], ["hit", "chatcmpl-1"]]
    assert results == [*answers, "chatcmpl-1", "chatcmpl-1", text, text, *answers, text, text]
    assert len(api.requests) == 5
    assert spans == SPANS[tracer, first]
