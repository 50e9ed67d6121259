"""The official host names lead to the tests' server, whichever HTTP library asks."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import httpx
import httpx2
import pytest

pytest_plugins = ("tests.helpers.openai_fixtures",)

URL = "https://api.openai.com/v1/chat/completions"


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_httpx(library, official_api):
    """So it is for clients of both kinds."""
    async with library.AsyncClient() as client:
        assert (await client.post(URL, json={})).status_code == 200
    with library.Client() as client:
        assert (await asyncio.to_thread(client.post, URL, json={})).status_code == 200
    assert [seen.headers["host"] for seen in official_api.requests] == ["api.openai.com"] * 2


async def test_aiohttp(official_api):
    """It resolves and connects by asyncio's own means."""
    async with aiohttp.ClientSession() as session, session.post(URL, json={}) as answer:
        assert answer.status == 200
    assert len(official_api.requests) == 1


async def test_telemetry_goes_nowhere(official_api):
    """No other name but this machine's can be resolved meanwhile."""
    for name in ("app.posthog.com", "telemetry.crewai.com"):
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo(name, 443)
    assert socket.getaddrinfo("localhost", 80)
