"""Answers the calls of the SDK's clients that nobody wrapped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from asynccache.cache.facade import (
    AMBIENCES,
    NO_CACHE,
    AsyncCache,
    Bypass,
    Options,
    Outcome,
    Status,
    current_options,
    idle_watch,
)
from asynccache.entries.entry import Entry
from asynccache.openai.client.call import KeyedCall
from asynccache.openai.client.client_cache import ClientCache
from asynccache.openai.client.sdk import HTTP_LIBRARY
from asynccache.openai.client.upstream import OutboundCheck
from asynccache.openai.wrapping import CLIENT_CACHE, ENDPOINTS
from asynccache.providers.sending import current_sending

_CHANGED: Final = (
    "something beneath changes requests on their way, so that their answers can't be stored"
)
_ambience: Final = AMBIENCES["openai"]
_beneath: Final = AMBIENCES[HTTP_LIBRARY]
"""What holds for the HTTP client that the SDK stands on: it counts calls that pass, too."""


class AmbientClientCache(ClientCache):
    """Answers the calls of a client that nobody wrapped, from whatever cache is in force."""

    def __init__(self, client: Any) -> None:
        super().__init__(client, ENDPOINTS)
        self.methods: dict[int, tuple[object, Callable[..., Awaitable[Any]]]] = {}
        """By the identity of the method they stand in for, which wrappers of methods lie about."""

    def in_force(self) -> tuple[AsyncCache | None, Options]:
        options = current_options()
        return _ambience.in_force(options), options

    def watched(self, past: Bypass, path: str) -> AbstractContextManager[None]:
        if not idle_watch.over:
            idle_watch.past(past.reason or f"{path} in mode {past.mode}")
        return super().watched(past, path)

    def status(
        self, call: KeyedCall, entry: Entry, how: Outcome, parts: tuple[bytes, ...] = ()
    ) -> Status:
        if how != "miss":
            idle_watch.served()
        return super().status(call, entry, how, parts)

    def is_sent(self, check: OutboundCheck) -> bool:
        same = super().is_sent(check)
        if same:
            idle_watch.served()
        elif not idle_watch.over:
            idle_watch.past(_CHANGED)
        return same


def anything_to_do() -> bool:
    """Tell whether a call has anything to do with a cache, at the least cost where it hasn't."""
    return current_sending() is None and _ambience.in_force(current_options()) is not None


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
    if not idle_watch.over and _ambience.active and not _beneath.active:
        idle_watch.past(NO_CACHE)
    return True
