"""What an answer says of itself: model, tokens, how it ended, whether it is an error."""

from __future__ import annotations

from typing import Any, cast

import msgspec


class Facts:
    """Gathered from one JSON body, or from a stream's events one after the other."""

    __slots__ = ("cut", "error", "filtered", "input_tokens", "model", "output_tokens", "terminated")

    def __init__(self) -> None:
        self.model = ""
        self.input_tokens = 0
        self.output_tokens = 0
        self.cut: bool = False
        self.filtered: bool = False
        self.error = False
        self.terminated = False

    def read(self, data: bytes) -> None:
        """Take in a JSON document; one that isn't JSON, or no object, is an error."""
        try:
            found = members(msgspec.json.decode(data))
        except (msgspec.MsgspecError, ValueError, RecursionError):  # ValueError: no UTF-8
            found = None
        if found is None:
            self.error = True
            return
        if found.get("error"):
            self.error = True
        if isinstance(model := found.get("model"), str):
            self.model = model
        choices = found.get("choices")
        for choice in cast("list[object]", choices) if isinstance(choices, list) else ():
            reason: object = (members(choice) or {}).get("finish_reason")
            self.cut = self.cut or reason == "length"
            self.filtered = self.filtered or reason == "content_filter"
        if (usage := members(found.get("usage"))) is not None:
            self.input_tokens = _count(usage.get("prompt_tokens"))
            self.output_tokens = _count(usage.get("completion_tokens"))


def members(value: object) -> dict[str, Any] | None:
    """Return the members of a JSON object, None if it is something else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
