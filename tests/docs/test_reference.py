"""The reference: every public name is in it, with what its docstring says."""

from __future__ import annotations

import importlib
import re

import pytest

from tools import reference

MODULES = [
    "asynccache", "asynccache.http", "asynccache.openai", "asynccache.stores", "asynccache.testing",
]  # fmt: skip
LINK = re.compile(r"\]\((\w+)\.md#([\w-]+)\)")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Write the reference; return its pages by name."""
    folder = tmp_path_factory.mktemp("reference")
    reference.write(folder)
    return {page.stem: page.read_text("utf-8") for page in folder.iterdir()}


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_on_a_page(module):
    """What a module exports is what the reference describes of it."""
    described = {name for name, (_, home) in reference.HOMES.items() if home == module}
    assert described == set(importlib.import_module(module).__all__)


def test_each_name_has_its_heading(pages):
    """A name stands on the page that is said to describe it."""
    for name, (page, module) in reference.HOMES.items():
        assert f"\n## {name} {{ #{name} }}\n\n`from {module} import {name}`\n" in pages[page]


def test_options_methods_and_fields_are_described(pages):
    """Factories, their options, methods and fields come with their own words."""
    for heading in ("Cache.from_url", "Cache.cosmos_db"):
        assert f"\n### {heading} " in pages["factories"]
    assert (
        "- **`ttl_jitter`**{ #CacheOptions-ttl_jitter } (`float`): Share of the ttl"
        in pages["factories"]
    )
    for heading in ("AsyncCache.get_or_create", "AsyncCache.open", "SyncCache.memoize"):
        assert f"\n### {heading} " in pages["cache"]
    assert "- **`hit_rate`**{ #Stats-hit_rate } (`float`): The share" in pages["results"]
    assert "For integrations" not in "".join(pages.values())


def test_signatures_hide_private_names(pages):
    """A default is shown as its value."""
    signatures = re.findall(r"^```python\n(.*?)^```", pages["factories"], re.MULTILINE | re.DOTALL)
    assert "redis_url: str = 'redis://localhost:6379/0'" in "".join(signatures)
    assert not re.search(r"\b_\w", "".join(signatures))


def test_links_lead_to_headings(pages):
    """A link within the reference leads to a heading that is there."""
    for text in pages.values():
        for page, anchor in LINK.findall(text):
            assert f"{{ #{anchor} }}" in pages[page], f"{page}.md#{anchor}"
