"""What the tests of HTTP clients share."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.helpers.sdk_bench")
