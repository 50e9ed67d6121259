"""One server and one cluster for the tests of each file; each is empty before each test."""

from __future__ import annotations

import pytest

from tests.helpers.redis_servers import Cluster, Valkey


@pytest.fixture(scope="module")
def valkey():
    """One server for all."""
    with Valkey() as running:
        yield running


@pytest.fixture(scope="module")
def nodes():
    """A cluster of three for all."""
    with Cluster() as running:
        yield running


@pytest.fixture
def cluster(nodes):
    """The cluster, empty."""
    nodes.empty()
    return nodes


@pytest.fixture
def server(valkey):
    """The server, empty."""
    valkey.empty()
    return valkey
