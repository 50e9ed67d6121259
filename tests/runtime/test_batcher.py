"""Batches: what is asked in one turn leaves together, within limits, and equal items once."""

from __future__ import annotations

import asyncio

import pytest

from asynccache.runtime.batcher import Batcher
from asynccache.runtime.pacer import Pacer


class Scene:
    """A batcher that notes what it was given, and doubles it."""

    def __init__(self, **how):
        loop = asyncio.get_running_loop()
        self.batches = []
        self.batcher = Batcher(
            self.double, pacer=Pacer(loop), spawn=loop.create_task, **{"limit": lambda: 100, **how}
        )

    async def double(self, items):
        self.batches.append(items)
        await asyncio.sleep(0)
        return [item * 2 for item in items]

    async def ask(self, *items):
        return await asyncio.gather(*(self.batcher.submit(item) for item in items))


async def test_a_turn_is_one_batch():
    """What is asked in one turn leaves together; a later turn's leaves later."""
    scene = Scene()
    assert await scene.ask(1, 2, 2) == [2, 4, 4]
    assert await scene.ask(3) == [6]
    assert scene.batches == [[1, 2, 2], [3]]


async def test_equal_items_travel_once_if_they_may():
    """Equal items of a turn are asked once, whoever of those who wait gives up."""
    scene = Scene(shared=True)
    waiting = [scene.batcher.submit(item) for item in (1, 2, 1, 1)]
    waiting[0].cancel()
    assert await asyncio.gather(*waiting[1:]) == [4, 2, 2]
    assert scene.batches == [[1, 2]]


async def test_what_is_asked_while_batches_are_under_way_leaves_together():
    """No more batches are under way than may be; the first that ends sends what has come since."""
    scene = Scene(at_once=2, limit=lambda: 3)
    gate = asyncio.Event()
    double = scene.double

    async def slowly(items):
        answers = await double(items)
        await gate.wait()
        return answers

    scene.batcher._run = slowly
    asked = [asyncio.create_task(scene.ask(*items)) for items in ((1, 2), (3, 4, 5, 6, 7), (8,))]
    await asyncio.sleep(0.01)
    assert scene.batches == [[1, 2, 3], [4, 5, 6]]
    gate.set()
    assert await asyncio.gather(*asked) == [[2, 4], [6, 8, 10, 12, 14], [16]]
    assert scene.batches == [[1, 2, 3], [4, 5, 6], [7, 8]]
    assert await scene.ask(9) == [18]


async def test_batches_are_bounded_in_number_and_in_weight():
    """No batch is above its limit, but for one item that is so alone; all are answered in order."""
    scene = Scene(limit=lambda: 2)
    assert await scene.ask(*range(5)) == [0, 2, 4, 6, 8]
    assert sorted(map(len, scene.batches)) == [1, 2, 2]
    scene = Scene(limit=lambda: 10, weigh=lambda item: item)
    assert await scene.ask(4, 5, 6, 50, 1, 9, 1) == [8, 10, 12, 100, 2, 18, 2]
    assert sorted(scene.batches) == [[1], [1, 9], [4, 5], [6], [50]]


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_batch_that_is_cancelled_leaves_nobody_waiting(begun, times):
    """The end of a loop cancels tasks once, begun or not: who waits has the answer all the same."""
    tasks, ran = [], []

    def spawn(work):
        tasks.append(asyncio.Task(work))  # not by the loop's factory, which may begin it at once
        return tasks[-1]

    async def run(items):
        ran.append(items)
        await asyncio.sleep(0)
        return items

    pacer = Pacer(asyncio.get_running_loop())
    batcher = Batcher(run, pacer=pacer, spawn=spawn, limit=lambda: 10, at_once=1)
    futures = [batcher.submit(1), batcher.submit(2)]
    for number in range(times):
        while len(tasks) == number:
            await asyncio.sleep(0)
        if begun:
            await asyncio.sleep(0)
        if number == 0:
            futures[1].cancel()
        tasks[number].cancel()
    if times == 1:
        assert await asyncio.wait_for(futures[0], 10) == 1
        assert ran[-1] == [1]
    else:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(futures[0], 10)
    assert await asyncio.wait_for(batcher.submit(3), 10) == 3
