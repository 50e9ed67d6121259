"""Methods of other people's classes, replaced by ours, and put back.

Others may patch the same methods, before or after: what stands on top of ours stays, with ours let
through beneath it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from msgspec import Struct


class Place(Struct, frozen=True):
    """A method that is to be replaced."""

    owner: type
    name: str
    made: Callable[[Any], Any]
    """Makes ours of what stands there."""


class _Patch(Struct, frozen=True):
    """One method that was replaced."""

    owner: type
    name: str
    original: Any
    """What stood there; None where the class had none of its own."""
    ours: Any

    def is_there(self) -> bool:
        """Tell whether ours still stands there, maybe beneath what others have put on top."""
        found: Any = getattr(self.owner, self.name)
        while found is not None:
            if found is self.ours:
                return True
            found = getattr(found, "__wrapped__", None)
        return False

    def undo(self) -> bool:
        """Put back what stood there, if nothing stands on top; tell whether that was done."""
        if vars(self.owner).get(self.name) is not self.ours:
            return False
        if self.original is None:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.original)
        return True


class Patches:
    """The methods of one library."""

    def __init__(self) -> None:
        self._held: Final[list[_Patch]] = []

    def put(self, places: Iterable[Place], others: Iterable[Patches] = ()) -> None:
        """Put ours where it isn't.

        Args:
            places: Where.
            others: Of further libraries, one of which may be this one by another name.
        """
        self._held[:] = [patch for patch in self._held if patch.is_there()]
        there = {
            (patch.owner, patch.name) for one in (self, *others) for patch in one._held  # noqa: SLF001
        }  # fmt: skip
        for place in places:
            if (place.owner, place.name) not in there:
                original = vars(place.owner).get(place.name)
                beneath = _inherited(place.owner, place.name) if original is None else original
                ours = place.made(beneath)
                setattr(place.owner, place.name, ours)
                self._held.append(_Patch(place.owner, place.name, original, ours))

    def undo(self) -> None:
        """Put back what stood there; what others have put on top of ours stays."""
        self._held[:] = [patch for patch in self._held if not patch.undo()]


def bound(original: Any, owner: object) -> Any:  # noqa: ANN401 - a method of any kind
    """Bind a method, which may be somebody's object: those tell by this who is called."""
    return original.__get__(owner, type(owner))


def _inherited(owner: type, name: str) -> Any:  # noqa: ANN401 - as above
    """Return a method that calls what the class above has by then, as somebody may patch it."""

    @functools.wraps(getattr(owner, name))
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as above
        above = cast("Any", super(owner, self))
        return getattr(above, name)(*args, **kwargs)

    return method
