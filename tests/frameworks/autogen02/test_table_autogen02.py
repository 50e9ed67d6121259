"""The row of AutoGen 0.2, under `instrument()`."""

from __future__ import annotations

import pytest

from tests.helpers.frameworks_autogen import AutoGenSuite

pytest_plugins = ("tests.helpers.openai_fixtures",)


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch):
    """Keep AutoGen from fetching a tokenizer to count a stream's tokens with."""
    monkeypatch.setattr("autogen.oai.client.count_token", lambda *args, **kwargs: 1)


class TestAutoGen02(AutoGenSuite):
    name = "AutoGen 0.2.40"
