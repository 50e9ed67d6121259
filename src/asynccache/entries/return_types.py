"""What a function says that it returns."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import CodeType, FunctionType, NoneType, SimpleNamespace
from typing import Any, cast, get_type_hints

import msgspec

from asynccache.entries.values import check_type

_UNREADABLE = (NameError, AttributeError, SyntaxError, TypeError)


def return_type(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - a type form
    """Return the type that a function's return annotation names, Any if there is none.

    An annotation of None counts as none. The function's other annotations aren't read, because one
    of them may name what only type checkers import.

    Raises:
        NameError, AttributeError, SyntaxError: It can't be read, or not yet.
        TypeError: It can't be read, or values can't be built as it.
    """
    holder = SimpleNamespace(__annotations__={"return": _evaluated(function)})
    inner = inspect.unwrap(function)
    names = getattr(inner, "__globals__", {})
    found = get_type_hints(holder, globalns=names, localns=_closed_over(inner))["return"]
    check_type(found)
    return found


def usual_type(create: Callable[[], Any], *, awaited: bool) -> Any:  # noqa: ANN401 - a type form
    """Return the type that a function says it makes, Any if it doesn't or none can be built.

    Every hit calls this. It evaluates the annotation each time, since a class may be defined anew
    in a notebook, and remembers the rest.

    Args:
        create: Makes a value.
        awaited: Whether the value is what ``create`` gives when awaited. A plain function that
            returns an awaitable doesn't say what that gives.
    """
    function = create if type(create) is FunctionType else _function_of(create)
    code: Any = getattr(function, "__code__", None)
    if code is None or bool(code.co_flags & inspect.CO_COROUTINE) is not awaited:
        return Any
    for read in (_evaluated, return_type):  # the second, slow one reads names within types too
        try:
            found = read(function)
            if found is Any or _is_buildable(found):
                return found
        except _UNREADABLE:
            continue
    return Any


def _function_of(create: Any) -> Any:  # noqa: ANN401 - any callable
    """Return the function that a partial, a method or an object with ``__call__`` calls."""
    while isinstance(create, functools.partial):
        create = cast("Any", create).func
    return create if hasattr(create, "__code__") else type(create).__call__


def _evaluated(function: Any) -> Any:  # noqa: ANN401 - any callable, any type form
    """Return a function's return annotation; names in strings within it are left as they are."""
    stated = _stated(function)
    if isinstance(stated, str):
        # Its names are those of the module where it was written.
        inner = inspect.unwrap(function) if hasattr(function, "__wrapped__") else function
        local = _closed_over(inner) if inner.__closure__ else None
        # It is the program's own code; `typing.get_type_hints` does the same.
        stated = eval(_compiled(stated), inner.__globals__, local)  # noqa: S307
    return Any if stated is None or stated is NoneType else stated


def _stated(function: Any) -> Any:  # noqa: ANN401 - any callable, any annotation
    try:
        annotations = getattr(function, "__annotations__", {})
    except NameError:  # from Python 3.14 on, reading one annotation evaluates all
        if sys.version_info < (3, 14):
            raise
        else:  # noqa: RET506 - so that type checkers of other versions skip it
            import annotationlib

            annotations = annotationlib.get_annotations(
                function, format=annotationlib.Format.FORWARDREF
            )
    return annotations.get("return", Any)


def _closed_over(function: Any) -> dict[str, Any]:  # noqa: ANN401 - any callable
    """Return the variables that an inner function uses of the one around it, e.g. its class."""
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    values: dict[str, Any] = {}
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=False):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # it has no value yet
            continue
    return values


@functools.lru_cache(maxsize=1024)
def _compiled(annotation: str) -> CodeType:
    return compile(annotation, "<annotation>", "eval")


@functools.lru_cache(maxsize=1024)
def _is_buildable(kind: Any) -> bool:  # noqa: ANN401 - a type form
    """Tell whether values can be built as a type."""
    try:
        check_type(kind)
        info = msgspec.inspect.type_info(kind)
    except _UNREADABLE:  # names in it may be imported for type checkers alone
        return False
    return not isinstance(info, msgspec.inspect.CustomType) or hasattr(info.cls, "model_validate")
