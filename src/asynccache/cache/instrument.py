"""Switches the cache on for every OpenAI client of the process, and off again."""

from __future__ import annotations

import importlib
import sys
from contextlib import AbstractContextManager
from typing import Final, cast

from asynccache.cache.cache import AsyncCache, SyncCache
from asynccache.cache.scopes import asynchronous

_OPENAI: Final = "asynccache.openai.instrument.instrumentation"
"""Imported by its name when it is needed: it imports the SDK, and stands above this package."""


def instrument_openai(
    cache: AsyncCache | SyncCache | None = None,
) -> AbstractContextManager[object]:
    """Send the calls of every OpenAI client of this process to the cache in force around them.

    All clients, ``AsyncOpenAI`` and ``OpenAI``, whoever made them and when. Where no cache is in
    force they are as they were. Wrapped clients keep their own cache. Calling it again changes
    nothing but the cache. If no cache serves any of the first hundred calls, one line of the log
    says why.

    A synchronous client works in any thread but one that runs an event loop: there nothing may
    wait, so that only what can be read at once is served, and the rest goes past the cache.

    Args:
        cache: The cache for calls outside of any cache's block. Open it yourself.

    Returns:
        A context manager, for a block instead of the rest of the process.

    Raises:
        TypeError: ``cache`` is no cache.
        ImportError: openai isn't installed, or is before 2.17: see ``asynccache[openai]``.
    """
    behind = asynchronous(cache)
    home = importlib.import_module(_OPENAI)
    return cast("AbstractContextManager[object]", home.instrument(behind))


def uninstrument_openai() -> None:
    """Undo `instrument_openai`: clients that nobody wrapped know no cache any more.

    What others have put on top of the SDK's methods since then stays.
    """
    home = sys.modules.get(_OPENAI)
    if home is not None:
        home.uninstrument()
