"""What an answer says of itself: model, tokens, how it ended, whether it is an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

DONE: Final = b"[DONE]"
"""Begins the data that closes a stream, in all of the API but the newer endpoints."""


class Facts:
    """Gathered from one JSON body, or from a stream's events one after the other."""

    __slots__ = (
        "_begun", "_finished", "closed", "complete", "cut", "error", "filtered", "input_tokens",
        "model", "output_tokens",
    )  # fmt: skip

    def __init__(self) -> None:
        self.model = ""
        self.input_tokens = 0
        self.output_tokens = 0
        self.cut: bool = False
        self.filtered: bool = False
        self.error = False
        self.complete = True
        """Of a plain answer: it isn't one that is still being worked on."""
        self.closed = False
        """The stream's terminal event has come."""
        self._begun: set[object] = set()  # numbers of choices
        self._finished: set[object] = set()  # those with a finish reason

    def is_finished(self, choices: int) -> bool:
        """Tell whether a stream that ends here, without its terminal event, is whole.

        Some servers send no such event. Then each choice has its finish reason.

        Args:
            choices: How many the request asked for.
        """
        return len(self._finished) >= choices and self._finished == self._begun

    def is_ending(self, choices: int) -> bool:
        """Tell whether all that matters of a stream has come: a finish reason for each choice."""
        return Facts.is_finished(self, choices)

    def read(self, data: bytes) -> None:
        """Take in a JSON document; one that isn't JSON, or no object, is an error."""
        found = _object(data)
        if found is None:
            self.error = True
        else:
            self._take(found)

    def read_event(self, data: bytes) -> None:
        """Take in the data of one event of a stream."""
        if data.startswith(DONE):
            self.closed = True
        else:
            self.read(data)

    def _take(self, found: dict[str, Any]) -> None:
        if found.get("error"):
            self.error = True
        if isinstance(model := found.get("model"), str):
            self.model = model
        choices = found.get("choices")
        for choice in cast("list[object]", choices) if isinstance(choices, list) else ():
            found_choice = members(choice) or {}
            reason: object = found_choice.get("finish_reason")
            if isinstance(index := found_choice.get("index"), int):
                self._begun.add(index)
                if reason:
                    self._finished.add(index)
            self.cut = self.cut or reason == "length"
            self.filtered = self.filtered or reason == "content_filter"
        if (usage := members(found.get("usage"))) is not None:
            self.input_tokens = _count(usage.get("prompt_tokens"))
            self.output_tokens = _count(usage.get("completion_tokens"))


class _Event(Struct):
    type: str = ""
    response: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class ResponseFacts(Facts):
    """The same for the Responses API, whose answers carry a status."""

    __slots__ = ()

    def _take(self, found: dict[str, Any]) -> None:
        if found.get("error"):
            self.error = True
        if isinstance(model := found.get("model"), str):
            self.model = model
        status = found.get("status")
        reason = (members(found.get("incomplete_details")) or {}).get("reason")
        self.cut = status == "incomplete" and reason == "max_output_tokens"
        self.filtered = reason == "content_filter"
        self.complete = status == "completed" or self.cut or self.filtered
        if (usage := members(found.get("usage"))) is not None:
            self.input_tokens = _count(usage.get("input_tokens"))
            self.output_tokens = _count(usage.get("output_tokens"))

    def read_event(self, data: bytes) -> None:
        """Take in one event; ``response.completed`` and its like carry the whole answer."""
        try:
            event = _DECODE_EVENT(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self.error = self.error or not data.startswith(DONE)
            return
        if event.type in _TERMINAL:
            self.closed = True
            self.read(bytes(event.response))
        elif event.type == "error" or bytes(event.error) not in _NO_ERROR:
            self.error = True


_DECODE_EVENT: Final = msgspec.json.Decoder(_Event).decode
_NO_ERROR: Final = frozenset({b"", b"null", b"false", b"{}", b'""'})
_TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


def choices_of(body: Mapping[str, Any]) -> int:
    """Return how many choices a request asks for: so many for each of its prompts."""
    prompt, number = body.get("prompt"), body.get("n")
    prompts = cast("list[object]", prompt) if isinstance(prompt, list) else []
    several = len(prompts) if prompts and not isinstance(prompts[0], int) else 1
    return several * (number if isinstance(number, int) else 1)


def members(value: object) -> dict[str, Any] | None:
    """Return the members of a JSON object, None if it is something else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        return members(msgspec.json.decode(data))
    except (msgspec.MsgspecError, ValueError, RecursionError):  # ValueError: no UTF-8
        return None


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
