"""One call among processes that share a Redis: leases, and what ends them."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest

from asynccache import Cache
from asynccache.keys.key import Namespace, value_key
from asynccache.stores.redis.keys import names_of
from tests.helpers.redis_servers import Valkey
from tests.helpers.swarm import Swarm

SHORT = ("--lease-ttl", "0.6", "--seconds", "1.0")


@pytest.fixture(scope="module")
def anyio_backend():
    """Only the workers' loops matter here, and they are asyncio's."""
    return "asyncio"


@pytest.fixture(scope="module")
def valkey():
    """One server for all."""
    with Valkey() as running:
        yield running


@pytest.fixture
def server(valkey):
    """The server, empty."""
    with valkey.client() as client:
        client.flushall()
    return valkey


@pytest.mark.parametrize("kind", [(), ("--streamed",)], ids=["plain", "streamed"])
async def test_four_processes_pay_once(server, tmp_path, kind):
    """Four processes with 250 tasks each and 20 keys make 20 calls, plain or streamed."""
    swarm = Swarm(server.url, tmp_path, "--tasks", "250", "--keys", "20", *kind)
    await swarm.start(4)
    swarm.go()
    reports = await swarm.reports()
    assert len(reports) == 4
    assert len(swarm.paid) == 20
    answers = [report["answers"] for report in reports.values()]
    assert len(answers[0]) == 20
    assert answers == [answers[0]] * 4
    for report in reports.values():
        assert report["flaws"] == report["store_errors"] == {}
    with server.client() as client:
        assert client.keys("*:lease") == []


@pytest.mark.parametrize("kind", [(), ("--streamed",)], ids=["plain", "streamed"])
async def test_killed_leader_costs_one_more_call(server, tmp_path, kind):
    """When a leading process is killed in the middle, 20 keys cost 21 calls."""
    swarm = Swarm(server.url, tmp_path, "--tasks", "250", "--keys", "20", *kind, *SHORT)
    # One leads on a single key; the rest of the keys are led by whoever comes later.
    first = Swarm(server.url, tmp_path, "--tasks", "1", *kind, *SHORT)
    await swarm.start(4)
    await first.start(1)
    first.go()
    leader = await first.paid_by(1)
    swarm.go()
    await swarm.paid_by(20)  # everybody waits for somebody
    os.kill(leader, signal.SIGKILL)
    reports = await swarm.reports()
    await first.reports()
    assert len(reports) == 4
    assert len(swarm.paid) == 21
    answers = [report["answers"] for report in reports.values()]
    assert answers == [answers[0]] * 4
    assert leader not in {answer["paid_by"] for answer in answers[0]}


async def test_frozen_leader_breaks_nothing(server, tmp_path):
    """A leader frozen past its lease costs one call, and its late release takes no one's lease."""
    first = Swarm(server.url, tmp_path, "--tasks", "1", "--lease-ttl", "0.6", "--seconds", "0.8")
    rest = Swarm(server.url, tmp_path, "--lease-ttl", "0.6", "--seconds", "4")
    await first.start(1)
    await rest.start(3)
    first.go()
    leader = await first.paid_by(1)
    rest.go()
    os.kill(leader, signal.SIGSTOP)
    new = await rest.paid_by(2)  # one of the others calls in its place, and isn't done yet
    with server.client() as client:
        namespace = Namespace.of(42)
        lease = names_of(namespace).lease(value_key(namespace, "value", "question"))
        held = client.get(lease)[11:]
        os.kill(leader, signal.SIGCONT)
        (report,) = (await first.reports()).values()  # it has ended, and released what it had
        assert client.get(lease)[11:] == held  # the new holder's
    assert report["answers"] == [{"paid_by": leader}]  # what it paid for, it delivers
    reports = await rest.reports()
    assert len(reports) == 3
    assert rest.paid == [leader, new]
    # The frozen one's answer came first, and stands: who comes second finds a conflict or it.
    stored = None
    async with Cache.from_url(server.url, mode="replay") as cache:
        stored = await cache.get("question")
    assert stored in ({"paid_by": leader}, {"paid_by": new})
    given = {json.dumps(answer) for each in reports.values() for answer in each["answers"]}
    assert given <= {json.dumps({"paid_by": leader}), json.dumps({"paid_by": new})}


async def test_many_waiters_are_woken(server, tmp_path):
    """Waiters in other processes have the answer from a message: no poll comes so soon."""
    swarm = Swarm(server.url, tmp_path, "--lease-ttl", "100", "--seconds", "0.5")
    await swarm.start(4)
    swarm.go()
    # With a lease of 100 s the first poll comes after 12: only messages can end this in time.
    reports = await asyncio.wait_for(swarm.reports(), 10)
    assert len(reports) == 4
    assert len(swarm.paid) == 1
