"""One Redis and one memcached for the tests of each file."""

from __future__ import annotations

import pytest

from tests.helpers import memcached_servers
from tests.helpers.redis_servers import Valkey


@pytest.fixture(scope="module")
def valkey():
    """One Valkey."""
    with Valkey() as running:
        yield running


@pytest.fixture(scope="module")
def memcached_server():
    """One memcached with its own limits."""
    with memcached_servers.running() as server:
        yield server
