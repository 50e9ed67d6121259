"""The cache in force for clients that nobody wrapped, and what is told of their calls."""

from __future__ import annotations

import itertools
import logging
from typing import Final, cast

from msgspec import UNSET

from asynccache.cache.cache import AsyncCache
from asynccache.cache.in_force import Options
from asynccache.cache.scopes import current_cache

_log = logging.getLogger("asynccache")

_FIRST: Final = 100  # calls after which it should show that something is served
NO_CACHE: Final = (
    "there was no cache around it: open one with `async with` or `with` around the calls, or name"
    " one with set_default_cache or instrument(cache)"
)


class Ambience:
    """What holds for one library in the whole process."""

    def __init__(self) -> None:
        self.active = False
        self.cache: AsyncCache | None = None
        """For calls around which no other is in force."""

    def in_force(self, options: Options) -> AsyncCache | None:
        """Return the cache that a call goes to, None for none."""
        if not self.active:
            return None
        if options.cache is not UNSET:
            return cast("AsyncCache | None", options.cache)
        return current_cache() or self.cache


AMBIENCES: Final = {name: Ambience() for name in ("aiohttp", "httpx", "httpx2", "openai")}
"""By the name of the library."""


class IdleWatch:
    """Says why nothing is served, if that is so: once in the life of a process."""

    def __init__(self) -> None:
        self.over = False
        self.numbers = itertools.count(1)

    def past(self, reason: str) -> None:
        """Count a call that no cache has served."""
        if next(self.numbers) == _FIRST and not self.over:  # once, in whichever thread
            self.over = True
            _log.warning(
                "this process is instrumented, but of its first %d calls no cache served any; the"
                " last one: %s",
                _FIRST,
                reason,
            )

    def served(self) -> None:
        """Note that all is well."""
        self.over = True


idle_watch: Final = IdleWatch()
