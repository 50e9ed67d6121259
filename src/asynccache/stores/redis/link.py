"""What one event loop has of a Redis: its connections, where each key lies, and who wakes it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, NoScriptError, TryAgainError

from asynccache.errors import StoreError, StoreTimeoutError
from asynccache.runtime.batcher import Batcher
from asynccache.runtime.pacer import Pacer
from asynccache.stores.base import BATCH
from asynccache.stores.links import LoopLink
from asynccache.stores.redis.address import RedisAddress
from asynccache.stores.redis.client import close_client, is_cluster, make_client
from asynccache.stores.redis.errors import DRIVER_ERRORS, mapped
from asynccache.stores.redis.pool import (
    Command,
    LentSource,
    NodeSource,
    OwnSource,
    Server,
)
from asynccache.stores.redis.scripts import AWAIT, Script
from asynccache.stores.redis.wake import Waker

_GONE: Final = -2  # milliseconds that a key lasts which isn't there
_FOR_EVER: Final = 3600.0  # seconds that a lease lasts to which somebody gave no end
_REDIRECTED: Final = 5  # times that a command is sent on, until its cluster counts as unsettled
_MOVING: Final = 0.01  # seconds, more each time, for a key to arrive where it is moving to
_REDIRECTIONS: Final = (MovedError, AskError, TryAgainError)
_SLOTS: Final = [key_slot(b"{%02x}" % tag) for tag in range(256)]  # of the keys, by their tag


class RedisLink(LoopLink):
    """One loop's way to Redis.

    Args:
        address: Where Redis is, if no client is given.
        client: A client of the user's own.
        timeout: Seconds until a command counts as unanswered.
        limit: Connections to one server at most.
    """

    def __init__(
        self,
        address: RedisAddress,
        client: Any,  # noqa: ANN401 - redis-py's Redis or RedisCluster
        *,
        timeout: float,
        limit: int,
    ) -> None:
        super().__init__()
        self._timeout = timeout
        self._limit = limit
        self._lent = client is not None
        self._refreshing: asyncio.Task[None] | None = None
        self._servers: dict[Any, Server] = {}
        self._server: Server | None = None
        self._cluster: Any = None
        if client is None:
            client = make_client(address, timeout=timeout, limit=limit)
        self._client = client
        if is_cluster(client):
            self._cluster = client
        elif self._lent:
            pool = client.connection_pool
            limit = min(limit, max(1, pool.max_connections - 1))  # one is for being woken
            self._server = self._new_server(LentSource(pool, limit))
        else:
            self._server = self._new_server(OwnSource(client.connection_pool, limit))
        listens = not self._lent or self._cluster or client.connection_pool.max_connections > 1
        self._left: Batcher[tuple[int, bytes], float] = Batcher(
            self._ask_left, pacer=Pacer(self.loop), spawn=self.spawn, limit=lambda: BATCH
        )
        self.waker: Final = Waker(self._subscription if listens else None, spawn=self.spawn)

    async def _subscription(self) -> Any:  # noqa: ANN401 - redis-py's PubSub
        if self._cluster is not None:
            await self._known_cluster()
        return self._client.pubsub()

    def _new_server(self, source: OwnSource | LentSource | NodeSource) -> Server:
        return Server(source, timeout=self._timeout, spawn=self.spawn)

    # -- where keys lie ------------------------------------------------------------------------

    def grouped(self, keys: Sequence[bytes]) -> list[list[int]]:
        """Return the positions of keys that one command may name together."""
        if self._cluster is None:
            return [list(range(len(keys)))] if keys else []
        groups: dict[int, list[int]] = {}
        for at, key in enumerate(keys):
            groups.setdefault(key[0], []).append(at)
        return list(groups.values())

    async def servers(self) -> list[Server]:
        """Return the servers that together hold all keys."""
        if self._server is not None:
            return [self._server]
        await self._known_cluster()
        return [self._node_server(node) for node in self._cluster.get_primaries()]

    def _node_server(self, node: Any) -> Server:  # noqa: ANN401 - redis-py's ClusterNode
        server = self._servers.get(node)
        if server is None:
            limit = min(self._limit, node.max_connections)
            server = self._servers[node] = self._new_server(NodeSource(node, limit))
        return server

    async def _known_cluster(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._cluster.initialize()
        except TimeoutError as exc:
            raise StoreTimeoutError(f"no node answered within {self._timeout:g} s") from exc
        except DRIVER_ERRORS as exc:
            raise mapped(exc) from exc

    # -- commands ------------------------------------------------------------------------------

    async def ask(
        self, tags: Sequence[int], commands: Sequence[Command], *, bounded: bool = True
    ) -> list[Any]:
        """Send commands, each about keys of one tag, and return their replies in order.

        Not ``bounded`` is what somebody else has set a deadline to.

        Raises:
            StoreError: A server can't be reached, or one of the replies is an error.
        """
        replies = await self._replies(tags, commands, bounded=bounded)
        for reply in replies:
            if isinstance(reply, Exception):
                raise mapped(reply) from reply
        return replies

    async def run(
        self, script: Script, tags: Sequence[int], arguments: Sequence[tuple[bytes, ...]]
    ) -> list[Any]:
        """Run a script for each tuple of keys and arguments, in order.

        Raises:
            StoreError: As `ask`.
        """
        commands = [script.command(*each) for each in arguments]
        replies = await self._replies(tags, commands)
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:  # a server that has just been started, or that somebody has flushed
            again = await self._replies(
                [tags[at] for at in unknown], [script.in_full(commands[at]) for at in unknown]
            )
            for at, reply in zip(unknown, again, strict=True):
                replies[at] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise mapped(reply) from reply
        return replies

    def left(self, key: bytes, lease: bytes) -> asyncio.Future[float]:
        """Say that somebody waits; return the seconds that a lease lasts, 0 if nobody holds it."""
        return self._left.submit((key[0], lease))

    async def _ask_left(self, leases: list[tuple[int, bytes]]) -> list[float]:
        tags, arguments = [tag for tag, _ in leases], [(lease,) for _, lease in leases]
        replies = await self.run(AWAIT, tags, arguments)
        return [
            0.0 if left == _GONE else _FOR_EVER if left < 0 else left / 1000 for left in replies
        ]

    async def _replies(
        self, tags: Sequence[int], commands: Sequence[Command], *, bounded: bool = True
    ) -> list[Any]:
        if self._server is not None:
            return await self._server.ask(commands, bounded=bounded)
        replies = await self._nodes_replies(tags, commands)
        for at, reply in enumerate(replies):
            if isinstance(reply, _REDIRECTIONS):
                replies[at] = await self._redirected(commands[at], tags[at], reply)
            elif isinstance(reply, ClusterDownError):
                self._refresh_soon()
        return replies

    async def _nodes_replies(self, tags: Sequence[int], commands: Sequence[Command]) -> list[Any]:
        """Send each node of a cluster what is for its keys, all at the same time."""
        await self._known_cluster()
        at_node: dict[Any, list[int]] = {}
        for at, tag in enumerate(tags):
            at_node.setdefault(self._node(tag), []).append(at)
        replies: list[Any] = [None] * len(commands)

        async def ask_node(node: Any, positions: list[int]) -> None:  # noqa: ANN401 - a ClusterNode
            try:
                found = await self._node_server(node).ask([commands[at] for at in positions])
            except StoreError:
                self._refresh_soon()  # another node may have taken over
                raise
            for at, reply in zip(positions, found, strict=True):
                replies[at] = reply

        if len(at_node) == 1:
            await ask_node(*at_node.popitem())
            return replies
        asked = [ask_node(node, positions) for node, positions in at_node.items()]
        for error in await asyncio.gather(*asked, return_exceptions=True):
            if error is not None:
                raise error
        return replies

    def _node(self, tag: int) -> Any:  # noqa: ANN401 - redis-py's ClusterNode
        try:
            return self._cluster.nodes_manager.get_node_from_slot(_SLOTS[tag])
        except Exception as exc:
            raise mapped(exc) from exc

    async def _redirected(self, command: Command, tag: int, reply: Any) -> Any:  # noqa: ANN401 - replies
        """Send a command on to where its key has moved, or is moving."""
        nodes = self._cluster.nodes_manager
        for attempt in range(_REDIRECTED):
            if isinstance(reply, AskError) and not isinstance(reply, MovedError):
                where: Any = reply  # redis-py leaves the address untyped
                node = nodes.get_node(host=where.host, port=where.port)
                if node is None:  # new to us: the map says more
                    await self._refresh()
                    node = nodes.get_node(host=where.host, port=where.port) or self._node(tag)
                # On one connection, and nothing between the two.
                _, reply = await self._node_server(node).ask([(b"ASKING",), command])
            else:
                if isinstance(reply, MovedError):
                    self._refresh_soon()
                    await nodes.move_slot(reply)
                else:  # some of its keys are here and some are there
                    await asyncio.sleep(_MOVING * attempt)
                (reply,) = await self._node_server(self._node(tag)).ask([command])
            if not isinstance(reply, _REDIRECTIONS):
                break
        return reply

    def _refresh_soon(self) -> None:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = self.spawn(self._refresh())

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._cluster.nodes_manager.initialize()
        except (TimeoutError, *DRIVER_ERRORS):
            return  # the next failure tries again
        known = set(self._cluster.nodes_manager.nodes_cache.values())
        self._servers = {node: server for node, server in self._servers.items() if node in known}

    # -- the end -------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End what is under way, and close the connections that are ours."""
        await self.end_tasks()
        if self._server is not None:
            await self._server.aclose()
        if not self._lent:
            await close_client(self._client)
