"""Anthropic: messages and the counting of their tokens, at its own hosts and at Vertex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from asynccache.providers.chat import call_of
from asynccache.providers.facts import Facts, count, items, members
from asynccache.providers.judging import Judge, Said, document, events, schema_in, strict_tools
from asynccache.providers.openai import CHAT
from asynccache.providers.provider import Provider, operation
from asynccache.providers.schemas import Tick


class _Event(Struct):
    type: str
    message: dict[str, Any] = {}
    delta: Raw = Raw()  # a piece of a text as a rule, of which nothing is read
    usage: dict[str, Any] | None = None


_TEXTS: Final = frozenset({"text", "thinking", "redacted_thinking"})
_DECODE_EVENT: Final = msgspec.json.Decoder(_Event).decode


class MessageFacts(Facts):
    """Of messages."""

    __slots__ = ()
    TERMINATED = True
    CUT = frozenset({"max_tokens", "model_context_window_exceeded"})
    FILTERED = frozenset({"refusal"})

    def _take(self, found: dict[str, Any]) -> None:
        super()._take(found)
        self.complete = found.get("type") == "message"
        self._change(found.get("stop_reason"), members(found.get("usage")) or {})

    def _change(self, reason: object, usage: dict[str, Any]) -> None:
        self._end(0, reason)
        read, write = self.cache_read_tokens, self.cache_write_tokens
        rest = count(usage.get("input_tokens"), self.input_tokens - read - write)
        self.cache_read_tokens = count(usage.get("cache_read_input_tokens"), read)
        self.cache_write_tokens = count(usage.get("cache_creation_input_tokens"), write)
        self.input_tokens = rest + self.cache_read_tokens + self.cache_write_tokens
        self.output_tokens = count(usage.get("output_tokens"), self.output_tokens)

    def read_event(self, data: bytes) -> None:
        """Take in one event of a message, which begins, goes on, changes or stops."""
        try:
            event = _DECODE_EVENT(data)
            if event.type == "message_start":
                self._take(event.message)
            elif event.type == "message_delta":
                self._change(msgspec.json.decode(event.delta).get("stop_reason"), event.usage or {})
        except (msgspec.MsgspecError, ValueError, AttributeError):  # not as Anthropic's
            self.error = True
            return
        self.closed = event.type == "message_stop"
        self.complete = self.complete and bool(self._begun)
        self.error = self.error or event.type == "error"


def judge_message(body: Mapping[str, Any]) -> Judge | None:
    """Return what judges the answers to a request; None where there is nothing to judge."""
    config = members(body.get("output_config")) or {}
    shape = members(config.get("format") or body.get("output_format")) or {}
    demands, tools = shape.get("type") == "json_schema", items(body.get("tools"))
    if not demands and not tools:
        return None
    schema = schema_in(shape, "schema")  # it always has to be kept to
    return Judge(_said, demands, schema, strict_tools(tools, "input_schema"), b'"tool_use"')


def _said(chunks: Sequence[bytes], tick: Tick, *, streamed: bool) -> list[Said]:
    message: dict[str, Any] = {} if streamed else document(chunks)
    blocks: dict[object, dict[str, Any]] = dict(enumerate(items(message.get("content"))))
    for event in events(chunks, tick) if streamed else ():
        if event["type"] == "content_block_start":
            blocks[event["index"]] = event["content_block"]
        elif event["type"] == "content_block_delta":
            for name in ("text", "partial_json"):
                block = blocks[event["index"]]
                block[name] = block.get(name, "") + event["delta"].get(name, "")
        elif event["type"] == "message_delta":
            message = event["delta"]
    calls = [
        call_of({**block, "arguments": block.get("partial_json") or block["input"]})
        for block in blocks.values()
        if block["type"] == "tool_use"
    ]
    # Texts before the last are on the way to it. Other blocks may take the place of one.
    text = ["", *(block["text"] for block in blocks.values() if block["type"] == "text")][-1]
    judged = text.strip() or {block["type"] for block in blocks.values()} <= _TEXTS
    return [Said(text if judged and message.get("stop_reason") != "refusal" else None, calls)]


SHARED: Final[dict[str, Any]] = {
    "stateful": "container thread", "secretive": "mcp_servers fallback_credit_token",
}  # fmt: skip
MESSAGES: Final = operation(
    "anthropic-messages", "/v1/messages", "model messages max_tokens", "stop_reason",
    facts=MessageFacts, judge=judge_message, **SHARED,
)  # fmt: skip
_COUNT: Final = operation(
    "anthropic-tokens", "/v1/messages/count_tokens", "model messages", "input_tokens", **SHARED
)
PROVIDER: Final = Provider(
    name="anthropic",
    hosts=("api.anthropic.com",),
    markers=(("anthropic-version", "20"),),  # a date
    operations=(MESSAGES, _COUNT, CHAT),
    kept_headers=("anthropic-organization-id",),
)
