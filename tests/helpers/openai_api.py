"""Good answers of the whole API, as far as it is cached: for `OpenAIServer.program`.

What is answered depends on what is asked: with tools a call of one, with a schema an object of it,
else a text; streamed if asked. Each answer holds a member that the SDK doesn't know.
"""

from __future__ import annotations

import array
import base64
import json

from pydantic import BaseModel

from tests.helpers.openai_server import DONE, choice, chunk, completion, sse

SAID = {"plain": "Hello!", "structured": '{"city": "Paris", "degrees": 21}'}
ARGUMENTS = '{"city": "Paris"}'
USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 12,
}


class Weather(BaseModel):
    """What structured answers are parsed into."""

    city: str
    degrees: int


class GetWeather(BaseModel):
    """What a tool is called with."""

    city: str


def _kind(body):
    if body.get("tools"):
        return "tools"
    schema = body.get("response_format") or (body.get("text") or {}).get("format")
    return "structured" if schema else "plain"


async def whole_api(seen):
    """Answer as the API does."""
    path = seen.path.rpartition("/v1")[2] or seen.path
    for ending, answer in _ANSWERS.items():
        if path.endswith(ending):
            body = answer(seen.body)
            break
    else:
        await seen.answer({"object": "list", "data": []})
        return
    if isinstance(body, tuple):
        await seen.stream(*body, headers=[("openai-version", "2020-10-01")])
    else:
        await seen.answer(body, headers=[("openai-version", "2020-10-01"), ("x-other", "o")])


# -- chat and completions ----------------------------------------------------------------------


def _chat(body):
    kind = _kind(body)
    call = {"id": "c", "type": "function",
            "function": {"name": "GetWeather", "arguments": ARGUMENTS}}  # fmt: skip
    if not body.get("stream"):
        if kind == "tools":
            message = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
            return choice(message=message, finish_reason="tool_calls") | {"extra": 1}
        message = {"role": "assistant", "content": SAID[kind], "refusal": None}
        return choice(message=message) | {"extra": 1}
    if kind == "tools":
        start = {"index": 0, **call, "function": {"name": "GetWeather", "arguments": ""}}
        rest = {"index": 0, "function": {"arguments": ARGUMENTS}}
        return (
            _delta({"role": "assistant", "tool_calls": [start]}),
            _delta({"tool_calls": [rest]}),
            _delta({}, "tool_calls"),
            DONE,
        )
    text = SAID[kind]
    half = len(text) // 2
    return (
        _delta({"role": "assistant", "content": text[:half]}),
        _delta({"content": text[half:]}),
        _delta({}, "stop"),
        DONE,
    )


def _delta(delta, finish=None):
    choices = [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    return sse(chunk(choices=choices, extra=1))


def _completions(body):
    def one(text, finish):
        return {
            **completion(object="text_completion", extra=1),
            "choices": [{"index": 0, "text": text, "finish_reason": finish, "logprobs": None}],
        }

    if body.get("stream"):
        return sse(one("Hel", None)), sse(one("lo!", "stop")), DONE
    return one("Hello!", "stop")


# -- responses ---------------------------------------------------------------------------------


def response(output, **changes):
    """Return an answer of the Responses API."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1700000000.0,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "gpt-4o-2024-08-06",
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": USAGE,
        "extra": 1,
        **changes,
    }


def _item(kind):
    if kind == "tools":
        return {
            "id": "fc_1", "type": "function_call", "call_id": "c", "name": "GetWeather",
            "arguments": ARGUMENTS, "status": "completed",
        }  # fmt: skip
    part = {"type": "output_text", "text": SAID[kind], "annotations": [], "logprobs": []}
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
        "content": [part],
    }  # fmt: skip


def events(*data):
    """Return server-sent events that are named by their type and numbered, as the API's are."""
    return tuple(
        f"event: {one['type']}\n".encode() + sse({**one, "sequence_number": number})
        for number, one in enumerate(data)
    )


def _responses(body):
    kind = _kind(body)
    item = _item(kind)
    if not body.get("stream"):
        return response([item])
    begun = response([], status="in_progress", usage=None)
    place = {"output_index": 0, "item_id": item["id"]}
    if kind == "tools":
        inner = [
            {"type": "response.function_call_arguments.delta", "delta": ARGUMENTS, **place},
            {"type": "response.function_call_arguments.done", "arguments": ARGUMENTS,
             "name": "GetWeather", **place},
        ]  # fmt: skip
        started = {**item, "arguments": "", "status": "in_progress"}
    else:
        place["content_index"] = 0
        part = item["content"][0]
        inner = [
            {"type": "response.content_part.added", "part": {**part, "text": ""}, **place},
            {"type": "response.output_text.delta", "delta": part["text"], "logprobs": [], **place},
            {"type": "response.output_text.done", "text": part["text"], "logprobs": [], **place},
            {"type": "response.content_part.done", "part": part, **place},
        ]
        started = {**item, "content": [], "status": "in_progress"}
    return events(
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": started},
        *inner,
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response([item])},
    )


# -- embeddings --------------------------------------------------------------------------------


def vector_of(given):
    """Return the vector of an input, as numbers that four bytes hold exactly."""
    return [float(len(json.dumps(given))), 0.5, -2.25]


def _embeddings(body):
    given = body["input"]
    single = isinstance(given, str) or (isinstance(given, list) and type(given[0]) is int)
    inputs = [given] if single else given
    vectors = [vector_of(one) for one in inputs]
    if body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(array.array("f", v).tobytes()).decode() for v in vectors]
    tokens = 3 * len(inputs)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": at, "embedding": vector}
            for at, vector in enumerate(vectors)
        ],
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "extra": 1,
    }


_ANSWERS = {
    "/chat/completions": _chat,
    "/completions": _completions,
    "/responses": _responses,
    "/embeddings": _embeddings,
}
