"""Cohere: chats of both versions, embeddings, reranking and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from asynccache.providers.chat import call_of
from asynccache.providers.facts import DONE, Facts, count, items, members
from asynccache.providers.judging import Judge, Said, document, events, schema_in, strict_tools
from asynccache.providers.openai import CHAT, EMBEDDINGS
from asynccache.providers.provider import Provider, operation
from asynccache.providers.schemas import Tick


class _Event(Struct):
    type: str = ""
    event_type: str = ""  # of version 1
    delta: Raw = Raw()
    response: Raw = Raw()
    finish_reason: str | None = None


_DECODE_EVENT: Final = msgspec.json.Decoder(_Event).decode
_ENDS: Final = frozenset({"message-end", "stream-end"})


class CohereFacts(Facts):
    """Of chats and embeddings."""

    __slots__ = ()
    TERMINATED = True
    CUT = frozenset({"MAX_TOKENS"})
    FILTERED = frozenset({"ERROR_TOXIC"})
    FAILED = frozenset({"ERROR", "ERROR_LIMIT", "TIMEOUT", "USER_CANCEL"})

    def _take(self, found: dict[str, Any]) -> None:
        self._end(0, found.get("finish_reason"))
        usage = members(found.get("usage")) or members(found.get("meta")) or {}
        tokens = members(usage.get("tokens")) or members(usage.get("billed_units")) or {}
        self.input_tokens = count(tokens.get("input_tokens"))
        self.output_tokens = count(tokens.get("output_tokens"))
        self.cache_read_tokens = count(usage.get("cached_tokens"))

    def read_event(self, data: bytes) -> None:
        """Take in one event, or a line; the last has all that matters."""
        try:
            event = _DECODE_EVENT(data)
        except (msgspec.MsgspecError, ValueError):
            self.error = self.error or not data.startswith(DONE)
            return
        if event.type in _ENDS or event.event_type in _ENDS:
            self.closed = True
            self._read(bytes(event.delta) or bytes(event.response))
            self._end(0, event.finish_reason)
        elif not event.type and not event.event_type:
            self.error = True


def judge_chat(body: Mapping[str, Any]) -> Judge | None:
    """Return what judges the answers to a request; None where there is nothing to judge."""
    shape = members(body.get("response_format")) or {}
    demands = shape.get("type") == "json_object"
    strict, named = {"strict": body.get("strict_tools")}, items(body.get("tools"))
    tools = [{**(members((members(tool) or {}).get("function")) or {}), **strict} for tool in named]
    if not demands and not tools:
        return None
    schema = schema_in(shape, "json_schema") or schema_in(shape, "schema")  # always kept to
    return Judge(_said, demands, schema if demands else None, strict_tools(tools, "parameters"))


def _said(chunks: Sequence[bytes], tick: Tick, *, streamed: bool) -> list[Said]:
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    if not streamed:
        message = document(chunks)["message"]
        texts = [part.get("text") or "" for part in items(message.get("content"))]
        calls = [call["function"] for call in items(message.get("tool_calls"))]
    else:
        for event in events(chunks, tick):
            delta = members((members(event.get("delta")) or {}).get("message")) or {}
            if event["type"] == "content-delta":
                texts.append(delta["content"].get("text") or "")
            elif event["type"] == "tool-call-start":
                calls.append(delta["tool_calls"]["function"])
            elif event["type"] == "tool-call-delta":
                calls[-1]["arguments"] += delta["tool_calls"]["function"]["arguments"]
    text = "".join(texts)
    return [Said(text if text.strip() or not calls else None, [call_of(call) for call in calls])]


_FACTS: Final[dict[str, Any]] = {"facts": CohereFacts}
OPERATIONS: Final = (
    operation("cohere-chat", "/v2/chat", "model messages", "message", judge=judge_chat, **_FACTS),
    operation(
        "cohere-chat-v1", "/v1/chat", "message", "text",
        streamed="lines", stateful="conversation_id",
        secretive="connectors", **_FACTS,
    ),
    operation("cohere-embed", "/v2/embed", "model input_type", "embeddings", **_FACTS),
    operation("cohere-embed-v1", "/v1/embed", "texts", "embeddings", **_FACTS),
    operation("cohere-rerank", "/v[12]/rerank", "query documents", "results", **_FACTS),
    operation("cohere-tokenize", "/v1/tokenize", "text model", "tokens"),
    CHAT,
    EMBEDDINGS,
)  # fmt: skip
PROVIDER: Final = Provider(
    name="cohere",
    hosts=("api.cohere.com", "api.cohere.ai"),
    markers=(("user-agent", "cohere/"), ("x-fern-sdk-name", "cohere")),
    operations=OPERATIONS,
)
