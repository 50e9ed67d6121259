"""The chunks of an answer, recorded or still coming, for one who hands them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from asynccache.core.flight import Reader, WaitedTooLongError

_BATCH: Final = 64  # chunks taken at a time, where so many are there: each way back costs a switch


class ChunkSource:
    """The chunks of an answer, one after the other.

    Args:
        chunks: Recorded chunks, or a reader of a flight.
        own_error: Makes of what ended the call upstream, or the caller's patience, an error of the
            caller's own library. It is given nothing but an `Exception`.
    """

    __slots__ = ("_at", "_chunks", "_own_error", "_reader", "closed")

    def __init__(
        self, chunks: tuple[bytes, ...] | Reader, own_error: Callable[[Exception], Exception]
    ) -> None:
        self._reader = chunks if isinstance(chunks, Reader) else None
        self._chunks = () if isinstance(chunks, Reader) else chunks
        self._at = 0
        self._own_error = own_error
        self.closed = False

    @property
    def live(self) -> bool:
        """Whether chunks may still come; else all are recorded, and `ready` gives them."""
        return self._reader is not None

    def ready(self) -> bytes | None:
        """Return the next chunk if it is there already."""
        if self._reader is not None:
            return self._reader.next_ready()
        at = self._at
        if at == len(self._chunks):
            return None
        self._at = at + 1
        return self._chunks[at]

    async def next(self) -> bytes | None:
        """Return the next chunk, None at the end; raise what ended the call upstream."""
        if self._reader is None:
            return self.ready()
        try:
            return await self._reader.next()
        except Exception as exc:
            error = self._own_error(exc)
            self._reader.close(error)
            if error is exc:
                raise
            raise error from (None if isinstance(exc, WaitedTooLongError) else exc)

    async def several(self) -> list[bytes]:
        """Return the next chunks, as many as are there; none at the end."""
        found: list[bytes] = []
        chunk = await self.next()
        while chunk is not None:
            found.append(chunk)
            if len(found) == _BATCH:
                break
            chunk = self.ready()
        return found

    def close(self, error: BaseException | None = None) -> None:
        """Stop reading, maybe for an error. The call upstream ends if nobody else reads it."""
        self.closed = True
        if self._reader is not None:
            self._reader.close(error)

    def close_anywhere(self) -> None:
        """Do as `close`, in any thread; what the flight's loop has to do of it, it does soon."""
        self.closed = True
        if self._reader is not None:
            self._reader.close_anywhere()
