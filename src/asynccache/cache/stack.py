"""Values of the blocks around a caller, which may be entered and left in any task."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

ValueT = TypeVar("ValueT")


class ScopeFrame(Generic[ValueT]):
    """One block's value, and the frame it was entered in."""

    __slots__ = ("below", "dead", "value")

    def __init__(self, value: ValueT, below: ScopeFrame[ValueT] | None) -> None:
        self.value = value
        self.below = below
        self.dead = False


class ScopeStack(Generic[ValueT]):
    """The values of the blocks around a caller, innermost first.

    A block is ended by marking its frame dead: readers skip the dead, so that it ends for the tasks
    started inside it, too, and may be ended in any task. A block that is only left ends for whoever
    leaves it.
    """

    __slots__ = ("_variable",)

    def __init__(self, name: str) -> None:
        self._variable: ContextVar[ScopeFrame[ValueT] | None] = ContextVar(name, default=None)

    def top(self) -> ScopeFrame[ValueT] | None:
        """Return the innermost frame that is alive."""
        frame = self._variable.get()
        while frame is not None and frame.dead:
            frame = frame.below
        return frame

    def is_empty(self) -> bool:
        """Tell, at the least cost, whether no block was ever entered around the caller."""
        return self._variable.get() is None

    def alive(self) -> Iterator[ScopeFrame[ValueT]]:
        """Return all frames around the caller that are alive, innermost first."""
        frame = self.top()
        while frame is not None:
            if not frame.dead:
                yield frame
            frame = frame.below

    def push(self, value: ValueT) -> ScopeFrame[ValueT]:
        """Enter a block; end it with ``frame.dead = True``."""
        frame = ScopeFrame(value, self.top())
        self._variable.set(frame)
        return frame

    @contextmanager
    def block(self, value: ValueT) -> Generator[None]:
        """Enter a block that the tasks started inside it stay in when it is left.

        Where blocks are left in another order, or in another context, it ends for all.
        """
        frame = ScopeFrame(value, self.top())
        token = self._variable.set(frame)
        try:
            yield
        finally:
            frame.dead = self._variable.get() is not frame
            try:
                if not frame.dead:
                    self._variable.reset(token)
            except ValueError:  # this is another context, a copy maybe: a task's that ends others'
                frame.dead = True
