"""Every door of the SDK that leads to a cached endpoint, by name and kind of request.

A cell is a way to make one request. Cells of one ``wire`` send the same request, whichever door
they go through.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import openai
from openai import AsyncAzureOpenAI, AsyncOpenAI, AsyncStream
from openai._legacy_response import LegacyAPIResponse
from openai._response import AsyncAPIResponse
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

from asynccache.openai._sdk import stream_class
from tests.helpers.openai_api import GetWeather, Weather
from tests.helpers.openai_server import MESSAGES

SDK = openai.__version__.partition(".")[0]
KINDS = ("plain", "tools", "structured", "streamed", "raw")

CHAT: Any = {"model": "gpt-4o", "messages": MESSAGES}
ASK: Any = {"model": "gpt-4o", "input": "Hello?"}
TEXT: Any = {"model": "gpt-3.5-turbo-instruct", "prompt": "Hello?"}
EMBED: Any = {"model": "text-embedding-3-small", "input": ["Hello?", "Who?"]}
CHAT_TOOLS = [openai.pydantic_function_tool(GetWeather)]
TOOLS = [{"type": "function", "name": "GetWeather", "strict": True,
          "parameters": CHAT_TOOLS[0]["function"]["parameters"]}]  # fmt: skip
SCHEMA: Any = openai.lib._parsing.type_to_response_format_param(Weather)
TEXT_SCHEMA = {"format": {"type": "json_schema", **SCHEMA["json_schema"]}}


class Cell(NamedTuple):
    """One way to make one request."""

    door: str
    kind: str
    wire: str
    call: Any
    """Makes the call on a client, and returns all that can be told of the result."""


def cells():
    """Return every cell that this SDK has."""
    found = [*_chat(), *_responses(), *_completions(), *_embeddings(), *_posts(), *_copies()]
    return [cell for cell in found if cell is not None]


# -- what can be told of a result --------------------------------------------------------------


def told(result):
    """Return all that can be told of a result: types, values, extra fields, ids, headers."""
    if isinstance(result, LegacyAPIResponse | AsyncAPIResponse):
        kept = {n: v for n, v in result.headers.items() if n in {"content-type", "x-request-id"}}
        return type(result), result.status_code, result.retries_taken, kept, result.request_id
    if isinstance(result, BaseModel):
        declared = result.model_fields_set & set(type(result).model_fields)
        return (
            type(result).__name__, result.model_dump(warnings=False), repr(result), declared,
            getattr(result, "_request_id", None),
        )  # fmt: skip
    return type(result), repr(result)


class Outcome(NamedTuple):
    """What a call gave."""

    told: Any
    marked: Any
    """What carries the status."""


async def plainly(call):
    """Tell of a plain result."""
    result = await call
    return Outcome(told(result), result)


async def event_by_event(call):
    """Tell of a stream's events."""
    stream = await call
    assert isinstance(stream, AsyncStream)
    events = [told(event) async for event in stream]
    return Outcome((events, stream.response.status_code), stream)


async def by_manager(manager):
    """Tell of what a helper makes of a stream."""
    async with manager as stream:
        events = [told(event) async for event in stream]
        final = getattr(stream, "get_final_completion", None) or stream.get_final_response
        return Outcome((events, told(await final())), stream._raw_stream)


async def raw(call):
    """Tell of a raw response, its body and what it parses into."""
    response = await call
    parsed = response.parse()
    if isinstance(parsed, AsyncStream):
        said = [told(event) async for event in parsed]
        return Outcome((told(response), said), response)
    return Outcome((told(response), body_of(response.content), told(parsed)), response)


def body_of(content):
    """Return a body as it is, but for the spaces of one that was put together from inputs' own."""
    if b'"embedding"' not in content:
        return content
    return json.dumps(json.loads(content))  # the order of members included


async def streaming(manager):
    """Tell of a raw response that is read bit by bit."""
    async with manager as response:
        parsed = await response.parse()
        if isinstance(parsed, AsyncStream):
            said: Any = [told(event) async for event in parsed]
        else:
            said = (body_of(await response.read()), told(parsed))
        return Outcome((told(response), said), response)


# -- doors -------------------------------------------------------------------------------------


def _chat():
    for name, of in (
        ("chat.completions", lambda c: c.chat.completions),
        ("beta.chat.completions", lambda c: c.beta.chat.completions),
    ):
        kinds = {
            "plain": (CHAT, "chat"),
            "tools": ({**CHAT, "tools": CHAT_TOOLS}, "chat tools"),
            "structured": ({**CHAT, "response_format": SCHEMA}, "chat structured"),
        }
        for kind, (body, wire) in kinds.items():
            yield Cell(f"{name}.create", kind, wire,
                       lambda c, of=of, body=body: plainly(of(c).create(**body)))  # fmt: skip
        yield Cell(f"{name}.create", "streamed", "chat streamed",
                   lambda c, of=of: event_by_event(of(c).create(**CHAT, stream=True)))  # fmt: skip
        yield from _raws(f"{name}.create", of, CHAT, "chat", streamed=True)
        kinds = {
            "plain": (CHAT, "chat stream=False"),
            "tools": ({**CHAT, "tools": CHAT_TOOLS}, "chat tools stream=False"),
            "structured": ({**CHAT, "response_format": Weather}, "chat structured stream=False"),
        }
        for kind, (body, wire) in kinds.items():
            yield Cell(f"{name}.parse", kind, wire,
                       lambda c, of=of, body=body: plainly(of(c).parse(**body)))  # fmt: skip
        body = {**CHAT, "response_format": Weather}
        yield Cell(f"{name}.parse", "raw", "chat structured stream=False",
                   lambda c, of=of, body=body: raw(
                       of(c).with_raw_response.parse(**body)))  # fmt: skip
        kinds = {
            "plain": (CHAT, "chat streamed"),
            "tools": ({**CHAT, "tools": CHAT_TOOLS}, "chat tools streamed"),
            "structured": ({**CHAT, "response_format": Weather}, "chat structured streamed"),
        }
        for kind, (body, wire) in kinds.items():
            yield Cell(f"{name}.stream", kind, wire,
                       lambda c, of=of, body=body: by_manager(of(c).stream(**body)))  # fmt: skip
    # The same requests by `create`, so that each of the above shares its key with another door.
    yield Cell("chat.completions.create", "structured", "chat structured stream=False",
               lambda c: plainly(c.chat.completions.create(
                   **CHAT, response_format=SCHEMA, stream=False)))  # fmt: skip


def _raws(door, of, body, wire, *, streamed):
    yield Cell(f"{door} (raw)", "raw", wire,
               lambda c: raw(of(c).with_raw_response.create(**body)))  # fmt: skip
    yield Cell(f"{door} (streaming)", "raw", wire,
               lambda c: streaming(of(c).with_streaming_response.create(**body)))  # fmt: skip
    if streamed:
        yield Cell(f"{door} (raw)", "streamed", f"{wire} streamed",
                   lambda c: raw(of(c).with_raw_response.create(**body, stream=True)))  # fmt: skip
        yield Cell(f"{door} (streaming)", "streamed", f"{wire} streamed",
                   lambda c: streaming(of(c).with_streaming_response.create(
                       **body, stream=True)))  # fmt: skip


def _responses():
    kinds = {
        "plain": (ASK, "ask"),
        "tools": ({**ASK, "tools": TOOLS}, "ask tools"),
        "structured": ({**ASK, "text": TEXT_SCHEMA}, "ask structured"),
    }
    for kind, (body, wire) in kinds.items():
        yield Cell("responses.create", kind, wire,
                   lambda c, body=body: plainly(c.responses.create(**body)))  # fmt: skip
    yield Cell("responses.create", "streamed", "ask streamed",
               lambda c: event_by_event(c.responses.create(**ASK, stream=True)))  # fmt: skip
    yield from _raws("responses.create", lambda c: c.responses, ASK, "ask", streamed=True)
    kinds = {
        "plain": (ASK, "ask"),
        "tools": ({**ASK, "tools": CHAT_TOOLS}, "ask pydantic tools"),
        "structured": ({**ASK, "text_format": Weather}, "ask structured"),
    }
    for kind, (body, wire) in kinds.items():
        yield Cell("responses.parse", kind, wire,
                   lambda c, body=body: plainly(c.responses.parse(**body)))  # fmt: skip
    kinds["plain"] = (ASK, "ask streamed")
    for kind, (body, wire) in kinds.items():
        yield Cell("responses.stream", kind, wire if kind == "plain" else f"{wire} streamed",
                   lambda c, body=body: by_manager(c.responses.stream(**body)))  # fmt: skip
    if hasattr(openai.resources.beta.AsyncBeta, "responses"):
        yield Cell("beta.responses.create", "plain", "beta ask",
                   lambda c: plainly(c.beta.responses.create(**ASK)))  # fmt: skip
        yield Cell("beta.responses.create", "streamed", "beta ask streamed",
                   lambda c: event_by_event(
                       c.beta.responses.create(**ASK, stream=True)))  # fmt: skip
        yield from _raws("beta.responses.create", lambda c: c.beta.responses, ASK, "beta ask",
                         streamed=False)  # fmt: skip


def _completions():
    yield Cell("completions.create", "plain", "text",
               lambda c: plainly(c.completions.create(**TEXT)))  # fmt: skip
    yield Cell("completions.create", "streamed", "text streamed",
               lambda c: event_by_event(c.completions.create(**TEXT, stream=True)))  # fmt: skip
    yield from _raws("completions.create", lambda c: c.completions, TEXT, "text", streamed=True)


def _embeddings():
    yield Cell("embeddings.create", "plain", "embed",
               lambda c: plainly(c.embeddings.create(**EMBED)))  # fmt: skip
    yield from _raws("embeddings.create", lambda c: c.embeddings, EMBED, "embed", streamed=False)


def _posts():
    posts = {
        "/chat/completions": (CHAT, ChatCompletion, "chat"),
        "/responses": (ASK, Response, "ask"),
        "/embeddings": ({**EMBED, "encoding_format": "base64"}, CreateEmbeddingResponse, "embed"),
    }
    for path, (body, cast_to, wire) in posts.items():
        yield Cell("client.post", "plain", wire,
                   lambda c, path=path, body=body, cast_to=cast_to: plainly(
                       c.post(path, body=body, cast_to=cast_to)))  # fmt: skip
    streams = {
        "/chat/completions": (CHAT, ChatCompletionChunk, "chat streamed"),
        "responses": (ASK, ResponseStreamEvent, "ask streamed"),
    }
    for path, (body, event, wire) in streams.items():
        yield Cell("client.post", "streamed", wire,
                   lambda c, path=path, body=body, event=event: event_by_event(
                       c.post(path, body={**body, "stream": True}, cast_to=event, stream=True,
                              stream_cls=stream_class(event))))  # fmt: skip


def _copies():
    for name, copy in (
        ("with_options()", lambda c: c.with_options(timeout=9)),
        ("copy()", lambda c: c.copy(max_retries=0)),
    ):
        yield Cell(name, "plain", "chat",
                   lambda c, copy=copy: plainly(
                       copy(c).chat.completions.create(**CHAT)))  # fmt: skip
        yield Cell(name, "streamed", "ask streamed",
                   lambda c, copy=copy: event_by_event(
                       copy(c).responses.create(**ASK, stream=True)))  # fmt: skip
        yield Cell(name, "raw", "embed",
                   lambda c, copy=copy: raw(
                       copy(c).embeddings.with_raw_response.create(**EMBED)))  # fmt: skip


# -- clients -----------------------------------------------------------------------------------


class Subclass(AsyncOpenAI):
    """A client of somebody's own."""


def clients(api):
    """Return each kind of client, by name, of a server."""
    return {
        "AsyncOpenAI": AsyncOpenAI(api_key="k", base_url=api.base_url, max_retries=0),
        "subclass": Subclass(api_key="k", base_url=api.base_url, max_retries=0),
        "AsyncAzureOpenAI": AsyncAzureOpenAI(
            api_key="k", azure_endpoint=f"http://127.0.0.1:{api.port}", api_version="v1",
            max_retries=0,
        ),
    }  # fmt: skip
