"""The cache as LangGraph's: ``builder.compile(cache=LangGraphCache())``, for nodes with a policy.

LangGraph's own serializer turns values into data, and builds them anew by classes on a list.
"""

from __future__ import annotations

import asyncio
import pickle
import secrets
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any, Final, cast

from msgspec import Struct, ValidationError

from asynccache.cache.facade import (
    AsyncCache,
    FrameworkCache,
    SyncCache,
    behind,
    computed,
    current_options,
    mode_in_force,
    options,
    values_of,
)
from asynccache.entries.entry import Entry
from asynccache.entries.equality import difference
from asynccache.entries.values import decode_value
from asynccache.errors import from_extra
from asynccache.keys.canonical import SCRIPTS
from asynccache.runtime import background

with from_extra("langgraph"):
    from langgraph.cache.base import BaseCache, FullKey, Namespace
    from langgraph.checkpoint.serde.base import SerializerProtocol
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

_TOKEN_BYTES: Final = 16  # too many to meet by chance
_LARGE: Final = 16 * 1024  # bytes: above, building objects of them may hold the loop
_DYNAMIC: Final = "__dynamic__"  # LangGraph's word for a node or task whose function it can't name
_NOT_PLAIN: Final = (
    "LangGraph: a node's result that doesn't come back from data as it was ({}); classes of your"
    " own are named in LangGraphCache(allowed=[...])"
)
_NAMELESS: Final = (
    "LangGraph: in a graph without a name only functions of imported modules are cached; of other"
    " nodes (async ones, methods, closures, a script's own) it doesn't say whose they are. Name it,"
    ' LangGraphCache(name="...")'
)
_SAME_NAME: Final = "LangGraph doesn't tell tasks apart that aren't functions"
_EACH: Final = 'LangGraph: sample="each" runs nodes anew; the calls they make are numbered'


class _Taken(Struct, frozen=True):
    """A result as it was when LangGraph handed it over."""

    key: FullKey
    ttl: int | None
    kind: str
    data: bytes
    held: bytes | None = None
    """The result itself, where it isn't compared yet with what comes back; never stored."""


class LangGraphCache(BaseCache[Any]):
    """Results of LangGraph's nodes, in an `AsyncCache`; a step's lookups are one batch.

    The sync methods work in any thread, as those of `LangChainCache` do.

    Args:
        cache: An `AsyncCache` or `SyncCache`; None takes the one in force around each call; where
            there is none, every lookup is a miss.
        name: The graph's, part of its keys: another for each graph that shares a store, and for
            each change of what nodes do. Without one, only nodes and tasks that are functions of an
            imported module are cached, and async nodes are not: LangGraph doesn't say which
            function it is.
        allowed: Classes of your own that results are made of; those of LangChain, LangGraph and
            the standard library that hold data are known. A result with another is not stored.
        serde: Another serializer, which then decides alone what may be built from stored bytes,
            and whether it is what was stored.

    Raises:
        TypeError: ``cache`` is no cache, ``name`` no str, or ``allowed`` doesn't hold classes.
        ValueError: ``name`` is empty.
    """

    def __init__(
        self,
        cache: AsyncCache | SyncCache | None = None,
        *,
        name: str | None = None,
        allowed: Iterable[type] = (),
        serde: SerializerProtocol | None = None,
    ) -> None:
        names = _names_of(allowed)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__qualname__}")
        if name == "":
            raise ValueError("name is empty")
        # Nothing that isn't on the list, whatever LangGraph's environment variable says.
        strict = JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=names or None)
        super().__init__(serde=serde or strict)
        self._trusted = serde is not None
        self._name = name
        self._framework = FrameworkCache(cache, "langgraph")

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """Return the values stored under keys, without those that aren't.

        Raises:
            ReplayMiss: In mode "replay", nothing is stored.
        """
        cache = self._framework.serving(reading=bool(keys))
        return {} if cache is None else await self._get(cache, keys)

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """Store values, each with its seconds to live; None leaves the cache's own.

        They are stored as they are when this is called, whatever becomes of them then.
        """
        cache = self._framework.serving(reading=False)
        if cache is not None:
            await self._set(cache, self._taken(cache, pairs, patient=True))

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Forget what is stored in namespaces of this graph; without any, clear the cache.

        What was forgotten can't be found again, though it takes its place until it expires or is
        evicted. Clearing the cache removes every entry of its namespace, whoever stored it.

        Raises:
            StoreError: Some may still be there.
            CacheClosedError: The cache isn't open.
        """
        cache = self._framework.named()
        if cache is not None:
            await _clear(cache, self._name, namespaces)

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """Return what `aget` does, to a caller that can't await."""
        cache = self._framework.serving_thread(reading=bool(keys))
        return {} if cache is None else background.call(self._get, cache, keys)

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """Store as `aset` does, for a caller that can't await."""
        cache = self._framework.serving_thread(reading=False)
        if cache is not None:
            background.call(self._set, cache, self._taken(cache, pairs, patient=False))

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Clear as `aclear` does, for a caller that can't await."""
        cache = self._framework.named()
        if cache is not None:
            background.call(_clear, cache, self._name, namespaces)

    # -- looking up ----------------------------------------------------------------------------

    async def _get(self, cache: AsyncCache, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        asked = [key for key in keys if self._served(cache, key)]
        tokens = await _tokens(cache, self._name, {tuple(namespace) for namespace, _ in asked})
        known = [key for key in asked if tuple(key[0]) in tokens]
        names = [_value_key(key, tokens[tuple(key[0])]) for key in known]
        entries = await values_of(cache).find_many(names)
        size = sum(len(entry.body) for entry in entries if entry is not None)
        if size > _LARGE:
            found = await asyncio.to_thread(self._built, known, entries)
        else:
            found = self._built(known, entries)
        told = dict(zip(known, zip(names, entries, strict=True), strict=True))
        for key in asked:
            name, entry = told.get(key, (None, None))
            self._framework.answered(cache, name, entry if key in found else None)
        return found

    def _served(self, cache: AsyncCache, key: FullKey) -> bool:
        """Tell whether a key is looked up; count it if not."""
        reason = self._reason(key)
        if reason is not None:
            self._framework.passed(cache, reason)
        return reason is None

    def _reason(self, key: FullKey) -> str | None:
        """Return why a key goes past the cache, None if it doesn't."""
        if current_options().samples is not None:
            return _EACH
        namespace = key[0]
        if len(namespace) < 2:  # noqa: PLR2004 - none of LangGraph's, which name a function second
            return None
        if self._name is None and not _is_known(namespace[1]):
            return _NAMELESS
        return _SAME_NAME if namespace[1:] == (_DYNAMIC,) else None

    def _built(
        self, keys: Sequence[FullKey], entries: Sequence[Entry | None]
    ) -> dict[FullKey, Any]:
        found: dict[FullKey, Any] = {}
        for key, entry in zip(keys, entries, strict=True):
            if entry is None:
                continue
            try:
                kind, data = decode_value(entry.body)
                found[key] = self.serde.loads_typed((kind, data))
            except Exception:  # noqa: BLE001, S112 - whatever a serializer says of bytes it can't read
                continue
        return found

    # -- storing -------------------------------------------------------------------------------

    def _taken(
        self, cache: AsyncCache, pairs: Mapping[FullKey, tuple[Any, int | None]], *, patient: bool
    ) -> list[_Taken]:
        """Return values as data, those that come back as they are; ``patient`` leaves some to do.

        Before anything is awaited, and in the caller's thread: later nodes may change them.
        """
        if mode_in_force(cache) not in {"read_write", "refresh"}:
            return []
        taken: list[_Taken] = []
        for key, (value, ttl) in pairs.items():
            if (ttl is not None and ttl <= 0) or self._reason(key) is not None:  # 0 has expired
                continue
            try:
                kind, data = self.serde.dumps_typed(value)
                wait = patient and len(data) > _LARGE and not self._trusted
                held = pickle.dumps(value) if wait else None
                lost = None if wait or self._trusted else self._lost(kind, data, value)
            except Exception as exc:  # noqa: BLE001 - whatever a class or a serializer says
                behind(cache).note_bypass(_NOT_PLAIN.format(f"{type(exc).__name__} raised"))
                continue
            if lost is None:
                taken.append(_Taken(key, ttl, kind, bytes(data), held))
            else:
                behind(cache).note_bypass(_NOT_PLAIN.format(lost))
        return taken

    def _lost(self, kind: str, data: bytes, value: Any) -> str | None:  # noqa: ANN401 - any result
        """Return what of a value doesn't come back from its data, None if all does."""
        # A node's writes are pairs, which come back as lists; LangGraph takes both.
        if type(value) in {list, deque}:
            pairs: list[Any] = [list(item) if _is_pair(item) else item for item in value]
            value = copy(value)
            value.clear()
            value.extend(pairs)
        return difference(value, self.serde.loads_typed((kind, data)))

    def _late(self, item: _Taken) -> str | None:
        try:
            return self._lost(item.kind, item.data, pickle.loads(item.held or b""))  # noqa: S301 - made above
        except Exception as exc:  # noqa: BLE001 - as above
            return f"{type(exc).__name__} raised"

    async def _set(self, cache: AsyncCache, taken: Sequence[_Taken]) -> None:
        by_ttl: dict[int | None, list[_Taken]] = {}
        for item in taken:
            lost = None if item.held is None else await asyncio.to_thread(self._late, item)
            if lost is None:
                by_ttl.setdefault(item.ttl, []).append(item)
            else:
                behind(cache).note_bypass(_NOT_PLAIN.format(lost))
        wanted = {tuple(item.key[0]) for items in by_ttl.values() for item in items}
        tokens = await _tokens(cache, self._name, wanted, make=True)
        for ttl, items in by_ttl.items():
            records = [
                (_value_key(item.key, tokens[tuple(item.key[0])]), [item.kind, bytes(item.data)])
                for item in items
            ]
            await cache.set_many(records, ttl=ttl)


def _names_of(allowed: object) -> list[tuple[str, str]]:
    kinds = list(cast("Iterable[object]", allowed)) if isinstance(allowed, Iterable) else [None]
    names = [(kind.__module__, kind.__name__) for kind in kinds if isinstance(kind, type)]
    if len(names) < len(kinds):
        raise TypeError(f"allowed must be a list of classes, e.g. [MyState], not {allowed!r}")
    return names


def _is_pair(item: object) -> bool:
    return type(item) is tuple


def _is_known(function: str) -> bool:
    """Tell whether LangGraph's name of a function can't be another's, in any program."""
    module, _, name = function.rpartition(".")
    return module not in SCRIPTS and hasattr(sys.modules.get(module), name)


def _value_key(key: FullKey, token: bytes) -> tuple[object, ...]:
    namespace, name = key
    return ("asynccache.langgraph/1", tuple(namespace), token, name)


def _token_key(namespace: Namespace, name: str | None) -> tuple[object, ...]:
    key = ("asynccache.langgraph.namespace/1", tuple(namespace))
    return key if name is None else (*key, name)


async def _tokens(
    cache: AsyncCache, name: str | None, namespaces: set[Namespace], *, make: bool = False
) -> dict[Namespace, bytes]:
    """Return the token of each namespace of a graph, part of its keys until it is cleared.

    It is random: what was stored under a token that is gone is never met again.
    """
    keys = {namespace: _token_key(namespace, name) for namespace in sorted(namespaces)}
    # A refresh overwrites results, not what they are found by; a token outlives them all, and is no
    # answer that a rule for answers could refuse.
    mode = "read_write" if mode_in_force(cache) == "refresh" else mode_in_force(cache)
    with options(mode=mode, ttl=None, sample=0, store_if=lambda _: True):
        found = zip(keys, await cache.get_many(list(keys.values())), strict=True)
        tokens = {namespace: token for namespace, token in found if type(token) is bytes}
        if make:
            for namespace, key in keys.items():
                if namespace not in tokens:
                    # One for all who want one now, in every process.
                    tokens[namespace] = await _made(cache, key)
    return tokens


async def _made(cache: AsyncCache, key: object) -> bytes:
    async def token() -> bytes:
        return secrets.token_bytes(_TOKEN_BYTES)

    try:
        value, _ = await computed(cache, "value", key, token, name="token", ttl=None, type=bytes)
    except ValidationError:  # somebody else's value
        await cache.delete(key)
        value, _ = await computed(cache, "value", key, token, name="token", ttl=None, type=bytes)
    made: bytes = value
    return made


async def _clear(
    cache: AsyncCache, name: str | None, namespaces: Sequence[Namespace] | None
) -> None:
    if namespaces is None:
        await cache.clear()
        return
    with options(sample=0):
        for namespace in namespaces:
            await cache.delete(_token_key(namespace, name))
