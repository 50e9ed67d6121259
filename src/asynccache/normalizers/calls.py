"""Tool-call ids, renamed by order of appearance: for keys that such ids shall not tell apart.

Renamed are the ids of calls that the body itself holds, and what answers to them, as OpenAI,
Anthropic and Gemini have them. An id alone stays as it is: what it stands for lies at the server.
With ``previous_response_id`` all stay, since there a call of the body could bear the name of one
that isn't seen.
"""

# Any JSON passes through here, so that pyright can't know what is in it.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from asynccache.keys.normalizer import normalizer

_OF_CALLS: Final = ("call_id", "id")  # of an item of the Responses API that is a call
_CALL: Final = "_call"  # how the type of such an item ends
_USE: Final = "tool_use"  # the same of a part of Anthropic's messages
_GEMINI: Final = ("functionCall", "functionResponse")

Numbers = dict[str, list[int]]
"""By ids; each in a list, as no id that the API takes looks like that."""


@normalizer(version=1, name="call_ids")
def call_ids(body: dict[str, Any]) -> dict[str, Any]:
    """Number the ids of tool calls by their order.

    For frameworks and servers that make new ids in each run.
    """
    if body.get("previous_response_id"):
        return body
    messages, items = _list(body.get("messages")), _list(body.get("input"))
    contents = _list(body.get("contents"))
    ids = [_get(call, "id") for one in messages for call in _list(_get(one, "tool_calls"))]
    ids += [_get(part, "id") for part in _parts(messages, "content") if _is_use(part)]
    ids += [_get(one, name) for one in items if _is_call(one) for name in _OF_CALLS]
    ids += [_get(_get(part, _GEMINI[0]), "id") for part in _parts(contents, "parts")]
    numbers: Numbers = {}
    for call_id in ids:
        if isinstance(call_id, str):
            numbers.setdefault(call_id, [len(numbers)])
    if not numbers:
        return body
    changed: dict[str, Any] = {}
    if messages:
        changed["messages"] = [_message(one, numbers) for one in messages]
    if items:
        names = {True: _OF_CALLS, False: ("call_id",)}
        changed["input"] = [_numbered(one, names[_is_call(one)], numbers) for one in items]
    if contents:
        changed["contents"] = [_with_parts(one, "parts", _gemini_part, numbers) for one in contents]
    return {**body, **changed}


def _list(given: object) -> list[Any]:
    return given if isinstance(given, list) else []


def _get(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, dict) else None


def _is_call(item: Any) -> bool:
    return _get(item, "call_id") is not None and str(_get(item, "type")).endswith(_CALL)


def _is_use(part: Any) -> bool:
    return str(_get(part, "type")).endswith(_USE)


def _parts(messages: list[Any], name: str) -> list[Any]:
    return [part for one in messages for part in _list(_get(one, name))]


def _message(message: Any, numbers: Numbers) -> Any:
    found = _numbered(message, ("tool_call_id",), numbers)
    found = _with_parts(found, "tool_calls", _call, numbers)
    return _with_parts(found, "content", _anthropic_part, numbers)


def _with_parts(
    message: Any, name: str, changed: Callable[[Any, Numbers], Any], numbers: Numbers
) -> Any:
    parts = _get(message, name)
    if not isinstance(parts, list):
        return message
    return {**message, name: [changed(part, numbers) for part in parts]}


def _call(call: Any, numbers: Numbers) -> Any:
    return _numbered(call, ("id",), numbers)


def _anthropic_part(part: Any, numbers: Numbers) -> Any:
    return _numbered(part, ("id",) if _is_use(part) else ("tool_use_id",), numbers)


def _gemini_part(part: Any, numbers: Numbers) -> Any:
    called = {name: part[name] for name in _GEMINI if _get(part, name) is not None}
    return (
        {**part, **{name: _call(call, numbers) for name, call in called.items()}}
        if called
        else part
    )


def _numbered(part: Any, names: tuple[str, ...], numbers: Numbers) -> Any:
    """Return a part whose members of these names are numbers where they are ids of calls."""
    ids = {name: _get(part, name) for name in names}
    known = {name: numbers[i] for name, i in ids.items() if isinstance(i, str) and i in numbers}
    return {**part, **known} if known else part
