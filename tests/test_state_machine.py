"""The cache against a plain model, whatever is done to it in whatever order, on memory and disk."""

from __future__ import annotations

import pytest

from asynccache import Cache, options


async def answer():
    """Make an answer that the disk store keeps in a file, so that storing it takes its time."""
    return bytes(range(256)) * 2_000


@pytest.mark.parametrize("what", ["delete", "clear", "set"])
@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_what_is_done_right_after_an_answer_comes_after_its_storing(tmp_path, kind, what):
    """Deleting, clearing or setting once an answer is there isn't undone by its being stored."""
    made = Cache.memory() if kind == "memory" else Cache.disk(cache_path_root=tmp_path / "cache")
    async with made as cache:
        assert await cache.get_or_create("key", answer) == await answer()
        if what == "delete":
            await cache.delete("key")
        elif what == "clear":
            await cache.clear()
        else:
            assert await cache.set("key", "mine")
    async with made as cache:  # closing waited for all that was being stored
        assert await cache.get("key") == ("mine" if what == "set" else None)


async def test_no_key_is_another_ones_sample():
    """The first sample of "a" and the value of ("a", 1) are two entries."""
    async with Cache.memory() as cache:
        with options(sample=1):
            await cache.get_or_create("a", answer)
        assert not await cache.contains(("a", 1))
