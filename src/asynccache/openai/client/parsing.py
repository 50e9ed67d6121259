"""What the SDK's own parsing says of an answer: where it fails, nobody gets the answer again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from asynccache.cache.facade import Reader, Scope, Status
from asynccache.entries.entry import Entry
from asynccache.runtime.loops import call_in

_PARSING: Final = "_asynccache_parsing"
_WHENCE: Final = {
    "hit": "from the cache",
    "joined": "from another caller's call",
    "miss": "from the server",
}
_REPLAYED: Final = "It is replayed as it was recorded; to ask anew,"
_REJECTED: Final = (
    "The cache gives it to nobody again, unless another caller could use it. To ask anew in any"
    " case,"
)


def mark(response: object, status: Status) -> None:
    """Note on a response where it came from, for `asynccache.status`."""
    try:  # noqa: SIM105 - suppress() would cost as much as all the rest
        object.__setattr__(response, "_asynccache_status", status)
    except (AttributeError, TypeError):  # text and null, from servers that answer so
        pass


class Parsing:
    """Watches what becomes of one answer that is parsed.

    Args:
        scope: Where it was asked for.
        entry: The answer, or its head where a reader has the rest.
        status: What `asynccache.status` says of it.
        reader: Of a stream that is still coming.
    """

    __slots__ = ("_entry", "_reader", "_scope", "_status")

    def __init__(self, scope: Scope, entry: Entry, status: Status, reader: Reader | None) -> None:
        self._scope = scope
        self._entry = entry
        self._status = status
        self._reader = reader

    def watched(self, parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a function of the SDK's that parses the answer, watched."""

        def parsed(result: Any) -> Any:
            try:
                found = parse(result)
            except Exception as exc:
                self.failed(exc)
                raise
            if holds_parsed(found):
                self.succeeded()
            return found

        return parsed

    def succeeded(self) -> None:
        """Note that a caller could use the answer."""
        self._in_loop(self._accept)

    def failed(self, error: BaseException) -> None:
        """Keep the answer from being given again, and tell its caller where it came from."""
        scope, status = self._scope, self._status
        replayed = scope.mode == "replay"
        mark(error, status)
        error.add_note(
            f"asynccache: this answer came {_WHENCE[status.outcome]} (key {status.key}, recorded"
            f" {status.age:.0f} s ago). {_REPLAYED if replayed else _REJECTED}"
            " call under asynccache.options(mode='refresh'), or remove it: cache.forget(error)."
        )
        if not replayed:
            self._in_loop(self._reject)

    def _accept(self) -> None:
        if (entry := self._whole()) is not None:
            self._scope.client.accept(entry)

    def _reject(self) -> None:
        scope, entry = self._scope, self._whole()
        if entry is not None:
            scope.engine.reject(scope.namespace, entry, storing=scope.mode != "read_only")
        elif self._reader is not None and (task := self._reader.flight.task) is not None:
            self._reader.flight.ending = False  # of no use, unless somebody else reads it
            task.add_done_callback(self._reject_whole)

    def _reject_whole(self, _: object) -> None:
        if self._whole() is not None:
            self._reject()

    def _whole(self) -> Entry | None:
        """Return the answer, None if it isn't whole yet, or will never be."""
        return self._entry if self._reader is None else self._reader.flight.entry

    def _in_loop(self, function: Callable[[], object]) -> None:
        """Call a function in the loop of the answer's engine: at once, if that runs here."""
        loop = self._scope.engine.loop
        if asyncio._get_running_loop() is loop:
            function()
        else:
            call_in(loop, function)


def parsing_of(stream: object) -> Parsing | None:
    """Return what watches a stream that came through a cache, if somebody will parse it."""
    found = getattr(stream, _PARSING, None)
    return found if isinstance(found, Parsing) else None


def note_parsing(stream: object, parsing: Parsing | None) -> None:
    """Note on a stream what watches it; see `parsing_of`."""
    object.__setattr__(stream, _PARSING, parsing)


def holds_parsed(found: Any) -> bool:
    """Tell whether the SDK has parsed anything into a class of the caller's."""
    if getattr(found, "output_parsed", None) is not None:
        return True
    said = [getattr(one, "message", None) for one in getattr(found, "choices", None) or ()]
    calls: list[Any] = [*(getattr(found, "output", None) or ())]
    for message in said:
        if getattr(message, "parsed", None) is not None:
            return True
        calls.extend(
            getattr(one, "function", None) for one in getattr(message, "tool_calls", None) or ()
        )
    return any(getattr(call, "parsed_arguments", None) is not None for call in calls)
