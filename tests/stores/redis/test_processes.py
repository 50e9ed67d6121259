"""One call among processes that share a Redis: leases, and what ends them."""

from __future__ import annotations

import asyncio

import pytest

from asynccache.keys.key import Namespace, value_key
from asynccache.stores.redis.keys import names_of
from tests.helpers.changes import nothing_comes_back
from tests.helpers.remote_stores import freeze_a_holder, kill_a_holder, pay_once
from tests.helpers.swarm import Swarm


@pytest.fixture(scope="module")
def anyio_backend():
    """Only the workers' loops matter here, and they are asyncio's."""
    return "asyncio"


@pytest.mark.parametrize("kind", [(), ("--streamed",)], ids=["plain", "streamed"])
async def test_four_processes_pay_once(server, tmp_path, kind):
    """Four processes with 250 tasks each and 20 keys make 20 calls, plain or streamed."""
    await pay_once(server.url, tmp_path, *kind, tasks=250, keys=20)
    with server.client() as client:
        assert client.keys("*:lease") == []


@pytest.mark.parametrize("kind", [(), ("--streamed",)], ids=["plain", "streamed"])
async def test_killed_holder_costs_one_more_call(server, tmp_path, kind):
    """When a process that holds a lease is killed in the middle, 20 keys cost 21 calls."""
    options = (*kind, "--lease-ttl", "0.6", "--seconds", "1.0")
    await kill_a_holder(server.url, tmp_path, *options, tasks=250, keys=20)


async def test_frozen_holder_breaks_nothing(server, tmp_path):
    """A holder frozen past its lease costs one call, and its late release takes no one's lease."""
    namespace = Namespace.of(42)
    lease = names_of(namespace).lease(value_key(namespace, "value", "question"))

    def token():
        with server.client() as client:
            return client.get(lease)[11:]

    await freeze_a_holder(server.url, tmp_path, token, lease_ttl=0.6, seconds=4)


async def test_many_waiters_are_woken(server, tmp_path):
    """Waiters in other processes have the answer from a message: no poll comes so soon."""
    swarm = Swarm(server.url, tmp_path, "--lease-ttl", "100", "--seconds", "0.5")
    await swarm.start(4)
    swarm.go()
    # With a lease of 100 s the first poll comes after 12: only messages can end this in time.
    reports = await asyncio.wait_for(swarm.reports(), 10)
    assert len(reports) == 4
    assert len(swarm.paid) == 1


@pytest.mark.parametrize("where", ["server", "cluster"])
async def test_nothing_comes_back_that_was_changed_elsewhere(request, tmp_path, where):
    """Whatever three cache objects in two processes do, no answer from before a change is kept."""
    url = request.getfixturevalue(where).url
    await nothing_comes_back(url, tmp_path, range(100))
