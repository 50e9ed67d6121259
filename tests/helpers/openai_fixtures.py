"""Fixtures of the OpenAI adapter's tests: a server, bare clients, and caches, cleaned up after."""

from __future__ import annotations

import pytest
from openai import AsyncOpenAI

from asynccache import Cache
from tests.helpers.official import at_official_names, official_server
from tests.helpers.openai_server import running


@pytest.fixture(scope="module")
def api_thread():
    """One server for a module, as starting one takes a tenth of a second."""
    with running() as server:
        yield server


@pytest.fixture
def api(api_thread):
    """The module's server as if it were new."""
    api_thread.requests = []
    vars(api_thread).pop("program", None)
    return api_thread


@pytest.fixture
async def bare(api):
    """A client of the server that never retries."""
    async with AsyncOpenAI(api_key="sk-a", base_url=api.base_url, max_retries=0) as client:
        yield client


@pytest.fixture
async def api_cache():
    """An open cache in memory."""
    async with Cache.memory() as cache:
        yield cache


@pytest.fixture
def cached(bare, api_cache):
    """The client, cached."""
    return api_cache.wrap(bare)


@pytest.fixture(scope="module")
def official_thread():
    """One server for a module that answers at the official names."""
    with official_server() as server:
        yield server


@pytest.fixture
def official_api(official_thread, monkeypatch, anyio_backend):
    """The server that the official names lead to, as if it were new."""
    if isinstance(anyio_backend, tuple) and anyio_backend[1].get("use_uvloop"):
        pytest.skip(
            "uvloop resolves names and connects past Python's own sockets, so that the official"
            " names can't be led to a server here"
        )
    official_thread.requests = []
    vars(official_thread).pop("program", None)
    with at_official_names(official_thread, monkeypatch):
        yield official_thread
