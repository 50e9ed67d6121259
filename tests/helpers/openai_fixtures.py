"""Fixtures of the OpenAI adapter's tests: a server, bare clients, and caches, cleaned up after."""

from __future__ import annotations

import pytest
from openai import AsyncOpenAI

from asynccache import Cache
from tests.helpers.openai_server import running

MESSAGES = [{"role": "user", "content": "Hello?"}]


@pytest.fixture(scope="module")
def shared_server():
    """One server for a module, as starting one takes a tenth of a second."""
    with running() as server:
        yield server


@pytest.fixture
def server(shared_server):
    """The module's server as if it were new."""
    shared_server.requests = []
    vars(shared_server).pop("program", None)
    return shared_server


@pytest.fixture
async def client(server):
    """A bare client of the server."""
    async with AsyncOpenAI(api_key="sk-a", base_url=server.base_url, max_retries=0) as client:
        yield client


@pytest.fixture
async def cache():
    """An open cache in memory."""
    async with Cache.memory() as cache:
        yield cache


@pytest.fixture
def cached(client, cache):
    """The client, cached."""
    return cache.wrap(client)


def ask(client, **changes):
    """Make the one call that nearly all tests make."""
    return client.chat.completions.create(**{"model": "gpt-4o", "messages": MESSAGES, **changes})


async def events_of(stream):
    """Return a stream's events and the error that ended it, None at its proper end."""
    events = []
    try:
        async for event in stream:
            events.append(event)
    except Exception as exc:
        return events, exc
    return events, None
