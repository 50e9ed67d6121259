"""What a test needs that looks at what the tests before it have measured."""

from __future__ import annotations

import pytest


def check_whole(config, missing):
    """Check that nothing is missing; skip the test where pytest was told to leave tests out."""
    option = config.option
    narrowed = (
        option.keyword or option.markexpr or option.deselect
        or getattr(option, "lf", False) or getattr(option, "stepwise", False)
        or any("::" in arg for arg in config.args)
    )  # fmt: skip
    if missing and narrowed:
        pytest.skip(
            f"only some tests were run, {len(missing)} results are missing: run the whole file"
        )
    assert not missing, "not measured, although nothing was left out"
