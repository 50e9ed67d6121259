"""One server's connections in one event loop: few, reused, waited for, and never out of step.

Commands go over redis-py's connections, and past its clients: a batch is packed once, written once,
and read to its last reply. Who stops waiting doesn't break a connection, as the replies that are
still to come are read behind their back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeAlias

from redis.exceptions import ConnectionError as DriverConnectionError, RedisError, ResponseError

from asynccache.errors import StoreTimeoutError
from asynccache.stores.redis.errors import DRIVER_ERRORS, mapped

Command: TypeAlias = tuple[bytes, ...]
Connection: TypeAlias = Any  # redis-py's, of one of five classes without a useful common type
Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]

_BYTES_A_SECOND: Final = 4 * 2**20  # what a connection carries at least; larger writes get longer


class ConnectionSource(Protocol):
    """Where connections come from: a pool of our own, the user's, or a node of a cluster."""

    limit: int
    """How many may be in use at the same time."""

    async def take(self) -> Connection:
        """Return a connection, which may not be connected yet or not be any more."""

    async def give(self, connection: Connection) -> None:
        """Take a connection back."""

    async def aclose(self) -> None:
        """Close the connections, if they are ours to close."""


class OwnSource:
    """Connections of our own, made by a pool of redis-py that is used for nothing else."""

    def __init__(self, pool: Any, limit: int) -> None:  # noqa: ANN401 - any of redis-py's pools
        self.limit = limit
        self._pool = pool
        self._free: list[Connection] = []
        self._taken: set[Connection] = set()

    async def take(self) -> Connection:
        connection = self._free.pop() if self._free else self._pool.make_connection()
        self._taken.add(connection)
        return connection

    async def give(self, connection: Connection) -> None:
        self._taken.discard(connection)
        self._free.append(connection)

    async def aclose(self) -> None:
        for connection in (*self._free, *self._taken):
            await dropped(connection)
        self._free.clear()
        await asyncio.sleep(0)  # in this turn they are aborted, in the next they are closed


class LentSource:
    """The connections of a client that the user has made, and closes."""

    def __init__(self, pool: Any, limit: int) -> None:  # noqa: ANN401 - any of redis-py's pools
        self.limit = limit
        self._pool = pool

    async def take(self) -> Connection:
        return await self._pool.get_connection()

    async def give(self, connection: Connection) -> None:
        await self._pool.release(connection)

    async def aclose(self) -> None:
        """Do nothing: they aren't ours."""


class NodeSource:
    """The connections that redis-py's cluster client has to one node."""

    def __init__(self, node: Any, limit: int) -> None:  # noqa: ANN401 - redis-py's ClusterNode
        self.limit = limit
        self._node = node

    async def take(self) -> Connection:
        return self._node.acquire_connection()

    async def give(self, connection: Connection) -> None:
        self._node.release(connection)

    async def aclose(self) -> None:
        """Do nothing: the cluster client closes them."""


class Server:
    """Sends commands to one server.

    Args:
        source: Where its connections come from.
        timeout: Seconds until a server counts as one that doesn't answer.
        spawn: Starts tasks that are seen through, or ended, when the link is closed.
    """

    __slots__ = ("_room", "_source", "_spawn", "_timeout")

    def __init__(self, source: ConnectionSource, *, timeout: float, spawn: Spawn) -> None:
        self._source = source
        self._room = asyncio.Semaphore(source.limit)  # in the order of asking, and without polling
        self._timeout = timeout
        self._spawn = spawn

    async def ask(self, commands: Sequence[Command], *, bounded: bool = True) -> list[Any]:
        """Send commands as one batch, and return their replies; an error reply is returned too.

        Not ``bounded`` is what somebody else has set a deadline to.

        Raises:
            StoreError: The server can't be reached, or didn't answer all of it in time.
        """
        packed = _packed(commands)
        timeout = self._timeout + len(packed) / _BYTES_A_SECOND
        try:
            if not bounded:
                return await self._exchange(packed, len(commands))
            async with asyncio.timeout(timeout):
                return await self._exchange(packed, len(commands))
        except TimeoutError as exc:
            raise StoreTimeoutError(f"Redis did not answer within {timeout:g} s") from exc
        except DRIVER_ERRORS as exc:
            raise mapped(exc) from exc

    async def _exchange(self, packed: bytes, count: int) -> list[Any]:
        await self._room.acquire()
        try:
            connection = await self._source.take()
        except BaseException:
            self._room.release()
            raise
        replies: list[Any] = []
        sent = handed_on = False
        try:
            reused = await _made_ready(connection)
            try:
                await connection.send_packed_command(packed, check_health=False)
                sent = True
                await _read(connection, replies, count)
            except (DriverConnectionError, OSError):
                if replies or not reused:
                    raise
                # It broke while nobody used it, which shows only now: once more, on a new one.
                # Every command does the same when it is done twice.
                sent = False
                await dropped(connection)
                await connection.connect()
                await connection.send_packed_command(packed, check_health=False)
                sent = True
                await _read(connection, replies, count)
        except asyncio.CancelledError:
            if sent:
                handed_on = True
                self._spawn(self._drain(connection, replies, count))
            else:
                await dropped(connection)
            raise
        except BaseException:
            await dropped(connection)
            raise
        finally:
            if not handed_on:
                await self._give_back(connection)
        return replies

    async def _drain(self, connection: Connection, replies: list[Any], count: int) -> None:
        """Read what nobody waits for any more, so that the connection can be used again."""
        try:
            async with asyncio.timeout(self._timeout):
                await _read(connection, replies, count)
        except (TimeoutError, *DRIVER_ERRORS):
            await dropped(connection)
        except asyncio.CancelledError:
            await dropped(connection)
            raise
        finally:
            await self._give_back(connection)

    async def _give_back(self, connection: Connection) -> None:
        try:
            await self._source.give(connection)
        finally:
            self._room.release()

    async def aclose(self) -> None:
        """Close the connections that are ours."""
        await self._source.aclose()


async def _made_ready(connection: Connection) -> bool:
    """Connect, if that is needed; tell whether the connection was there before."""
    if connection.is_connected:
        if not await connection.can_read():
            return True
        await dropped(connection)  # the server has closed it, or it holds what nobody asked for
    await connection.connect()
    return False


async def _read(connection: Connection, replies: list[Any], count: int) -> None:
    read = connection.read_response
    while len(replies) < count:
        try:
            replies.append(await read(disable_decoding=True, disconnect_on_error=False))
        except ResponseError as exc:
            replies.append(exc)


async def dropped(connection: Connection) -> None:
    """Break a connection off at once: the loop may end before TLS has said its goodbyes."""
    writer = getattr(connection, "_writer", None)
    if writer is not None:
        writer.transport.abort()
    try:
        await connection.disconnect(nowait=True)
    except (RedisError, OSError, RuntimeError):  # it is gone either way
        return


def _packed(commands: Sequence[Command]) -> bytes:
    parts: list[bytes] = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for argument in command:
            parts.append(b"$%d\r\n" % len(argument))
            parts.append(argument)
            parts.append(b"\r\n")
    return b"".join(parts)
