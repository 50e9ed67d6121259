"""The row of AG2 before 1.0, under `instrument()`."""

from __future__ import annotations

from tests.helpers.frameworks_autogen import AutoGenSuite

pytest_plugins = ("tests.helpers.openai_fixtures",)


class TestAG2(AutoGenSuite):
    name = "AG2 0.14"
