"""`options(tenant=)`: one cache for the many customers of a web service."""

from __future__ import annotations

import asyncio
import gc

import aiocache
import pytest

import asynccache
from asynccache import Cache, options
from asynccache.core.store_client import StoreClient
from asynccache.testing import Gate
from tests.helpers.inside import engines_of

NAMES = ["acme", "ä/ö \N{HONEYBEE}", "x" * 5000, "a\0b", "..", "sha256:" + "0" * 64, "%", "42@acme"]


@pytest.fixture(params=["memory", "disk", "aiocache"])
async def cache(request, tmp_path):
    """A cache of each kind, open."""
    if request.param == "aiocache":
        made = Cache.aiocache(aiocache.SimpleMemoryCache())
    elif request.param == "disk":
        made = Cache.disk(cache_path_root=tmp_path)
    else:
        made = Cache.memory()
    async with made:
        yield made


async def test_tenants_of_any_name_have_answers_of_their_own(cache):
    """Calls, values and clearing: any text of any length separates."""
    for name in NAMES:
        with options(tenant=name):
            await cache.get_or_create("key", lambda name=name: asyncio.sleep(0, name))
            assert await cache.set("value", name)
    for name in NAMES:
        with options(tenant=name):
            assert await cache.get("key") == await cache.get("value") == name
    assert await cache.get("key") is None
    with options(tenant=NAMES[2]):
        assert await cache.clear() == 2
        assert await cache.get("key") is None
    for name in NAMES[:2] + NAMES[3:]:
        with options(tenant=name):
            assert await cache.get("key") == name


async def test_a_block_has_the_tenant_that_it_names():
    """Blocks nest, a seed is one thing and a tenant another, and None is no tenant."""
    async with Cache.memory("seed", tenant="own") as cache:

        def space():
            return asynccache.cache.in_force.current_options().namespace(cache.settings.namespace)

        assert space().text == "seed@own"
        with options(tenant="acme"):
            assert space().text == "seed@acme"
            with options(cache_seed=7):
                assert space().text == "7@acme"
                with options(tenant=None):
                    assert space().text == "7"
        with options(cache_seed=7):
            assert space().text == "7@own"


@pytest.mark.parametrize(
    ("wrong", "error"), [(7, TypeError), ("", ValueError), ("\ud800", ValueError)]
)
def test_what_is_no_tenant_is_refused_at_once(wrong, error):
    """Before anything is looked up for it."""
    with pytest.raises(error, match="tenant"):
        options(tenant=wrong)


async def test_many_tenants_cost_no_more_than_some():
    """What a loop keeps of each namespace is bounded; writes under way keep theirs."""
    async with Cache.memory() as cache:
        for number in range(3000):
            with options(tenant=f"tenant {number}"):
                await cache.set("key", number)
        (engine,) = engines_of(cache)
        gc.collect()
        kept = [one for one in gc.get_objects() if type(one) is StoreClient]
        assert len(kept) <= 1100
        assert len(engine._clients) <= 1100
        with options(tenant="tenant 0"):
            assert await cache.get("key") == 0


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "other_loop"])
async def test_clearing_one_namespace_leaves_calls_of_the_others_alone(cache, elsewhere):
    """The call is shared and stored for its own tenant; that of the cleared one is not stored."""
    gate, calls = Gate(), []

    async def create(name):
        calls.append(name)
        await gate.pass_through()
        return name

    async def ask(name):
        with options(tenant=name):
            return await cache.get_or_create("key", lambda: create(name))

    first = [asyncio.create_task(ask(name)) for name in ("kept", "cleared")]
    await gate.arrived(2)
    with options(tenant="cleared"):
        if elsewhere:
            await asyncio.to_thread(lambda: asyncio.run(cache.clear()))
        else:
            await cache.clear()
    joined = asyncio.create_task(ask("kept"))
    await asyncio.sleep(0)
    gate.release()
    assert await asyncio.gather(*first, joined) == ["kept", "cleared", "kept"]
    assert calls == ["kept", "cleared"]
    with options(tenant="kept"):
        assert await cache.get("key") == "kept"
    with options(tenant="cleared"):
        assert await cache.get("key") is None
