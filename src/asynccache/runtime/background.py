"""A loop in a background thread, for callers that can't await: one for the whole process.

It starts when it is first needed and ends with the process, once threads that Python itself waits
for have their answers. Caches work in any number of loops; to them this is one more.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from contextvars import ContextVar, copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from asynccache.runtime.forks import at_fork
from asynccache.runtime.loops import call_in

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

T = TypeVar("T")


class _Running(Struct, frozen=True):
    portal: BlockingPortal
    thread: threading.Thread
    calls: set[Future[Any]]  # of threads that Python waits for before it ends


_lock = threading.RLock()  # what a collector or a signal's handler calls may start calls, too
_running: _Running | None = None
_held: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("asynccache_held", default=None)


class CallerGoneError(Exception):
    """The thread in which a call was to be made has been interrupted; never leaves the library."""


def start(function: Callable[..., Awaitable[T]], *args: Any) -> Future[T]:  # noqa: ANN401 - its own
    """Begin to await a coroutine function in the background loop, which starts if it isn't running.

    Raises:
        RuntimeError: This is the background loop's own thread.
    """
    global _running  # noqa: PLW0603 - one for the process is what it is
    with _lock:
        if _running is None:
            _running = _start()
        future = _running.portal.start_task_soon(function, *args)
        if not threading.current_thread().daemon:
            _running.calls.add(future)
            future.add_done_callback(_running.calls.discard)
    return future


def _start() -> _Running:
    import anyio
    from anyio.from_thread import BlockingPortal

    # Not anyio's own way of starting one: what it leaves behind would, in a child process, wait for
    # a thread that only the parent has.
    started: Future[BlockingPortal] = Future()

    async def serve() -> None:
        async with BlockingPortal() as made:
            started.set_result(made)
            await made.sleep_until_stopped()

    # A thread of this kind keeps no process from ending; `_stop` lets it end in order.
    thread = threading.Thread(target=anyio.run, args=(serve,), name="asynccache", daemon=True)
    thread.start()
    return _Running(started.result(), thread, set())


def in_background_loop() -> bool:
    """Tell whether the caller is on the background loop's own thread, which can't wait for it."""
    return _running is not None and _running.thread is threading.current_thread()


def blocked_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop whose thread waits for what the caller does: nothing may wait for that loop.

    None for none.
    """
    return _held.get()


class BlockedCaller:
    """A thread that waits for what it has started in the background loop.

    Meanwhile it runs what is handed to it: a user's function, and the call that is paid for, are
    run in the thread they came from, whose connections and locals they may rely on.
    """

    __slots__ = ("_errands", "_gone", "_lock")

    def __init__(self) -> None:
        self._errands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._gone = False
        self._lock = threading.Lock()

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:  # noqa: ANN401 - its own
        """Await a coroutine function in the background loop; interrupted, cancel it.

        Raises:
            RuntimeError: This is the background loop's own thread, or a process that was forked in
                an errand.
        """
        process = os.getpid()
        context = copy_context()
        context.run(_held.set, _running_loop())
        future = context.run(start, function, *args)
        future.add_done_callback(lambda _: self._errands.put(None))
        try:
            while (errand := self._errands.get()) is not None:
                errand()
                if os.getpid() != process:
                    raise RuntimeError(
                        "this process was forked in the middle of a cached call, which only its"
                        " parent can end: let it end with os._exit, or make no calls in it"
                    )
            return future.result()
        finally:
            future.cancel()  # a thread that was interrupted waits no longer
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._gone = True
        while True:
            try:
                errand = self._errands.get_nowait()
            except Empty:
                return
            if errand is not None:
                errand()  # fails now

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in the waiting thread, in the context of the running task.

        Raises:
            CallerGoneError: The thread waits no longer, or was interrupted meanwhile.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        context = copy_context()

        def errand() -> None:
            if self._gone:
                _settle(loop, done, None, CallerGoneError())
                return
            try:
                result = context.run(function)
            except StopIteration as exc:  # which no future takes, as it would end a generator
                error = RuntimeError("the function raised StopIteration")
                error.__cause__ = exc
                _settle(loop, done, None, error)
            except Exception as exc:  # noqa: BLE001 - it is handed on, whatever it is
                _settle(loop, done, None, exc)
            except BaseException:
                _settle(loop, done, None, CallerGoneError())
                raise
            else:
                _settle(loop, done, result, None)

        with self._lock:
            if self._gone:
                raise CallerGoneError
            self._errands.put(errand)
        return await done


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def call(function: Callable[..., Awaitable[T]], *args: Any) -> T:  # noqa: ANN401 - its own
    """Await a coroutine function in the background loop, as a `BlockedCaller` with no errands."""
    return BlockedCaller().call(function, *args)


def waited(
    function: Callable[..., Awaitable[T]],
    *args: Any,  # noqa: ANN401 - the function's own
    guest: BlockedCaller | None = None,
    **kwargs: Any,  # noqa: ANN401 - as above
) -> T:
    """Await something in the background loop, while the calling thread waits for it.

    Raises:
        RuntimeError: The caller is in that loop.
    """
    if in_background_loop():
        raise RuntimeError(
            "called in the background loop, which would wait for itself: use the AsyncCache there"
            " (`cache.asynchronous`), or call from another thread"
        )
    return (guest or BlockedCaller()).call(functools.partial(function, *args, **kwargs))


def _settle(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    result: object,
    error: Exception | None,
) -> None:
    def settle() -> None:
        if future.done():  # nobody waits for it any more
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    call_in(loop, settle)  # where the loop is closed, so is whoever waited there


def _stop() -> None:
    global _running
    with _lock:
        running, _running = _running, None  # who calls from now on starts another
    if running is not None:
        wait(list(running.calls))
        running.portal.call(running.portal.stop, True)
        running.thread.join()


def _after_fork() -> None:
    """Forget the parent's loop, whose thread this process doesn't have."""
    global _lock, _running  # noqa: PLW0603 - as above
    _lock = threading.RLock()
    _running = None


# Before executors are shut down, by which caches that close with the loop still write: in the way
# of Python's own `concurrent.futures`. What threads that outlive the main one started since then
# ends after them.
with suppress(RuntimeError):  # imported when it is too late for that
    getattr(threading, "_register_atexit", atexit.register)(_stop)
atexit.register(_stop)
at_fork(after_in_child=_after_fork)
