"""What a function says that it returns."""

from __future__ import annotations

import builtins
import inspect
import sys
from collections.abc import Callable
from types import CodeType, SimpleNamespace
from typing import Any, Final, get_type_hints

from asynccache._values import check_type

_MOST: Final = 1024  # functions whose annotations are remembered

_read: Final[dict[int, tuple[CodeType, object, Any]]] = {}


def return_type(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - a type form
    """Return the type that a function's annotation names, Any for none; None is a value's too.

    Other annotations of the function aren't read, so that one of theirs which can't be is no harm.

    Raises:
        NameError, AttributeError, SyntaxError, TypeError: It can't be read, or not yet.
    """
    stated = _stated(function)
    inner = inspect.unwrap(function)
    holder = SimpleNamespace(
        __annotations__={"return": stated}, __type_params__=getattr(function, "__type_params__", ())
    )
    names = getattr(inner, "__globals__", {})
    # A class of the function around it is known to one that makes its objects.
    free = getattr(getattr(inner, "__code__", None), "co_freevars", ())
    local = {}
    for name, cell in zip(free, getattr(inner, "__closure__", None) or (), strict=False):
        try:
            local[name] = cell.cell_contents
        except ValueError:  # not set yet
            continue
    found = get_type_hints(holder, globalns=names, localns={**names, **local}).get("return", Any)
    return Any if found is type(None) else found


def _stated(function: Any) -> Any:  # noqa: ANN401 - any callable, any annotation
    try:
        annotations = getattr(function, "__annotations__", {})
    except NameError:  # of any of them: from 3.14 on they are read when they are asked for
        if sys.version_info < (3, 14):
            raise
        else:  # noqa: RET506 - so that type checkers of other versions skip it
            import annotationlib

            annotations = annotationlib.get_annotations(
                function, format=annotationlib.Format.FORWARDREF
            )
    return annotations.get("return", Any)


def usual_type(create: Callable[[], Any], *, awaited: bool) -> Any:  # noqa: ANN401 - a type form
    """Return the type of what a function makes, as far as that is said; else Any.

    On the way of every hit: what classes are named is looked up, the rest remembered.

    Args:
        create: Makes a value.
        awaited: It is to be awaited for it: a function that only returns something to be awaited
            doesn't say what that will be.
    """
    code = getattr(create, "__code__", None)
    if code is None or bool(code.co_flags & inspect.CO_COROUTINE) is not awaited:
        return Any
    try:
        stated = _stated(create)
        if stated is Any or stated is None:
            return Any
        if not isinstance(stated, str):
            if isinstance(stated, type):
                return stated
        elif stated not in code.co_freevars:
            known: Any = create.__globals__.get(stated) or getattr(builtins, stated, None)
            if isinstance(known, type):
                return known
        return _remembered(code, stated, create)
    except (NameError, AttributeError, SyntaxError, TypeError):
        return Any


def _remembered(code: CodeType, stated: object, create: Callable[[], Any]) -> Any:  # noqa: ANN401 - a type form
    known = _read.get(id(code))
    if known is not None and known[0] is code and known[1] == stated:
        return known[2]
    found = return_type(create)
    check_type(found)
    # Else another function of the same code may mean another class by the name.
    if not (code.co_freevars and isinstance(stated, str)):
        if len(_read) >= _MOST:
            _read.clear()
        _read[id(code)] = (code, stated, found)
    return found
