"""The cache over aiocache against a plain model: the machine that memory is put through."""

from __future__ import annotations

from aiocache import SimpleMemoryCache
from hypothesis.stateful import initialize

from asynccache.stores.aiocache import AiocacheStore
from tests.core.test_state_machine import CacheMachine
from tests.helpers.remote_stores import finds_fault, run_machine


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
    run_machine(AiocacheMachine, examples=100)


def test_the_machine_is_not_blind():
    """A store whose clearing clears nothing is found out: the machine fails where it should."""
    finds_fault(AiocacheMachine, "clear", int)
