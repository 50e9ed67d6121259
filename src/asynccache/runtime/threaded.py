"""A body that only a blocking call can read, read by an event loop."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, Final, TypeVar

from anyio import CapacityLimiter, to_thread

T = TypeVar("T")


class ThreadedBody:
    """The pieces of a blocking HTTP response of httpx, read in threads.

    Args:
        response: The library's response, whose stream hasn't been read.
        pieces: Of its body.
        close: Closes the response.
    """

    def __init__(
        self,
        response: Any,  # noqa: ANN401 - of httpx or httpx2
        pieces: Iterator[bytes],
        close: Callable[[], None],
    ) -> None:
        self._response: Final = response
        self._pieces: Final = pieces
        self._close: Final = close
        self._limiter: Final = CapacityLimiter(1)
        self._lock: Final = threading.Lock()  # an abandoned read goes on: nothing closes beneath it
        self._read = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Read the pieces as they come."""

        def piece() -> bytes | None:
            with self._lock:
                return next(self._pieces, None)

        while (found := await self._in_thread(piece)) is not None:
            yield found
        self._read = True

    async def aclose(self) -> None:
        """Close the response; a read that is under way ends first."""
        if not self._read:
            _hang_up(self._response)

        def close() -> None:
            with self._lock:
                self._close()

        await self._in_thread(close)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        # Abandoned when cancelled, as a read takes as long as the server likes.
        return await to_thread.run_sync(function, abandon_on_cancel=True, limiter=self._limiter)


def _hang_up(response: Any) -> None:  # noqa: ANN401 - as above
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
