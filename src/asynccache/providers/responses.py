"""OpenAI's Responses API: facts, and which answers are usable."""

# Any JSON passes through here, so that pyright can't know what is in it.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from asynccache.providers.chat import JSON_SHAPES, call_of
from asynccache.providers.facts import DONE, Facts, count, items, members
from asynccache.providers.judging import (
    Judge,
    Said,
    document,
    events,
    strict_schema,
    strict_tools,
)
from asynccache.providers.schemas import Tick

_WHOLE: Final = frozenset({"response.completed", "response.incomplete"})
_TERMINAL: Final = _WHOLE | {"response.failed"}
_NO_ERROR: Final = frozenset({b"", b"null", b"false", b"{}", b'""'})


class _Event(Struct):
    type: str = ""
    response: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_DECODE_EVENT: Final = msgspec.json.Decoder(_Event).decode


class ResponseFacts(Facts):
    """Of responses, which carry a status."""

    __slots__ = ()

    def _take(self, found: dict[str, Any]) -> None:
        super()._take(found)
        status = found.get("status")
        reason = (members(found.get("incomplete_details")) or {}).get("reason")
        self.cut = status == "incomplete" and reason == "max_output_tokens"
        self.filtered = reason == "content_filter"
        self.complete = status == "completed" or self.cut or self.filtered
        if (usage := members(found.get("usage"))) is not None:
            self.input_tokens = count(usage.get("input_tokens"))
            self.output_tokens = count(usage.get("output_tokens"))
            details = members(usage.get("input_tokens_details")) or {}
            self.cache_read_tokens = count(details.get("cached_tokens"))
            self.cache_write_tokens = count(details.get("cache_write_tokens"))

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


def judge_response(body: Mapping[str, Any]) -> Judge | None:
    """Return what judges the answers to a request; None where there is nothing to judge."""
    shape = members((members(body.get("text")) or {}).get("format")) or {}
    tools = items(body.get("tools"))
    demands = shape.get("type") in JSON_SHAPES
    if not demands and not tools:
        return None
    schema = strict_schema(shape, "schema") if demands else None
    return Judge(_said, demands, schema, strict_tools(tools, "parameters"))


def _said(chunks: Sequence[bytes], tick: Tick, *, streamed: bool) -> list[Said]:
    done: dict[object, Any] = {}
    if streamed:
        response: dict[str, Any] = {}
        for event in events(chunks, tick):
            if event.get("type") in _WHOLE:
                response = event["response"]
            elif event.get("type") == "response.output_item.done":
                done[event.get("output_index")] = event["item"]
    else:
        response = document(chunks)
    output = items(response.get("output")) or list(done.values())
    calls = [item for item in output if item.get("type") == "function_call"]
    kinds = {item.get("type") for item in output}
    texts = [_text(item) for item in output if item.get("type") == "message"]
    # Messages before the last are on the way to it. Other calls may take the place of one.
    text = texts[-1] if texts else "" if kinds <= {"reasoning"} else None
    if not (text or "").strip() and not kinds <= {"reasoning", "message"}:
        text = None
    return [Said(text, [call_of(call) for call in calls])]


def _text(item: dict[str, Any]) -> str | None:
    parts = items(item.get("content"))
    if any(part.get("type") == "refusal" for part in parts):
        return None
    return "".join(part["text"] for part in parts if part.get("type") == "output_text")
