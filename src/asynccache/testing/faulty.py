"""A store that fails, stalls and corrupts on command, around one that works."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, Literal, TypeVar, get_args

import msgspec
from msgspec import Struct

from asynccache.errors import StoreUnavailableError
from asynccache.keys.key import Namespace
from asynccache.stores.base import (
    UNKNOWN,
    Capabilities,
    Claim,
    Claimed,
    Counted,
    Lease,
    Page,
    Record,
    Store,
    Unknown,
)
from asynccache.testing.gate import Gate

Method = Literal[
    "open", "aclose", "peek", "get_many", "head_many", "set_many", "delete_many", "clear", "scan",
    "claim", "renew", "release", "wait",
]  # fmt: skip
"""The methods of a store that faults can be named for."""

_T = TypeVar("_T")
_USUAL: Final = frozenset[Method](get_args(Method)) - {"open", "aclose", "peek"}
_READS: Final = frozenset[Method]({"peek", "get_many", "head_many", "claim", "scan"})


class Call(Struct, frozen=True):
    """One call that reached a `FaultyStore`."""

    method: Method
    size: int
    """Keys, records or leases asked about; 1 where a method takes no batch."""


class _Fault:
    """Something armed to happen: to which methods, how often, before or after the real call."""

    def __init__(
        self,
        methods: Collection[Method],
        times: int | None,
        *,
        after: bool,
        act: Exception | Gate | Callable[[bytes], bytes],
    ) -> None:
        self.methods = frozenset(methods or _USUAL)
        self.left = times
        self.after = after
        self.act = act

    def take(self, method: Method) -> bool:
        """Use the fault up by one if it is meant for this method."""
        if self.left == 0 or method not in self.methods:
            return False
        if self.left is not None:
            self.left -= 1
        return True


class FaultyStore(Store):
    """A store that passes everything on to another, and misbehaves when it is told to.

    Faults are armed by `fail`, `stall`, `corrupt_reads` and `corrupt_writes`, act together, and
    last until they are used up or `heal` is called. `open`, `aclose` and `peek` have faults only
    where they are named.

    Args:
        inner: The store that does the work.
        hide_inline: Answer every `peek` with `UNKNOWN`, so that lookups become asynchronous.
        capabilities: What to claim to be capable of, instead of what ``inner`` says.

    Example:
        The late miss: a lookup that found nothing, and comes back after the entry was written. ::

            store = FaultyStore(MemoryStore(), hide_inline=True)
            gate = store.stall("get_many", after=True, times=1)
            lookup = asyncio.create_task(store.get_many(namespace, [key]))
            await gate.arrived()
            await store.set_many(namespace, [Record(key=key, body=body)])
            gate.release()
            assert await lookup == [None]
    """

    def __init__(
        self,
        inner: Store,
        *,
        hide_inline: bool = False,
        capabilities: Capabilities | None = None,
    ) -> None:
        self.inner = inner
        self.capabilities = capabilities or inner.capabilities
        if hide_inline:
            self.capabilities = msgspec.structs.replace(
                self.capabilities, inline=False, stable=False
            )
        self.log: list[Call] = []
        """Every call so far, in the order of their beginnings."""
        self._hide_inline = hide_inline
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()

    @property
    def calls(self) -> Counter[Method]:
        """How often each method was called; a batch is one call."""
        return Counter(call.method for call in self.log)

    def fail(
        self,
        *methods: Method,
        error: Exception | None = None,
        times: int | None = None,
        after: bool = False,
    ) -> None:
        """Make calls raise.

        Args:
            methods: Which ones; all but `open`, `aclose` and `peek` if none is named.
            error: What to raise, each time as a fresh copy; `StoreUnavailableError` if not given.
            times: How many calls fail before the store recovers; None is until `heal`.
            after: Let the inner store do its work first: what was asked for happened, but nobody
                gets to know.
        """
        act = error or StoreUnavailableError("made to fail by a test")
        self._arm(_Fault(methods, times, after=after, act=act))

    def stall(self, *methods: Method, times: int | None = None, after: bool = False) -> Gate:
        """Make calls wait at the gate that is returned, until it is released.

        Args:
            methods: Which ones, as for `fail`. `peek` can't wait and never does.
            times: How many calls wait; those after them pass.
            after: Let the inner store answer first and hold back its answer: a lookup released
                later tells how things were before.
        """
        gate = Gate()
        self._arm(_Fault(methods, times, after=after, act=gate))
        return gate

    def corrupt_reads(
        self,
        *methods: Method,
        flip: int | None = None,
        cut: int | None = None,
        swap: bytes | None = None,
        times: int | None = None,
    ) -> None:
        """Damage the bytes that reads return.

        Args:
            methods: Which ones; all that return bytes if none is named.
            flip: Index of the byte whose bits to turn over; negative counts from the end.
            cut: How many bytes to keep.
            swap: What to return in place of what is there.
            times: How many bodies are damaged; None is until `heal`.
        """
        self._arm(_Fault(methods or _READS, times, after=True, act=_damage(flip, cut, swap)))

    def corrupt_writes(
        self,
        *,
        flip: int | None = None,
        cut: int | None = None,
        swap: bytes | None = None,
        times: int | None = None,
    ) -> None:
        """Damage the bytes that `set_many` stores; the arguments are those of `corrupt_reads`."""
        self._arm(_Fault({"set_many"}, times, after=False, act=_damage(flip, cut, swap)))

    def heal(self) -> None:
        """Disarm everything and release every gate."""
        with self._lock:
            faults, self._faults = self._faults, []
        for fault in faults:
            if isinstance(fault.act, Gate):
                fault.act.release()

    async def open(self, *, read_only: bool = False) -> None:
        await self._call("open", 1, lambda: self.inner.open(read_only=read_only))

    async def aclose(self) -> None:
        await self._call("aclose", 1, self.inner.aclose)

    def peek(self, namespace: Namespace, key: bytes) -> bytes | Unknown | None:
        self._note("peek", 1)
        for act in self._due("peek", after=False, kind=Exception):
            raise _fresh(act)
        if self._hide_inline:
            return UNKNOWN
        found = self.inner.peek(namespace, key)
        return found if found is UNKNOWN else self._damaged("peek", found)

    async def get_many(self, namespace: Namespace, keys: Sequence[bytes]) -> list[bytes | None]:
        found = await self._call(
            "get_many", len(keys), lambda: self.inner.get_many(namespace, keys)
        )
        return [self._damaged("get_many", body) for body in found]

    async def head_many(self, namespace: Namespace, keys: Sequence[bytes]) -> list[bytes | None]:
        found = await self._call(
            "head_many", len(keys), lambda: self.inner.head_many(namespace, keys)
        )
        return [self._damaged("head_many", head) for head in found]

    async def set_many(self, namespace: Namespace, records: Sequence[Record]) -> Sequence[bool]:
        async def store() -> Sequence[bool]:
            damaged = [self._damaged_record(record) for record in records]
            return await self.inner.set_many(namespace, damaged)

        return await self._call("set_many", len(records), store)

    async def delete_many(self, namespace: Namespace, keys: Sequence[bytes]) -> int:
        return await self._call(
            "delete_many", len(keys), lambda: self.inner.delete_many(namespace, keys)
        )

    async def clear(self, namespace: Namespace) -> int:
        return await self._call("clear", 1, lambda: self.inner.clear(namespace))

    async def scan(self, namespace: Namespace, cursor: str | None = None) -> Page:
        page = await self._call("scan", 1, lambda: self.inner.scan(namespace, cursor))
        heads = [self._damaged("scan", head) for head in page.envelopes]
        return Page(envelopes=[head for head in heads if head is not None], cursor=page.cursor)

    async def claim(
        self, namespace: Namespace, claims: Sequence[Claim], ttl: float
    ) -> list[Claimed]:
        answers = await self._call(
            "claim", len(claims), lambda: self.inner.claim(namespace, claims, ttl)
        )
        return [
            msgspec.structs.replace(answer, entry=self._damaged("claim", answer.entry))
            for answer in answers
        ]

    async def renew(
        self, namespace: Namespace, leases: Sequence[Lease], ttl: float
    ) -> Sequence[bool]:
        return await self._call(
            "renew", len(leases), lambda: self.inner.renew(namespace, leases, ttl)
        )

    async def release(self, namespace: Namespace, leases: Sequence[Lease]) -> None:
        await self._call("release", len(leases), lambda: self.inner.release(namespace, leases))

    async def wait(self, namespace: Namespace, key: bytes, timeout: float) -> None:
        await self._call("wait", 1, lambda: self.inner.wait(namespace, key, timeout))

    @property
    def polls(self) -> tuple[float, float]:
        """As the store behind."""
        return self.inner.polls

    def counters(self) -> dict[Counted, int]:
        return self.inner.counters()

    async def _call(self, method: Method, size: int, work: Callable[[], Awaitable[_T]]) -> _T:
        self._note(method, size)
        await self._suffer(method, after=False)
        result = await work()
        await self._suffer(method, after=True)
        return result

    async def _suffer(self, method: Method, *, after: bool) -> None:
        # Gates first: a test may hold a call back, and only then decide that it fails.
        for gate in self._due(method, after=after, kind=Gate):
            await gate.pass_through()
        for error in self._due(method, after=after, kind=Exception):
            raise _fresh(error)

    def _due(self, method: Method, *, after: bool, kind: type[_T]) -> list[_T]:
        with self._lock:
            return [  # pyright: ignore[reportReturnType]  # it doesn't follow `kind` into the list
                fault.act
                for fault in self._faults
                if isinstance(fault.act, kind) and fault.after is after and fault.take(method)
            ]

    def _damaged(self, method: Method, body: bytes | None) -> bytes | None:
        return None if body is None else self._through(method, body)

    def _damaged_record(self, record: Record) -> Record:
        if not any(callable(fault.act) for fault in self._faults):
            return record
        return msgspec.structs.replace(record, body=self._through("set_many", record.body))

    def _through(self, method: Method, body: bytes) -> bytes:
        with self._lock:
            due = [f.act for f in self._faults if callable(f.act) and f.take(method)]
        for act in due:
            body = act(body)
        return body

    def _note(self, method: Method, size: int) -> None:
        with self._lock:
            self.log.append(Call(method, size))

    def _arm(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)


def _fresh(error: Exception) -> Exception:
    # Raised twice, one object would carry the traceback of the first time into the second.
    return type(error)(*error.args)


def _damage(flip: int | None, cut: int | None, swap: bytes | None) -> Callable[[bytes], bytes]:
    if (flip, cut, swap) == (None, None, None):
        raise ValueError("say what to do with the bytes: flip=, cut= or swap=")

    def damaged(body: bytes) -> bytes:
        if swap is not None:
            body = swap
        if cut is not None:
            body = body[:cut]
        if flip is not None and body:
            changed = bytearray(body)
            changed[flip % len(body)] ^= 0xFF
            body = bytes(changed)
        return body

    return damaged
