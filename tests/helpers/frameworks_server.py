"""What an agent's model answers: calls of the tools it is offered, then a text or an object.

A program for `OpenAIServer`. Ids are new in each answer, as those of the real API are.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

from tests.helpers.openai_api import events, response
from tests.helpers.openai_server import DONE, choice, chunk, sse
from tests.helpers.providers_answers import TOOL, Anthropic, Gemini, Said, protocol_of

ARGUMENTS = {"city": "Paris"}
TEXT = "It is 21 degrees in Paris."
OBJECT = {"city": "Paris", "degrees": 21}
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


class Model:
    """Answers as the APIs do, plain and streamed: OpenAI's two, Anthropic's, and Gemini's.

    Args:
        answer: What it says at the end.
        call_ids: Whether its tool calls have ids; some servers leave that to the client.
    """

    def __init__(self, answer=TEXT, *, call_ids=True):
        self._answer, self._call_ids = answer, call_ids
        self._numbers = itertools.count(1)

    async def __call__(self, seen):
        if seen.path.endswith("/input_tokens"):
            await seen.answer({"object": "response.input_tokens", "input_tokens": 7})
            return
        number = next(self._numbers)
        protocol: Any = protocol_of(seen)
        streams = protocol.streams(seen)
        if isinstance(protocol, Anthropic | Gemini):
            answer = self._other_said(seen.body, number)
            if streams:
                await seen.stream(*protocol.events(answer))
            else:
                await seen.answer(protocol.plain(answer))
            return
        if seen.path.endswith("/responses"):
            answer = _response(self._said(seen.body), number)
            if streams:
                await seen.stream(*_response_events(answer))
            else:
                await seen.answer(answer)
            return
        said = self._said(seen.body)
        if isinstance(said, dict):
            said["id"] = f"call_{number}" if self._call_ids else ""
        if not streams:
            await seen.answer({**_completion(said), "id": f"chatcmpl-{number}"})
            return
        usage = (seen.body.get("stream_options") or {}).get("include_usage")
        await seen.stream(*_chunks(said, f"chatcmpl-{number}", usage=usage))

    def _said(self, body):
        """Return a call as an object with name and arguments, or a text."""
        offered = dict(_tools_of(body))
        # Semantic Kernel names a tool after its plugin, too.
        if tool := next((name for name in offered if name.endswith(TOOL)), None):
            if not _has_result(body):
                return {"name": tool, "arguments": json.dumps(ARGUMENTS)}
            del offered[tool]
        for name, schema in offered.items():  # how frameworks have a final answer given
            whole = {"answer": self._answer} if "answer" in schema.get("properties", {}) else OBJECT
            return {"name": name, "arguments": json.dumps(whole)}
        return json.dumps(OBJECT) if _demands_object(body) else self._answer

    def _other_said(self, body, number):
        """Return the same for providers that aren't OpenAI."""
        said = self._said(body)
        if isinstance(said, str):
            return Said(number, said)
        return Said(number, "", json.loads(said["arguments"]), said["name"], self._call_ids)


def _tools_of(body):
    """Yield the name and the schema of each tool that a request offers, whoever's it is."""
    for group in body.get("tools") or []:
        declared = group.get("functionDeclarations") or group.get("function_declarations")
        for tool in declared or [group.get("function") or group]:
            names = ("parameters", "input_schema", "parametersJsonSchema")
            yield tool["name"], next((tool[name] for name in names if tool.get(name)), {})


def _demands_object(body):
    form = body.get("response_format") or (body.get("text") or {}).get("format") or {}
    return (
        form.get("type", "text") != "text"
        or "output_format" in body  # Anthropic's, before it had the next
        or "format" in (body.get("output_config") or {})
        or not {"responseMimeType", "response_mime_type"}.isdisjoint(
            body.get("generationConfig") or {}
        )
    )


def _has_result(body):
    messages = body.get("messages") or body.get("input") or body.get("contents")
    return isinstance(messages, list) and any(
        one.get("role") in {"tool", "function"}
        or str(one.get("type")).endswith("_output")
        or any("tool_result" in part.values() for part in _parts(one.get("content")))
        or any(
            not {"functionResponse", "function_response"}.isdisjoint(part)
            for part in _parts(one.get("parts"))
        )
        or "Observation:\\n21" in json.dumps(one.get("content"))  # smolagents' way
        for one in messages
    )


def _parts(content):
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _halves(text):
    half = len(text) // 2
    return text[:half], text[half:]


def _function(said):
    return {"name": said["name"], "arguments": said["arguments"]}


def _completion(said):
    if isinstance(said, str):
        return choice(message={"role": "assistant", "content": said, "refusal": None})
    call = {"id": said["id"], "type": "function", "function": _function(said)}
    message: dict = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
    return choice(message=message, finish_reason="tool_calls")


def _chunks(said, name, *, usage):
    def of(delta, finish=None):
        choices = [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
        return sse(chunk(id=name, choices=choices))

    if isinstance(said, str):
        for part in _halves(said):
            yield of({"role": "assistant", "content": part})
        yield of({}, "stop")
    else:
        start = {"name": said["name"], "arguments": ""}
        call = {"index": 0, "id": said["id"], "type": "function", "function": start}
        yield of({"role": "assistant", "tool_calls": [call]})
        for part in _halves(said["arguments"]):
            yield of({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
        yield of({}, "tool_calls")
    if usage:
        yield sse(chunk(id=name, choices=[], usage=USAGE))
    yield DONE


def _response(said, number):
    if isinstance(said, str):
        part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
        item = {
            "id": f"msg_{number}", "type": "message", "role": "assistant", "status": "completed",
            "content": [part],
        }  # fmt: skip
    else:
        item = {
            "id": f"fc_{number}", "type": "function_call", "call_id": f"call_{number}",
            "status": "completed", **_function(said),
        }  # fmt: skip
    return response([item], id=f"resp_{number}")


def _response_events(answer):
    (item,) = answer["output"]
    begun = {**answer, "status": "in_progress", "output": [], "usage": None}
    place = {"output_index": 0, "item_id": item["id"]}
    if item["type"] == "message":
        place["content_index"] = 0
        (part,) = item["content"]
        started = {**item, "content": [], "status": "in_progress"}
        deltas = [
            {"type": "response.output_text.delta", "delta": text, "logprobs": [], **place}
            for text in _halves(part["text"])
        ]
        inner = [
            {"type": "response.content_part.added", "part": {**part, "text": ""}, **place},
            *deltas,
            {"type": "response.output_text.done", "text": part["text"], "logprobs": [], **place},
            {"type": "response.content_part.done", "part": part, **place},
        ]
    else:
        started = {**item, "arguments": "", "status": "in_progress"}
        arguments = item["arguments"]
        inner = [
            *({"type": "response.function_call_arguments.delta", "delta": text, **place}
              for text in _halves(arguments)),
            {"type": "response.function_call_arguments.done", "arguments": arguments,
             "name": item["name"], **place},
        ]  # fmt: skip
    return events(
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": started},
        *inner,
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": answer},
    )
