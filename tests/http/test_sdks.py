"""The SDKs of all providers, cached at the HTTP client, beside the same SDKs without a cache."""

from __future__ import annotations

import pytest

from tests.helpers.sdk_bench import Table
from tests.helpers.sdks import SDKS

pytest_plugins = ("tests.helpers.openai_fixtures", "tests.helpers.sdk_fixtures")

TABLE = Table("SDKs", [sdk for sdk in SDKS.values() if sdk.module != "litellm"])


@pytest.fixture(scope="module")
def anyio_backend():
    """Run on one loop, as there is much to run."""
    return "asyncio", {"use_uvloop": False}


@pytest.mark.filterwarnings(
    "ignore:Inheritance class AiohttpClientSession:DeprecationWarning"  # as google-genai does it
)
@pytest.mark.parametrize(("sdk", "sync", "way", "column"), TABLE.cells)
async def test_cell(sdk, sync, way, column, provider):
    """What the column says holds for the SDK."""
    await TABLE.check(sdk, sync, way, column, provider)
