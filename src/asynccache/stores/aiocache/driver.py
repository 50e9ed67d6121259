"""The commands of an aiocache cache, below its serializer and plugins: names in, bytes in and out.

A serializer might run code on what it reads (pickle does), so none is asked; what isn't bytes is
nobody's entry. What is raised leaves as a `StoreError`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
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

Change: TypeAlias = Callable[[bytes | None], bytes | None]
"""Returns the new value for the one that is kept, None to leave it."""

_NEEDED: Final = ("_add", "_delete", "_get", "_multi_get", "_set")
_USED: Final = (*_NEEDED, "_gets")
_ATTEMPTS: Final = 100  # at a change that others are faster at, each time one of them succeeding
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
        self.home = Home(anywhere=not own, end=self._end if self._memcached else None)

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Return what is kept under names; None for nothing, and for what isn't bytes."""
        keys = {name: self._key(name) for name in names}
        found = await self._run(lambda: self._cache._multi_get(list(keys.values()), encoding=None))
        kept = dict(zip(keys, found, strict=True))
        return [_bytes(kept[name]) for name in names]

    async def set(self, name: str, value: bytes, ttl: int | None) -> None:
        """Keep a value for ``ttl`` seconds."""
        pair = (self._key(name), value)
        if self._redis:  # its `_set` uses commands that redis-py warns of
            await self._run(lambda: self._cache._multi_set([pair], ttl=ttl))
        else:
            await self._run(lambda: self._cache._set(*pair, ttl=self._seconds(ttl)))

    async def delete(self, name: str) -> bool:
        """Remove a value; tell if there was one."""
        return bool(await self._run(lambda: self._cache._delete(self._key(name))))

    async def update(
        self,
        name: str,
        change: Change,
        ttl: int | None,
        *,
        likely_new: bool = True,
    ) -> tuple[bytes | None, bool]:
        """Keep under a name what is made of what is there, with nobody coming between.

        Args:
            name: The name.
            change: Returns the new value for the old one, None to leave it.
            ttl: How many seconds the new value is kept.
            likely_new: Whether to try first as if nothing were there.

        Returns:
            The old value, and whether there is a new one.
        """

        async def work() -> tuple[bytes | None, bool]:
            first, new = change(None), likely_new
            for _ in range(_ATTEMPTS):
                if new and first is not None and await self._add(name, first, ttl):
                    return None, True
                found = await self._get(name)
                if found is not None:
                    mark, kept = found
                    value = change(kept)
                    if value is None:
                        return kept, False
                    if await self._replace(name, value, mark, ttl):
                        return kept, True
                elif first is None:
                    return None, False
                new = True
            raise StoreUnavailableError("the aiocache cache keeps nothing of what it is given")

        async def alone() -> tuple[bytes | None, bool]:
            async with self.home.turn:
                return await work()

        return await self.home.run(work if self.compares else alone)

    async def _add(self, name: str, value: bytes, ttl: int | None) -> bool:
        key, ttl = self._key(name), self._seconds(ttl)
        try:
            await self._run(lambda: self._cache._add(key, value, ttl=ttl))
        except StoreUnavailableError as exc:
            if type(exc.__cause__) is ValueError:  # there is one already
                return False
            raise
        return True

    async def _get(self, name: str) -> tuple[object, bytes] | None:
        """Return a value after what it can be replaced by; None if there is none."""
        key, mark = self._key(name), None
        if self.compares:
            mark = await self._run(lambda: self._cache._gets(key, encoding=None))
            if mark is None or not self._memcached:
                return None if mark is None else (mark, _bytes(mark) or b"")
        # The mark is older than the value: if it is good yet when it is used, so is the value.
        kept = await self._run(lambda: self._cache._get(key, encoding=None))
        return None if kept is None else (mark, _bytes(kept) or b"")

    async def _replace(self, name: str, value: bytes, mark: object, ttl: int | None) -> bool:
        """Keep a value in the place of the one that is marked; tell if that was there yet."""
        if not self.compares:  # nobody came between: this is the only one to change it
            await self.set(name, value, ttl)
            return True
        key, ttl = self._key(name), self._seconds(ttl)
        return bool(await self._run(lambda: self._cache._set(key, value, ttl=ttl, _cas_token=mark)))

    def _key(self, name: str) -> Any:  # noqa: ANN401 - str or bytes, as the cache has it
        return self._cache.build_key(name, namespace=self._cache.namespace)

    def _seconds(self, ttl: int | None) -> int | None:
        # An entry tells its own end: the cache's is there to free the room.
        return None if self._memcached and ttl is not None and ttl > _MONTH else ttl

    async def _run(self, command: Callable[[], Coroutine[Any, Any, Any]]) -> Any:  # noqa: ANN401 - replies
        try:
            return await self.home.run(lambda: self.home.command(command()))
        except Exception as exc:
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
