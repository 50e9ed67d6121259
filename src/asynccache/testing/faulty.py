"""A store that fails, stalls and corrupts on command, around one that works."""

from __future__ import annotations

import functools
import inspect
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Literal, TypeVar, cast, get_args

from msgspec import Struct
from msgspec.structs import replace

from asynccache.errors import StoreUnavailableError
from asynccache.keys.key import Namespace
from asynccache.stores import base
from asynccache.stores.base import UNKNOWN, Capabilities, Claimed, Page, Record, Store
from asynccache.testing.gate import Gate

Method = Literal[
    "open", "aclose", "peek", "get_many", "head_many", "set_many", "delete_many", "clear", "scan",
    "generations", "claim", "renew", "release", "wait",
]  # fmt: skip
"""The methods of a store that faults can be named for."""

_AnyMethod = TypeVar("_AnyMethod", bound=Callable[..., Any])
_T = TypeVar("_T")
_USUAL: Final = frozenset[Method](get_args(Method)) - {"open", "aclose", "peek"}
_READS: Final = frozenset[Method]({"peek", "get_many", "head_many", "claim", "scan"})


class Call(Struct, frozen=True):
    """One call that reached a `FaultyStore`."""

    method: Method
    """The name of the method."""
    size: int
    """The number of keys, records, claims or leases in the batch. 1 for methods without a batch."""


class _Damage(Struct):
    """Damage to bytes."""

    flip: int | None
    cut: int | None
    swap: bytes | None

    def __post_init__(self) -> None:
        if (self.flip, self.cut, self.swap) == (None, None, None):
            raise ValueError("say what to do with the bytes: flip=, cut= or swap=")

    def done_to(self, body: bytes) -> bytes:
        body = (body if self.swap is None else self.swap)[: self.cut]
        if self.flip is not None and body:
            changed = bytearray(body)
            changed[self.flip % len(body)] ^= 0xFF
            body = bytes(changed)
        return body


class _Fault(Struct):
    """What is to happen to calls."""

    methods: Collection[Method]
    left: int | None
    """How many more times it happens. None is without end."""
    after: bool
    """It happens after the inner store has done its work, not before."""
    act: Exception | Gate | _Damage


def _faulty(method: _AnyMethod) -> _AnyMethod:
    """Return an asynchronous method of a store as `FaultyStore` has it."""
    name = cast("Method", method.__name__)
    signature = inspect.signature(method)
    batched = signature.parameters.keys() & {"keys", "records", "claims", "leases"}

    async def call(self: FaultyStore, /, *args: object, **kwargs: object) -> object:
        bound = signature.bind(self, *args, **kwargs)
        self.log.append(Call(name, len(bound.args[2]) if batched else 1))
        given = await self._suffer(name, bound.args[1:], after=False)
        result = await getattr(self.inner, name)(*given, **bound.kwargs)
        return await self._suffer(name, result, after=True)

    # `updated=()` leaves out the mark that the method is abstract.
    return cast("_AnyMethod", functools.update_wrapper(call, method, updated=()))


class FaultyStore(Store):
    """A store that passes each call on to another store, and fails when a test says so.

    `fail`, `stall`, `corrupt_reads` and `corrupt_writes` arm faults. Faults act together, and last
    until they are used up or until `heal` is called. `open`, `aclose` and `peek` fail only if they
    are named.

    For example, this is a late miss: a lookup finds nothing, and returns after the entry was
    written::

        store = FaultyStore(MemoryStore(), hide_inline=True)
        gate = store.stall("get_many", after=True, times=1)
        lookup = asyncio.create_task(store.get_many(namespace, [key]))
        await gate.arrived()
        await store.set_many(namespace, [Record(key=key, body=body)])
        gate.release()
        assert await lookup == [None]

    Args:
        inner: The store that does the work.
        hide_inline: Let every `peek` return `UNKNOWN`, so that all lookups are asynchronous.
        capabilities: The capabilities to report instead of those of ``inner``.
    """

    def __init__(
        self, inner: Store, *, hide_inline: bool = False, capabilities: Capabilities | None = None
    ) -> None:
        self.inner = inner
        self.capabilities = capabilities or inner.capabilities
        if hide_inline:
            self.capabilities = replace(self.capabilities, inline=False, stable=False)
        self.log: list[Call] = []
        """All calls so far, in the order in which they began."""
        self._hide_inline = hide_inline
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()

    @property
    def calls(self) -> Counter[Method]:
        """How often each method was called. A batch is one call."""
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
            methods: The methods that fail. If none is named, all but `open`, `aclose` and `peek`.
            error: The error of which each call raises a copy. The default is a
                `StoreUnavailableError`.
            times: How many calls fail before the store works again. None means until `heal`.
            after: Let the inner store do its work before the call raises.
        """
        act = error or StoreUnavailableError("made to fail by a test")
        self._arm(_Fault(methods or _USUAL, times, after, act))

    def stall(self, *methods: Method, times: int | None = None, after: bool = False) -> Gate:
        """Make calls wait at the returned gate until the test releases it.

        Args:
            methods: The methods that wait, as for `fail`. `peek` never waits.
            times: How many calls wait. Later calls pass.
            after: Let the inner store answer first and hold its answer back. A lookup then returns
                what was there before the wait.
        """
        gate = Gate()
        self._arm(_Fault(methods or _USUAL, times, after, gate))
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
            methods: The methods whose answers are damaged. If none is named, all that return
                bytes.
            flip: The index of a byte whose bits are inverted. A negative index counts from the end.
            cut: How many bytes to keep.
            swap: The bytes to return instead.
            times: How many bodies are damaged. None means until `heal`.
        """
        self._arm(_Fault(methods or _READS, times, True, _Damage(flip, cut, swap)))

    def corrupt_writes(
        self,
        *,
        flip: int | None = None,
        cut: int | None = None,
        swap: bytes | None = None,
        times: int | None = None,
    ) -> None:
        """Damage the bytes that `set_many` stores. The arguments are those of `corrupt_reads`."""
        self._arm(_Fault({"set_many"}, times, False, _Damage(flip, cut, swap)))

    def heal(self) -> None:
        """Remove all faults and release all gates."""
        with self._lock:
            faults, self._faults = self._faults, []
        for fault in faults:
            if isinstance(fault.act, Gate):
                fault.act.release()

    open = _faulty(Store.open)
    aclose = _faulty(Store.aclose)
    get_many = _faulty(Store.get_many)
    head_many = _faulty(Store.head_many)
    set_many = _faulty(Store.set_many)
    delete_many = _faulty(Store.delete_many)
    clear = _faulty(Store.clear)
    scan = _faulty(Store.scan)
    generations = _faulty(Store.generations)
    claim = _faulty(Store.claim)
    renew = _faulty(Store.renew)
    release = _faulty(Store.release)
    wait = _faulty(Store.wait)

    def peek(self, namespace: Namespace, key: bytes) -> bytes | base.Unknown | None:
        self.log.append(Call("peek", 1))
        for error in self._due("peek", Exception, after=False):
            raise _fresh(error)
        found = UNKNOWN if self._hide_inline else self.inner.peek(namespace, key)
        return cast("bytes | base.Unknown | None", self._damaged("peek", found, after=True))

    @property
    def polls(self) -> tuple[float, float]:
        """The pauses between polls of the inner store, in seconds."""
        return self.inner.polls

    def counters(self) -> dict[base.Counted, int]:
        return self.inner.counters()

    async def _suffer(self, method: Method, value: object, *, after: bool) -> Any:  # noqa: ANN401 - as `value`
        """Let happen what is due, and return what that leaves of the arguments or the result."""
        # Gates first: a test may hold a call back, and only then decide that it fails.
        for gate in self._due(method, Gate, after=after):
            await gate.pass_through()
        for error in self._due(method, Exception, after=after):
            raise _fresh(error)
        return self._damaged(method, value, after=after)

    def _damaged(self, method: Method, value: object, *, after: bool) -> Any:  # noqa: ANN401 - as above
        damaged = functools.partial(self._damaged, method, after=after)
        match value:
            case bytes():
                for damage in self._due(method, _Damage, after=after):
                    value = damage.done_to(value)
                return value
            case list() | tuple():
                return [damaged(item) for item in cast("Sequence[object]", value)]
            case Record():
                return replace(value, body=damaged(value.body))
            case Claimed():
                return replace(value, entry=damaged(value.entry))
            case Page():
                return replace(value, envelopes=damaged(value.envelopes))
            case _:
                return value

    def _due(self, method: Method, kind: type[_T], *, after: bool) -> list[_T]:
        """Return what is due to happen to a call, which uses it up by one."""
        due: list[_T] = []
        with self._lock:
            for fault in self._faults:
                meant = fault.left != 0 and fault.after is after and method in fault.methods
                if meant and isinstance(fault.act, kind):
                    fault.left = fault.left and fault.left - 1
                    due.append(fault.act)
        return due

    def _arm(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)


def _fresh(error: Exception) -> Exception:
    # Raised twice, one object would carry the traceback of the first time into the second.
    return type(error)(*error.args)
