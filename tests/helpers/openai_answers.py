"""What all cached endpoints answer, plain and streamed: a program for a server of every door."""

from __future__ import annotations

from tests.helpers.openai_embeddings import embed
from tests.helpers.openai_server import DONE, good, sse

RESPONSE: dict = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1700000000.0,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "model": "gpt-4o-2024-08-06",
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello!", "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "usage": {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 12,
    },
}
TEXT = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1700000000,
    "model": "gpt-3.5-turbo-instruct",
    "choices": [{"index": 0, "text": "Hello!", "logprobs": None, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
}


def response(**changes):
    """Return an answer of the Responses API with other top-level members."""
    return {**RESPONSE, **changes}


def event(kind, **members):
    """Return one event of a streamed response, as it travels."""
    return f"event: {kind}\n".encode() + sse({"type": kind, **members})


def response_events(end="response.completed", **changes):
    """Return the events of a streamed response, up to one of its terminal events."""
    begun = response(status="in_progress", output=[], usage=None)
    message, (part,) = RESPONSE["output"][0], RESPONSE["output"][0]["content"]
    started = {**message, "status": "in_progress", "content": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[tuple[str, dict]] = [
        ("response.created", {"response": begun}),
        ("response.output_item.added", {"output_index": 0, "item": started}),
        ("response.content_part.added", {**place, "part": {**part, "text": ""}}),
        ("response.output_text.delta", {**place, "delta": "Hello!", "logprobs": []}),
        ("response.output_text.done", {**place, "text": "Hello!", "logprobs": []}),
        ("response.content_part.done", {**place, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": message}),
        (end, {"response": response(**changes)}),
    ]
    return tuple(
        event(kind, sequence_number=number, **members)
        for number, (kind, members) in enumerate(events)
    )


async def answer(seen):
    """Answer as the API does, at each of the cached endpoints."""
    path = seen.path.removeprefix("/v1")
    streamed = bool(seen.body.get("stream"))
    if path == "/embeddings":
        await embed(seen)
    elif path == "/responses":
        if streamed:
            await seen.stream(*response_events())
        else:
            await seen.answer(RESPONSE)
    elif path == "/completions":
        if streamed:
            await seen.stream(sse({**TEXT, "usage": None}), DONE)
        else:
            await seen.answer(TEXT)
    else:
        await good(seen)
