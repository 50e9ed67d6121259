"""Single-flight: one call in progress, shared by all who ask for the same key in one event loop."""

from __future__ import annotations

import asyncio
import copy
import itertools
import math
from collections.abc import Callable, Collection, Iterator
from enum import IntEnum
from functools import partial
from typing import Final, Literal
from weakref import WeakSet

from msgspec import Struct

from asynccache.core.counters import Outcome
from asynccache.core.leases import HeldLease
from asynccache.core.modes import Mode
from asynccache.entries.entry import Entry, Meta
from asynccache.errors import CacheClosedError
from asynccache.keys.key import Namespace
from asynccache.runtime.loops import call_in
from asynccache.runtime.pacer import Pacer

ErrorScope = Literal["all", "credentials", "timeout", "connection", "request", "own", "none"]
"""For whom an error is true: all callers; those of the same credentials; those who would not have
waited longer; all as long as the caller is there whose connection it was, who may have closed it on
leaving; those of the same credentials who asked for just the same; only the caller whose call it
was; nobody."""
Source = Literal["upstream", "store", "elsewhere"]
"""Where a flight's answer came from; "elsewhere" is another flight's, waited for in the store."""
Unstored = Literal[
    "mode", "oversized", "inexact", "changed", "incomplete", "secret", "deleted", "store_if"
]
"""Why an answer is delivered but not stored."""


Judging = Callable[[Callable[[], None]], tuple[bool, Collection[bytes]]]
"""Tells whether an answer is usable, and names the schemas that it couldn't read for that.

It may run in any thread. It calls the function that it gets every now and then, and ends where that
raises `TimeoutError`.
"""


_LAST_MOMENT: Final = 1.0  # seconds that a stream may take to end once nobody reads it any more


class Phase(IntEnum):
    """How far a flight is. It can be abandoned before `STORE`."""

    LOOKUP = 0
    CLAIM = 1
    CALL = 2
    STORE = 3
    DONE = 4


class Fate(IntEnum):
    """What may become of a flight's answer. It only ever gets worse."""

    SHARED = 0
    """Everybody who asks may have it, and it is stored if a caller's mode allows it."""
    INVALIDATED = 1
    """Its key was deleted, overwritten or given up: its callers have it, nobody joins or stores."""
    PRIVATE = 2
    """What was sent is not what the key stands for: only its starter has it."""


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


class WaitedTooLongError(Exception):
    """A waiter's own deadline passed; never leaves the library."""


class Waiters:
    """Waiters of one event loop. Cancelling one disturbs no other.

    A future each, rather than one for all: cancelling a task cancels what it awaits.
    """

    __slots__ = ("_alarm", "_alarm_at", "_loop", "_pacer", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, pacer: Pacer) -> None:
        self._loop = loop
        self._pacer = pacer
        self._waiting: dict[asyncio.Future[None], float] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    def enter(self, deadline: float) -> asyncio.Future[None]:
        """Return a future to await, which ends when the gate opens next; then `leave`.

        Not a coroutine of its own, as thousands wait here.

        Args:
            deadline: Loop time at which the future raises `WaitedTooLongError`.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting[future] = deadline
        if deadline < self._alarm_at:
            self._arm(deadline)
        return future

    def leave(self, future: asyncio.Future[None]) -> None:
        """Wait no more; each `enter` needs one."""
        self._waiting.pop(future, None)

    def open(self) -> None:
        """Let all who wait go on."""
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            if len(waiting) > 1:
                self._pacer.resolve(waiting)
            else:
                for future in waiting:
                    if not future.done():
                        future.set_result(None)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm, self._alarm_at = None, math.inf

    def _arm(self, deadline: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = deadline
        self._alarm = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        self._alarm, self._alarm_at = None, math.inf
        for future, deadline in self._waiting.items():
            if deadline <= now and not future.done():
                future.set_exception(WaitedTooLongError())
        later = min((d for f, d in self._waiting.items() if not f.done()), default=math.inf)
        if later < math.inf:
            self._arm(later)


class Flight:
    """One call and its growing body.

    Its runner writes (`start_body`, `add`, `complete`, `fail`), callers read. The body stays until
    the last caller and the runner have let go. Belongs to one event loop.

    Args:
        namespace: Where its answer belongs.
        key: What is asked for.
        starter: Whose credentials and patience the call has.
        limit: Bytes of body above which the flight takes no more callers and isn't stored.
        abandon: Called when the last caller leaves before the body is whole.
    """

    __slots__ = (
        "_abandon", "_growth", "_loop", "_pacer", "_readers", "base", "caller_count", "chunks",
        "ending", "entry", "error", "fate", "finished", "generation", "judging", "key", "lease",
        "limit", "meta", "namespace", "originals", "phase", "received", "rejected", "scope", "size",
        "source", "starter", "starter_left", "storing", "task",
    )  # fmt: skip

    def __init__(
        self,
        namespace: Namespace,
        key: bytes,
        starter: Caller,
        *,
        loop: asyncio.AbstractEventLoop,
        pacer: Pacer,
        limit: int,
        abandon: Callable[[Flight], None],
    ) -> None:
        self.namespace: Final = namespace
        self.key: Final = key
        self.starter: Final = starter
        self.limit: Final = limit
        self._abandon: Final = abandon
        self.task: asyncio.Task[None] | None = None
        self.phase = Phase.LOOKUP
        self.source: Source = "store"
        self.fate = Fate.SHARED
        self.storing = False  # the mode of one of its callers allows storing
        self.lease: HeldLease | None = None
        self.generation: bytes | None = None  # the key's, before the call was made
        self.meta: Meta | None = None
        self.entry: Entry | None = None
        self.judging: Judging | None = None  # as long as nobody knows whether the answer is usable
        self.rejected = False  # it is not
        # Of a value that its bytes don't give back: one object for each caller, and no bytes.
        self.originals: list[object] | None = None
        self.received: object = None  # what came with the answer and isn't stored
        self.chunks: list[bytes] = []
        self.base = 0  # chunks dropped from the front of an oversized body
        self.size = 0
        self.error: BaseException | None = None
        self.scope: ErrorScope = "all"
        self.ending = False  # all that matters of a stream has come, but not its end
        self.caller_count = 0
        self.starter_left = False
        self.finished = Waiters(loop, pacer)
        # Made when there is a reader first: thousands of flights are asked plainly, and each object
        # is one more for the collector to look at.
        self._loop = loop
        self._pacer = pacer
        self._readers: WeakSet[Reader] | None = None
        self._growth: Waiters | None = None

    # -- what becomes of it ------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether the body is whole or has failed: nothing more will come."""
        return self.phase >= Phase.STORE

    @property
    def oversized(self) -> bool:
        """Whether the body has outgrown what is stored or shared with newcomers."""
        return self.size > self.limit

    def answer(self, *, replayed: bool) -> Entry | None:
        """Return the whole answer, on its way into the store, if newcomers may have it."""
        shared = self.fate is Fate.SHARED and not self.oversized
        return self.entry if shared and (replayed or not self.withheld) else None

    @property
    def withheld(self) -> bool:
        """Whether newcomers have to wait: for the judgement, then for the end, to ask anew."""
        return self.judging is not None or self.rejected

    @property
    def joinable(self) -> bool:
        """Whether newcomers may wait for it. They learn at its end if it turns out private."""
        return self.fate is not Fate.INVALIDATED and not self.oversized

    @property
    def empty(self) -> bool:
        """Whether it has ended for nothing but that the store has none: a refresh brings one."""
        return self.phase is Phase.DONE and self.entry is None and self.error is None

    def worsen(self, fate: Fate) -> None:
        """Let no more become of the answer than this."""
        self.fate = max(self.fate, fate)

    def unstored(self) -> Unstored | None:
        """Return why the flight itself keeps its answer from being stored, None if it doesn't."""
        if not self.storing:
            return "mode"
        if self.oversized:
            return "oversized"
        if self.originals is not None:
            return "inexact"
        if self.fate is Fate.PRIVATE:
            return "changed"
        return "deleted" if self.fate is Fate.INVALIDATED else None

    def outcome(self, *, started: bool, late: bool = False) -> Outcome:
        """Return what the answer is to one of its callers.

        ``started`` is for whoever began it, ``late`` for those who came when it was whole.
        """
        if self.source == "store" or late:
            return "hit"
        return "miss" if started and self.source == "upstream" else "joined"

    def entry_for(self, caller: Caller, *, started: bool) -> Entry | None:
        """Return the answer of a flight that has ended, None if this caller has to ask anew.

        Raises:
            NotSharedError: The answer is its starter's alone.
            BaseException: What ended the flight, where it is true for this caller too. The starter
                gets the error itself, each other caller a copy: raising marks an error.
        """
        if self.entry is not None:
            self.check_shared(started=started)
            return self.entry
        error = self.error
        if error is None or started:
            shared = self.scope != "none"
        elif self.scope == "credentials":
            shared = caller.credentials == self.starter.credentials
        elif self.scope == "timeout":
            shared = caller.patience <= self.starter.patience
        elif self.scope == "connection":
            shared = not self.starter_left
        elif self.scope == "request":
            mine, theirs = caller, self.starter
            shared = (mine.request, mine.credentials) == (theirs.request, theirs.credentials)
        else:
            shared = self.scope == "all"
        if error is not None and shared:
            raise error if started else own_copy(error)
        return None

    def check_shared(self, *, started: bool) -> None:
        """Raise `NotSharedError` where the answer is its starter's alone, to another caller."""
        if self.fate is Fate.PRIVATE and not started:
            raise NotSharedError

    # -- what the runner does ----------------------------------------------------------------

    def start_body(self, meta: Meta, received: object = None) -> None:
        """Announce the answer's head, and what came with it; its chunks follow."""
        self.meta, self.received = meta, received
        self._grown()

    def add(self, chunk: bytes) -> None:
        """Append a chunk and wake whoever waits for it."""
        self.chunks.append(chunk)
        self.size += len(chunk)
        if self.size > self.limit:
            self._drop_read()
        self._grown()

    def complete(self, entry: Entry) -> None:
        """Declare the body whole, and wake everybody."""
        self.meta, self.entry = entry.meta, entry
        self.phase = Phase.STORE
        self.finished.open()
        self._grown()

    def complete_from_store(self, entry: Entry) -> None:
        """End with an answer that was found, whole, in the store."""
        self.chunks = list(entry.chunks)
        self.complete(entry)

    def judged(self, *, usable: bool) -> None:
        """Let newcomers have the answer if it is usable."""
        self.judging = None
        self.rejected = self.rejected or not usable
        self.finished.open()

    def end(self) -> None:
        """Note that nothing is left to do."""
        self.phase = Phase.DONE
        self.finished.open()
        self._grown()

    def fail(self, error: BaseException, scope: ErrorScope) -> None:
        """End with an error, after whatever chunks came before it."""
        self.error, self.scope = error, scope
        self.phase = Phase.DONE
        self.finished.open()
        self._grown()

    def cut(self, *, closing: bool) -> None:
        """End as the task was cancelled: who still waits asks anew, where that can be."""
        scope: ErrorScope = "all" if closing or self.meta is not None else "none"
        self.fail(CacheClosedError("the cache was closed while this call waited"), scope)

    def _grown(self) -> None:
        if self._growth is not None:
            self._growth.open()

    # -- what callers do ---------------------------------------------------------------------

    def enter(self, *, storing: bool) -> None:
        """Count a caller in, who may or may not store; each `enter` needs one `leave`."""
        self.caller_count += 1
        self.storing = self.storing or storing

    def leave(self, *, started: bool = False) -> None:
        """Count a caller out. The last one out ends the flight, unless its body is whole.

        A stream that is about to end has a moment for that: many clients hang up before it does.
        """
        self.caller_count -= 1
        self.starter_left = self.starter_left or (started and not self.ended)
        if self.ending and not self.ended:
            self._loop.call_later(_LAST_MOMENT, self._end_unread)
        else:
            self._end_unread()

    def _end_unread(self) -> None:
        if self.caller_count == 0 and not self.ended:
            self._abandon(self)

    async def wait(self, caller: Caller, *, started: bool) -> Entry | None:
        """Return the whole answer, as `entry_for` does; counts the caller out.

        Raises:
            WaitedTooLongError: The caller's patience ended.
            BaseException: As `entry_for`.
        """
        return await self.wait_until(self._loop.time() + caller.patience, caller, started=started)

    async def wait_until(self, deadline: float, caller: Caller, *, started: bool) -> Entry | None:
        """Do as `wait`, until a moment of the loop's time."""
        waiters = self.finished
        late = self.ended and not started  # who came before the end has the answer in any case
        try:
            while self.phase < (Phase.DONE if late and self.withheld else Phase.STORE):
                end = waiters.enter(deadline)
                try:
                    await end
                except WaitedTooLongError:
                    if not self._has_own_time(started=started):
                        raise
                    deadline = math.inf
                finally:
                    waiters.leave(end)
            if late and self.withheld:
                return None
            return self.entry_for(caller, started=started)
        finally:
            self.leave(started=started)

    async def wait_for_growth(self, deadline: float, *, started: bool) -> float:
        """Return when the body has grown or ended, and until when to wait the next time.

        Raises:
            WaitedTooLongError: The deadline, in the loop's time, has passed.
        """
        if self._growth is None:
            self._growth = Waiters(self._loop, self._pacer)
        more = self._growth.enter(deadline)
        try:
            await more
        except WaitedTooLongError:
            if not self._has_own_time(started=started):
                raise
            return math.inf
        finally:
            self._growth.leave(more)
        return deadline

    def _has_own_time(self, *, started: bool) -> bool:
        """Tell whether a caller's patience doesn't count: its own call upstream keeps its time."""
        return started and self.phase == Phase.CALL

    def read_by(self, reader: Reader) -> None:
        """Note who reads; weakly, so that a dropped stream is collected."""
        if self._readers is None:
            self._readers = WeakSet()
        self._readers.add(reader)

    def left_by(self, reader: Reader) -> None:
        """Note who reads no more, and count that caller out."""
        if self._readers is not None:
            self._readers.discard(reader)
        self.leave(started=reader.started)

    def next_chunk(self, position: int) -> bytes | None:
        """Return the chunk at a position of the body, None if it isn't there yet."""
        at = position - self.base
        return self.chunks[at] if at < len(self.chunks) else None

    def has_read(self) -> None:
        """Free what every reader of an oversized body has behind it."""
        if self.size > self.limit:
            self._drop_read()

    def _drop_read(self) -> None:
        behind = min((reader.position for reader in self._readers or ()), default=0) - self.base
        if behind > 0:
            del self.chunks[:behind]
            self.base += behind


class Reader:
    """One caller's way through a flight's body: its chunks from the start, then live.

    Counts as a caller until it is closed, exhausted, or collected.
    """

    __slots__ = (
        "__weakref__", "_caller", "_loop", "_open", "flight", "on_close", "position", "started",
    )  # fmt: skip

    def __init__(
        self, flight: Flight, caller: Caller, loop: asyncio.AbstractEventLoop, *, started: bool
    ) -> None:
        self.flight: Final = flight
        self._caller = caller
        self._loop = loop
        self.started = started
        self._open = True
        self.position = 0
        self.on_close: Callable[[BaseException | None], None] | None = None
        flight.read_by(self)

    async def head(self) -> Meta | None:
        """Return the answer's head as soon as it is known, None if the caller has to ask anew.

        Raises:
            WaitedTooLongError: The caller's patience ended.
            BaseException: As `Flight.entry_for`. The reader is closed then.
        """
        flight = self.flight
        deadline = self._loop.time() + self._caller.patience
        try:
            while flight.meta is None and not flight.ended:
                deadline = await flight.wait_for_growth(deadline, started=self.started)
            if flight.meta is None:
                flight.entry_for(self._caller, started=self.started)
                self.close()
            else:
                flight.check_shared(started=self.started)
        except BaseException:
            self.close()
            raise
        return flight.meta

    def next_ready(self) -> bytes | None:
        """Return the next chunk if it is there already."""
        chunk = self.flight.next_chunk(self.position)
        if chunk is not None:
            self.position += 1
        return chunk

    async def next(self) -> bytes | None:
        """Return the next chunk, None at the end; raise the error that ended the flight.

        After an error the reader has to be closed.

        Raises:
            WaitedTooLongError: Nothing came for as long as the caller would wait.
        """
        flight = self.flight
        deadline = self._loop.time() + self._caller.patience
        while True:
            chunk = self.next_ready()
            if chunk is not None:
                flight.has_read()
                return chunk
            if flight.ended:
                if flight.error is not None:
                    # Part of the answer was delivered, so that nobody can start anew.
                    raise flight.error if self.started else own_copy(flight.error)
                self.close()
                return None
            deadline = await flight.wait_for_growth(deadline, started=self.started)

    def close(self, error: BaseException | None = None) -> None:
        """Stop reading; the flight ends if nobody else reads it. Closing twice is harmless.

        ``error`` is what reading ended with, for `on_close`.
        """
        if self._open:
            self._open = False
            self.flight.left_by(self)
            if self.on_close is not None:
                self.on_close(error)
                self.on_close = None

    def close_anywhere(self) -> None:
        """Do as `close`, in any thread and without waiting: the loop does it soon."""
        call_in(self._loop, self.close)

    def __del__(self) -> None:
        # A bare ``break`` leaves no other trace. Collection may happen in any thread, so the loop
        # is asked to do the counting.
        if self._open:
            self._open = False
            call_in(self._loop, partial(self.flight.leave, started=self.started))
            if self.on_close is not None:
                call_in(self._loop, self.on_close, None)


class InFlightTable:
    """Flights under way. A refresh joins refreshes alone; a replay's flight calls nobody.

    At most one flight stands here for a key and a kind of mode. Its end removes it, and so does
    whatever invalidates it.
    """

    __slots__ = ("by_mode", "flights", "refreshes")

    def __init__(self) -> None:
        self.flights: Final[dict[bytes, Flight]] = {}
        self.refreshes: Final[dict[bytes, Flight]] = {}
        self.by_mode: Final[dict[Mode, dict[bytes, Flight]]] = {
            "read_write": self.flights,
            "read_only": self.flights,
            "refresh": self.refreshes,
            "replay": {},
        }
        """The flights that a mode joins first."""

    def whole(self, key: bytes) -> Flight | None:
        """Return a flight whose answer is whole, and not yet stored or refused."""
        for flights in (self.refreshes, self.flights):
            flight = flights.get(key)
            if flight is not None and flight.entry is not None:
                return flight
        return None

    def pending(self, key: bytes, *, replayed: bool = False) -> Entry | None:
        """Return an answer that is whole and on its way into the store."""
        flight = self.whole(key)
        return None if flight is None else flight.answer(replayed=replayed)

    def reject(self, entry: Entry) -> list[asyncio.Task[None]]:
        """Let no newcomer have an answer that is being stored; return the tasks that store it."""
        tasks: list[asyncio.Task[None]] = []
        for flight in self.matching(entry.key):
            if flight.entry is entry:
                flight.rejected = True
                if flight.task is not None:
                    tasks.append(flight.task)
        return tasks

    def remove(self, flight: Flight) -> None:
        """Let nobody join a flight any more; another one for its key stays."""
        for flights in self.by_mode.values():
            if flights.get(flight.key) is flight:
                del flights[flight.key]

    def matching(self, key: bytes) -> Iterator[Flight]:
        """Return the flights for a key."""
        for flights in (self.flights, self.refreshes):
            if key in flights:
                yield flights[key]

    def affected(self, namespace: Namespace, keys: Collection[bytes] | None) -> list[Flight]:
        """Return the flights for keys of a namespace, all of that namespace for None."""
        if keys is not None:
            return [flight for key in keys for flight in self.matching(key)]
        every = itertools.chain(self.flights.values(), self.refreshes.values())
        return [flight for flight in every if flight.namespace == namespace]


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
