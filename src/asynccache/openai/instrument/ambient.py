"""The cache in force for clients that nobody wrapped, and what is told of their calls."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from msgspec import UNSET

from asynccache.cache.facade import (
    AsyncCache,
    Bypass,
    Options,
    Outcome,
    Status,
    current_cache,
    current_options,
)
from asynccache.entries.entry import Entry
from asynccache.openai.client.call import KeyedCall
from asynccache.openai.client.client_cache import ClientCache
from asynccache.openai.client.upstream import OutboundCheck
from asynccache.openai.wrapping import CLIENT_CACHE, ENDPOINTS
from asynccache.providers.sending import current_sending

_log = logging.getLogger("asynccache")

_FIRST: Final = 100  # calls after which it should show that something is served
_NO_CACHE: Final = (
    "there was no cache around it: open one with `async with` or `with` around the calls, or name"
    " one with set_default_cache or instrument_openai(cache)"
)


_CHANGED: Final = (
    "something beneath changes requests on their way, so that their answers can't be stored"
)


class IdleWatch:
    """Says why nothing is served, if that is so: once in the life of a process."""

    def __init__(self) -> None:
        self.over = False
        self._calls = 0
        self._reason = ""
        self._lock = threading.Lock()

    def past(self, reason: str) -> None:
        """Count a call that no cache has served."""
        with self._lock:
            self._calls += 1
            self._reason = reason
            if self.over or self._calls < _FIRST:
                return
            self.over = True
        _log.warning(
            "openai is instrumented, but of its first %d calls no cache served any; the last one:"
            " %s",
            _FIRST,
            reason,
        )

    def served(self) -> None:
        """Note that all is well."""
        self.over = True


class Ambience:
    """What holds for the whole process."""

    def __init__(self) -> None:
        self.active = False
        self.cache: AsyncCache | None = None
        """For calls around which no other is in force."""
        self.watch = IdleWatch()


ambience: Final = Ambience()


class AmbientClientCache(ClientCache):
    """Answers the calls of a client that nobody wrapped, from whatever cache is in force."""

    def __init__(self, client: Any) -> None:
        super().__init__(client, ENDPOINTS)
        self.methods: dict[int, tuple[object, Callable[..., Awaitable[Any]]]] = {}
        """By the identity of the method they stand in for, which wrappers of methods lie about."""

    def in_force(self) -> tuple[AsyncCache | None, Options]:
        options = current_options()
        return _in_force(options), options

    def note_bypass(self, past: Bypass, path: str) -> None:
        if not ambience.watch.over:
            ambience.watch.past(past.reason or f"{path} in mode {past.mode}")
        super().note_bypass(past, path)

    def status(
        self, call: KeyedCall, entry: Entry, how: Outcome, parts: tuple[bytes, ...] = ()
    ) -> Status:
        if how != "miss":
            ambience.watch.served()
        return super().status(call, entry, how, parts)

    def is_sent(self, check: OutboundCheck) -> bool:
        same = super().is_sent(check)
        if same:
            ambience.watch.served()
        elif not ambience.watch.over:
            ambience.watch.past(_CHANGED)
        return same


def _in_force(options: Options) -> AsyncCache | None:
    if options.cache is not UNSET:
        return cast("AsyncCache | None", options.cache)
    return current_cache() or ambience.cache


def anything_to_do() -> bool:
    """Tell whether a call has anything to do with a cache, at the least cost where it hasn't."""
    return (
        ambience.active and current_sending() is None and _in_force(current_options()) is not None
    )


def client_cache_of(client: Any) -> AmbientClientCache:
    kept: dict[str, Any] = client.__dict__
    found: Any = kept.get(CLIENT_CACHE)
    if isinstance(found, AmbientClientCache) and found.client is client:  # another's in copies
        return found
    made = kept[CLIENT_CACHE] = AmbientClientCache(client)
    return made


def passes() -> bool:
    """Tell whether a request is none of ours."""
    if anything_to_do():
        return False
    if ambience.active and not ambience.watch.over:
        ambience.watch.past(_NO_CACHE)
    return True
