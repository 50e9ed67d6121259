"""Records a stream as it comes: cuts it into chunks, and reads what they say of the answer."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from typing import Final, Protocol

from asynccache.entries.entry import Kind
from asynccache.providers.facts import DONE, Facts
from asynccache.providers.frames import EventReader, EventSplitter, LineReader, LineSplitter

_NO_REST: Final = frozenset({b"", b"data: " + DONE, b"data:" + DONE})
"""What may follow a stream's last event: a server's last line may lack its empty line."""


class Growing(Protocol):
    """Where chunks go: a flight."""

    ending: bool

    def add(self, chunk: bytes) -> None:
        """Take a chunk."""
        ...


class StreamRecorder:
    """Hands one stream's chunks over as they come, up to its terminal one.

    Args:
        into: Takes the chunks. It is told once every choice has its finish reason.
        facts: Reads the chunks.
        framed: How the stream is framed: "sse" or "lines".
        choices: How many the request asks for.
        failed: Called once, when the stream says that it has failed.
    """

    __slots__ = ("_choices", "_facts", "_failed", "_into", "_reader", "_splitter")

    def __init__(
        self,
        into: Growing,
        facts: Facts,
        framed: Kind,
        choices: int,
        failed: Callable[[], None],
    ) -> None:
        self._into = into
        self._facts = facts
        self._choices = choices
        self._failed: Callable[[], None] | None = failed
        self._splitter = LineSplitter() if framed == "lines" else EventSplitter()
        self._reader = LineReader() if framed == "lines" else EventReader()

    async def record(self, pieces: AsyncIterable[bytes]) -> bool:
        """Record a body, however it was cut into pieces; tell whether it is whole."""
        facts = self._facts
        async for piece in pieces:
            for chunk in self._splitter.feed(piece):
                self._take(chunk)
                self._into.add(chunk)
                if facts.closed:
                    return facts.complete
        rest = self._splitter.rest()
        if rest:  # no whole chunk, but what came came
            if rest.strip() not in _NO_REST:
                self._take(rest)
            self._into.add(rest)
        whole = isinstance(self._splitter, LineSplitter) or rest.strip() in _NO_REST
        whole = whole and facts.is_finished(self._choices)
        return (whole or facts.closed) and facts.complete

    def _take(self, chunk: bytes) -> None:
        facts = self._facts
        try:
            for data in self._reader.read(chunk):
                facts.read_event(data)
                if facts.closed:
                    break
            facts.error = facts.error or self._reader.failed
        except UnicodeDecodeError:
            facts.error = True  # who reads the stream will see it
        if facts.error and self._failed is not None:
            self._failed()
            self._failed = None
        self._into.ending = self._into.ending or facts.is_ending(self._choices)
