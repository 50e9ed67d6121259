"""Who waits for a turn of the loop that has time left."""

from __future__ import annotations

import asyncio

import pytest

from asynccache.runtime.pacer import Pacer
from tests.helpers import eager

CALLERS = 100


async def test_who_waits_alone_goes_on_in_the_next_turn():
    """One turn of the loop is enough where nobody else waits."""
    loop = asyncio.get_running_loop()
    pacer = Pacer(loop)
    for _ in range(3):
        later: list[None] = []
        loop.call_soon(lambda: loop.call_soon(later.append, None))  # noqa: B023 - it is over by then
        await pacer.slot()
        assert not later
        await asyncio.sleep(0)
        assert later


async def test_callers_go_on_in_the_order_in_which_they_asked():
    """The first doesn't queue, the others do: all go on, none before who came before it."""
    pacer, went_on = Pacer(asyncio.get_running_loop()), []

    async def caller(number):
        await pacer.slot()
        went_on.append(number)

    for _ in range(2):
        went_on.clear()
        await asyncio.gather(*(caller(number) for number in range(CALLERS)))
        assert went_on == [*range(CALLERS)]


@pytest.mark.parametrize("left", [[0], [1], [0, 1, 2], [CALLERS - 1]])
async def test_who_is_cancelled_holds_up_nobody(left):
    """Those who wait behind a caller that is cancelled go on, and so does who comes later."""
    pacer = Pacer(asyncio.get_running_loop())
    tasks = [asyncio.create_task(pacer.slot()) for _ in range(CALLERS)]
    if not eager.WANTED:  # else they wait already
        await asyncio.sleep(0)
    for number in left:
        tasks[number].cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    cancelled = [at for at, one in enumerate(ended) if isinstance(one, asyncio.CancelledError)]
    assert cancelled == left
    await pacer.slot()
