"""Work for an event loop that another thread runs, and that may end at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakValueDictionary

_LOOK: Final = 0.05  # seconds between two checks that the other loop still runs

T = TypeVar("T")
Work: TypeAlias = Callable[[], Coroutine[Any, Any, T]]
"""A coroutine function, to be called in another loop."""


class LoopEndedError(Exception):
    """A loop ended with work undone. It never leaves the library."""


def call_in(
    loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object
) -> bool:
    """Have a loop call a function soon, from any thread; False if the loop is closed."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        return False
    return True


def finish(future: asyncio.Future[None]) -> None:
    """Wake whoever waits for a future of any loop, from any thread."""
    call_in(future.get_loop(), _finish, future)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def begin(loop: asyncio.AbstractEventLoop, work: Work[T]) -> Future[T]:
    """Start a coroutine function in another loop, in a copy of the caller's context.

    Unlike `asyncio.run_coroutine_threadsafe`, this makes no coroutine before that loop runs it. So
    a loop that ends first leaves none behind that was never awaited. Cancelling the future cancels
    the work; a future that was cancelled otherwise says that the loop ended.

    Raises:
        RuntimeError: The loop is closed.
    """
    future: Future[T] = Future()

    def start() -> None:
        end = LoopEnd.of(loop)
        if end is not None and end.over:
            future.cancel()
        elif not future.cancelled():
            task = loop.create_task(work())
            task.add_done_callback(partial(_hand_over, future))
            future.add_done_callback(lambda _: future.cancelled() and call_in(loop, task.cancel))
            if end is not None:
                end.take(task)

    loop.call_soon_threadsafe(start)
    return future


def _hand_over(future: Future[T], task: asyncio.Task[T]) -> None:
    if task.cancelled():
        future.cancel()
    elif future.set_running_or_notify_cancel():
        if (error := task.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())


async def result_in(loop: asyncio.AbstractEventLoop, work: Work[T]) -> T:
    """Do work in another loop and return its result. Cancelling the caller cancels the work.

    Raises:
        LoopEndedError: That loop ended before the work did.
        Exception: What the work raised.
    """
    try:
        working = asyncio.wrap_future(begin(loop, work))
    except RuntimeError:  # it was closed just now
        raise LoopEndedError from None
    try:
        while not working.done() and loop.is_running():
            await asyncio.wait({working}, timeout=_LOOK)
    finally:
        working.cancel()
    if working.cancelled():
        raise LoopEndedError
    return working.result()


async def done_in(loop: asyncio.AbstractEventLoop, work: Work[object], *, patience: float) -> bool:
    """Do work in another loop and wait for it while that loop runs; return whether it succeeded.

    Its error isn't raised here, because it belongs to the other loop.

    Args:
        loop: The loop that does the work. It may end meanwhile, or have ended.
        work: The coroutine function.
        patience: Seconds to wait at most; then the work goes on by itself.
    """
    if not loop.is_running():
        return False
    try:
        working = asyncio.wrap_future(begin(loop, work))
    except RuntimeError:  # it was closed just now
        return False
    working.add_done_callback(_failed)  # so that an error that nobody looks at isn't logged
    time = asyncio.get_running_loop().time
    until = time() + patience
    while (left := until - time()) > 0 and loop.is_running():
        if (await asyncio.wait({working}, timeout=min(left, _LOOK)))[0]:
            return not _failed(working)
    return False


class LoopEnd:
    """What is still to be done when the running loop ends: tasks are cancelled by then, and gone.

    Whoever has something to do then keeps the object that `here` returns.
    """

    def __init__(self) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self._first: dict[object, Work[None]] = {}
        self._last: dict[object, Work[None]] = {}
        self._guests: set[asyncio.Task[Any]] = set()
        self.over = False
        """All is done: a task that is begun now would never take its first step."""
        # asyncio closes a loop's asynchronous generators when all tasks have ended.
        self._ending: Final = self._wait()
        first_step: Any = self._ending.asend(None)
        with suppress(StopIteration):
            first_step.send(None)

    @classmethod
    def here(cls) -> LoopEnd:
        """Return that of the running loop."""
        loop = asyncio.get_running_loop()
        found = cls.of(loop)
        if found is None:
            found = _ENDS[id(loop)] = cls()
        return found

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> LoopEnd | None:
        """Return that of a loop, if it has one."""
        found = _ENDS.get(id(loop))
        return found if found is not None and found.loop is loop else None

    def take(self, task: asyncio.Task[Any]) -> None:
        """End a task with the loop, which others have begun in it."""
        self._guests.add(task)
        task.add_done_callback(self._guests.discard)

    def add(self, who: object, work: Work[None], *, last: bool = False) -> None:
        """Have somebody's work done at the end; ``last`` after the work of those who are not."""
        (self._last if last else self._first)[who] = work

    def discard(self, who: object) -> None:
        """Do nothing for somebody any more."""
        self._first.pop(who, None)
        self._last.pop(who, None)

    async def _wait(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            results: list[object] = []
            for works in (self._first, self._last):
                begun = [work() for work in works.values()]
                results += await asyncio.gather(*begun, return_exceptions=True)
            while guests := [*self._guests]:
                for task in guests:
                    task.cancel()
                await asyncio.wait(guests)
            self.over = True
            for error in results:
                if isinstance(error, BaseException):
                    raise error


_ENDS: Final[WeakValueDictionary[int, LoopEnd]] = WeakValueDictionary()  # by the ids of loops


def _failed(future: asyncio.Future[Any]) -> bool:
    return future.cancelled() or future.exception() is not None
