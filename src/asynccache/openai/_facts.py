"""What an answer says of itself: model, tokens, how it ended, whether it is an error."""

from __future__ import annotations

from typing import Any

import msgspec


class Facts:
    """Gathered from one JSON body, or from a stream's events one after the other."""

    __slots__ = ("cut", "error", "filtered", "input_tokens", "model", "output_tokens", "terminated")

    def __init__(self) -> None:
        self.model = ""
        self.input_tokens = 0
        self.output_tokens = 0
        self.cut = False
        self.filtered = False
        self.error = False
        self.terminated = False

    def read(self, data: bytes) -> None:
        """Take in a JSON document; one that isn't JSON, or no object, is an error."""
        try:
            found = msgspec.json.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):  # ValueError: no UTF-8
            self.error = True
            return
        if not isinstance(found, dict):
            self.error = True
            return
        if found.get("error"):
            self.error = True
        if isinstance(model := found.get("model"), str):
            self.model = model
        self._read_choices(found.get("choices"))
        if isinstance(usage := found.get("usage"), dict):
            self.input_tokens = _count(usage.get("prompt_tokens"))
            self.output_tokens = _count(usage.get("completion_tokens"))

    def _read_choices(self, choices: Any) -> None:
        if not isinstance(choices, list):
            return
        for choice in choices:
            reason = choice.get("finish_reason") if isinstance(choice, dict) else None
            self.cut = self.cut or reason == "length"
            self.filtered = self.filtered or reason == "content_filter"


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
