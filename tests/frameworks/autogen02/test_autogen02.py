"""AutoGen 0.2 on this library's cache."""

from __future__ import annotations

from tests.helpers.autogen_examples import *  # noqa: F403 - its tests
from tests.helpers.autogen_own_clients import *  # noqa: F403 - its tests

pytest_plugins = ("tests.helpers.openai_fixtures",)
