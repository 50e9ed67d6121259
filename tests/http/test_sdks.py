"""The SDKs of all providers, cached at the HTTP client, beside the same SDKs without a cache."""

from __future__ import annotations

import inspect

import pytest

from asynccache import Cache
from tests.helpers.providers_answers import protocol_of
from tests.helpers.providers_server import Providers
from tests.helpers.sdk_bench import Table, stored
from tests.helpers.sdks import SDKS, Stainless, outcome, told

pytest_plugins = ("tests.helpers.openai_fixtures", "tests.helpers.sdk_fixtures")

TABLE = Table("SDKs", [sdk for sdk in SDKS.values() if sdk.module != "litellm"])


@pytest.fixture(scope="module")
def anyio_backend():
    """Run on one loop, as there is much to run."""
    return "asyncio", {"use_uvloop": False}


@pytest.mark.filterwarnings(
    "ignore:Inheritance class AiohttpClientSession:DeprecationWarning"  # as google-genai does it
)
# An SDK without a cache may leave a broken stream's connection to the collector.
@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
@pytest.mark.parametrize(("sdk", "sync", "way", "column"), TABLE.cells)
async def test_cell(sdk, sync, way, column, provider):
    """What the column says holds for the SDK."""
    await TABLE.check(sdk, sync, way, column, provider)


class Busy(Providers):
    """Has no time for the first who asks, and says when it will have."""

    async def __call__(self, seen):
        if self.asked:
            await super().__call__(seen)
            return
        self.asked += 1
        body = protocol_of(seen).error(429)
        await seen.answer(body, 429, headers=[("retry-after-ms", "1")])


@pytest.mark.parametrize("name", ["anthropic", "openai", "groq", "together", "cerebras"])
async def test_what_comes_of_a_wrapped_client(name, api, offline):
    """Its copies and its raw answers are cached, and its retries are the SDK's."""
    sdk = SDKS[name]
    assert isinstance(sdk, Stainless)
    api.program = Busy()
    async with Cache.memory() as cache, sdk.opened(f"http://127.0.0.1:{api.port}") as bare:
        client = cache.wrap(bare)
        patient = client.with_options(max_retries=1)
        first = await outcome(sdk.ask(patient, "plain"))
        assert api.program.asked == 2
        await stored(cache, 1)
        resource = client.messages if name == "anthropic" else client.chat.completions
        raw = await resource.with_raw_response.create(**sdk.asked("plain"))
        parsed = raw.parse()
        parsed = await parsed if inspect.isawaitable(parsed) else parsed
        assert told(parsed)[:2] == first[:2]
        assert raw.headers["content-type"] == "application/json"
        for copied in (client.copy(), patient, client):
            assert await outcome(sdk.ask(copied, "plain")) == first
        assert api.program.asked == 2
        assert cache.stats().hits == 4
