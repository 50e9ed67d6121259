"""How AutoGen's clients are called for a flight, and what of their answers is kept as bytes."""

# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from autogen_core import CancellationToken, FunctionCall
from autogen_core.models import ChatCompletionClient, CreateResult
from msgspec.structs import replace
from pydantic import BaseModel

from asynccache.cache.facade import Answer, ErrorScope, Flight, Judging
from asynccache.entries.entry import Meta
from asynccache.providers.chat import judge_chat
from asynccache.providers.judging import Said

CREATE: Final = "autogen.create"
STREAM: Final = "autogen.create_stream"
_CONTENT_TYPES: Final = {CREATE: "application/json", STREAM: "application/x-ndjson"}  # item a line
_ANYBODYS: Final = frozenset({400, 413, 415, 422, 500, 502, 503})
"""HTTP statuses of errors that are true whoever asks."""


async def asked(
    client: ChatCompletionClient, path: str, arguments: Mapping[str, Any], flight: Flight
) -> Answer:
    """Make a flight's call of `create` or `create_stream`, and record what comes."""
    meta = Meta("json", content_type=_CONTENT_TYPES[path])
    # Callers' tokens are theirs alone. The call's own is for clients that heed nothing else.
    token = CancellationToken()
    last: Any = None
    try:
        if path == CREATE:
            last = await client.create(**arguments, cancellation_token=token)
            flight.add(encoded(last))
        else:
            stream = client.create_stream(**arguments, cancellation_token=token)
            async with aclosing(stream):
                last = await _recorded(stream, flight, meta)
    except BaseException:
        token.cancel()
        raise
    if not isinstance(last, CreateResult):
        return Answer(meta=meta, chunks=tuple(flight.chunks), complete=False)
    meta = replace(
        meta,
        input_tokens=last.usage.prompt_tokens or 0,
        output_tokens=last.usage.completion_tokens or 0,
        cut=last.finish_reason == "length",
    )
    filtered = last.finish_reason == "content_filter"
    return Answer(meta=meta, chunks=tuple(flight.chunks), filtered=filtered)


async def _recorded(stream: AsyncIterable[Any], flight: Flight, meta: Meta) -> object:
    """Add a stream's items to a flight; return the last one.

    A `CreateResult` is added once it is sure to be the end, so that a reader who stops there leaves
    a whole answer behind.
    """
    item: object = None
    held: bytes | None = None
    try:
        async for item in stream:
            if flight.meta is None:  # until then, an error is a whole call's
                flight.start_body(meta)
            if held is not None:
                flight.add(held)
            held = encoded(item)
            if isinstance(item, str):
                flight.add(held)
                held = None
    finally:
        if held is not None:
            flight.add(held)
    return item


def encoded(item: Any) -> bytes:  # noqa: ANN401 - a client's
    """Return an item of a stream, or a whole answer, as a line of JSON.

    By the standard library, as log probabilities may be infinite and text may hold lone surrogates.
    """
    if not isinstance(item, str | CreateResult):
        raise TypeError(f"a client answers with str and CreateResult, not {type(item).__name__}")
    return b"%s\n" % json.dumps(item if isinstance(item, str) else item.model_dump()).encode()


def decoded(chunk: bytes) -> str | CreateResult:
    """Return an item, fresh.

    Raises:
        ValueError: It isn't one to this version of AutoGen.
    """
    found = json.loads(chunk)
    return found if isinstance(found, str) else CreateResult.model_validate(found)


def scope_of(error: BaseException) -> ErrorScope:
    """Return for whom an error of any client is true: to be safe, for those of its credentials.

    Two clients of the same credentials have the same patience too, as far as theirs is known.
    """
    if isinstance(error, asyncio.CancelledError):
        return "own"
    return "all" if getattr(error, "status_code", None) in _ANYBODYS else "credentials"


def copied(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments as they are now, whatever becomes of the caller's lists."""
    try:
        return {name: _copied(value) for name, value in arguments.items()}
    except Exception:  # noqa: BLE001 - other people's objects: of such calls no key is made either
        return dict(arguments)


def _copied(value: Any) -> Any:  # noqa: ANN401 - any argument
    """Copy what callers change. Not tools and not the pixels of images, which nobody does."""
    if isinstance(value, str):  # nearly all
        return value
    if isinstance(value, BaseModel):
        content = getattr(value, "content", None)
        changes = {"content": _copied(content)} if isinstance(content, list) else None
        return value.model_copy(update=changes)
    if isinstance(value, list):
        return [_copied(item) for item in value]
    if type(value) is tuple:
        return tuple(_copied(item) for item in value)
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    return copy.copy(value) if isinstance(value, FunctionCall) else value


# -- whether an answer is usable ---------------------------------------------------------------


def judge_for(arguments: Mapping[str, Any]) -> Callable[[Answer], Judging | None]:
    """Return what says of an answer how to tell whether it is usable."""
    extra = arguments.get("extra_create_args") or {}
    # Of a class, it is the client that knows which schema it sends; JSON it is in any case.
    shape = (
        {"type": "json_object"} if arguments.get("json_output") else extra.get("response_format")
    )
    tools = [
        {"function": tool if isinstance(tool, Mapping) else tool.schema}
        for tool in arguments.get("tools") or ()
    ]
    chat = judge_chat({"response_format": shape, "tools": tools})

    def judge(answer: Answer) -> Judging | None:
        if chat is None:
            return None
        return replace(chat, said=_said).work(answer.chunks, streamed=False)

    return judge


def _said(chunks: Sequence[bytes], *_: object, **__: object) -> list[Said]:
    """Read the `CreateResult` at the end of an answer."""
    content = json.loads(chunks[-1])["content"]
    if isinstance(content, str):
        return [Said(content)]
    return [Said(None, [(call["name"], call["arguments"]) for call in content])]
