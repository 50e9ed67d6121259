"""What a function says that it returns."""

from __future__ import annotations

import builtins
import functools
import inspect
import sys
from collections.abc import Callable
from operator import attrgetter
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any, Final, cast, get_type_hints

import msgspec
from msgspec import Struct

from asynccache.entries.values import check_type

_CALLED: Final = attrgetter("__call__")
_MOST: Final = 1024  # functions whose annotations are remembered


class _Read(Struct, frozen=True):
    """An annotation that was read."""

    code: CodeType
    stated: object
    meant: list[tuple[str, object]]
    """Which names stood in it, and for what."""
    type: Any

    def holds(self, code: CodeType, stated: object, function: Any) -> bool:  # noqa: ANN401 - as below
        """Tell whether it says the same yet: in a notebook, classes are made anew."""
        names = function.__globals__
        return (
            self.code is code
            and self.stated == stated
            and all(names.get(name) is meant for name, meant in self.meant)
        )


_read: Final[dict[int, _Read]] = {}


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
    """Return the type of what a function makes, if that is said and values can be built as it.

    Else Any. On the way of every hit: what classes are named is looked up, the rest remembered.

    Args:
        create: Makes a value.
        awaited: It is to be awaited for it: a function that only returns something to be awaited
            doesn't say what that will be.
    """
    function = create if type(create) is FunctionType else _function_of(create)
    code: Any = getattr(function, "__code__", None)
    if code is None or bool(code.co_flags & inspect.CO_COROUTINE) is not awaited:
        return Any
    try:
        stated = _stated(function)
        if stated is Any or stated is None:
            return Any
        # What an annotation names is known where it was written: to the innermost function.
        inner = inspect.unwrap(function) if hasattr(function, "__wrapped__") else function
        code = inner.__code__
        if not isinstance(stated, str):
            if isinstance(stated, type):
                return stated if _is_buildable(stated) else Any
        elif stated not in code.co_freevars:
            known: Any = inner.__globals__.get(stated) or getattr(builtins, stated, None)
            if isinstance(known, type):
                return known if _is_buildable(known) else Any
        return _remembered(code, stated, inner)
    except (NameError, AttributeError, SyntaxError, TypeError):
        return Any


def _function_of(create: Any) -> Any:  # noqa: ANN401 - any callable
    """Return the function that a callable calls in the end, as far as that is known."""
    while isinstance(create, functools.partial):
        create = cast("Any", create).func
    create = getattr(create, "__func__", create)  # a bound method's
    return create if hasattr(create, "__code__") else _CALLED(type(create))


@functools.lru_cache(maxsize=1024)
def _is_buildable(kind: Any) -> bool:  # noqa: ANN401 - a type form
    """Tell whether values can be built as a type."""
    try:
        check_type(kind)
        info = msgspec.inspect.type_info(kind)
    except (TypeError, NameError, AttributeError):  # names in it may be for type checkers alone
        return False
    return not isinstance(info, msgspec.inspect.CustomType) or hasattr(info.cls, "model_validate")


def _remembered(code: CodeType, stated: object, function: Any) -> Any:  # noqa: ANN401 - a type form
    known = _read.get(id(code))
    if known is not None and known.holds(code, stated, function):
        return known.type
    found = return_type(function)
    found = found if _is_buildable(found) else Any
    names: tuple[str, ...] = ()
    if isinstance(stated, str):
        read = compile(stated, "<annotation>", "eval")
        if code.co_freevars or any(isinstance(part, str) for part in read.co_consts):
            # Another function of the same code may mean another class by a name, or names are
            # hidden in a text within the text.
            return found
        names = read.co_names
    if len(_read) >= _MOST:
        _read.clear()
    meant = [(name, function.__globals__.get(name)) for name in names]
    _read[id(code)] = _Read(code, stated, meant, found)
    return found
