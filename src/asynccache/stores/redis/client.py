"""Makes redis-py's clients: without its retries and time limits, as a store has its own."""

from __future__ import annotations

from contextlib import suppress
from inspect import signature
from typing import Any, Final

import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.connection
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.backoff

from asynccache.stores.redis.address import RedisAddress
from asynccache.stores.redis.errors import DRIVER_ERRORS

_READ_BYTES: Final = 256 * 2**10  # read at once from a socket: a batch of 256 small entries
_SPARE: Final = 2  # connections to a node beyond the limit: for being woken, and for the slots' map

# One seam for all of redis-py, whose options are typed for humans who write them out.
_driver: Final[Any] = redis.asyncio
_connection: Final[Any] = redis.asyncio.connection

# The server needn't know driver and version, and telling it would take a right more.
_UNNAMED: Final[dict[str, Any]] = (
    {"driver_info": None}
    if "driver_info" in signature(_connection.AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)


def make_client(address: RedisAddress, *, timeout: float, limit: int) -> Any:  # noqa: ANN401 - see `_driver`
    """Return a client for an address; nothing is connected yet.

    Args:
        address: Where Redis is.
        timeout: Seconds that connecting may take.
        limit: Connections to one node of a cluster.
    """
    options: dict[str, Any] = {
        **address.options,
        **_UNNAMED,
        "protocol": 2,  # one handshake less, and all that is needed
        "socket_connect_timeout": timeout,
        "socket_read_size": _READ_BYTES,
        # Each batch has a deadline of its own; redis-py's would cost a task for each write.
        "socket_timeout": None,
    }
    if address.kind == "cluster":
        cluster: Any = redis.asyncio.cluster
        retry: Any = redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 1)
        return _driver.RedisCluster(
            startup_nodes=[cluster.ClusterNode(host, port) for host, port in address.hosts],
            ssl=address.tls,
            retry=retry,
            max_connections=limit + _SPARE,
            **options,
        )
    if address.kind == "sentinel":
        encrypted = {name: value for name, value in options.items() if name.startswith("ssl_")}
        sentinel: Any = redis.asyncio.sentinel
        manager = sentinel.Sentinel(
            address.hosts,
            sentinel_kwargs={
                **address.sentinel_options,
                **(encrypted if address.tls else {}),
                "ssl": address.tls,
                "protocol": 2,
                "socket_timeout": timeout,
                "socket_connect_timeout": timeout,
                "retry": redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0),
            },
            ssl=address.tls,
            **options,
        )
        return manager.master_for(address.service)
    if address.kind == "unix":
        kind, options["path"] = _connection.UnixDomainSocketConnection, address.path
    else:
        kind = _connection.SSLConnection if address.tls else _connection.Connection
        options["host"], options["port"] = address.hosts[0]
    pool = _connection.ConnectionPool(connection_class=kind, **options)
    return _driver.Redis(connection_pool=pool)


async def close_client(client: Any) -> None:  # noqa: ANN401 - see `_driver`
    """Close a client that `make_client` has made, and what it has asked sentinels by."""
    pool = getattr(client, "connection_pool", None)
    sentinels = getattr(getattr(pool, "sentinel_manager", None), "sentinels", ())
    for each in (client, *sentinels):
        with suppress(*DRIVER_ERRORS):  # what was to be closed is broken
            await each.aclose()


def is_cluster(client: object) -> bool:
    """Tell whether a client is a cluster's."""
    return isinstance(client, _driver.RedisCluster)


def belongs(client: object) -> bool:
    """Tell whether something is a client that the store can use."""
    return isinstance(client, _driver.Redis) or is_cluster(client)
