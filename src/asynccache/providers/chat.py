"""Chat completions, as OpenAI and all who follow it have them: facts, and which are usable."""

# Any JSON passes through here, so that pyright can't know what is in it.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from asynccache.providers.facts import Facts, count, items, members
from asynccache.providers.judging import (
    Judge,
    Said,
    document,
    events,
    strict_schema,
    strict_tools,
)
from asynccache.providers.schemas import Tick

JSON_SHAPES: Final = frozenset({"json_object", "json_schema"})
"""Types of formats that demand JSON."""


class ChatFacts(Facts):
    """Of chat completions, completions and embeddings."""

    __slots__ = ()

    CUT = frozenset({"length", "model_length"})
    FILTERED = frozenset({"content_filter"})
    FAILED = frozenset({"error", "abort", "insufficient_system_resource"})

    def _take(self, found: dict[str, Any]) -> None:
        super()._take(found)
        for choice in items(found.get("choices")):
            chosen = members(choice) or {}
            index, reason = chosen.get("index", 0), chosen.get("finish_reason")
            if isinstance(index, int):
                self._end(index, reason)
            elif reason:
                self._note(reason)
        groq = members(found.get("x_groq")) or {}  # in streams
        self.error = self.error or bool(groq.get("error"))
        usage = members(found.get("usage")) or members(groq.get("usage"))
        if usage is not None:
            self._use(usage)

    def _use(self, usage: dict[str, Any]) -> None:
        self.input_tokens = count(usage.get("prompt_tokens"))
        self.output_tokens = count(usage.get("completion_tokens"))
        details = members(usage.get("prompt_tokens_details")) or {}
        self.cache_read_tokens = count(
            details.get("cached_tokens"),
            usage.get("prompt_cache_hit_tokens"),  # DeepSeek's
            usage.get("cached_tokens"),
        )
        self.cache_write_tokens = count(
            details.get("cache_write_tokens"),  # OpenRouter's
            usage.get("cache_creation_input_tokens"),  # LiteLLM's
        )


def choices_of(body: Mapping[str, Any]) -> int:
    """Return how many choices a request asks for: so many for each of its prompts."""
    prompt, number = items(body.get("prompt")), body.get("n")
    several = len(prompt) if prompt and not isinstance(prompt[0], int) else 1
    return several * (number if isinstance(number, int) else 1)


def judge_chat(body: Mapping[str, Any]) -> Judge | None:
    """Return what judges the answers to a chat; None where there is nothing to judge."""
    shape = members(body.get("response_format")) or {}
    tools = [(members(tool) or {}).get("function") for tool in items(body.get("tools"))]
    demands = shape.get("type") in JSON_SHAPES
    if not demands and not tools and not body.get("functions"):
        return None
    schema = strict_schema(shape.get("json_schema"), "schema") if demands else None
    return Judge(_said, demands, schema, strict_tools(tools, "parameters"))


def _said(chunks: Sequence[bytes], tick: Tick, *, streamed: bool) -> list[Said]:
    messages: dict[object, dict[str, Any]] = {}
    if streamed:
        for event in events(chunks, tick):
            for choice in items(event.get("choices")):
                into = messages.setdefault(choice.get("index"), {})
                _add_delta(into, choice.get("delta") or {})
    else:
        body = document(chunks)
        messages.update(enumerate(choice.get("message") or {} for choice in body["choices"]))
    return [_message(message) for message in messages.values()]


def _message(message: dict[str, Any]) -> Said:
    calls = items(message.get("tool_calls"))
    called = [call["function"] for call in calls if members(call.get("function")) is not None]
    if (legacy := members(message.get("function_call"))) is not None:
        called.append(legacy)
    text = message.get("content") or ""
    refused = message.get("refusal") or message.get("audio")
    judged = isinstance(text, str) and not refused and (text.strip() or not (calls or called))
    return Said(text if judged else None, [call_of(call) for call in called])


def call_of(call: dict[str, Any]) -> tuple[str, str]:
    """Return the name of a function that is called, and its arguments as text."""
    arguments = call.get("arguments") or ""
    if not isinstance(arguments, str):  # as some servers send them
        arguments = msgspec.json.encode(arguments).decode()
    return str(call.get("name")), arguments


def _add_delta(into: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add what an event holds of a message to what came before."""
    for name in ("content", "refusal", "arguments", "name"):
        if isinstance(part := delta.get(name), str):
            into[name] = into.get(name, "") + part
    if delta.get("audio"):
        into["audio"] = True
    for name in ("function", "function_call"):
        if (call := members(delta.get(name))) is not None:
            _add_delta(into.setdefault(name, {}), call)
    calls: list[Any] = into.setdefault("tool_calls", [])
    for call in items(delta.get("tool_calls")):
        # Some servers send whole calls without an index, one after the other.
        index = call.get("index")
        at = index if index is not None else len(calls) if call.get("id") or not calls else -1
        same = next((known for known in reversed(calls) if known["at"] == at), None)
        if at != -1 and (same is None or _is_another(call, same)):
            same = {"at": at, "id": call.get("id")}
            calls.append(same)
        _add_delta(same or calls[-1], call)


def _is_another(call: dict[str, Any], known: dict[str, Any]) -> bool:
    """Tell whether a call begins though its index is a known one's: some servers count none.

    Others give each part of one call an id of its own, but the name to the first alone.
    """
    ids = (call.get("id"), known["id"])
    return all(ids) and ids[0] != ids[1] and bool((members(call.get("function")) or {}).get("name"))
