"""Callers give up while a claim is answered: whichever comes first, no lease is left behind."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.helpers.eager import EAGER
from tests.helpers.scenes import Scene, settled

ORDERS = list(itertools.product(range(5), range(5), ["answered", "given up"]))
"""After how many turns of the loop each happens, and which comes first within a turn."""


@pytest.fixture(scope="module", params=["asyncio", EAGER], ids=["plain", "eager"])
def anyio_backend(request):
    """Run these on plain tasks and on eager ones, whatever else the run is for."""
    return request.param


def after(turns, step):
    """Take a step after some turns of the loop."""
    if turns:
        asyncio.get_running_loop().call_soon(after, turns - 1, step)
    else:
        step()


async def both(gate, asked, order):
    """Let a claim be answered and its caller give up, in an order; wait for the caller's end."""
    answered, given_up, first = order
    steps = [(answered, gate.release), (given_up, asked.cancel)]
    for step in steps if first == "answered" else reversed(steps):
        after(*step)
    await asyncio.wait([asked])


@pytest.mark.parametrize("order", ORDERS, ids=str)
async def test_no_lease_is_left(order):
    """A claim that is granted as its caller gives up is given back."""
    scene = Scene()
    async with scene.cache:
        gate = scene.hold("claim")
        asked = asyncio.create_task(scene.ask())
        await gate.arrived()
        await both(gate, asked, order)
        await settled(scene)
        assert not scene.leases
        assert await scene.ask() == {"answer": scene.upstream.calls}


@pytest.mark.parametrize("order", ORDERS, ids=str)
async def test_no_lease_is_left_by_who_took_it_over(order):
    """So is one that another caller has taken over, who gives up, too."""
    scene = Scene()
    async with scene.cache:
        gate = scene.hold("claim")
        asked = asyncio.create_task(scene.ask())
        await gate.arrived()
        asked.cancel()
        await asyncio.wait([asked])
        await both(gate, asyncio.create_task(scene.ask()), order)
        await settled(scene)
        assert not scene.leases
