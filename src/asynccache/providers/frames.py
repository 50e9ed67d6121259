"""Streams as bytes: cut into events or lines without changing any; events are read for their data.

Line ends, event ends and fields follow the HTML standard, "Interpreting an event stream". Where the
decoders of OpenAI's and Anthropic's SDKs differ from it, they are followed: an event without data
counts if it or an earlier one has an id, and a byte order mark is text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

# An event ends with an empty line. The group is atomic, as "\r\n" is one line end, never two.
_EVENT_END: Final = re.compile(rb"(?>\r\n|\n|\r){2}")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_LONGEST_LINE_END: Final = 2  # bytes
_NAMED: Final = b"event: "
_FAILED: Final = b"event: error\n"
_PLAIN: Final = b"data: "
_PLAIN_END: Final = b"\n\n"


class EventSplitter:
    r"""Cuts pieces of a response as they arrive into events, each with its closing empty line.

    An event is given out with its last byte. Where that is a "\r" and a "\n" follows in the next
    piece, the two were one line end, and the next event begins with the "\n".
    """

    __slots__ = ("_cut", "_pieces", "_tail", "held")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._tail = b""  # their end, where a line end may have begun
        self._cut = False
        self.held = 0
        """Bytes that came after the last whole event."""

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the events that are whole now."""
        before, self.held = self.held, self.held + len(piece)
        window = self._tail + piece
        self._pieces.append(piece)
        if before and _EVENT_END.search(window) is None:  # pieces are joined once, not each time
            self._tail = window[-_LONGEST_LINE_END:]
            return []
        buffer = b"".join(self._pieces)
        # What was searched before is not searched again, except for a line end at its end.
        begin = int(self._cut and buffer.startswith(b"\n"))
        searched = max(begin, before - _LONGEST_LINE_END)
        events: list[bytes] = []
        start = 0
        for match in _EVENT_END.finditer(buffer, searched):
            events.append(buffer[start : match.end()])
            start = match.end()
        rest = buffer[start:]
        self._pieces, self._tail, self.held = [rest], rest[-_LONGEST_LINE_END:], len(rest)
        if events:
            self._cut = events[-1].endswith(b"\r")
        return events

    def rest(self) -> bytes:
        """Return what was left after the last whole event, at the end of the response."""
        rest = b"".join(self._pieces)
        self._pieces, self._tail, self.held = [], b"", 0
        return rest


class LineSplitter:
    """Cuts pieces of a response as they arrive into lines, each with its line end."""

    __slots__ = ("_rest", "held")

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self.held = 0
        """Bytes that came after the last whole line."""

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the lines that are whole now."""
        *whole, rest = piece.split(b"\n")
        if not whole:
            self._rest.append(rest)
            self.held += len(rest)
            return []
        lines = [b"".join((*self._rest, whole[0], b"\n")), *(line + b"\n" for line in whole[1:])]
        self._rest, self.held = [rest], len(rest)
        return lines

    def rest(self) -> bytes:
        """Return what was left after the last whole line, at the end of the response."""
        rest, self._rest, self.held = b"".join(self._rest), [], 0
        return rest


class EventReader:
    """Reads the data of one stream's events, in their order."""

    __slots__ = ("_cut", "_data", "_event", "_id", "_retry", "failed")

    def __init__(self) -> None:
        self.failed = False
        """An event named "error" has been read, whatever its data say."""
        self._data: list[str] = []
        self._event = ""
        self._id = ""  # stays from event to event, as the standard has it
        self._retry = False
        self._cut = False  # whether the last event may have ended in the middle of a line end

    def read(self, event: bytes) -> Sequence[bytes]:
        """Return the data that an event carries: one as a rule, none in a comment or keep-alive.

        Raises:
            UnicodeDecodeError: It isn't UTF-8.
        """
        end = len(event) - len(_PLAIN_END)
        start = event.find(b"\n") + 1 if event.startswith(_NAMED) else 0
        if (
            event.startswith(_PLAIN, start)
            and event.find(b"\n", start) == end
            and event.endswith(_PLAIN_END)
            and b"\r" not in event
            and not self._cut
        ):
            # One line of data, maybe with a name before it, and nothing else: nearly all.
            if event.startswith(_FAILED):
                self.failed = True
            return (event[start + len(_PLAIN) : end],)
        found: list[bytes] = []
        if self._cut:
            event = event.removeprefix(b"\n")
        self._cut = event.endswith(b"\r")
        lines = _LINE_END.split(event)
        if not lines[-1]:
            del lines[-1]  # nothing follows the last line end
        for line in lines:
            if line:
                self._take(line.decode())
            elif self._data or self._event or self._id or self._retry:
                self.failed = self.failed or self._event == "error"
                found.append("\n".join(self._data).encode())
                self._data, self._event, self._retry = [], "", False
        return found

    def _take(self, line: str) -> None:
        """Take in one line: a field and its value. Comments have a field without a name."""
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._event = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry":
            with suppress(ValueError):
                int(value)
                self._retry = True


class LineReader:
    """Reads one stream's lines, each of which is data."""

    __slots__ = ()
    failed: Final = False
    """As `EventReader.failed`: lines have no names."""

    def read(self, line: bytes) -> Sequence[bytes]:
        """Return the data that a line carries: none if it is blank."""
        return (line,) if line.strip() else ()
