"""One call among processes that share a container: leases, and what ends them."""

from __future__ import annotations

import asyncio

import pytest

from asynccache import Cache
from tests.helpers.changes import nothing_comes_back
from tests.helpers.remote_stores import freeze_a_holder, kill_a_holder, pay_once
from tests.helpers.swarm import Swarm


@pytest.fixture
async def made(server):
    """The server, with an empty container."""
    async with server.cache():
        yield server


@pytest.mark.parametrize("kind", [(), ("--streamed",)], ids=["plain", "streamed"])
async def test_four_processes_pay_once(made, tmp_path, kind):
    """Four processes with 50 tasks each and 10 keys make 10 calls, plain or streamed."""
    await pay_once(made.url, tmp_path, *kind, tasks=50, keys=10)
    assert [item["id"] for item in made.items() if "lease" in item] == []


async def test_killed_holder_costs_one_more_call(made, tmp_path):
    """When the process that holds a lease is killed, one other call is made in its place."""
    options = ("--streamed", "--lease-ttl", "1", "--seconds", "1.5")
    await kill_a_holder(made.url, tmp_path, *options, tasks=50, keys=10)


async def test_frozen_holder_breaks_nothing(made, tmp_path):
    """A holder frozen past its lease costs one call; its answer and its release undo nothing."""

    def token():
        (item,) = made.items()
        return item["lease"]["token"]

    await freeze_a_holder(made.url, tmp_path, token, lease_ttl=1, seconds=3)


async def test_a_waiter_asks_rarely(made, tmp_path):
    """Who waits two seconds for another process makes at most six requests more than a hit."""
    first = Swarm(made.url, tmp_path, "--tasks", "1", "--lease-ttl", "100", "--seconds", "2")
    await first.start(1)
    first.go()
    await first.paid_by(1)
    before = sum(made.counts().values())
    cache = Cache.from_url(made.url)
    async with cache:
        answer = await cache.get_or_create("question", _unpaid)
    await asyncio.wait_for(first.reports(), 30)
    assert answer == {"paid_by": first.paid[0]}
    # Of what came meanwhile one request is the holder's, who stores its answer.
    assert sum(made.counts().values()) - before - 1 <= 1 + 1 + 5


async def test_nothing_comes_back_that_was_changed_elsewhere(made, tmp_path):
    """Whatever three cache objects in two processes do, no answer from before a change is kept."""
    await nothing_comes_back(made.url, tmp_path, range(100))


async def _unpaid():
    raise AssertionError("this was paid for by another process")
