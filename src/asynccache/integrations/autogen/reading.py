"""Reading an answer of AutoGen's, whole or as it comes, for as long as its caller wants to."""

# pyright: reportMissingImports=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from autogen_core import CancellationToken
from autogen_core.models import CreateResult

from asynccache.core.calls import Fetched
from asynccache.core.flight import Reader
from asynccache.entries.entry import Entry
from asynccache.integrations.autogen.asking import AutoGenLookup, Upstream
from asynccache.integrations.autogen.calls import decoded, result_of

T = TypeVar("T")


async def fetch(
    asked: AutoGenLookup, upstream: Callable[[], Upstream], token: CancellationToken | None
) -> tuple[Fetched, CreateResult]:
    """Return a whole answer. ``upstream`` prepares the call, if there is to be one.

    It is asked for in the turn in which the key was made: later, the arguments may be others.
    """
    engine = asked.engine
    Leaving(token).check()
    found, mode = asked.found()
    if found is not None:
        engine.count_hit(found.entry)
        return Fetched(found.entry, "hit"), found.result
    prepared = upstream()

    async def waited_for() -> tuple[Fetched, CreateResult]:
        flight = engine.join(mode, asked.key)
        fetched = None if flight is None else await engine.ride(flight, asked.caller)
        fetched = fetched or await engine.fetch(asked.call(prepared, mode))
        if fetched.outcome != "miss":
            stored = asked.readable(fetched.entry)
            if stored is not None:
                return fetched, stored.result
            fetched = await engine.fetch(asked.call(prepared, "refresh"))
        return fetched, result_of(fetched.entry)

    return await heeding(token, waited_for())


async def read(
    asked: AutoGenLookup, upstream: Callable[[], Upstream], token: CancellationToken | None
) -> AsyncGenerator[str | CreateResult, None]:
    """Yield the items of a stream. ``upstream`` prepares the call, as for `fetch`."""
    leaving = Leaving(token)
    reader: Reader | None = None
    fetched: Fetched | None = None
    try:
        leaving.check()
        found, mode = asked.found()
        if found is not None:
            asked.engine.count_hit(found.entry)
            answer = Fetched(found.entry, "hit")
        else:
            prepared = upstream()
            answer, reader = await leaving.wait(asked.engine.read(asked.call(prepared, mode)))
            if reader is None and asked.readable(answer.entry) is None:
                anew = asked.call(prepared, "refresh")
                answer, reader = await leaving.wait(asked.engine.read(anew))
        fetched = answer
        if reader is None:
            items = _stored(asked, answer, leaving)
        else:
            items = _live(asked, answer, reader, leaving)
        async with aclosing(items):
            async for item in items:
                yield item
    except GeneratorExit:
        raise
    except BaseException as exc:
        fetched = None
        asked.failed(exc)
        raise
    finally:
        if reader is not None:
            reader.close()
        if fetched is not None:
            whole = None if reader is None else reader.flight.entry
            asked.served(Fetched(whole or fetched.entry, fetched.outcome))


async def _stored(
    asked: AutoGenLookup, fetched: Fetched, leaving: Leaving
) -> AsyncGenerator[str | CreateResult, None]:
    pacer = asked.engine.pacer
    for chunk in fetched.entry.chunks:
        leaving.check()
        if pacer.spent():
            await pacer.slot()
        yield _item(asked, chunk, fetched.entry, fetched)


async def _live(
    asked: AutoGenLookup, fetched: Fetched, reader: Reader, leaving: Leaving
) -> AsyncGenerator[str | CreateResult, None]:
    """Yield what comes as it comes, but the answer's end once it is sure to be the end.

    So who stops at the CreateResult leaves a whole answer, and not one to be given up.
    """
    held: bytes | None = None
    failure: Exception | None = None
    while True:
        leaving.check()
        chunk = reader.next_ready()
        if chunk is None:
            try:
                chunk = await leaving.wait(reader.next())
            except Exception as exc:  # noqa: BLE001 - the client's, raised below
                failure = exc
        if held is not None:
            entry = reader.flight.entry or fetched.entry
            yield _item(asked, held, entry, fetched)
            held = None
        if failure is not None:
            raise failure
        if chunk is None:
            return
        if chunk.startswith(b"{"):
            held = chunk
        else:
            yield _item(asked, chunk, fetched.entry, fetched)


def _item(asked: AutoGenLookup, chunk: bytes, entry: Entry, fetched: Fetched) -> str | CreateResult:
    item = decoded(chunk)
    return item if isinstance(item, str) else asked.finished(item, entry, fetched.outcome)


async def heeding(token: CancellationToken | None, work: Coroutine[Any, Any, T]) -> T:
    """Wait for something until a token is cancelled; whoever else waits for it goes on.

    Raises:
        CancelledError: The token was cancelled.
    """
    if token is None:
        return await work
    task = asyncio.ensure_future(work)
    token.link_future(task)
    return await task


class Leaving:
    """A stream's own way to heed a token: one callback for all its chunks."""

    def __init__(self, token: CancellationToken | None) -> None:
        self._token = token
        self._waiting: asyncio.Future[Any] | None = None
        if token is not None:
            token.add_callback(self._leave)

    def _leave(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    def check(self) -> None:
        """Raise CancelledError if the token was cancelled."""
        if self._token is not None and self._token.is_cancelled():
            raise asyncio.CancelledError("the cancellation token was cancelled")

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for something until the token is cancelled."""
        if self._token is None:
            return await work
        self._waiting = task = asyncio.ensure_future(work)
        try:
            return await task
        finally:
            self._waiting = None
