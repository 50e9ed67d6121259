"""`memoize` from the inside: the key of each call of a function, and the type of its results."""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
import operator
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from asynccache.cache.computing import compute, name_of
from asynccache.cache.in_force import cache_in_force
from asynccache.cache.lifecycle import Cached
from asynccache.cache.settings import names_of, seconds_of
from asynccache.entries.return_types import return_type
from asynccache.errors import NotCanonicalError, described
from asynccache.keys.canonical import SCRIPTS, absolute, canonical_value, class_name

_log = logging.getLogger("asynccache")

P = ParamSpec("P")
T = TypeVar("T")

_SESSION: Final = f"<session {os.urandom(16).hex()}>"
_SESSION_ONLY: Final = (
    "%s was defined in an interactive session or a function, where others may have the same name:"
    " its results are found in this session alone. Give memoize a version= that nothing else of"
    " that name has, or import it from a module"
)
_NUMBERS: Final[WeakKeyDictionary[type, int]] = WeakKeyDictionary()
_next_number: Final = itertools.count(1).__next__


class FunctionKeys:
    """Makes keys of one function's calls, and knows the type of its results.

    Args:
        function: The function that is called.
        ignore: Names of parameters to leave out of keys.
        version: Part of each key.

    Raises:
        TypeError: ``ignore`` names no parameter of the function, or results can't be built as its
            return annotation says.
    """

    def __init__(
        self, function: Callable[..., Any], ignore: Sequence[str], version: str | int | None
    ) -> None:
        if not hasattr(function, "__qualname__"):
            raise TypeError(
                f"memoize takes a function, not {described(function)}: use get_or_create for others"
            )
        self.name: Final = f"{function.__module__}.{function.__qualname__}"
        self._function = function
        self._signature = inspect.signature(function)
        self._first = next(iter(self._signature.parameters), None)
        self._ignore = frozenset(names_of("ignore", ignore))
        if unknown := self._ignore - self._signature.parameters.keys():
            raise TypeError(f"ignore= names {sorted(unknown)}, which {self.name} doesn't take")
        self._version = version
        self._place = _place(function, "<session>" if version is not None else _SESSION)
        self._told = False
        self._returns: Any = None
        with suppress(NameError, AttributeError, SyntaxError):  # `returns` tries again
            self._returns = return_type(function)

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return what identifies a call.

        Raises:
            TypeError: ``self`` or ``cls`` has no canonical form.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = {k: v for k, v in bound.arguments.items() if k not in self._ignore}
        classes: list[str] = []
        for name in ("self", "cls"):
            try:
                if name in arguments:
                    canonical_value(arguments[name])
                elif name in bound.arguments:  # a derived class may have results of its own
                    classes.append(self._class(bound.arguments[name]))
            except NotCanonicalError as exc:
                raise TypeError(
                    f"{self.name}: {exc}. If results don't depend on it, say ignore=[{name!r}]."
                ) from None
        if self._first in self._ignore - {"self", "cls"}:
            first = args[0] if args else kwargs.get(self._first)
            if self._is_method_of(first):
                classes.append(self._class(first))
        if self._place.startswith(_SESSION):
            self._tell(self.name)
        return (self._place, self._version, arguments, *classes)

    def _is_method_of(self, value: object) -> bool:
        """Tell whether a class, or the class of an object, has the function as a method."""
        kinds: list[type] = [type(value)]
        if isinstance(value, type):
            kinds.append(value)
        owner, _, name = self._function.__qualname__.rpartition(".")
        module = self._function.__module__
        return any(
            (base.__qualname__ == owner and base.__module__ == module)
            or inspect.unwrap(vars(base).get(name)) is inspect.unwrap(self._function)  # type: ignore[arg-type]
            for kind in kinds
            for base in kind.__mro__
        )

    def _class(self, value: object) -> str:
        """Return the full name of a class, or of an object's."""
        kind = value if isinstance(value, type) else type(value)
        name = class_name(kind)
        with suppress(AttributeError):
            found = operator.attrgetter(kind.__qualname__)(sys.modules.get(kind.__module__))
            if found is kind or not isinstance(found, type):  # else what a decorator made of it
                return name
        if self._version is not None:
            return name
        self._tell(name)
        return f"{_SESSION}:{name}#{_NUMBERS.setdefault(kind, _next_number())}"

    def _tell(self, name: str) -> None:
        """Tell once that what a name stands for is known in this session alone."""
        if not self._told:
            self._told = True
            _log.warning(_SESSION_ONLY, name)

    def returns(self) -> Any:  # noqa: ANN401 - a type form
        """Return the results' type, read at the first call if names were missing before that."""
        if self._returns is None:
            try:
                self._returns = return_type(self._function)
            except (NameError, AttributeError, SyntaxError, TypeError) as exc:
                _log.warning(
                    "%s: its return annotation can't be used: %s. Results that aren't plain data"
                    " are not stored",
                    self.name,
                    exc,
                )
                self._returns = Any
        return self._returns


def _place(function: Any, session: str) -> str:  # noqa: ANN401 - any function
    """Return a function's full name. That of a script's function is the same in each process.

    Args:
        function: A function.
        session: What stands for the module in an interactive session.
    """
    name = function.__qualname__
    if function.__module__ not in SCRIPTS:
        return f"{function.__module__}.{name}"
    inner = inspect.unwrap(function)
    names = getattr(inner, "__globals__", {})
    # An interactive session may go on in a module that has a file: the function's own file counts.
    if not getattr(getattr(inner, "__code__", None), "co_filename", "<").startswith("<"):
        if spec := names.get("__spec__"):  # python -m
            return f"{spec.name}.{name}"
        if file := names.get("__file__"):
            return f"{absolute(file)}:{name}"
    return f"{session}:{name}"


def memoizing(
    cache: Cached | None,
    bare: tuple[object, ...],
    *,
    ttl: float | timedelta | None,
    ignore: Sequence[str],
    version: str | int | None,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Return the decorator that `asynccache.memoize` describes; None is the cache in force."""
    refuse_bare(bare)
    seconds = seconds_of(ttl)

    def decorate(
        function: Callable[P, Coroutine[Any, Any, T]],
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(
                f"memoize takes async functions; {name_of(function)} isn't one. For plain ones use"
                " memoize of a SyncCache; put @classmethod or @staticmethod above it"
            )
        keys = FunctionKeys(function, ignore, version)

        @functools.wraps(function)
        async def memoized(*args: P.args, **kwargs: P.kwargs) -> T:
            used = cache if cache is not None else cache_in_force()
            if used is None:
                return await function(*args, **kwargs)
            result: T = await compute(
                used,
                "memoize",
                keys.key(args, kwargs),
                lambda: function(*args, **kwargs),
                name=keys.name,
                ttl=seconds,
                type=keys.returns(),
            )
            return result

        return memoized

    return decorate


def refuse_bare(bare: tuple[object, ...]) -> None:
    """Refuse what a decorator without parentheses is given.

    Raises:
        TypeError: It is given something.
    """
    if bare:
        raise TypeError("memoize takes its options first: write @memoize(), with parentheses")
