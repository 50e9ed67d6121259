"""Normalizers: what makes a request's body the same in each run, before its key is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from asynccache.errors import NotCanonicalError
from asynccache.keys.canonical import SCRIPTS, absolute, canonical_value

Body: TypeAlias = dict[str, Any]
_DECODE: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Normalizer(Struct, frozen=True):
    """A pure function from a copy of a body to the form that its key is made of.

    What is sent stays as it is. Keys hold the name and the version, so that another function, or
    another version, finds nothing that was stored under this one.
    """

    function: Callable[[Body], Body]
    name: str
    version: str

    def __call__(self, body: Body) -> Body:
        """Return the form of a body, which it may change."""
        return self.function(body)


def normalizer(
    version: int | str, name: str | None = None
) -> Callable[[Callable[[Body], Body]], Normalizer]:
    """Give a function for ``normalize=`` a version, and a name of your choice.

    Change the version when the function does something else. Without this decorator a function has
    its qualified name, and no version.

    Example::

        @normalizer(version=2)
        def without_ticket(body):
            body["messages"][0]["content"] = "You help."
            return body

    Args:
        version: Part of each key.
        name: In the place of the function's qualified name.

    Raises:
        TypeError: The version is neither an int nor a str.
    """
    if isinstance(version, bool) or not isinstance(version, int | str):
        raise TypeError(
            f"the version must be an int or a str, not {type(version).__name__}:"
            " write @normalizer(version=1)"
        )

    def named(function: Callable[[Body], Body]) -> Normalizer:
        return Normalizer(function, name or _name_of(function), str(version))

    return named


class Normalization:
    """The normalizers of a cache, in their order.

    Args:
        given: A normalizer or a plain function of a body, or several of them, but not none.

    Raises:
        TypeError: One is something else, or has no name that it keeps.
    """

    __slots__ = ("_normalizers", "mark")

    def __init__(self, given: Any) -> None:  # noqa: ANN401 - whatever a user gave
        if isinstance(given, str) or not (callable(given) or hasattr(given, "__iter__")):
            raise TypeError(f"normalize takes functions, such as normalizers.dates, not {given!r}")
        several: list[Any] = [given] if callable(given) else list(given)
        self._normalizers = tuple(map(_checked, several))
        names = [(one.name, one.version) for one in self._normalizers]
        self.mark: Final = canonical_value(("normalized", *names))
        """Stands before a form in what its key is made of. No JSON begins like this."""

    def form(self, canonical: bytes) -> Body:
        """Return the form of a body, given its canonical form.

        Raises:
            NotCanonicalError: A normalizer failed, or returned no body.
        """
        body = _DECODE(canonical)
        for one in self._normalizers:
            try:
                body = one.function(body)
            except Exception as exc:  # a user's function, which may raise anything
                raise NotCanonicalError(
                    f"the normalizer {one.name} raised {type(exc).__qualname__}"
                ) from exc
            if type(body) is not dict:
                raise NotCanonicalError(
                    f"the normalizer {one.name} must return the body, a dict, and returned"
                    f" {type(body).__qualname__}"
                )
        return body


def _checked(given: Any) -> Normalizer:  # noqa: ANN401 - whatever a user gave
    if isinstance(given, Normalizer):
        return given
    if not callable(given) or inspect.iscoroutinefunction(given):
        raise TypeError(f"normalize takes plain functions of a body, not {given!r}")
    function: Any = given
    return Normalizer(function, _name_of(function), "")


def _name_of(function: Any) -> str:  # noqa: ANN401 - any callable
    """Return a function's qualified name, with its file where its module has another one's name."""
    name = getattr(function, "__qualname__", "<")
    if "<" in name:
        raise TypeError(
            f"{function!r} has no name that it keeps, and keys hold it: define a function at the"
            ' top of a module, or call normalizer(version=1, name="...") with it'
        )
    module = function.__module__
    code = getattr(function, "__code__", None)
    if module in SCRIPTS and code is not None:  # every script is called so
        module = str(absolute(code.co_filename))
    return f"{module}:{name}"
