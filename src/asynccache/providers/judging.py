"""Tells whether an answer is of any use: JSON where its request demands JSON, and as demanded.

What can't be decided counts as usable. Not judged are refusals, empty content beside tool calls,
and custom tools.
"""

# Any JSON passes through here, so that pyright can't know what is in it.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from asynccache.providers.facts import DONE, members
from asynccache.providers.frames import EventReader
from asynccache.providers.schemas import Tick, UnreadSchemaError, fits

_FENCES: Final = ("```", "~~~")
_LANGUAGE: Final = re.compile(r"\w*\s")
_EVENTS: Final = 64  # some 0.2 ms of decoding between two ticks
_ARGUMENTS: Final = b'"arguments"'
_TERMINAL: Final = frozenset({"response.completed", "response.incomplete"})
_JSON: Final = frozenset({"json_object", "json_schema"})
_WELL_FORMED: Final = msgspec.json.Decoder(Raw).decode


Verdict = tuple[bool, frozenset[bytes]]
"""Whether an answer is usable, and the schemas that the validator couldn't read."""


class Said(Struct):
    """One message of an answer, or what of several belongs together."""

    text: str | None = None
    """None where there is nothing to be judged."""
    calls: Sequence[tuple[str, str]] = ()
    """Names and arguments of calls of function tools."""


class Judge(Struct, frozen=True):
    """Judges the answers to one request, which it has read. It may run in any thread."""

    said: Callable[..., list[Said]]
    """Reads an answer's messages from its chunks."""
    demands: bool
    """The text has to be JSON."""
    schema: bytes | None
    """That it has to fit."""
    tools: Mapping[str, bytes]
    """Schemas that the arguments of function tools have to fit, by their names."""

    def work(self, chunks: Sequence[bytes], *, streamed: bool) -> Callable[[Tick], Verdict] | None:
        """Return what judges an answer; None where a glance shows that there is nothing to judge.

        Args:
            chunks: Its body: one JSON document, or events.
            streamed: Which of the two.
        """
        if not self.demands and not any(_ARGUMENTS in chunk for chunk in chunks):
            return None
        return functools.partial(self._verdict, chunks, streamed=streamed)

    def _verdict(self, chunks: Sequence[bytes], tick: Tick, *, streamed: bool) -> Verdict:
        unread: set[bytes] = set()
        try:
            said = self.said(chunks, tick, streamed=streamed)
            usable = all(self._is_usable(one, unread, tick) for one in said)
        except Exception:  # noqa: BLE001 - out of time, or a body of any other form
            usable = True
        return usable, frozenset(unread)

    def _is_usable(self, said: Said, unread: set[bytes], tick: Tick) -> bool:
        judged = self.demands and said.text is not None
        if judged and not _fits(_unfenced(said.text or ""), self.schema, unread, tick):
            return False
        return all(
            _fits(arguments if arguments.strip() else "{}", self.tools.get(name), unread, tick)
            for name, arguments in said.calls
        )


def _fits(text: str, schema: bytes | None, unread: set[bytes], tick: Tick) -> bool:
    tick()
    if not _is_json(text):
        return False
    if schema is None:
        return True
    try:
        return fits(schema, text, tick)
    except UnreadSchemaError:
        unread.add(schema)
        return True


def _unfenced(text: str) -> str:
    """Return what stands in a Markdown fence, if a text is one."""
    text = text.strip()
    fence = text[:3]
    if fence not in _FENCES or not text.endswith(fence):
        return text
    inner = text.strip(fence[0])
    language = _LANGUAGE.match(inner)
    return inner if language is None or _is_json(inner) else inner[language.end() :]


def _is_json(text: str) -> bool:
    try:
        _WELL_FORMED(text)
    except (msgspec.MsgspecError, ValueError):  # it refuses lone surrogates, which JSON may hold
        try:
            json.loads(text, parse_constant=_refused)
        except ValueError:
            return False
    return True


def _refused(constant: str) -> None:
    raise ValueError(constant)


def judge_of(path: str, body: Mapping[str, Any]) -> Judge | None:
    """Return what judges the answers to a request; None where there is nothing to judge.

    Args:
        path: Of the endpoint, below the base URL.
        body: Of the request. It isn't kept.
    """
    if path == "/chat/completions":
        said, shape = _chat, members(body.get("response_format"))
        demand = shape and members(shape.get("json_schema"))
        tools = [
            members((members(tool) or {}).get("function")) for tool in _list(body.get("tools"))
        ]
        called = bool(tools) or bool(body.get("functions"))
    elif path == "/responses":
        said, shape = _responses, members((members(body.get("text")) or {}).get("format"))
        demand = shape
        tools = [members(tool) for tool in _list(body.get("tools"))]
        called = bool(tools)
    else:
        return None
    demands = shape is not None and shape.get("type") in _JSON
    if not demands and not called:
        return None
    strict = {
        str(tool.get("name")): schema
        for tool in tools
        if tool and (schema := _strict(tool, "parameters")) is not None
    }
    return Judge(said, demands, _strict(demand or {}, "schema") if demands else None, strict)


def _strict(demand: Mapping[str, Any], name: str) -> bytes | None:
    """Return a schema that has to be kept to, None if there is none."""
    schema = members(demand.get(name))
    return msgspec.json.encode(schema) if schema and demand.get("strict") is True else None


def _list(given: object) -> list[Any]:
    return given if isinstance(given, list) else []


# -- chat completions --------------------------------------------------------------------------


def _chat(chunks: Sequence[bytes], tick: Tick, *, streamed: bool) -> list[Said]:
    messages: dict[object, dict[str, Any]] = {}
    if streamed:
        for event in _events(chunks, tick):
            for choice in _list(event.get("choices")):
                into = messages.setdefault(choice.get("index"), {})
                _add_delta(into, choice.get("delta") or {})
    else:
        body = msgspec.json.decode(b"".join(chunks))
        messages.update(enumerate(choice.get("message") or {} for choice in body["choices"]))
    return [_message(message) for message in messages.values()]


def _message(message: dict[str, Any]) -> Said:
    calls = _list(message.get("tool_calls"))
    called = [call["function"] for call in calls if members(call.get("function")) is not None]
    if (legacy := members(message.get("function_call"))) is not None:
        called.append(legacy)
    text = message.get("content") or ""
    refused = message.get("refusal") or message.get("audio")
    judged = isinstance(text, str) and not refused and (text.strip() or not (calls or called))
    return Said(text if judged else None, [_call(call) for call in called])


def _call(call: dict[str, Any]) -> tuple[str, str]:
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
    for call in _list(delta.get("tool_calls")):
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


# -- responses ---------------------------------------------------------------------------------


def _responses(chunks: Sequence[bytes], tick: Tick, *, streamed: bool) -> list[Said]:
    done: dict[object, Any] = {}
    if streamed:
        response: dict[str, Any] = {}
        for event in _events(chunks, tick):
            if event.get("type") in _TERMINAL:
                response = event["response"]
            elif event.get("type") == "response.output_item.done":
                done[event.get("output_index")] = event["item"]
    else:
        response = msgspec.json.decode(b"".join(chunks))
    items = _list(response.get("output")) or list(done.values())
    calls = [item for item in items if item.get("type") == "function_call"]
    kinds = {item.get("type") for item in items}
    texts = [_text(item) for item in items if item.get("type") == "message"]
    # Messages before the last are on the way to it. Other calls may take the place of one.
    text = texts[-1] if texts else "" if kinds <= {"reasoning"} else None
    if not (text or "").strip() and not kinds <= {"reasoning", "message"}:
        text = None
    return [Said(text, [_call(call) for call in calls])]


def _text(item: dict[str, Any]) -> str | None:
    parts = _list(item.get("content"))
    if any(part.get("type") == "refusal" for part in parts):
        return None
    return "".join(part["text"] for part in parts if part.get("type") == "output_text")


def _events(chunks: Sequence[bytes], tick: Tick) -> Iterator[dict[str, Any]]:
    reader = EventReader()
    for at, chunk in enumerate(chunks):
        if not at % _EVENTS:
            tick()
        for data in reader.read(chunk):
            if data.startswith(DONE):
                return
            if (event := members(msgspec.json.decode(data))) is not None:
                yield event
