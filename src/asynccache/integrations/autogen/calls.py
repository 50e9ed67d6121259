"""How AutoGen's clients are called for a flight, and what of their answers is kept as bytes."""

# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from autogen_core import CancellationToken, FunctionCall
from autogen_core.models import ChatCompletionClient, CreateResult
from pydantic import BaseModel

from asynccache.core.calls import Answer
from asynccache.core.flight import ErrorScope, Flight
from asynccache.entries.entry import Entry, Meta

T = TypeVar("T")

CREATE: Final = "autogen.create"
STREAM: Final = "autogen.create_stream"
_META: Final = Meta("json", content_type="application/json")
_LINES: Final = Meta("json", content_type="application/x-ndjson")  # of a stream: an item a line
_ANYBODYS: Final = frozenset({400, 413, 415, 422, 500, 502, 503})
"""HTTP statuses of errors that are true whoever asks."""


def plainly(
    client: ChatCompletionClient, arguments: Mapping[str, Any]
) -> Callable[[Flight], Awaitable[Answer]]:
    """Return what makes a call of `create`, with copies of its arguments as they are now."""
    sent = copied(arguments)

    async def upstream(flight: Flight) -> Answer:
        async with own_token() as token:
            result = await client.create(**sent, cancellation_token=token)
        flight.add(encoded(result))
        return answer_of(flight, result, _META, complete=True)

    return upstream


def streamed(
    client: ChatCompletionClient, arguments: Mapping[str, Any]
) -> Callable[[Flight], Awaitable[Answer]]:
    """Return what makes a call of `create_stream`, with copies of its arguments as they are now."""
    sent = copied(arguments)

    async def upstream(flight: Flight) -> Answer:
        last: str | CreateResult | None = None
        async with own_token() as token:
            async for item in items_of(client.create_stream(**sent, cancellation_token=token)):
                if flight.meta is None:  # until then, an error is a whole call's
                    flight.start_body(_LINES)
                flight.add(encoded(item))
                last = item
        result = last if isinstance(last, CreateResult) else None
        return answer_of(flight, result, _LINES, complete=result is not None)

    return upstream


@asynccontextmanager
async def own_token() -> AsyncGenerator[CancellationToken]:
    """Give a flight's call a token of its own: its callers' are theirs alone.

    It is cancelled with the call, for clients that heed nothing else.
    """
    token = CancellationToken()
    try:
        yield token
    except BaseException:
        token.cancel()
        raise


async def items_of(stream: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - a client's own
    """Return a stream's items, and close it whatever happens."""
    try:
        async for item in stream:
            yield item
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


def answer_of(flight: Flight, result: CreateResult | None, meta: Meta, *, complete: bool) -> Answer:
    """Return what a flight got, for the kernel to judge."""
    if result is not None:
        usage = result.usage
        meta = Meta(
            meta.kind,
            content_type=meta.content_type,
            input_tokens=usage.prompt_tokens or 0,
            output_tokens=usage.completion_tokens or 0,
            cut=result.finish_reason == "length",
        )
    return Answer(
        meta=meta,
        chunks=tuple(flight.chunks),
        filtered=result is not None and result.finish_reason == "content_filter",
        complete=complete,
    )


def encoded(item: str | CreateResult) -> bytes:
    """Return an item of a stream, or a whole answer, as a line of JSON.

    By the standard library, as log probabilities may be infinite and text may hold lone surrogates.
    """
    if isinstance(item, str):
        return b"%s\n" % json.dumps(item).encode()
    if not isinstance(item, CreateResult):
        raise TypeError(f"a client answers with str and CreateResult, not {type(item).__name__}")
    return b"%s\n" % json.dumps(item.model_dump()).encode()


def decoded(chunk: bytes) -> str | CreateResult:
    """Return an item, fresh.

    Raises:
        ValidationError: It isn't one to this version of AutoGen.
    """
    found = json.loads(chunk)
    return found if isinstance(found, str) else CreateResult.model_validate(found)


def result_of(entry: Entry) -> CreateResult:
    """Return a whole answer, fresh."""
    return CreateResult.model_validate(json.loads(entry.body))


def built(entry: Entry) -> CreateResult | None:
    """Return the answer that an entry ends with, fresh; None if this version can't build one."""
    if not entry.chunks:
        return None
    try:
        last = decoded(entry.chunks[-1])
    except ValueError:  # pydantic's, or JSON's
        return None
    return last if isinstance(last, CreateResult) else None


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
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    if type(value) is tuple:
        return tuple(_copied(item) for item in value)
    return copy.copy(value) if isinstance(value, FunctionCall) else value
