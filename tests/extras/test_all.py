"""`asynccache[all]` alone: what it names is there."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("extra", ["aiocache", "cosmos", "openai", "redis"])
def test_what_all_brings(extra):
    """Its parts work beside each other."""
    module = __import__(f"tests.extras.test_{extra}", fromlist=["*"])
    tests = [found for name, found in vars(module).items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()
