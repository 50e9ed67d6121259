"""What the log says of failures: a line for each kind, and the traceback at DEBUG."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import pytest

from asynccache import Cache

CALLS = 40


async def create():
    """Return a value."""
    return 1


async def used(cache):
    """Use a cache often enough that its circuit breaker opens."""
    async with cache:
        for number in range(CALLS):
            assert await cache.get_or_create(number, create) == 1
    assert cache.stats().store_errors


def lines(caplog):
    """Return what was logged at WARNING and above."""
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture(params=["redis", "folder"])
def broken(request, tmp_path):
    """A cache whose store can't be used, and what its line has to name."""
    if request.param == "redis":
        return Cache.redis(redis_url="redis://127.0.0.1:1/0"), "127.0.0.1:1"
    (tmp_path / "file").write_text("in the way")
    return Cache.disk(cache_path_root=tmp_path / "file" / "cache"), str(tmp_path / "file")


async def test_a_store_that_cant_be_used_costs_one_line(broken, caplog):
    """It says what is wrong and where, however many calls notice, and shows no traceback."""
    cache, named = broken
    caplog.set_level(logging.WARNING, "asynccache")
    await used(cache)
    (line,) = lines(caplog)
    assert named in line.getMessage()
    assert "\n" not in line.getMessage()
    assert line.exc_info is None


async def test_the_traceback_is_there_at_debug(broken, caplog):
    """Who looks closer sees it."""
    cache, _ = broken
    caplog.set_level(logging.DEBUG, "asynccache")
    await used(cache)
    assert len(lines(caplog)) == 1
    assert [record for record in caplog.records if record.exc_info and record.levelname == "DEBUG"]


@pytest.mark.parametrize("kind", ["observer", "store_if"])
async def test_functions_of_the_users_that_return_coroutines_are_told_once(kind, caplog):
    """It is no yes, nobody awaits it, and it is closed."""
    caplog.set_level(logging.WARNING, "asynccache")
    made = []

    async def never():
        """Do nothing."""

    def returning(_):
        made.append(never())
        return made[-1]

    options: dict[str, Any] = {kind: returning}
    async with Cache.memory(**options) as cache:
        for number in range(CALLS):
            await cache.get_or_create(number, create)
        await cache.set("key", 1)  # comes after all that was begun
        stats = cache.stats()
    assert len(made) == CALLS
    assert {inspect.getcoroutinestate(one) for one in made} == {inspect.CORO_CLOSED}
    (line,) = lines(caplog)
    assert f"{kind} must be a plain function, and returned a coroutine" in line.getMessage()
    assert stats.not_stored == ({"store_if": CALLS} if kind == "store_if" else {})


@pytest.mark.parametrize("kind", ["observer", "store_if"])
async def test_functions_of_the_users_that_fail_are_told_once_per_kind(kind, caplog):
    """An observer and a rule may fail at each call: two kinds of errors are two lines."""
    caplog.set_level(logging.WARNING, "asynccache")
    count = 0

    def failing(_):
        nonlocal count
        count += 1
        raise (ValueError if count % 2 else KeyError)("a\nb")

    options: dict[str, Any] = {kind: failing}
    async with Cache.memory(**options) as cache:
        for number in range(CALLS):
            await cache.get_or_create(number, create)
    assert count == CALLS
    assert len(lines(caplog)) == 2
    assert all("\n" not in line.getMessage() and not line.exc_info for line in lines(caplog))
    async with Cache.memory(**options) as another:
        await another.get_or_create("key", create)
    assert len(lines(caplog)) == 3
