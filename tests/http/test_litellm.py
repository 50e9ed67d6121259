"""LiteLLM's own clients of the providers, cached at the HTTP client: httpx over aiohttp."""

from __future__ import annotations

import pytest

from tests.helpers.sdk_bench import Table
from tests.helpers.sdks import SDKS

pytest_plugins = ("tests.helpers.openai_fixtures", "tests.helpers.sdk_fixtures")
pytestmark = [
    # LiteLLM's types, as pydantic sees them; and what LiteLLM itself does with its answers.
    pytest.mark.filterwarnings("ignore:.*ReadOnly.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    # It leaves connections to be collected, without a cache, too.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

TABLE = Table("LiteLLM", [sdk for sdk in SDKS.values() if sdk.module == "litellm"])


@pytest.fixture(scope="module")
def anyio_backend():
    """Run on one loop, as there is much to run."""
    return "asyncio", {"use_uvloop": False}


@pytest.mark.parametrize(("sdk", "sync", "way", "column"), TABLE.cells)
async def test_cell(sdk, sync, way, column, provider):
    """What the column says holds for LiteLLM with a model of the provider's."""
    await TABLE.check(sdk, sync, way, column, provider)
