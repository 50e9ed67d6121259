"""The cache over aiocache against a plain model: the machine that memory is put through."""

from __future__ import annotations

import asyncio

import pytest
from aiocache import SimpleMemoryCache
from hypothesis import Phase, settings
from hypothesis.stateful import initialize, run_state_machine_as_test

from asynccache.stores.aiocache import AiocacheStore
from tests.core.test_state_machine import CacheMachine


class AiocacheMachine(CacheMachine):
    """Does to caches over one SimpleMemoryCache what it does to a model."""

    kind = "aiocache"

    @initialize()
    def start(self):
        self.backing = SimpleMemoryCache()
        super().start(lossy=False)

    def new_store(self):
        return AiocacheStore(self.backing, clock=self.clock)


def test_the_cache_over_aiocache_does_as_a_plain_model():
    """In whatever order things happen, it answers as a dict with expiries would."""
    run_state_machine_as_test(
        AiocacheMachine, settings=settings(max_examples=100, stateful_step_count=40)
    )


def test_the_machine_is_not_blind():
    """A store whose clearing clears nothing is found out: the machine fails where it should."""

    class Forgetful(AiocacheStore):
        async def clear(self, namespace):
            await asyncio.sleep(0)
            return 0

    class Machine(AiocacheMachine):
        def new_store(self):
            return Forgetful(self.backing, clock=self.clock)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=60,
                stateful_step_count=30,
                phases=[Phase.generate],  # found is enough
                report_multiple_bugs=False,
                print_blob=False,
                database=None,
            ),
        )
