"""What of the headers that SDKs really send is in keys: nothing of machines, versions, accounts."""

from __future__ import annotations

import asyncio

import pytest

from asynccache.keys.denied import kept_headers
from asynccache.providers.table import find
from tests.helpers.providers_server import Providers
from tests.helpers.sdks import SDKS, outcome, sync_outcome

pytest_plugins = ("tests.helpers.openai_fixtures", "tests.helpers.sdk_fixtures")

# What makes another request if it is another one.
KEPT = {"anthropic": {"anthropic-version"}}
CELLS = [
    pytest.param(sdk, sync, id=f"{sdk.name}{', sync' if sync else ''}")
    for sdk in SDKS.values()
    if sdk.module != "litellm"
    if sdk.name != "anthropic, Vertex"  # nothing that it sends says whose it is
    for sync in ((False, True) if sdk.has_sync else (False,))
]


@pytest.fixture(scope="module")
def anyio_backend():
    """Run on one loop: what is sent is the same."""
    return "asyncio", {"use_uvloop": False}


@pytest.mark.filterwarnings(
    "ignore:Inheritance class AiohttpClientSession:DeprecationWarning"  # as google-genai does it
)
@pytest.mark.parametrize(("sdk", "sync"), CELLS)
async def test_what_sdks_send(sdk, sync, api, offline):
    """Beside the versions of protocols nothing is in the key, and the headers say whose it is."""
    if not sdk.is_there():
        pytest.skip(f"{sdk.module} isn't installed in this environment")
    api.program = Providers()
    url = f"http://127.0.0.1:{api.port}"
    if sync:

        def ask():
            with sdk.opened_sync(url) as client:
                return sync_outcome(sdk.ask(client, "plain"))

        await asyncio.to_thread(ask)
    else:
        async with sdk.opened(url) as client:
            await outcome(sdk.ask(client, "plain"))
    seen = api.requests[-1]
    assert {name for name, _ in kept_headers(seen.headers.items())} == KEPT.get(sdk.module, set())
    match = find(f"127.0.0.1:{api.port}", seen.path, seen.headers)
    assert match is not None
    assert match.operation.required <= seen.body.keys()
    assert match.operation.streams(seen.body, seen.path) is False
