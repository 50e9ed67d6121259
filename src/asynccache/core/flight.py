"""A call in progress, shared by all who ask for the same key in one event loop."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Literal
from weakref import WeakSet

from msgspec import Struct

from asynccache.core.counters import Outcome
from asynccache.core.leases import HeldLease
from asynccache.entries.entry import Entry, Meta
from asynccache.runtime.pacer import Pacer
from asynccache.runtime.waiters import Waiters

if TYPE_CHECKING:
    from asynccache.core.reader import Reader

Scope = Literal["all", "credentials", "timeout", "request", "own"]
"""For whom an error is true: all callers; those of the same credentials; those who would not have
waited longer; those who asked for just the same; only the caller whose call it was."""
Source = Literal["upstream", "store", "elsewhere"]
"""Where a flight's answer came from; "elsewhere" is another flight's, waited for in the store."""


class Phase(IntEnum):
    """How far a flight is. It can be abandoned before `STORE`."""

    LOOKUP = 0
    CLAIM = 1
    CALL = 2
    STORE = 3
    DONE = 4


class Caller(Struct, frozen=True, gc=False):
    """What of a caller decides which errors are its own."""

    credentials: bytes = b""
    """A digest; kept in memory only."""
    patience: float = math.inf
    """Seconds that the caller would wait for an answer."""
    request: bytes = b""
    """Key of the whole request, where a flight is for a part of it."""


class NotSharedError(Exception):
    """A flight's answer is only for the caller who started it; never leaves the library."""


class Flight:
    """One call and its growing body.

    Its task writes (`start_body`, `add`, `complete`, `fail`), callers read. The body stays until
    the last caller and the task have let go. Belongs to one event loop.

    Args:
        key: What is asked for.
        starter: Whose credentials and patience the call has.
        limit: Bytes of body above which the flight takes no more callers and isn't stored.
    """

    __slots__ = (
        "_growth", "_loop", "_pacer", "_readers", "abandon", "base", "caller_count", "changed",
        "chunks", "doomed", "entry", "error", "finished", "holding", "keep", "key", "limit",
        "meta", "originals", "phase", "scope", "size", "source", "starter", "task",
    )  # fmt: skip

    def __init__(
        self,
        key: bytes,
        starter: Caller,
        *,
        loop: asyncio.AbstractEventLoop,
        pacer: Pacer,
        limit: int,
        abandon: Callable[[Flight], None],
    ) -> None:
        self.key: Final = key
        self.starter: Final = starter
        self.limit: Final = limit
        self.abandon: Final = abandon
        self.task: asyncio.Task[None] | None = None
        self.phase = Phase.LOOKUP
        self.source: Source = "store"
        self.keep = False  # somebody who waits for it may store
        self.doomed = False  # abandoned, or its key deleted or set meanwhile: deliver, don't store
        self.changed = False  # what was sent is not what the key stands for: its starter's alone
        self.holding: HeldLease | None = None
        self.meta: Meta | None = None
        self.entry: Entry | None = None
        # Of a value that its bytes don't give back: one object for each caller, and no bytes.
        self.originals: list[object] | None = None
        self.chunks: list[bytes] = []
        self.base = 0  # chunks dropped from the front of an oversized body
        self.size = 0
        self.error: BaseException | None = None
        self.scope: Scope = "all"
        self.caller_count = 0
        self.finished = Waiters(loop, pacer)
        # Made when there is a reader first: thousands of flights are asked plainly, and each object
        # is one more for the collector to look at.
        self._loop = loop
        self._pacer = pacer
        self._readers: WeakSet[Reader] | None = None
        self._growth: Waiters | None = None

    # -- what the task does ------------------------------------------------------------------

    def start_body(self, meta: Meta) -> None:
        """Announce the answer's head; its chunks follow."""
        self.meta = meta
        self._grown()

    def add(self, chunk: bytes) -> None:
        """Append a chunk and wake whoever waits for it."""
        self.chunks.append(chunk)
        self.size += len(chunk)
        if self.oversized:
            self.drop_read()
        self._grown()

    def land(self, entry: Entry) -> None:
        """End with an answer that was found, whole, in the store."""
        self.chunks = list(entry.chunks)
        self.complete(entry)

    def complete(self, entry: Entry) -> None:
        """Declare the body whole, and wake everybody."""
        self.meta, self.entry = entry.meta, entry
        self.phase = Phase.STORE
        self._wake()

    def fail(self, error: BaseException, scope: Scope) -> None:
        """End with an error, after whatever chunks came before it."""
        self.error, self.scope = error, scope
        self.phase = Phase.DONE
        self._wake()

    def _wake(self) -> None:
        self.finished.open()
        self._grown()

    def _grown(self) -> None:
        if self._growth is not None:
            self._growth.open()

    # -- what callers do ---------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether the body is whole or has failed: nothing more will come."""
        return self.phase >= Phase.STORE

    @property
    def oversized(self) -> bool:
        """Whether the body has outgrown what is stored or shared with newcomers."""
        return self.size > self.limit

    def error_for(self, caller: Caller, *, started: bool) -> BaseException | None:
        """Return the flight's error for one of its callers, None if it was another's fate.

        The starter gets the error itself, each other caller a copy: raising marks an error.
        """
        if self.error is None or started:
            return self.error
        if self.scope == "credentials":
            shared = caller.credentials == self.starter.credentials
        elif self.scope == "timeout":
            shared = caller.patience <= self.starter.patience
        elif self.scope == "request":
            shared = caller.request == self.starter.request
        else:
            shared = self.scope == "all"
        return own_copy(self.error) if shared else None

    def enter(self, *, keep: bool) -> None:
        """Count a caller in, who may or may not store; each `enter` needs one `leave`."""
        self.caller_count += 1
        self.keep = self.keep or keep

    def leave(self) -> None:
        """Count a caller out. The last one out ends the flight, unless its body is whole."""
        self.caller_count -= 1
        if self.caller_count == 0 and not self.ended:
            self.abandon(self)

    def own_time(self, *, started: bool) -> bool:
        """Tell whether a caller's patience doesn't count: its own call upstream keeps its time."""
        return started and self.phase == Phase.CALL

    @property
    def growth(self) -> Waiters:
        """Opens when the body grows or ends."""
        if self._growth is None:
            self._growth = Waiters(self._loop, self._pacer)
        return self._growth

    def read_by(self, reader: Reader) -> None:
        """Note who reads; weakly, so that a dropped stream is collected."""
        if self._readers is None:
            self._readers = WeakSet()
        self._readers.add(reader)

    def left_by(self, reader: Reader) -> None:
        """Note who reads no more, and count that caller out."""
        if self._readers is not None:
            self._readers.discard(reader)
        self.leave()

    def outcome(self, *, started: bool) -> Outcome:
        """Return what the answer is to one of its callers; ``started`` is for whoever began it."""
        if self.source == "store":
            return "hit"
        return "miss" if started and self.source == "upstream" else "joined"

    def drop_read(self) -> None:
        """Free the chunks of an oversized body that every reader has behind it."""
        behind = min((reader.position for reader in self._readers or ()), default=0) - self.base
        if behind > 0:
            del self.chunks[:behind]
            self.base += behind


def own_copy(error: BaseException) -> BaseException:
    """Return a caller's own copy of a shared error, as raising marks the object raised."""
    for attempt in (copy.copy, _copy_of_parts):
        try:
            copied: BaseException = attempt(error)
            same = type(copied) is type(error) and str(copied) == str(error)
        except Exception:  # noqa: BLE001, S112 - an exotic class: the next way, or share it
            continue
        if same:
            copied.__cause__ = error.__cause__
            copied.__suppress_context__ = error.__suppress_context__
            return copied
    return error


def _copy_of_parts(error: BaseException) -> BaseException:
    """Copy an error whose class can't be called with its ``args``, as the SDK's can't."""
    copied = type(error).__new__(type(error), *error.args)
    copied.args = error.args
    copied.__dict__.update(error.__dict__)
    return copied
