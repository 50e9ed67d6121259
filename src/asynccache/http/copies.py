"""Copies of SDKs' clients: of whatever in them leads to an HTTP client, and of nothing else."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import CellType, FunctionType, MethodType
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

_NEW: Final[object] = object.__new__
Wrapped = Callable[[Any], Any]
"""Returns the copy of an HTTP client whose requests go through a cache; None for all else."""

_ORIGINAL: Final = "_asynccache_original"
"""Where a copy keeps what it was made of: that closes the connections once it is collected."""


def _stack(original: Any) -> AsyncExitStack:
    """Return what closes what a copy has made: with the copy, or with its original."""
    made = AsyncExitStack()
    original.exit_stack.push_async_callback(made.aclose)
    return made


_MADE_LATER: Final[dict[str, dict[str, Callable[[Any], Any]]]] = {
    # google-genai: one for each event loop. It replaces closed sessions, and no closed clients.
    "_get_aiohttp_session": {},
    "_client_for_running_loop": {"_loop_clients": lambda _: {}},
    # huggingface_hub
    "_get_async_client": {"_async_client": lambda _: None, "exit_stack": _stack},
}
"""Methods that make an HTTP client when it is needed; and attributes that a copy has of its own, so
that closing it leaves the original usable."""
_MADE_ELSEWHERE: Final = {"_inner_post": "get_session"}  # huggingface_hub
"""Methods that have their HTTP client from a function of their module, for the whole process."""


class Copier:
    """Copies the objects of one client, each once.

    Args:
        client: An SDK's client.
        wrapped: Wraps HTTP clients.
    """

    def __init__(self, client: object, wrapped: Wrapped) -> None:
        tops = {kind.__module__.partition(".")[0] for kind in type(client).__mro__}
        self._packages: Final = tops - sys.stdlib_module_names
        self._wrapped: Final = wrapped
        self._made: Final[dict[int, Any]] = {}
        self.found = False
        """Whether an HTTP client was found."""

    def copied(self, client: T) -> T:
        """Return a copy of the client, of its very type."""
        return cast("T", self._copied(client, type(client)))

    def _of(self, value: object) -> Any:
        """Return the copy of what leads to an HTTP client, and all else as it is."""
        if id(value) in self._made:
            return self._made[id(value)]
        if isinstance(value, MethodType):
            owner = self._of(value.__self__)
            return value if owner is value.__self__ else MethodType(value.__func__, owner)
        if isinstance(value, FunctionType):
            return self._function(value)
        if (wrapped := self._wrapped(value)) is not None:
            self.found = True
            self._made[id(value)] = wrapped
            return wrapped
        return self._copied(value, quiet(type(value))) if self._is_theirs(value) else value

    def _is_theirs(self, value: object) -> bool:
        kind = type(value)
        return (
            kind.__module__.partition(".")[0] in self._packages
            and kind.__new__ is _NEW
            and hasattr(value, "__dict__")
            and not hasattr(kind, "__pydantic_validator__")  # data
        )

    def _copied(self, value: object, kind: type[Any]) -> Any:
        twin = _bare(kind)
        self._made[id(value)] = twin
        own: dict[str, Any] = vars(twin)
        own.update(vars(value))
        changed = False
        for name, part in vars(value).items():
            if name != _ORIGINAL and (copied := self._of(part)) is not part:
                own[name] = copied
                changed = True
        if made_later(twin, value, self._wrapped):
            changed = self.found = True
        if not changed:
            self._made[id(value)] = value
            return value
        own[_ORIGINAL] = value
        return twin

    def _function(self, function: FunctionType) -> FunctionType:
        """Return a function that closes over the copies of what it closed over."""
        cells = [cell for cell in function.__closure__ or () if _is_filled(cell)]
        if not cells:
            return function
        ours = {id(cell): CellType() for cell in function.__closure__ or ()}
        made = _made_of(function, function.__globals__, tuple(ours.values()))
        self._made[id(function)] = made  # it may close over itself
        changed = False
        for cell in cells:
            held = ours[id(cell)].cell_contents = self._of(cell.cell_contents)
            changed |= held is not cell.cell_contents and held is not made
        if not changed:
            self._made[id(function)] = function
        return made if changed else function


def made_later(twin: object, original: Any, wrapped: Wrapped) -> bool:
    """Have a copy wrap the HTTP clients that it makes itself; tell whether it makes any."""
    kind, own = type(twin), vars(twin)
    changed = False
    for name, kept in _MADE_LATER.items():
        if hasattr(kind, name):
            own.update({place: empty(original) for place, empty in kept.items()})
            own[name] = _wrapping(functools.partial(getattr(kind, name), twin), wrapped)
            changed = True
    for name, maker in _MADE_ELSEWHERE.items():
        function = getattr(kind, name, None)
        if isinstance(function, FunctionType) and maker in function.__globals__:
            theirs = function.__globals__
            ours = _wrapping(functools.partial(_called, theirs, maker), wrapped)
            copied = _made_of(function, {**theirs, maker: ours}, function.__closure__)
            own[name] = MethodType(copied, twin)
            changed = True
    return changed


def _called(names: dict[str, Any], name: str) -> Any:
    """Call a function of a module, whichever it is by now."""
    return names[name]()


def _wrapping(make: Callable[[], Any], wrapped: Wrapped) -> Callable[[], Any]:
    async def made_async() -> Any:
        return _wrapped_or_self(await make(), wrapped)

    def made() -> Any:
        return _wrapped_or_self(make(), wrapped)

    return made_async if inspect.iscoroutinefunction(make) else made


def _wrapped_or_self(made: Any, wrapped: Wrapped) -> Any:
    found = wrapped(made)
    return made if found is None else found


def bare_copy(value: T) -> T:
    """Return a copy of a client of httpx whose end closes nothing, as the other goes on."""
    twin = _bare(quiet(type(value)))
    own: dict[str, Any] = vars(twin)
    own.update(vars(value))
    for name in ("_headers", "_cookies"):  # what is set on one isn't on the other
        own[name] = type(own[name])(own[name])
    own["_event_hooks"] = {name: [*hooks] for name, hooks in own["_event_hooks"].items()}
    return cast("T", twin)


def _bare(kind: type[Any]) -> object:
    """Return an object of a class that holds nothing yet."""
    return object.__new__(kind)


def _nothing(_: object) -> None:
    """Do nothing."""


@functools.cache
def _quiet(kind: Any) -> Any:
    return type(kind.__name__, (kind,), {"__del__": _nothing, "__module__": kind.__module__})


def quiet(kind: type[Any]) -> type[Any]:
    """Return a class whose objects do nothing when they are collected."""
    made: type[Any] = _quiet(cast("Any", kind)) if hasattr(kind, "__del__") else kind
    return made


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - there is no other way to ask
    except ValueError:
        return False
    return True


def _made_of(
    function: FunctionType, names: dict[str, Any], closure: tuple[CellType, ...] | None
) -> FunctionType:
    made = FunctionType(function.__code__, names, function.__name__, function.__defaults__, closure)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__dict__.update(vars(function))
    return made
