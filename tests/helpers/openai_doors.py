"""The doors of the OpenAI SDK: every way of asking for what is cached, and what comes out of each.

A `Door` is a method; `calls` gives what can be asked through it in one `kind`. Each call returns a
`Got`: all that can be told of the answer, and what `asynccache.status` says of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import openai
from openai import AsyncOpenAI, AsyncStream
from openai.lib._parsing import type_to_response_format_param
from openai.lib._parsing._responses import type_to_text_format_param
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

import asynccache
from tests.helpers.http import httpx
from tests.helpers.openai_api import GetWeather, Weather
from tests.helpers.openai_described import described, dumped

KINDS = ("plain", "tools", "structured", "streamed", "raw")
KEPT_HEADERS = ("content-type", "x-request-id", "openai-processing-ms", "openai-version")


CHAT_TOOL: Any = openai.pydantic_function_tool(GetWeather)
RESPONSE_TOOL = {
    "type": "function",
    "name": "GetWeather",
    "parameters": CHAT_TOOL["function"]["parameters"],
    "strict": True,
}
RESULTS: dict[str, tuple[Any, Any]] = {
    "chat": (ChatCompletion, ChatCompletionChunk),
    "responses": (Response, ResponseStreamEvent),
    "completions": (Completion, Completion),
    "embeddings": (CreateEmbeddingResponse, None),
}
ASKED: dict[str, dict[str, Any]] = {
    "chat": {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello?"}]},
    "responses": {"model": "gpt-4o", "input": "Hello?"},
    "completions": {"model": "gpt-3.5-turbo-instruct", "prompt": "Hello?"},
    "embeddings": {"model": "text-embedding-3-small", "input": ["Hello?", "Why?"]},
}
WIRE: dict[tuple[str, str], dict[str, Any]] = {  # of a kind, beside what is asked
    ("chat", "tools"): {"tools": [CHAT_TOOL]},
    ("chat", "structured"): {"response_format": type_to_response_format_param(Weather)},
    ("responses", "tools"): {"tools": [RESPONSE_TOOL]},
    ("responses", "structured"): {"text": {"format": type_to_text_format_param(Weather)}},
}
PARSED = {
    "chat": {"response_format": Weather},
    "responses": {"text_format": Weather},
}


class Got(NamedTuple):
    """What came out of a door: the SDK's objects, what stood beside them, and their statuses."""

    objects: list
    beside: dict[str, Any]
    statuses: list[asynccache.Status | None]

    def told(self):
        """Return all that can be told of it."""
        return [(described(one), dumped(one)) for one in self.objects], self.beside


class Door(NamedTuple):
    """A method of a resource, or ``client.post`` to an endpoint's path."""

    endpoint: str
    resource: str
    method: str

    @property
    def name(self):
        if self.method == "post":
            return f'post("{self.resource}")'
        return f"{self.resource}.{self.method}"

    def taken(self, client):
        """Return the SDK's objects behind the door, as they are at this moment."""
        resource: Any = client if self.method == "post" else attrgetter(self.resource)(client)
        return Taken(
            getattr(resource, self.method),
            getattr(getattr(resource, "with_raw_response", None), self.method, None),
            getattr(getattr(resource, "with_streaming_response", None), self.method, None),
        )

    def is_there(self):
        """Tell whether this version of the SDK has it."""
        with_key = AsyncOpenAI(api_key="k")
        try:
            self.taken(with_key)
        except AttributeError:
            return False
        return True

    def kinds(self):
        """Return the kinds that can be asked through it."""
        return [kind for kind in KINDS if any(calls(self, kind))]


class Taken(NamedTuple):
    """The SDK's objects behind a door."""

    method: Any
    raw: Any
    streaming: Any


def _doors() -> Iterator[Door]:
    for before in ("", "beta."):
        for method in ("create", "parse", "stream"):
            yield Door("chat", f"{before}chat.completions", method)
        for method in ("create", "parse", "stream"):
            yield Door("responses", f"{before}responses", method)
    yield Door("completions", "completions", "create")
    yield Door("embeddings", "embeddings", "create")
    for endpoint, path in (("chat", "chat/completions"), ("responses", "responses")):
        yield Door(endpoint, f"/{path}", "post")
    yield Door("completions", "/completions", "post")
    yield Door("embeddings", "/embeddings", "post")


DOORS = [door for door in _doors() if door.is_there()]
Call = Callable[[Taken], Any]


def calls(door: Door, kind: str) -> Iterator[Call]:  # noqa: C901, PLR0912 - one line for each door
    """Yield what can be asked through a door in one kind."""
    streams = RESULTS[door.endpoint][1] is not None
    asked = ASKED[door.endpoint]
    wire = {**asked, **WIRE.get((door.endpoint, kind), {})}
    special = kind in {"tools", "structured"}
    if special and (door.endpoint, kind) not in WIRE:
        return
    if door.method == "post":
        if kind == "raw":
            yield partial(_post_raw, door, wire)
        elif kind != "streamed":
            yield partial(_post, door, wire)
        elif streams:
            yield partial(_post_streamed, door, wire)
    elif door.method == "stream":
        if special or kind == "streamed":
            parsed = PARSED[door.endpoint] if kind == "structured" else {}
            yield partial(_helped, {**(asked if kind == "structured" else wire), **parsed})
    elif kind == "raw":
        parsed = PARSED[door.endpoint] if door.method == "parse" else {}
        there = door.taken(AsyncOpenAI(api_key="k"))  # not all versions have all
        for method, how in ((there.raw, _raw), (there.streaming, _streaming)):
            if method is not None:
                yield partial(how, {**asked, **parsed})
                if streams and door.method == "create":
                    yield partial(how, {**asked, "stream": True})
    elif door.method == "parse":
        if kind == "structured":
            wire = {**asked, **PARSED[door.endpoint]}
        if kind != "streamed":
            yield partial(plain, wire)
    elif kind == "streamed":
        if streams:
            yield partial(_streamed, {**wire, "stream": True})
    else:
        yield partial(plain, wire)


def variants(door: Door, kinds=KINDS):
    """Yield every call of a door, named."""
    for kind in kinds:
        for number, call in enumerate(calls(door, kind)):
            yield f"{door.name} {kind} {number}", call


# -- the calls -----------------------------------------------------------------------------------


def _kept(headers):
    return {name: headers.get(name) for name in KEPT_HEADERS}


async def _read(stream, beside=None, statuses=()):
    assert isinstance(stream, AsyncStream)
    events = [event async for event in stream]
    of_stream = {
        "status of the stream": stream.response.status_code,
        "headers of the stream": _kept(stream.response.headers),
    }
    return Got(events, {**of_stream, **(beside or {})}, [*statuses, asynccache.status(stream)])


async def plain(arguments, taken):
    """Make a call whose answer is one object."""
    result = await taken.method(**arguments)
    return Got([result], {}, [asynccache.status(result)])


async def _streamed(arguments, taken):
    return await _read(await taken.method(**arguments))


async def _helped(arguments, taken):
    async with taken.method(**arguments) as stream:
        events = [event async for event in stream]
        final = getattr(stream, "get_final_completion", None) or stream.get_final_response
        return Got([*events, await final()], {}, [])  # the SDK's helper has no status of its own


async def _raw(arguments, taken):
    raw = await taken.raw(**arguments)
    return await _of_raw(raw, raw.parse())


async def _streaming(arguments, taken):
    async with taken.streaming(**arguments) as raw:
        return await _of_raw(raw, await raw.parse())


async def _of_raw(raw, parsed):
    beside = {
        "type": type(raw),
        "status": raw.status_code,
        "headers": _kept(raw.headers),
        "request id": raw.request_id,
        "method": raw.method,
    }
    statuses = [asynccache.status(raw), asynccache.status(parsed)]
    if isinstance(parsed, AsyncStream):
        return await _read(parsed, beside, statuses)
    beside["content"] = json.loads(raw.http_response.content)
    return Got([parsed], beside, statuses)


async def _post(door, body, taken):
    result = await taken.method(door.resource, cast_to=RESULTS[door.endpoint][0], body=body)
    return Got([result], {}, [asynccache.status(result)])


async def _post_streamed(door, body, taken):
    result, event = RESULTS[door.endpoint]
    stream_cls: Any = AsyncStream
    stream = await taken.method(
        door.resource,
        cast_to=result,
        body={**body, "stream": True},
        stream=True,
        stream_cls=stream_cls[event],
    )
    return await _read(stream)


async def _post_raw(door, body, taken):
    response = await taken.method(door.resource, cast_to=httpx.Response, body=body)
    beside = {
        "type": type(response),
        "status": response.status_code,
        "headers": _kept(response.headers),
        "content": json.loads(response.content),
    }
    return Got([], beside, [asynccache.status(response)])
