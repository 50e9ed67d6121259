"""Records a stream as it comes: cuts it into chunks, and reads what they say of the answer."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Callable
from typing import Final, Protocol

from asynccache.entries.entry import Kind
from asynccache.providers.facts import DONE, Facts
from asynccache.providers.frames import EventReader, EventSplitter, LineReader, LineSplitter

_NO_REST: Final = frozenset({b"", b"data: " + DONE, b"data:" + DONE})
"""What may follow a stream's last event: a server's last line may lack its empty line."""

_DOCUMENTS: Final = ("application/json", "text/html")


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
        framed: How the stream is framed, "sse" or "lines"; "json" where it is none after all.
        choices: How many the request asks for.
        failed: Called once, when the stream says that it has failed.
        longest: Bytes of the longest chunk. What is longer is handed over as it comes.
    """

    __slots__ = (
        "_choices",
        "_endless",
        "_facts",
        "_failed",
        "_into",
        "_longest",
        "_reader",
        "_splitter",
    )

    def __init__(
        self,
        into: Growing,
        facts: Facts,
        framed: Kind,
        choices: int,
        failed: Callable[[], None],
        *,
        longest: float = math.inf,
    ) -> None:
        self._into = into
        self._facts = facts
        self._choices = choices
        self._endless = framed == "json"
        self._longest = longest
        self._failed: Callable[[], None] | None = failed
        self._splitter = LineSplitter() if framed == "lines" else EventSplitter()
        self._reader = LineReader() if framed == "lines" else EventReader()

    async def record(self, pieces: AsyncIterable[bytes]) -> bool:
        """Record a body, however it was cut into pieces; tell whether it is whole."""
        facts = self._facts
        async for piece in pieces:
            if self._is_endless():
                self._into.add(self._splitter.rest() + piece)
                continue
            for chunk in self._splitter.feed(piece):
                self._take(chunk)
                self._into.add(chunk)
                if facts.closed:
                    return facts.complete
        if self._endless:
            return False
        rest = self._splitter.rest()
        if rest:  # no whole chunk, but what came came
            if rest.strip() not in _NO_REST:
                self._take(rest)
            self._into.add(rest)
        whole = isinstance(self._splitter, LineSplitter) or rest.strip() in _NO_REST
        whole = whole and facts.is_finished(self._choices)
        return (whole or facts.closed) and facts.complete

    def _is_endless(self) -> bool:
        """Tell whether what comes is no stream of chunks: then it is handed over as it comes."""
        self._endless = self._endless or self._splitter.held > self._longest
        return self._endless

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


def framing_of(content_type: str, expected: Kind) -> Kind:
    """Return how a body is framed: servers may answer a request for a stream with a document."""
    return "json" if expected == "sse" and content_type.startswith(_DOCUMENTS) else expected
