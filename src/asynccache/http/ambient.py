"""Answers the requests of clients that nobody wrapped."""

from __future__ import annotations

from typing import Final, TypeVar

from asynccache.cache.facade import (
    AMBIENCES,
    NO_CACHE,
    AsyncCache,
    Bypass,
    Options,
    current_options,
    idle_watch,
)
from asynccache.http.exchange import HttpCache
from asynccache.http.request import Question
from asynccache.http.upstream import LibraryRequest
from asynccache.providers.sending import current_sending
from asynccache.providers.wire import WireRequest

R = TypeVar("R")


class AmbientHttpCache(HttpCache):
    """Answers the requests of one library's clients from whatever cache is in force.

    Args:
        library: Its name.
    """

    def __init__(self, library: str) -> None:
        super().__init__()
        self._library: Final = library
        self._ambience: Final = AMBIENCES[library]

    def in_force(self) -> tuple[AsyncCache | None, Options]:
        options = current_options()
        return self._ambience.in_force(options), options

    def is_asked(self) -> bool:
        if current_sending() is not None or not self._ambience.active:
            return False
        return not idle_watch.over or self._ambience.in_force(current_options()) is not None

    def is_told_beneath(self, inner: object) -> bool:
        """Tell whether another library beneath tells of a request that no cache serves.

        Args:
            inner: The transport, which may stand on aiohttp.
        """
        if not AMBIENCES["aiohttp"].active or type(inner).__module__.startswith(self._library):
            return False
        return self.in_force()[0] is None

    def question(self, wire: WireRequest) -> Question | None:
        found = super().question(wire)
        if found is None or self.in_force()[0] is not None:
            return found
        if not idle_watch.over:
            idle_watch.past(NO_CACHE)
        return None

    async def bypass(self, past: Bypass, request: LibraryRequest[R], question: Question) -> R:
        if not idle_watch.over:
            idle_watch.past(past.reason or f"{question.path} in mode {past.mode}")
        return await super().bypass(past, request, question)

    def note_answer(self) -> None:
        idle_watch.served()
