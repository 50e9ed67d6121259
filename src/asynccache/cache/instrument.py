"""Switches the cache on for every client of the process, and off again."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Collection
from contextlib import AbstractContextManager
from types import ModuleType, TracebackType
from typing import Final, Self

from asynccache.cache.ambient import AMBIENCES
from asynccache.cache.cache import AsyncCache, SyncCache
from asynccache.cache.patches import Patches, Place
from asynccache.cache.scopes import asynchronous
from asynccache.runtime.forks import at_fork
from asynccache.runtime.imports import ImportWatch
from asynccache.runtime.logs import warn_of

_SWITCH: Final = "ASYNCCACHE_INSTRUMENT"
_HTTPX: Final = "asynccache.http.httpx_patches"
_SDKS: Final = ("anthropic", "cerebras.cloud.sdk", "groq", "together")
"""Served by an HTTP library; of these alone is patched what would hide our errors."""
_HOMES: Final = {
    **dict.fromkeys(_SDKS, "asynccache.http.sdk_patches"),
    "aiohttp": "asynccache.http.aiohttp_patches",
    "httpx": _HTTPX,
    "httpx2": _HTTPX,
    "openai": "asynccache.openai.instrument.patches",
}
"""Modules that know what to patch in a library, by its name.

They are imported once the program has imported the library, and stand above this package.
"""

_lock = threading.RLock()
"""Nothing is imported under it: another thread may hold the lock of an import and wait for it."""
_standing: Final[list[Instrumentation]] = []
"""What holds, oldest first: some for the rest of the process, the others for blocks."""
_patches: Final = {name: Patches() for name in _HOMES}
_places: Final[dict[str, tuple[ModuleType, tuple[Place, ...]]]] = {}
"""The libraries that have been imported, and what is to be patched in each."""
_refused: Final[set[str]] = set()
"""The libraries that can't be served, of which a warning has told."""


class Instrumentation:
    """The process as it is instrumented; as a context manager, until the block is left.

    Args:
        cache: For calls around which no other is in force.
        libraries: Whose clients are served.
    """

    def __init__(self, cache: AsyncCache | None, libraries: frozenset[str]) -> None:
        self.cache = cache
        self.libraries = libraries
        self.held = libraries
        """Those that nobody has undone since."""
        self.before: list[Instrumentation] = []
        """What it has taken the place of, until it turns out to be for a block alone."""
        self.entered = False

    def __enter__(self) -> Self:
        with _lock:
            if self.entered or self not in _standing:
                _standing.append(self)
            else:
                at = _standing.index(self)
                _standing[at:at] = [one for one in self.before if not one.entered]
            self.entered, self.before, self.held = True, [], self.libraries
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

    def replaces(self, other: Instrumentation) -> bool:
        """Tell whether this says all that another one says."""
        return other.held <= self.libraries and (self.cache is not None or other.cache is None)


def instrument(
    cache: AsyncCache | SyncCache | None = None, *, only: Collection[str] | None = None
) -> AbstractContextManager[object]:
    """Send the calls of every client of this process to the cache in force around them.

    That is every client of the OpenAI SDK, and whatever stands on httpx, httpx2 or aiohttp: all
    other providers' SDKs, and frameworks. It doesn't matter who made a client and when. Where no
    cache is in force they are as they were. Wrapped clients keep their own cache. Calling it again
    changes nothing but the cache. If no cache serves any of the first hundred calls, one line of
    the log says why.

    Nothing is imported for it: what the program hasn't imported yet is served once it has.

    With ``ASYNCCACHE_INSTRUMENT=off`` in the environment it does nothing.

    Args:
        cache: The cache for calls outside of any cache's block. Open it yourself.
        only: Names of libraries, "aiohttp", "httpx", "httpx2" and "openai". These are imported at
            once. None is all that are installed.

    Returns:
        A context manager, for a block instead of the rest of the process.

    Raises:
        TypeError: ``cache`` is no cache.
        ValueError: ``only`` names something else, or the environment says neither "off" nor "on".
        ImportError: A library of ``only`` isn't installed, or its version can't be served. Without
            ``only``, a warning in the log says so.

    Example:
        >>> with asynccache.instrument(only=["httpx2"]):
        ...     pass
    """
    behind, libraries = asynchronous(cache), _libraries(only)
    if _is_off():
        return Instrumentation(behind, frozenset())
    if only is not None:
        for name in sorted(libraries):
            _find_places(name)
    made = Instrumentation(behind, libraries)
    with _lock:
        lasting = [one for one in _standing if not one.entered]
        if behind is not None or libraries - {name for one in lasting for name in one.held}:
            made.before = [one for one in lasting if made.replaces(one)]
            _standing[:] = [one for one in _standing if one not in made.before]
            _standing.append(made)  # else all that it says holds already
    _settle()
    return made


def uninstrument() -> None:
    """Undo `instrument`: clients that nobody wrapped know no cache any more.

    What others have put on top of the libraries' methods since then stays.
    """
    with _lock:
        _standing.clear()
    _settle()


def instrument_openai(
    cache: AsyncCache | SyncCache | None = None,
) -> AbstractContextManager[object]:
    """Do what `instrument` does for clients of the OpenAI SDK alone.

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
    return instrument(cache, only=("openai",))


def uninstrument_openai() -> None:
    """Undo `instrument_openai`; what `instrument` does for other libraries stays."""
    with _lock:
        for one in _standing:
            one.held -= {"openai"}
        _standing[:] = [one for one in _standing if one.held]
    _settle()


def _libraries(only: Collection[str] | None) -> frozenset[str]:
    """Return the libraries that are meant.

    Raises:
        ValueError: One isn't known, or there is none.
    """
    if only is None:
        return frozenset(AMBIENCES)
    named = () if isinstance(only, str) else tuple(only)
    if not named or not {*AMBIENCES}.issuperset(named):
        raise ValueError(
            f"only={only!r} must be a list of names of libraries: {', '.join(AMBIENCES)} are known"
        )
    return frozenset(named)


def _is_off() -> bool:
    """Tell whether the environment says that nothing is to be instrumented.

    Raises:
        ValueError: It says something else.
    """
    said = os.environ.get(_SWITCH, "")
    if said not in {"", "on", "off"}:
        raise ValueError(f"{_SWITCH} is {said!r} in the environment: set it to off or on")
    return said == "off"


# -- what is patched -----------------------------------------------------------------------------


def _settle() -> None:
    """Bring about what is standing."""
    with _lock:
        for name, ambience in AMBIENCES.items():
            of = [one for one in _standing if name in one.held]
            named = [one.cache for one in of if one.cache is not None]
            ambience.cache = named[-1] if named else None
            ambience.active = bool(of)
        if _standing:
            _import_watch.begin()
        else:
            _import_watch.end()
        _patch()
    for name in _HOMES:
        if _is_active(name) and sys.modules.get(name) is not None:
            _serve(name)


def _is_active(name: str) -> bool:
    """Tell whether the clients of a library are to be served."""
    libraries = ("httpx", "httpx2") if name in _SDKS else (name,)
    return any(AMBIENCES[library].active for library in libraries)


def _patch() -> None:
    with _lock:
        for name, patches in _patches.items():
            if not _is_active(name):
                patches.undo()
        for name, patches in _patches.items():
            if _is_active(name):
                _, places = _places.get(name, (None, ()))
                patches.put(places, _patches.values())


def _serve(name: str) -> None:
    """Patch a library that has been imported, if clients of it are to be served."""
    if not _is_active(name) or _is_known(name) or name in _refused:
        return
    try:
        _find_places(name)
    except Exception as exc:  # noqa: BLE001 - whoever imports the library must not suffer
        _refused.add(name)
        warn_of(exc, "instrument() can't serve the clients of %s: %s", name, exc)
    else:
        _patch()


def _is_known(name: str) -> bool:
    """Tell whether the places of a library are known, and it hasn't been imported anew since."""
    library, _ = _places.get(name, (None, ()))
    return library is not None and library is sys.modules.get(name)


def _find_places(name: str) -> None:
    """Find what is to be patched in a library; import it, if nobody has.

    Raises:
        ImportError: It isn't installed, or can't be served.
    """
    if not _is_known(name):
        try:
            library = importlib.import_module(name)  # waits for whoever is importing it
        except ModuleNotFoundError as exc:
            if exc.name != name:
                raise
            raise ImportError(f"{name} isn't installed: run pip install {name}", name=name) from exc
        _places[name] = library, tuple(importlib.import_module(_HOMES[name]).places(name))


def _forked() -> None:
    global _lock  # noqa: PLW0603 - a thread that only the parent has may hold the old one
    _lock = threading.RLock()


at_fork(after_in_child=_forked)
_import_watch: Final = ImportWatch(_HOMES, _serve)
