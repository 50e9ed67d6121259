"""Server-sent events as bytes: cut into whole events without changing any, and read for their data.

Line and event ends follow the HTML standard, "Interpreting an event stream".
"""

from __future__ import annotations

import re
from typing import Final

# An event ends with an empty line. The group is atomic, as "\r\n" is one line end, never two.
_EVENT_END: Final = re.compile(rb"(?>\r\n|\n|\r){2}")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_PLAIN: Final = b"data: "


class EventSplitter:
    """Cuts pieces of a response as they arrive into events, each with its closing empty line."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the events that are whole now."""
        buffer = self._rest + piece
        events: list[bytes] = []
        start = 0
        for match in _EVENT_END.finditer(buffer):
            end = match.end()
            if end == len(buffer) and buffer.endswith(b"\r"):
                break  # the "\n" of a "\r\n" may be yet to come
            events.append(buffer[start:end])
            start = end
        self._rest = buffer[start:]
        return events

    def rest(self) -> bytes:
        """Return what was left after the last whole event, at the end of the response."""
        rest, self._rest = self._rest, b""
        return rest


def event_data(event: bytes) -> bytes | None:
    """Return an event's data, None if it has none (a comment, a keep-alive)."""
    if event.startswith(_PLAIN) and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[len(_PLAIN) : -2]  # one line of data and nothing else: nearly all of them
    found = []
    for line in _LINE_END.split(event):
        name, _, value = line.partition(b":")
        if name == b"data":
            found.append(value.removeprefix(b" "))
    return b"\n".join(found) if found else None
