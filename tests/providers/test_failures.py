"""Errors of all libraries, told apart by what went wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import anyio
import httpx
import httpx2
import openai
import pytest

from asynccache.providers.answers import Received
from asynccache.providers.failures import failure_of, scope_of
from asynccache.providers.refusal import RefusedError

KEY: aiohttp.client_reqrep.ConnectionKey = None  # type: ignore[assignment]  # only shown
REQUEST: Any = openai._base_client.httpx2.Request("POST", "http://h/") if hasattr(
    openai._base_client, "httpx2"
) else httpx.Request("POST", "http://h/")  # fmt: skip


def caused(error, cause, *, context=False):
    """Return an error with a cause."""
    if context:
        error.__context__ = cause
    else:
        error.__cause__ = cause
    return error


FAILURES = [
    (httpx.ReadTimeout(""), "timeout"),
    (httpx2.ConnectTimeout(""), "timeout"),
    (aiohttp.SocketTimeoutError(), "timeout"),
    (aiohttp.ConnectionTimeoutError(), "timeout"),
    (TimeoutError(), "timeout"),
    (openai.APITimeoutError(request=REQUEST), "timeout"),
    (httpx.ConnectError(""), "connect"),
    (httpx2.ConnectError(""), "connect"),
    (aiohttp.ClientConnectorError(KEY, OSError()), "connect"),
    (caused(openai.APIConnectionError(request=REQUEST), httpx2.ConnectError("")), "connect"),
    (httpx.ReadError(""), "network"),
    (httpx2.RemoteProtocolError(""), "network"),
    (httpx2.DecodingError(""), "network"),
    (aiohttp.ServerDisconnectedError(), "network"),
    (aiohttp.ClientPayloadError(), "network"),
    (openai.APIConnectionError(request=REQUEST), "network"),
    (httpx.PoolTimeout(""), "client"),
    (caused(openai.APITimeoutError(request=REQUEST), httpx2.PoolTimeout("")), "client"),
    (httpx2.ProxyError(""), "client"),
    (caused(httpx2.ReadError(""), anyio.ClosedResourceError(), context=True), "client"),
    (httpx.UnsupportedProtocol(""), "client"),
    (ValueError(), None),
    (asyncio.CancelledError(), None),
]


@pytest.mark.parametrize(
    ("error", "failure"), FAILURES, ids=[type(error).__qualname__ for error, _ in FAILURES]
)
def test_what_went_wrong(error, failure):
    """Whichever library says it; and for whom it is true."""
    assert failure_of(error) == failure
    expected = {"timeout": "timeout", "connect": "connection", "network": "connection"}
    early = type(error).__name__ in {"ConnectTimeout", "ConnectionTimeoutError"}
    assert scope_of(error) == ("own" if early else expected.get(failure or "", "own"))


@pytest.mark.parametrize("status", [302, 400, 401, 402, 403, 404, 422, 429, 500, 529])
def test_a_refusal_is_true_for_all_or_for_the_account(status):
    """What depends on rights, money and limits is an account's own."""
    refused = RefusedError(status, Received([], {}), b"")
    own = status < 500  # some providers say 400 to a key that isn't valid
    assert scope_of(refused) == ("credentials" if own else "all")
