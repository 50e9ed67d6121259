"""The background loop: one event loop in a thread of its own, for callers that can't await.

There is one for the whole process. It starts at the first use, and ends with the process once the
threads that Python waits for have their answers. To a cache it is one more loop.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, wait
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import Struct

from asynccache.runtime.forks import at_fork

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

T = TypeVar("T")


class _Background(Struct, frozen=True):
    loop: BlockingPortal
    event_loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    calls: set[Future[Any]]  # of threads that Python waits for before it ends


_lock = threading.RLock()  # reentrant: a signal's handler or a collector may start a call too
_background: _Background | None = None
_DEEPEST: Final = 20  # calls that a thread may wait for, one beneath the other
_blocked: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar(
    "asynccache_blocked", default=None
)


class CallerGoneError(Exception):
    """The thread that was to run a function was interrupted. It never leaves the library."""


def start(function: Callable[..., Awaitable[T]], *args: Any) -> Future[T]:  # noqa: ANN401 - its own
    """Start a coroutine function in the background loop, which starts if it isn't running.

    Raises:
        RuntimeError: This is the background loop's own thread.
    """
    global _background  # noqa: PLW0603 - there is one for the process
    with _lock:
        if _background is None:
            _background = _started()
        future = _background.loop.start_task_soon(function, *args)
        if not threading.current_thread().daemon:
            _background.calls.add(future)
            future.add_done_callback(_background.calls.discard)
    return future


def _started() -> _Background:
    import anyio
    from anyio.from_thread import BlockingPortal

    # anyio's own way of starting one would, in a forked child, wait for a thread that only the
    # parent has.
    ready: Future[tuple[BlockingPortal, asyncio.AbstractEventLoop]] = Future()

    async def serve() -> None:
        async with BlockingPortal() as loop:
            ready.set_result((loop, asyncio.get_running_loop()))
            await loop.sleep_until_stopped()

    # A daemon thread keeps no process from ending; `_stop` lets it end in order.
    thread = threading.Thread(target=anyio.run, args=(serve,), name="asynccache", daemon=True)
    thread.start()
    return _Background(*ready.result(), thread, set())


def in_background_loop() -> bool:
    """Tell whether this is the background loop's own thread, which can't wait for itself."""
    return _background is not None and _background.thread is threading.current_thread()


def loop_here() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that stands still while the caller waits, None if there is none.

    Under gevent all loops run in one thread of the system, so that asyncio takes the background
    loop for everybody's. That one goes on, as it is another greenlet's.
    """
    loop = asyncio._get_running_loop()  # noqa: SLF001 - it is exported
    background = _background
    if background is not None and loop is background.event_loop and not in_background_loop():
        return None
    return loop


def blocked_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop whose thread waits for the running task, None if there is none.

    That loop stands still meanwhile, so the task must not wait for it.
    """
    return _blocked.get()


class _Nesting(threading.local):
    """What of a thread's calls is beneath another one."""

    depth = 0
    """How many calls the thread waits for, one beneath the other."""
    blocked: asyncio.AbstractEventLoop | None = None
    """The loop that stands still for a thread which goes on in this one's place."""


_nesting: Final = _Nesting()


def _in_new_thread(function: Callable[[], T], blocked: asyncio.AbstractEventLoop | None) -> T:
    """Call a function in a thread of its own, with a stack of its own, and wait for it.

    ``blocked`` is the loop that stands still meanwhile, if one does.
    """
    future: Future[T] = Future()
    context = copy_context()

    def run() -> None:
        _nesting.blocked = blocked
        try:
            future.set_result(context.run(function))
        except BaseException as exc:  # noqa: BLE001 - the waiting thread raises it
            future.set_exception(exc)

    threading.Thread(target=run, name="asynccache nested", daemon=True).start()
    return future.result()


class BlockedCaller:
    """A thread that waits for a call in the background loop.

    While it waits it runs the functions that the call hands to it with `run`. So a user's function,
    or a paid call, runs in the thread that asked for it, with its connections and thread-locals.
    Only where such functions make calls in turn, one beneath the other, every twentieth goes on in
    a new thread: Python allows a thread a thousand frames, and each call takes several.
    """

    __slots__ = ("_gone", "_handed")

    def __init__(self) -> None:
        # What is to be run, and where its result goes; None at the end.
        self._handed: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._gone = False

    def call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:  # noqa: ANN401 - its own
        """Await a coroutine function in the background loop; an interrupt cancels it.

        Raises:
            RuntimeError: This is the background loop's own thread, or the process was forked in a
                function that ran here meanwhile.
        """
        if in_background_loop():
            raise RuntimeError(
                "called in the background loop, which would wait for itself: use the AsyncCache"
                " there (`cache.asynchronous`), or call from another thread"
            )
        depth, blocked = _nesting.depth, loop_here() or _nesting.blocked
        if depth == _DEEPEST:
            return _in_new_thread(partial(self.call, function, *args, **kwargs), blocked)
        process = os.getpid()
        context = copy_context()
        context.run(_blocked.set, blocked)
        future = context.run(start, partial(function, *args, **kwargs))
        future.add_done_callback(lambda _: self._handed.put(None))
        _nesting.depth = depth + 1
        try:
            while (handed := self._handed.get()) is not None:
                self._run(*handed)
                if os.getpid() != process:
                    raise RuntimeError(
                        "this process was forked in the middle of a cached call, which only its"
                        " parent can end: let it end with os._exit, or make no calls in it"
                    )
            return future.result()
        finally:
            _nesting.depth = depth
            future.cancel()  # for a caller that was interrupted
            self._gone = True
            self._refuse()

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in the waiting thread, in the context of the running task.

        Raises:
            CallerGoneError: The thread waits no longer, or was interrupted in the function.
        """
        future: Future[T] = Future()
        self._handed.put((future, partial(copy_context().run, function)))
        if self._gone:  # and may have looked for the last time before
            self._refuse()
        return await asyncio.wrap_future(future)

    def _run(self, future: Future[Any], function: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():  # nobody waits for it any more
            return
        if self._gone:
            future.set_exception(CallerGoneError())
            return
        try:
            future.set_result(function())
        except StopIteration as exc:  # an asyncio future doesn't take one
            error = RuntimeError("the function raised StopIteration")
            error.__cause__ = exc
            future.set_exception(error)
        except Exception as exc:  # noqa: BLE001 - it is handed on, whatever it is
            future.set_exception(exc)
        except BaseException:
            future.set_exception(CallerGoneError())
            raise

    def _refuse(self) -> None:
        """Let all fail that was handed over and not run."""
        with suppress(Empty):
            while True:
                if (handed := self._handed.get_nowait()) is not None:
                    self._run(*handed)


def call(function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:  # noqa: ANN401 - its own
    """Await a coroutine function in the background loop, while the calling thread waits.

    Raises:
        RuntimeError: This is the background loop's own thread.
    """
    return BlockedCaller().call(function, *args, **kwargs)


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("a call that may not wait did wait")


def _stop() -> None:
    global _background
    with _lock:
        ending, _background = _background, None  # later callers start another
    if ending is not None:
        wait(list(ending.calls))
        ending.loop.call(ending.loop.stop, True)
        ending.thread.join()


def _stop_early() -> None:
    """Stop the loop as the main thread ends, unless other threads go on that Python waits for.

    From Python 3.12 on they couldn't start another one.
    """
    others = (t for t in threading.enumerate() if t is not threading.current_thread())
    if sys.version_info < (3, 12) or all(thread.daemon for thread in others):
        _stop()


def _before_fork() -> None:
    """Wait for a loop that is being started: what it imports would stay locked in the child."""
    _lock.acquire()


def _after_fork_in_parent() -> None:
    _lock.release()


def _after_fork() -> None:
    """Forget the parent's loop, whose thread this process doesn't have."""
    global _lock, _background  # noqa: PLW0603 - as above
    _lock = threading.RLock()
    _background = None


# Python calls this before it shuts executors down, as `concurrent.futures` has it: caches that
# close with the loop still write. A loop that other threads use after that ends with `atexit`.
with suppress(RuntimeError):  # Python is ending already
    getattr(threading, "_register_atexit", atexit.register)(_stop_early)
atexit.register(_stop)
at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
