"""The commands of an aiocache cache, below its serializer and plugins: names in, bytes in and out.

A serializer might run code on what it reads (pickle does), so none is asked; what isn't bytes is
nobody's entry. What is raised leaves as a `StoreError`.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeAlias, cast

from asynccache.errors import (
    StoreAuthError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from asynccache.stores.aiocache.home import Home

Mark: TypeAlias = object
"""What a value can be replaced by, if it is unchanged: compare and set."""

_NEEDED: Final = ("_add", "_delete", "_get", "_multi_get", "_set")
_USED: Final = (*_NEEDED, "_gets")
_MONTH: Final = 30 * 86_400  # seconds: memcached takes longer ones for a date
_MEANINGS: Final[tuple[tuple[str, type[StoreError]], ...]] = (
    ("too large", StoreFullError), ("out of memory", StoreFullError), ("OOM", StoreFullError),
    ("TimeoutError", StoreTimeoutError), ("ReadOnlyError", StoreReadOnlyError),
    ("AuthenticationError", StoreAuthError), ("NoPermissionError", StoreDeniedError),
)  # fmt: skip


def mapped(exc: Exception) -> StoreError:
    """Return the error of a store that an error of a cache's is; raise it ``from`` the latter."""
    if isinstance(exc, StoreError):
        return exc
    kinds = {kind.__name__ for kind in type(exc).__mro__}
    said = str(exc)
    for sign, error in _MEANINGS:
        if sign in kinds or sign in said:
            return error(f"the aiocache cache didn't take a command: {exc!r}")
    return StoreUnavailableError(f"the aiocache cache can't be used: {exc!r}")


class Driver:
    """One cache.

    Args:
        cache: An instance of aiocache's ``BaseCache``.

    Raises:
        TypeError: It is none, or lacks a command.
    """

    def __init__(self, cache: Any) -> None:  # noqa: ANN401 - aiocache has no types
        kind = cast("Any", type(cache))
        kinds = {f"{each.__module__}.{each.__qualname__}": each for each in kind.__mro__}
        name = f"{kind.__module__}.{kind.__qualname__}"
        base = kinds.get("aiocache.base.BaseCache")
        if base is None:
            raise TypeError(f"cache must be an instance of an aiocache cache, not of {name}")
        lacking = [each for each in _NEEDED if getattr(kind, each) is getattr(base, each)]
        if lacking:
            raise TypeError(f"{name} can't keep entries: it lacks {', '.join(lacking)}")
        self._cache = cache
        memory = kinds.get("aiocache.backends.memory.SimpleMemoryBackend")
        self.memory = memory is not None
        self._redis = "aiocache.backends.redis.RedisBackend" in kinds
        self._memcached = "aiocache.backends.memcached.MemcachedBackend" in kinds
        self.shared = self._redis or self._memcached
        """Other processes see what this one does."""
        self.compares = self.memory or self.shared
        """It has compare and set, by which leases are kept."""
        if self._memcached:
            _made_to_notice_the_end(cache.client)
        # A subclass' own commands may wait, for whatever they like.
        own = [each for each in _USED if getattr(kind, each) is not getattr(memory, each, None)]
        self.home = Home(roaming=not own, end=self._end if self._memcached else None)

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Return what is kept under names; None for nothing, and for what isn't bytes."""
        unique = list(dict.fromkeys(names))
        found = await self._command(
            self._cache._multi_get([self._key(name) for name in unique], encoding=None)
        )
        kept = dict(zip(unique, found, strict=True))
        return [_bytes(kept[name]) for name in names]

    async def set(self, name: str, value: bytes, ttl: int | None) -> None:
        """Keep a value for ``ttl`` seconds."""
        pair = (self._key(name), value)
        if self._redis:  # its `_set` uses commands that redis-py warns of
            await self._command(self._cache._multi_set([pair], ttl=ttl))
        else:
            await self._command(self._cache._set(*pair, ttl=self._seconds(ttl)))

    async def add(self, name: str, value: bytes, ttl: int | None) -> bool:
        """Keep a value if nothing is kept under the name; tell if it was so."""
        try:
            await self._command(
                self._cache._add(self._key(name), value, ttl=self._seconds(ttl)), refusal=True
            )
        except ValueError:
            return False
        return True

    async def delete(self, name: str) -> bool:
        """Remove a value; tell if there was one."""
        return bool(await self._command(self._cache._delete(self._key(name))))

    async def marked(self, name: str) -> tuple[Mark, bytes] | None:
        """Return a value and what it can be replaced by; None if there is none."""
        if not self.compares:
            kept = await self._command(self._cache._get(self._key(name), encoding=None))
            return None if kept is None else (None, _bytes(kept) or b"")
        mark = await self._command(self._cache._gets(self._key(name), encoding=None))
        if mark is None or not self._memcached:
            return None if mark is None else (mark, _bytes(mark) or b"")
        # The mark is older than the value: if it is good yet when it is used, so is the value.
        kept = await self._command(self._cache._get(self._key(name), encoding=None))
        return None if kept is None else (mark, kept)

    async def replace(self, name: str, value: bytes, mark: Mark, ttl: int | None) -> bool:
        """Keep a value in the place of the one that was marked; tell if that was there yet.

        A cache that can't compare replaces whatever is there.
        """
        if not self.compares:
            await self.set(name, value, ttl)
            return True
        return bool(
            await self._command(
                self._cache._set(self._key(name), value, ttl=self._seconds(ttl), _cas_token=mark)
            )
        )

    def _key(self, name: str) -> Any:  # noqa: ANN401 - str or bytes, as the cache has it
        return self._cache.build_key(name, namespace=self._cache.namespace)

    def _seconds(self, ttl: int | None) -> int | None:
        # An entry tells its own end: the cache's is there to free the room.
        return None if self._memcached and ttl is not None and ttl > _MONTH else ttl

    async def _command(self, command: Coroutine[Any, Any, Any], *, refusal: bool = False) -> Any:  # noqa: ANN401 - replies
        try:
            return await self.home.command(command)
        except Exception as exc:
            if refusal and type(exc) is ValueError:
                raise
            raise mapped(exc) from exc

    def _end(self) -> None:
        """Let what memcached doesn't answer fail, so that its connections are closed."""
        for connection in list(self._cache.client._pool._in_use):
            connection.reader.set_exception(TimeoutError("memcached didn't answer"))


def _bytes(kept: object) -> bytes | None:
    return kept if isinstance(kept, bytes) else None


def _made_to_notice_the_end(client: Any) -> None:  # noqa: ANN401 - an aiomcache.Client
    """Keep aiomcache from asking a connection that has ended for a line, for ever and in one go."""

    async def execute(connection: Any, command: bytes) -> bytes:  # noqa: ANN401 - aiomcache's
        connection.writer.write(command)
        await connection.writer.drain()
        line: bytes = await connection.reader.readuntil(b"\r\n")
        return line[:-2]

    client._execute_simple_command = execute
