"""Fixtures of the tests of AutoGen's integration, beside a server's."""

from __future__ import annotations

import pytest

from asynccache import Cache

pytest_plugins = ("tests.helpers.openai_fixtures",)


@pytest.fixture
async def cache():
    """A cache that is open, but in force only where it is named."""
    made = Cache.memory()
    await made.open()
    yield made
    await made.aclose()
