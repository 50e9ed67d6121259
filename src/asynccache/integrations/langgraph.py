"""The cache as LangGraph's: ``builder.compile(cache=LangGraphCache())``, for nodes with a policy.

LangGraph's own serializer turns values into data, and builds them anew by classes on a list.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from langgraph.cache.base import BaseCache, FullKey, Namespace
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from msgspec import ValidationError

from asynccache import _portal
from asynccache._cache import AsyncCache
from asynccache._context import options
from asynccache.integrations._host import (
    Face,
    answered,
    cache_for,
    cache_to_clear,
    checked,
    from_thread,
    mode_of,
)

_TOKEN_BYTES: Final = 16  # too many to meet by chance
_NOT_PLAIN: Final = (
    "LangGraph: a node's result that doesn't come back from data as it was; name its classes"
    " in LangGraphCache(allowed=[...])"
)


class LangGraphCache(BaseCache[Any]):
    """Results of LangGraph's nodes, in an `AsyncCache`; a step's lookups are one batch.

    The sync methods work in any thread, as those of `LangChainCache` do.

    Args:
        cache: An `AsyncCache` or `SyncCache`; None takes the one in force around each call; where
            there is none, every lookup is a miss.
        allowed: Classes of your own that results are made of; those of LangChain, LangGraph and
            the standard library that hold data are known. A result with another is not stored.
        serde: Another serializer, which then decides alone what may be built from stored bytes.

    Raises:
        TypeError: ``cache`` is no cache, or ``allowed`` doesn't hold classes.
    """

    def __init__(
        self,
        cache: AsyncCache | Face | None = None,
        *,
        allowed: Iterable[type] = (),
        serde: SerializerProtocol | None = None,
    ) -> None:
        names = _names_of(allowed)
        # Nothing that isn't on the list, whatever LangGraph's environment variable says.
        strict = JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=names or None)
        super().__init__(serde=serde or strict)
        self._cache = checked(cache)

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """Return the values stored under keys, without those that aren't."""
        cache = cache_for(self._cache, reading=bool(keys))
        return {} if cache is None else await self._get(cache, keys)

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """Store values, each with its seconds to live; None leaves the cache's own."""
        cache = cache_for(self._cache, reading=False)
        if cache is not None:
            await self._set(cache, pairs)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Forget what is stored in namespaces, and in no others; without any, clear the cache.

        What was forgotten can't be found again, though it takes its place until it expires or is
        evicted. Clearing the cache removes every entry of its namespace, whoever stored it.

        Raises:
            StoreError: Some may still be there.
            CacheClosedError: The cache isn't open.
        """
        cache = cache_to_clear(self._cache)
        if cache is not None:
            await _clear(cache, namespaces)

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """Return what `aget` does, to a caller that can't await."""
        return from_thread(self._cache, {}, self._get, keys, reading=bool(keys))

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """Store as `aset` does, for a caller that can't await."""
        from_thread(self._cache, None, self._set, pairs)

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Clear as `aclear` does, for a caller that can't await."""
        cache = cache_to_clear(self._cache)
        if cache is not None:
            _portal.call(_clear, cache, namespaces)

    async def _get(self, cache: AsyncCache, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        tokens = await _tokens(cache, {tuple(namespace) for namespace, _ in keys})
        asked = [(key, tokens[tuple(key[0])]) for key in keys if tuple(key[0]) in tokens]
        found: dict[FullKey, Any] = {}
        bodies = await cache.get_many([_value_key(key, token) for key, token in asked])
        for (key, _), body in zip(asked, bodies, strict=True):
            try:
                kind, data = body
                found[key] = self.serde.loads_typed((kind, data))
            except Exception:  # noqa: BLE001, S112 - whatever a serializer says of bytes it can't read
                continue
        for key in keys:
            answered(cache, hit=key in found)
        return found

    async def _set(
        self, cache: AsyncCache, pairs: Mapping[FullKey, tuple[Any, int | None]]
    ) -> None:
        if mode_of(cache) not in {"read_write", "refresh"}:
            return
        by_ttl: dict[int | None, list[tuple[FullKey, tuple[str, bytes]]]] = {}
        for key, (value, ttl) in pairs.items():
            if ttl is not None and ttl <= 0:  # it has expired already
                continue
            body = self._plain(value)
            if body is None:
                cache.note_bypass(_NOT_PLAIN)
            else:
                by_ttl.setdefault(ttl, []).append((key, body))
        wanted = {tuple(key[0]) for items in by_ttl.values() for key, _ in items}
        tokens = await _tokens(cache, wanted, make=True)
        for ttl, items in by_ttl.items():
            records = [(_value_key(key, tokens[tuple(key[0])]), body) for key, body in items]
            await cache.set_many(records, ttl=ttl)

    def _plain(self, value: object) -> tuple[str, bytes] | None:
        """Return a value as data, or None if it wouldn't come back as it is."""
        try:
            kind, data = self.serde.dumps_typed(value)
            back_kind, back = self.serde.dumps_typed(self.serde.loads_typed((kind, data)))
        except Exception:  # noqa: BLE001 - whatever a serializer says of what it can't take
            return None
        # What the list doesn't name comes back bare, without its class. A set may come back in
        # another order, which moves bytes and changes none.
        same = kind == back_kind and (data == back or sorted(data) == sorted(back))
        return (kind, bytes(data)) if same else None


def _names_of(allowed: object) -> list[tuple[str, str]]:
    kinds: list[object] = list(allowed) if isinstance(allowed, Iterable) else [None]
    names = [(kind.__module__, kind.__name__) for kind in kinds if isinstance(kind, type)]
    if len(names) < len(kinds):
        raise TypeError(f"allowed must be a list of classes, e.g. [MyState], not {allowed!r}")
    return names


def _value_key(key: FullKey, token: bytes) -> tuple[object, ...]:
    namespace, name = key
    return ("asynccache.langgraph/1", tuple(namespace), token, name)


def _token_key(namespace: Namespace) -> tuple[object, ...]:
    return ("asynccache.langgraph.namespace/1", namespace)


async def _tokens(
    cache: AsyncCache, namespaces: set[Namespace], *, make: bool = False
) -> dict[Namespace, bytes]:
    """Return the token of each namespace, which is part of its keys until it is cleared.

    It is random: what was stored under a token that is gone is never met again.
    """
    names = sorted(namespaces)
    # A refresh overwrites results, not what they are found by; and a token outlives them all.
    mode = "read_write" if mode_of(cache) == "refresh" else mode_of(cache)
    with options(mode=mode, ttl=None, sample=0):
        found = await cache.get_many([_token_key(name) for name in names])
        tokens = {
            name: token for name, token in zip(names, found, strict=True) if type(token) is bytes
        }
        if make:
            for name in names:
                if name not in tokens:
                    # One for all who want one now, in every process.
                    tokens[name] = await _made(cache, name)
    return tokens


async def _made(cache: AsyncCache, namespace: Namespace) -> bytes:
    async def token() -> bytes:
        return secrets.token_bytes(_TOKEN_BYTES)

    key = _token_key(namespace)
    try:
        return await cache.get_or_create(key, token, type=bytes)
    except ValidationError:  # somebody else's value
        await cache.delete(key)
        return await cache.get_or_create(key, token, type=bytes)


async def _clear(cache: AsyncCache, namespaces: Sequence[Namespace] | None) -> None:
    if namespaces is None:
        await cache.clear()
        return
    with options(sample=0):
        for namespace in namespaces:
            await cache.delete(_token_key(tuple(namespace)))
