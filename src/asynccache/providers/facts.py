"""What an answer says of itself: model, tokens, how it ended, whether it is an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, cast

import msgspec

DONE: Final = b"[DONE]"
"""Begins the data that closes a stream, in many APIs."""

_NOTHING: Final[tuple[object, ...]] = (None, [], {})


class Facts:
    """Gathered from one JSON body, or from a stream's records one after the other.

    Each protocol has a class of its own, which says how reasons are spelled and where things are.
    """

    CUT: ClassVar[frozenset[str]] = frozenset()
    """Reasons that say that a token limit ended the answer."""
    FILTERED: ClassVar[frozenset[str]] = frozenset()
    """Those that say that a content filter did."""
    FAILED: ClassVar[frozenset[str]] = frozenset()
    """Those that say that something went wrong."""
    TERMINATED: ClassVar[bool] = False
    """No stream is whole without its terminal record."""

    __slots__ = (
        "_begun", "_finished", "cache_read_tokens", "cache_write_tokens", "closed", "complete",
        "cut", "error", "filtered", "input_tokens", "model", "names", "output_tokens",
    )  # fmt: skip

    def __init__(self) -> None:
        self.model = ""
        self.input_tokens = 0
        """All of them: those that the provider read from or wrote to its own cache, too."""
        self.output_tokens = 0
        self.cache_read_tokens = 0
        self.cache_write_tokens = 0
        self.cut: bool = False
        self.filtered: bool = False
        self.error: bool = False
        self.complete: bool = True
        """The answer has the shape of one, and isn't still being worked on."""
        self.closed: bool = False
        """The stream's terminal record has come."""
        self.names: frozenset[str] = frozenset()
        """Of a plain answer's members that hold something."""
        self._begun: set[int | None] = set()  # numbers of choices, None where they have none
        self._finished: set[int | None] = set()  # those with a finish reason

    def is_ending(self, choices: int) -> bool:
        """Tell whether all that matters of a stream has come: a finish reason for each choice.

        Args:
            choices: How many the request asked for.
        """
        return len(self._finished) >= choices and self._finished == self._begun

    def is_finished(self, choices: int) -> bool:
        """Tell whether a stream that ends here, without its terminal record, is whole.

        Some servers send no such record. Then each choice has its finish reason.

        Args:
            choices: How many the request asked for.
        """
        return not self.TERMINATED and self.is_ending(choices)

    def read(self, data: bytes) -> None:
        """Take in a JSON document; one that isn't JSON, or no object, is an error."""
        found = self._read(data)
        self.names = frozenset(name for name, value in found.items() if value not in _NOTHING)

    def read_event(self, data: bytes) -> None:
        """Take in one record of a stream: the data of an event, or a line."""
        if data.startswith(DONE):
            self.closed = True
            self.complete = self.complete and (self.error or bool(self._begun))
        else:
            self._read(data)

    def _read(self, data: bytes) -> dict[str, Any]:
        found = _object(data)
        if found is None:
            self.error = True
            return {}
        self.error = self.error or is_error(found)
        self._take(found)
        return found

    def _take(self, found: dict[str, Any]) -> None:
        """Take in a document, or a record of a stream."""
        if isinstance(model := found.get("model"), str):
            self.model = model

    def _end(self, choice: int | None, reason: object) -> None:
        """Take in a choice, and the reason for which it has ended; nothing if it goes on."""
        self._begun.add(choice)
        if reason:
            self._finished.add(choice)
            self._note(reason)

    def _note(self, reason: object) -> None:
        reason = str(reason)  # of a server that sends something else, it is just another one
        self.cut = self.cut or reason in self.CUT
        self.filtered = self.filtered or reason in self.FILTERED
        self.error = self.error or reason in self.FAILED


def is_error(found: Mapping[str, Any]) -> bool:
    """Tell whether a document says that it is an error, as servers of all kinds do."""
    return bool(found.get("error")) or "error" in (found.get("type"), found.get("object"))


def members(value: object) -> dict[str, Any] | None:
    """Return the members of a JSON object, None if it is something else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def items(value: object) -> list[Any]:
    """Return the items of a JSON array, none if it is something else."""
    return cast("list[object]", value) if isinstance(value, list) else []


def count(*given: object) -> int:
    """Return the first of some values that is a number of tokens, 0 if none is."""
    for value in given:
        if isinstance(value, int | float) and value > 0:
            return int(value)
    return 0


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        return members(msgspec.json.decode(data))
    except (msgspec.MsgspecError, ValueError, RecursionError):  # ValueError: no UTF-8
        return None
