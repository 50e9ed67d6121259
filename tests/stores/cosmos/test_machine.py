"""The cache on Cosmos DB against a plain model: the machine that other stores are put through."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import initialize, run_state_machine_as_test

from asynccache.stores.cosmos import CosmosStore
from tests.core.test_state_machine import CacheMachine
from tests.helpers.cosmos_servers import CosmosServer


class CosmosMachine(CacheMachine):
    """Does to caches over one container what it does to a model; the server's clock goes along."""

    kind = "cosmos"
    server: CosmosServer

    @initialize()
    def start(self):
        self.server.empty()
        self.skew = 0
        super().start(lossy=False)

    def new_store(self):
        return CosmosStore(self.server.connection_string, timeout=10, clock=self.clock)

    def time_passes(self, seconds):
        self.age(seconds)
        super().time_passes(seconds)

    async def happen(self, what, door, key, value, *, asking):
        if what == "time":
            self.age(5)
        return await super().happen(what, door, key, value, asking=asking)

    def age(self, seconds):
        self.skew += seconds
        self.server.control(skew=self.skew)


def test_the_cache_on_cosmos_does_as_a_plain_model():
    """In whatever order things happen, the cache on Cosmos DB answers as a dict with expiries."""
    with CosmosServer() as running:

        class Machine(CosmosMachine):
            server = running

        run_state_machine_as_test(
            Machine, settings=settings(max_examples=40, stateful_step_count=40)
        )


def test_the_machine_is_not_blind():
    """A store that loses a deletion is found out: the machine fails where it should."""

    class Forgetful(CosmosStore):
        async def delete_many(self, namespace, keys):
            await asyncio.sleep(0)
            return len(keys)

    with CosmosServer() as running:

        class Machine(CosmosMachine):
            server = running

            def new_store(self):
                return Forgetful(self.server.connection_string, timeout=10, clock=self.clock)

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
