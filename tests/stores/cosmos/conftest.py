"""One server for the tests of each file, empty at the beginning of each test."""

from __future__ import annotations

import pytest

from tests.helpers.cosmos_servers import CosmosServer
from tests.helpers.eager import EAGER, WANTED


@pytest.fixture(scope="module")
def anyio_backend():
    """Run on asyncio's own loop; the contract runs on uvloop."""
    return EAGER if WANTED else "asyncio"


@pytest.fixture(scope="module")
def running():
    """One server for all."""
    with CosmosServer() as server:
        yield server


@pytest.fixture
def server(running):
    """The server, empty."""
    running.empty()
    return running
