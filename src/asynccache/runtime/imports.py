"""Tells when a package is imported for the first time, so that nothing is imported for its sake."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

_log = logging.getLogger("asynccache")


class ImportWatch:
    """Calls back right after a package has been imported, before whoever imports it goes on.

    Args:
        names: Of packages. Those that are imported already are not told of.
        then: Called with the name of one. It must not raise: the import would fail.
    """

    def __init__(self, names: Collection[str], then: Callable[[str], None]) -> None:
        self._names: Final = frozenset(names)
        self._then: Final = then

    def begin(self) -> None:
        """Watch from now on; once is enough."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def end(self) -> None:
        """Watch no more."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a package as those after us do, and have its loader call back; the import's own."""
        finders = sys.meta_path
        if name not in self._names or self not in finders:
            return None
        for finder in finders[finders.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                self._follow(name, spec)
                return spec
        return None

    def _follow(self, name: str, spec: ModuleSpec) -> None:
        loader: Any = spec.loader
        try:
            run = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                if module.__name__ == name:  # a loader may be shared
                    self._then(name)

            loader.exec_module = exec_module
        except AttributeError:  # it has none, or is of a type whose attributes are fixed
            _log.warning(
                "asynccache can't see when %s has been imported here: import it before"
                " asynccache.instrument() is called",
                name,
            )
