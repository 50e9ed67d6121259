"""One call among processes that share a container: leases, and what ends them."""

from __future__ import annotations

import asyncio
import os
import signal
from urllib.parse import quote

import pytest

from asynccache import Cache
from tests.helpers.cosmos_servers import CosmosServer
from tests.helpers.swarm import Swarm

SHORT = ("--lease-ttl", "1", "--seconds", "1.5")


@pytest.fixture(scope="module")
def anyio_backend():
    """Only the workers' loops matter here, and they are asyncio's."""
    return "asyncio"


@pytest.fixture(scope="module")
def running():
    """One server for all."""
    with CosmosServer() as server:
        yield server


@pytest.fixture
async def server(running):
    """The server, with an empty container."""
    running.empty()
    async with Cache.cosmos_db(running.connection_string, running.container,
                               database_id=running.database):  # fmt: skip
        yield running


def url_of(server):
    """One line that says where the container is."""
    key = quote(server.key, safe="")
    names = f"{server.database}/{server.container}"
    return f"cosmos+http://:{key}@127.0.0.1:{server.port}/{names}?store_timeout=10"


@pytest.mark.parametrize("kind", [(), ("--streamed",)], ids=["plain", "streamed"])
async def test_four_processes_pay_once(server, tmp_path, kind):
    """Four processes with 50 tasks each and 10 keys make 10 calls, plain or streamed."""
    swarm = Swarm(url_of(server), tmp_path, "--tasks", "50", "--keys", "10", *kind)
    await swarm.start(4)
    swarm.go()
    reports = await swarm.reports()
    assert len(reports) == 4
    assert len(swarm.paid) == 10
    answers = [report["answers"] for report in reports.values()]
    assert len(answers[0]) == 10
    assert answers == [answers[0]] * 4
    for report in reports.values():
        assert report["flaws"] == report["store_errors"] == {}
    assert [item["id"] for item in server.items() if "lease" in item] == []


@pytest.mark.parametrize("kind", [("--streamed",)], ids=["streamed"])
async def test_killed_holder_costs_one_more_call(server, tmp_path, kind):
    """When the process that holds a lease is killed, one other call is made in its place."""
    swarm = Swarm(url_of(server), tmp_path, "--tasks", "50", "--keys", "10", *kind, *SHORT)
    first = Swarm(url_of(server), tmp_path, "--tasks", "1", *kind, *SHORT)
    await swarm.start(4)
    await first.start(1)
    first.go()
    holder = await first.paid_by(1)
    swarm.go()
    await swarm.paid_by(10)  # everybody waits for somebody
    os.kill(holder, signal.SIGKILL)
    reports = await swarm.reports()
    await first.reports()
    assert len(reports) == 4
    assert len(swarm.paid) == 11
    answers = [report["answers"] for report in reports.values()]
    assert answers == [answers[0]] * 4
    assert holder not in {answer["paid_by"] for answer in answers[0]}


async def test_frozen_holder_breaks_nothing(server, tmp_path):
    """A holder frozen past its lease costs one call; its answer and its release undo nothing."""
    first = Swarm(url_of(server), tmp_path, "--tasks", "1", "--lease-ttl", "1", "--seconds", "0.8")
    rest = Swarm(url_of(server), tmp_path, "--lease-ttl", "1", "--seconds", "3")
    await first.start(1)
    await rest.start(3)
    first.go()
    holder = await first.paid_by(1)
    os.kill(holder, signal.SIGSTOP)
    rest.go()
    new = await rest.paid_by(2)  # one of the others calls in its place, and isn't done yet
    (held,) = [item["lease"]["token"] for item in server.items()]
    os.kill(holder, signal.SIGCONT)
    (report,) = (await first.reports()).values()  # it has ended, and released what it had
    assert report["answers"] == [{"paid_by": holder}]  # what it paid for, it delivers
    (item,) = server.items()
    assert item["lease"]["token"] == held  # the new holder's
    reports = await rest.reports()
    assert len(reports) == 3
    assert rest.paid == [holder, new]
    given = [answer for each in reports.values() for answer in each["answers"]]
    assert all(answer in ({"paid_by": holder}, {"paid_by": new}) for answer in given)


async def test_a_waiter_asks_rarely(server, tmp_path):
    """Who waits two seconds for another process makes at most six requests more than a hit."""
    first = Swarm(url_of(server), tmp_path, "--tasks", "1", "--lease-ttl", "100", "--seconds", "2")
    await first.start(1)
    first.go()
    await first.paid_by(1)
    before = sum(server.counts().values())
    cache = Cache.from_url(url_of(server))
    async with cache:
        answer = await cache.get_or_create("question", _unpaid)
    await asyncio.wait_for(first.reports(), 30)
    assert answer == {"paid_by": first.paid[0]}
    # Of what came meanwhile one request is the holder's, who stores its answer.
    assert sum(server.counts().values()) - before - 1 <= 1 + 1 + 5


async def _unpaid():
    raise AssertionError("this was paid for by another process")
