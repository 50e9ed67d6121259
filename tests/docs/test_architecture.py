"""The page about the architecture names files and tests that are there."""

from __future__ import annotations

import re

import pytest

from tests.helpers.pages import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
FILES = sorted(set(re.findall(r"`((?!tests/)[\w/]+\.py)`", PAGE)))
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))


@pytest.mark.parametrize("path", FILES)
def test_modules_are_there(path):
    """A module that the page names is in the package."""
    assert (ROOT / "src" / "asynccache" / path).exists()


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_tests_are_there(path, name):
    """A test that the page names is in its file."""
    assert f"def {name}(" in (ROOT / path).read_text("utf-8") if name else (ROOT / path).exists()


def test_every_package_is_explained():
    """The page's table has every package."""
    packages = {path.parent.name for path in (ROOT / "src" / "asynccache").glob("*/__init__.py")}
    explained = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert explained == packages
