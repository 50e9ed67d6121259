"""The cache on Cosmos DB against a plain model: the machine that other stores are put through."""

from __future__ import annotations

import pytest
from hypothesis.stateful import initialize

from tests.helpers.cosmos_servers import store_in
from tests.helpers.remote_stores import RemoteMachine, finds_fault, run_machine


@pytest.fixture
def machine(server):
    """Does to caches over one container what it does to a model; the server's clock goes along."""

    class CosmosMachine(RemoteMachine):
        kind = "cosmos"

        @initialize()
        def start(self):
            server.empty()
            self.skew = 0
            super().start(lossy=False)

        def new_store(self):
            return store_in(server, clock=self.clock)

        def age(self, seconds):
            self.skew += seconds
            server.control(skew=self.skew)

    return CosmosMachine


def test_the_cache_on_cosmos_does_as_a_plain_model(machine):
    """In whatever order things happen, the cache on Cosmos DB answers as a dict with expiries."""
    run_machine(machine, examples=40)


def test_the_machine_is_not_blind(machine):
    """A store that loses a deletion is found out: the machine fails where it should."""
    finds_fault(machine, "delete_many", len)
