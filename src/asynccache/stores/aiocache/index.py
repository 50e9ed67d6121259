"""Which keys a namespace holds in an aiocache cache, since such a cache can't list its own.

The list is for scanning and counting alone: whether an entry counts is told by its generation, so
a part of the list that the cache has dropped costs entries that aren't shown, and no wrong answer.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final

from asynccache.errors import StoreFullError, StoreUnavailableError
from asynccache.stores.aiocache.driver import Driver
from asynccache.stores.aiocache.forms import (
    BUCKETS,
    GENERATION_BYTES,
    AiocacheNames,
    body_in,
    keys_in,
)

ATTEMPTS: Final = 100  # at a change that others are faster at, each time one of them succeeding
BATCH: Final = 256  # keys in one lookup
_CROWDED: Final = 1024  # keys in a part of the list, after which the dead are looked for


class Index:
    """The generation and the list of keys of each namespace.

    Args:
        driver: The cache.
        now: Tells the time in microseconds.
    """

    def __init__(self, driver: Driver, now: Callable[[], int]) -> None:
        self._driver = driver
        self._now = now

    async def generation(self, names: AiocacheNames, *, make: bool = False) -> bytes | None:
        """Return the number that the namespace's entries bear; None if there is none yet."""
        for _ in range(ATTEMPTS):
            (found,) = await self._driver.get_many([names.generation])
            if found is not None and len(found) == GENERATION_BYTES:
                return found
            if not make:
                return None
            new = secrets.token_bytes(GENERATION_BYTES)
            if await self._driver.add(names.generation, new, None):
                return new
            marked = await self._driver.marked(names.generation)
            if marked is None or len(marked[1]) == GENERATION_BYTES:
                continue  # others were faster
            if await self._driver.replace(names.generation, new, marked[0], None):
                return new  # in the place of what a stranger has left there
        raise StoreUnavailableError("the aiocache cache keeps nothing of what it is given")

    async def renewed(self, names: AiocacheNames) -> None:
        """Make all entries of a namespace those of the past."""
        await self._driver.set(names.generation, secrets.token_bytes(GENERATION_BYTES), None)

    async def list_keys(
        self, names: AiocacheNames, generation: bytes, keys: Sequence[bytes]
    ) -> None:
        """Note keys that are about to be written."""
        buckets: dict[int, list[bytes]] = {}
        for key in keys:
            buckets.setdefault(key[0], []).append(key)
        for number, part in buckets.items():
            try:
                async with self._driver.home.turn:
                    await self._add(names, generation, number, part)
            except StoreFullError:  # a list without end: the entries are kept and not shown
                return

    async def _add(
        self, names: AiocacheNames, generation: bytes, number: int, keys: list[bytes]
    ) -> None:
        name = names.bucket(generation, number)
        for _ in range(ATTEMPTS):
            marked = await self._driver.marked(name)
            if marked is None:
                if await self._driver.add(name, b"".join(dict.fromkeys(keys)), None):
                    return
                continue
            mark, kept = marked
            listed = keys_in(kept)
            new = [key for key in dict.fromkeys(keys) if key not in listed]
            if not new:
                return
            if len(listed) // _CROWDED < (len(listed) + len(new)) // _CROWDED:
                listed = await self._living(names, generation, list(listed))
            if await self._driver.replace(name, b"".join([*listed, *new]), mark, None):
                return
        raise StoreUnavailableError("the aiocache cache keeps nothing of what it is given")

    async def _living(
        self, names: AiocacheNames, generation: bytes, keys: Sequence[bytes]
    ) -> dict[bytes, None]:
        living: dict[bytes, None] = {}
        for start in range(0, len(keys), BATCH):
            part = keys[start : start + BATCH]
            kept = await self._driver.get_many([names.entry(key) for key in part])
            living.update(
                (key, None)
                for key, each in zip(part, kept, strict=True)
                if body_in(each, generation, self._now()) is not None
            )
        return living

    async def listed(
        self, names: AiocacheNames, generation: bytes, first: int, count: int
    ) -> list[bytes]:
        """Return the keys of so many parts of the list."""
        numbers = range(first, min(BUCKETS, first + count))
        kept = await self._driver.get_many([names.bucket(generation, n) for n in numbers])
        return [key for part in kept for key in keys_in(part)]

    async def drop(self, names: AiocacheNames, generation: bytes) -> None:
        """Remove the list of a generation that is past."""
        buckets = [names.bucket(generation, number) for number in range(BUCKETS)]
        for name, kept in zip(buckets, await self._driver.get_many(buckets), strict=True):
            if kept is not None:
                await self._driver.delete(name)
