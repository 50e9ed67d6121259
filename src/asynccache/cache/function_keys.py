"""How one function's calls become keys, and its results typed: what `memoize` is made of."""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from asynccache.cache.computing import compute
from asynccache.cache.in_force import cache_in_force
from asynccache.cache.lifecycle import Cached
from asynccache.cache.settings import seconds_of
from asynccache.entries.return_types import return_type
from asynccache.entries.values import check_type
from asynccache.errors import NotCanonicalError
from asynccache.keys.canonical import canonical_value

_log = logging.getLogger("asynccache")

P = ParamSpec("P")
T = TypeVar("T")

_SCRIPTS: Final = frozenset({"__main__", "__mp_main__", "<run_path>"})
"""What a module is called that is run: the same for all, whatever is in them."""
_SESSION: Final = f"<session {os.urandom(16).hex()}>"
_SESSION_ONLY: Final = (
    "%s was defined in an interactive session, where others may have the same name: its results are"
    " found in this session alone. Give memoize a version= that no other function of that name has,"
    " or import it from a module"
)


class FunctionKeys:
    """How one function's calls become keys, and its results typed.

    Args:
        function: What is called.
        ignore: Names of parameters that are left out of keys.
        version: Part of the keys.

    Raises:
        TypeError: ``ignore`` names none of its parameters, or results can't be built as its return
            annotation says.
    """

    def __init__(
        self, function: Callable[..., Any], ignore: Sequence[str], version: str | int | None
    ) -> None:
        if not hasattr(function, "__qualname__"):
            raise TypeError(
                f"memoize takes a function, which has a name, not a {type(function).__qualname__}:"
                " use get_or_create for others"
            )
        self.name: Final = f"{function.__module__}.{function.__qualname__}"
        if isinstance(ignore, str):
            raise TypeError(f"ignore takes several names: [{ignore!r}]")
        self._function = function
        self._signature = inspect.signature(function)
        self._ignore = frozenset(ignore)
        self._version = version
        self._place = _place(function, lasting=version is not None) or self.name
        self._lasting = not self._place.startswith(_SESSION)
        self._returns: Any = None
        unknown = self._ignore - self._signature.parameters.keys()
        if unknown:
            raise TypeError(f"ignore= names {sorted(unknown)}, which {self.name} doesn't take")
        try:
            self._returns = self._read()
        except (NameError, AttributeError, SyntaxError):  # perhaps not yet: read at the first call
            self._returns = None

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return what identifies a call; TypeError for a ``self`` that can't be part of it."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = {k: v for k, v in bound.arguments.items() if k not in self._ignore}
        for name in ("self", "cls"):
            if name in arguments:
                try:
                    canonical_value(arguments[name])
                except NotCanonicalError as exc:
                    raise TypeError(
                        f"{self.name}: {exc}. If the result doesn't depend on it, say"
                        f" ignore=[{name!r}]."
                    ) from None
        if not self._lasting:
            self._lasting = True  # told once
            _log.warning(_SESSION_ONLY, self.name)
        return (self._place, self._version, arguments)

    def returns(self) -> Any:  # noqa: ANN401 - a type form
        """Return the annotation of the result; read when all names exist."""
        if self._returns is None:
            try:
                self._returns = self._read()
            except (NameError, AttributeError, SyntaxError, TypeError) as exc:
                _log.warning(
                    "%s: its return annotation can't be used: %s. Results that aren't plain data"
                    " are not stored",
                    self.name,
                    exc,
                )
                self._returns = Any
        return self._returns

    def _read(self) -> Any:  # noqa: ANN401 - a type form
        stated = return_type(self._function)
        check_type(stated)
        return stated


def _place(function: Any, *, lasting: bool) -> str | None:  # noqa: ANN401 - any function
    """Return the name of a function of the script that is run, the same in each of its processes.

    Args:
        function: A function.
        lasting: Whoever wrote it sees to it that no other one in an interactive session has its
            name.

    Returns:
        None for a function of a module, which has such a name already.
    """
    if function.__module__ not in _SCRIPTS:
        return None
    name = function.__qualname__
    inner = inspect.unwrap(function)
    names = getattr(inner, "__globals__", {})
    spec, file = names.get("__spec__"), names.get("__file__")
    # A module that has a file may still be what an interactive session goes on in.
    if not getattr(getattr(inner, "__code__", None), "co_filename", "<").startswith("<"):
        if spec is not None:  # python -m
            return f"{spec.name}.{name}"
        if file:
            return f"{Path(file).resolve()}:{name}"
    return f"{'<session>' if lasting else _SESSION}:{name}"


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
            name = getattr(function, "__qualname__", repr(function))
            hint = ""
            if isinstance(function, classmethod | staticmethod):
                hint = ": put @classmethod or @staticmethod above it"
            raise TypeError(f"memoize takes async functions; {name} isn't one{hint}")
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
