"""Streams between the background loop and threads that can't await: one way for each direction."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, Final, TypeVar

from anyio import CapacityLimiter, to_thread
from openai import APIConnectionError

from asynccache.openai.client import sdk_responses
from asynccache.openai.client.stream import EventSource
from asynccache.runtime import background

T = TypeVar("T")

_BATCH: Final = 64  # events taken at a time, where so many are there: each way back costs a switch


class SyncStreamBody(sdk_responses.SyncByteStream):
    """A stream's events as the body of a synchronous client's response.

    Args:
        source: The events; live ones belong to the background loop.
    """

    def __init__(self, source: EventSource) -> None:
        self._source = source

    def __iter__(self) -> Iterator[bytes]:
        source = self._source
        if not source.live:
            while not source.closed and (event := source.ready()) is not None:
                yield event
            return
        try:
            while not source.closed and (events := background.call(_taken, source)):
                yield from events
        except APIConnectionError as exc:
            # Who reads the response itself sees the transport's error, as without a cache.
            if isinstance(exc.__cause__, Exception):
                raise exc.__cause__ from None
            raise

    def close(self) -> None:
        # Without waiting: the collector may call this anywhere, holding whatever lock.
        self._source.close_anywhere()


async def _taken(source: EventSource) -> list[bytes]:
    """Return the next events, as many as are there; none at the end."""
    found: list[bytes] = []
    event = await source.next()
    while event is not None:
        found.append(event)
        if len(found) == _BATCH:
            break
        event = source.ready()
    return found


class AsyncReading:
    """A synchronous client's raw response, whose stream the background loop reads in threads.

    Has of the asynchronous one what recording a stream needs, under the same names.

    Args:
        raw: Of the SDK.
    """

    def __init__(self, raw: Any) -> None:
        response = sdk_responses.http_of(raw)
        self._raw = raw
        self._response = response
        self._limiter = CapacityLimiter(1)
        self._lock = threading.Lock()  # an abandoned read goes on: nothing is closed beneath it
        self._read = False
        self.http_response = self
        self.headers = response.headers
        self.status_code: int = response.status_code
        self.extensions = response.extensions
        self.retries_taken = getattr(raw, "retries_taken", 0)
        self.request = response.request

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        """Read the body's pieces as they come."""
        pieces = self._response.iter_bytes()

        def piece() -> bytes | None:
            with self._lock:
                return next(pieces, None)

        while (found := await self._in_thread(piece)) is not None:
            yield found
        self._read = True

    async def aclose(self) -> None:
        """Close the response; a read that is under way ends first."""
        if not self._read:
            _hang_up(self._response)

        def close() -> None:
            with self._lock:
                if sdk_responses.is_opened(self._raw):
                    with self._raw:  # whoever made a stream of it waits for its end
                        pass
                self._response.close()

        await self._in_thread(close)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        # Abandoned when cancelled, as a read takes as long as the server likes.
        return await to_thread.run_sync(function, abandon_on_cancel=True, limiter=self._limiter)


def _hang_up(response: Any) -> None:
    """Let a read of a response that is under way in another thread end at once, if that can be.

    Closing won't do: the number of a closed socket may be another's by the time it is read from.
    """
    stream = response.extensions.get("network_stream")
    if stream is None or response.http_version not in {"HTTP/1.0", "HTTP/1.1"}:
        return  # no socket, or one that other responses come through
    connection = stream.get_extra_info("socket")
    if isinstance(connection, socket.socket):
        with suppress(OSError):  # it ended by itself
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
