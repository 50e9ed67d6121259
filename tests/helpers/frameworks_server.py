"""What an agent's model answers: calls of the tools it is offered, then a text or an object.

A program for `OpenAIServer`. Ids are new in each answer, as those of the real API are.
"""

from __future__ import annotations

import itertools
import json

from tests.helpers.openai_api import events, response
from tests.helpers.openai_server import DONE, choice, chunk, completion, sse

TOOL = "get_weather"
ARGUMENTS = {"city": "Paris"}
TEXT = "It is 21 degrees in Paris."
OBJECT = {"city": "Paris", "degrees": 21}
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


class Model:
    """Answers as the API does, at both endpoints, plain and streamed.

    Args:
        answer: What it says at the end.
        call_ids: Whether its tool calls have ids; some servers leave that to the client.
    """

    def __init__(self, answer=TEXT, *, call_ids=True):
        self._answer, self._call_ids = answer, call_ids
        self._numbers = itertools.count(1)

    async def __call__(self, seen):
        number = next(self._numbers)
        if seen.path.endswith("/responses"):
            answer = _response(self._said(seen.body), number)
            if seen.body.get("stream"):
                await seen.stream(*_response_events(answer))
            else:
                await seen.answer(answer)
            return
        said = self._said(seen.body)
        if isinstance(said, dict):
            said["id"] = f"call_{number}" if self._call_ids else ""
        if not seen.body.get("stream"):
            await seen.answer({**_completion(said), "id": f"chatcmpl-{number}"})
            return
        usage = (seen.body.get("stream_options") or {}).get("include_usage")
        await seen.stream(*_chunks(said, f"chatcmpl-{number}", usage=usage))

    def _said(self, body):
        """Return a call as an object with name and arguments, or a text."""
        tools = [(one.get("function") or one).get("name") for one in body.get("tools") or []]
        functions = [one["name"] for one in body.get("functions") or []]
        names = [name for name in (*tools, *functions) if name]
        if TOOL in names and not _has_result(body):
            return {"name": TOOL, "arguments": json.dumps(ARGUMENTS)}
        others = [name for name in names if name != TOOL]
        if others:  # how frameworks have a final answer given, or an object
            arguments = {"answer": self._answer} if others[0] == "final_answer" else OBJECT
            return {"name": others[0], "arguments": json.dumps(arguments)}
        form = body.get("response_format") or (body.get("text") or {}).get("format") or {}
        return json.dumps(OBJECT) if form.get("type", "text") != "text" else self._answer


def _has_result(body):
    messages = body.get("messages") or body.get("input")
    return isinstance(messages, list) and any(
        one.get("role") in {"tool", "function"}
        or str(one.get("type")).endswith("_output")
        or "Observation:\\n21" in json.dumps(one.get("content"))  # smolagents' way
        for one in messages
    )


def _function(said):
    return {"name": said["name"], "arguments": said["arguments"]}


def _completion(said):
    if isinstance(said, str):
        message = {"role": "assistant", "content": said, "refusal": None}
        return choice(message=message)
    call = {"id": said["id"], "type": "function", "function": _function(said)}
    message = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
    return choice(message=message, finish_reason="tool_calls")


def _chunks(said, name, *, usage):
    def of(delta, finish=None):
        choices = [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
        return sse(chunk(id=name, choices=choices))

    if isinstance(said, str):
        half = len(said) // 2
        yield of({"role": "assistant", "content": said[:half]})
        yield of({"content": said[half:]})
        yield of({}, "stop")
    else:
        start = {"name": said["name"], "arguments": ""}
        call = {"index": 0, "id": said["id"], "type": "function", "function": start}
        yield of({"role": "assistant", "tool_calls": [call]})
        rest = {"index": 0, "function": {"arguments": said["arguments"]}}
        yield of({"tool_calls": [rest]})
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
        half = len(part["text"]) // 2
        deltas = [
            {"type": "response.output_text.delta", "delta": text, "logprobs": [], **place}
            for text in (part["text"][:half], part["text"][half:])
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
            {"type": "response.function_call_arguments.delta", "delta": arguments, **place},
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
