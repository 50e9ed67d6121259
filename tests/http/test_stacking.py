"""What traces, mocks or records at the HTTP client, above or beneath the cache, in either order.

Each answers four questions: who is on top, what it sees of one call and its two hits, whether the
answers stay right, and that either may be taken off first.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest

import asynccache
from asynccache import Cache, instrument, uninstrument
from tests.helpers.openai_server import running
from tests.helpers.providers_server import Providers

ROOT = Path(__file__).parents[2]
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}
ORDERS = ["theirs first", "ours first"]
NAMES = ["httpx", "httpx2", "aiohttp"]
CHAT = {"id": "c-1", "choices": [{"finish_reason": "stop"}]}


@pytest.fixture(autouse=True)
def as_before():
    """Leave the libraries as they were found."""
    yield
    uninstrument()


@pytest.fixture(scope="module")
def server():
    """A server for the module."""
    with running() as found:
        yield found


@pytest.fixture
def url(server):
    """Where the server answers chat completions, with numbers."""
    server.program, server.requests = Providers(), []
    return f"{server.base_url}/chat/completions"


@pytest.fixture
async def cache():
    """An open cache."""
    async with Cache.memory() as cache:
        yield cache


class Client:
    """One client of a library."""

    def __init__(self, name):
        module: Any = importlib.import_module(name)
        self._made = module.ClientSession() if name == "aiohttp" else module.AsyncClient()

    async def __aenter__(self):
        await self._made.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self._made.__aexit__(*error)

    async def post(self, url, body=BODY):
        """Return where a response came from, and what it says."""
        response = await self._made.post(url, json=body)
        said = await response.json() if hasattr(response, "release") else response.json()
        found = asynccache.status(response)
        return found and found.outcome, said["id"]


async def thrice(name, url):
    """Return where the answers to three equal calls of one client came from; they are the same."""
    async with Client(name) as client:
        found = [await client.post(url) for _ in range(3)]
    assert len({answer for _, answer in found}) == 1
    return [how for how, _ in found]


def in_order(order, theirs, ours):
    """Do both, one after the other."""
    return (theirs(), ours()) if order == "theirs first" else (ours(), theirs())


SERVED = ["miss", "hit", "hit"]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("undone", ["theirs", "ours"])
async def test_opentelemetry(url, server, order, name, undone):
    """Over httpx a span is a request that was sent; over aiohttp it is one that was asked for."""
    from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
    from opentelemetry.instrumentation.httpx import (
        HTTPX2ClientInstrumentor,
        HTTPXClientInstrumentor,
    )
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracing: Any = {
        "httpx": HTTPXClientInstrumentor,
        "httpx2": HTTPX2ClientInstrumentor,
        "aiohttp": AioHttpClientInstrumentor,
    }[name]()
    in_order(order, lambda: tracing.instrument(tracer_provider=provider), instrument)
    try:
        with provider.get_tracer("test").start_as_current_span("around") as around:
            assert await thrice(name, url) == SERVED
        *seen, last = spans.get_finished_spans()
        assert last.name == "around"
        assert len(seen) == (3 if name == "aiohttp" else 1)
        assert {span.parent.span_id for span in seen} == {around.get_span_context().span_id}
        spans.clear()
        if undone == "theirs":
            tracing.uninstrument()
            assert await thrice(name, url) == ["hit"] * 3
            assert not spans.get_finished_spans()
        else:
            uninstrument()
            async with Client(name) as client:
                assert (await client.post(url))[0] is None
            assert len(spans.get_finished_spans()) == 1
    finally:
        with contextlib.suppress(AttributeError):
            tracing.uninstrument()
    assert len(server.requests) == (1 if undone == "theirs" else 2)


SENTRY = """
import asyncio, json, sys
import sentry_sdk, asynccache
from sentry_sdk.transport import Transport
from tests.http.test_stacking import thrice

spans = []

class Kept(Transport):
    def capture_envelope(self, envelope):
        for item in envelope.items:
            if item.type == "transaction":
                spans.extend(one["op"] for one in item.payload.json["spans"])

def theirs():
    from sentry_sdk.integrations.aiohttp import AioHttpIntegration
    from sentry_sdk.integrations.httpx import HttpxIntegration
    from sentry_sdk.integrations.httpx2 import Httpx2Integration

    sentry_sdk.init(
        dsn="http://a@127.0.0.1:9/1", traces_sample_rate=1.0, transport=Kept,
        default_integrations=False, auto_enabling_integrations=False,
        integrations=[AioHttpIntegration(), HttpxIntegration(), Httpx2Integration()],
    )

async def main(name):
    async with asynccache.Cache.memory():
        with sentry_sdk.start_transaction(name="test"):
            found = await thrice(name, sys.argv[2])
        sentry_sdk.flush()
        return found

if sys.argv[1] == "theirs first":
    theirs()
asynccache.instrument()
theirs()
told = {}
for name in ("httpx", "httpx2", "aiohttp"):
    told[name] = asyncio.run(main(name)), spans.count("http.client")
    spans.clear()
print(json.dumps(told))
"""


@pytest.mark.parametrize("order", ORDERS)
def test_sentry(url, server, order):
    """Its spans are requests that were asked for, hits too."""
    done = subprocess.run(
        [sys.executable, "-c", SENTRY, order, url], capture_output=True, text=True, timeout=60,
        check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: [SERVED, 3] for name in NAMES}
    assert len(server.requests) == 3


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("using", ["httpcore", "httpx"])
async def test_respx(url, cache, order, using):
    """What it mocks stands for the server; who patches the clients last is on top."""
    import respx

    with contextlib.ExitStack() as stack:
        mock = respx.mock(using=using, assert_all_called=False)
        mock.post(url).respond(200, json=CHAT)
        in_order(
            order, lambda: stack.enter_context(mock), lambda: stack.enter_context(instrument())
        )
        found = await thrice("httpx", url)
        on_top = using == "httpx" and order == "ours first"
        assert found == ([None] * 3 if on_top else SERVED)
        assert mock.calls.call_count == (3 if on_top else 1)
        with asynccache.options(mode="off"):
            assert await thrice("httpx", url) == [None] * 3
        assert mock.calls.call_count == (6 if on_top else 4)
    assert "asynccache" not in httpx.AsyncClient._transport_for_url.__module__


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("is_sync", [False, True])
async def test_mock_transports_are_cached_as_any_server(cache, library: Any, is_sync):
    """A function in the server's place is called once."""
    calls = []

    def answer(request):
        calls.append(request)
        return library.Response(200, json={**CHAT, "id": f"c-{len(calls)}"})

    instrument()
    transport = library.MockTransport(answer)
    where = "https://api.openai.com/v1/chat/completions"
    if is_sync:
        with library.Client(transport=transport) as client:
            found = [await asyncio.to_thread(client.post, where, json=BODY) for _ in range(3)]
    else:
        async with library.AsyncClient(transport=transport) as client:
            found = [await client.post(where, json=BODY) for _ in range(3)]
    assert [asynccache.status(one).outcome for one in found] == SERVED  # type: ignore[union-attr]
    assert {one.json()["id"] for one in found} == {"c-1"}
    assert len(calls) == 1


def vcrpy(path):
    """Return a cassette of vcrpy's, and what counts the requests that it holds."""
    import vcr

    def recorded():
        return path.read_text().count("- request:") if path.exists() else 0

    return vcr.use_cassette(str(path)), recorded


def cassetter(path):
    """Return one of cassetter's."""
    import cassetter

    def recorded():
        return path.read_text().count("uri:") if path.exists() else 0

    return cassetter.use_cassette(path), recorded


@pytest.fixture(params=[vcrpy, cassetter])
def make(request):
    """What makes cassettes."""
    return request.param


@pytest.fixture(params=ORDERS)
def order(request):
    """Who comes first."""
    return request.param


@pytest.fixture
def taped(make, order, tmp_path):
    """Instrumented, with a cassette in use, always the same; gives what counts its requests."""

    @contextlib.contextmanager
    def both():
        tape, recorded = make(tmp_path / "tape.yaml")
        with contextlib.ExitStack() as stack:
            in_order(
                order,
                lambda: stack.enter_context(tape),
                lambda: stack.enter_context(instrument()),
            )
            yield recorded

    return both


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
async def test_cassettes(url, server, taped, name):
    """They stand beneath: they hold what was sent, and then play it to the cache."""
    for _ in range(2):  # records, then replays
        async with Cache.memory() as cache:
            with taped() as recorded:
                assert await thrice(name, url) == SERVED
            assert cache.stats().misses == 1
        assert recorded() == 1
        assert len(server.requests) == 1


async def test_cassettes_over_aiohttp(url, server, taped, make, order):
    """There they stand on top: they hold what was asked for, and then play it without the cache."""
    past = make is vcrpy and order == "ours first"  # it calls what it found when it was imported
    for recording in (True, False):
        async with Cache.memory() as cache:
            with taped() as recorded:
                async with Client("aiohttp") as client:
                    found = [await client.post(url) for _ in range(3)]
            served = recording and not past
            assert [how for how, _ in found] == (SERVED if served else [None] * 3)
            assert cache.stats().misses == served
        assert recorded() == 3
        assert len(server.requests) == (3 if past else 1)
