"""Every client at once: the SDK's classes send cacheable calls to the cache in force."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final, Self

from asynccache.cache.facade import AsyncCache
from asynccache.openai.instrument.ambient import ambience
from asynccache.openai.instrument.patches import patch_all, unpatch_all

_lock: Final = threading.RLock()
_standing: Final[list[Instrumentation]] = []
"""What holds, oldest first. One at most is for the rest of the process, the others for blocks."""


class Instrumentation:
    """The SDK as it is instrumented; as a context manager, until the block is left.

    Args:
        cache: For calls around which no other is in force.
        before: What it has taken the place of, until it turns out to be for a block alone.
    """

    def __init__(self, cache: AsyncCache | None, before: Instrumentation | None = None) -> None:
        self.cache = cache
        self.before = before
        self.entered = False

    def __enter__(self) -> Self:
        with _lock:
            if self.entered or self not in _standing:
                _standing.append(self)
            elif self.before is not None and not self.before.entered:
                _standing.insert(_standing.index(self), self.before)
            self.entered, self.before = True, None
            _settle()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _lock:
            if self in _standing:
                _standing.reverse()
                _standing.remove(self)  # entered twice, it is left once
                _standing.reverse()
            _settle()


def instrument(cache: AsyncCache | None) -> Instrumentation:
    """Do what `asynccache.instrument_openai` says."""
    with _lock:
        lasting = next((one for one in _standing if not one.entered), None)
        made = Instrumentation(cache, lasting)
        if lasting is None or cache is not None:  # else all that it says holds already
            _standing.append(made)
            if lasting is not None:
                _standing.remove(lasting)
                lasting.before = None
        _settle()
    return made


def uninstrument() -> None:
    """Do what `asynccache.uninstrument_openai` says."""
    with _lock:
        _standing.clear()
        _settle()


def _settle() -> None:
    named = [one.cache for one in _standing if one.cache is not None]
    ambience.cache = named[-1] if named else None
    ambience.active = bool(_standing)
    if _standing:
        patch_all()
    else:
        unpatch_all()
