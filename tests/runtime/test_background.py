from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from contextvars import ContextVar

import pytest

from asynccache.runtime.background import BlockedCaller, CallerGoneError, call

MARK: ContextVar[str] = ContextVar("mark", default="none")


def ran(script, *options):
    """Run a script in a process of its own."""
    command = [sys.executable, *options, "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_function_runs_in_the_waiting_thread_with_its_context():
    """A function that is handed over runs in the waiting thread, and sees that thread's context."""
    caller = BlockedCaller()
    MARK.set("mine")

    async def work():
        return await caller.run(lambda: (threading.get_ident(), MARK.get()))

    assert caller.call(work) == (threading.get_ident(), "mine")


def test_fifty_threads_wait_side_by_side():
    """No thread waits for another's turn: all fifty are in their functions at once."""
    barrier = threading.Barrier(50)
    results = []

    def one(number):
        caller = BlockedCaller()

        async def work():
            return await caller.run(lambda: (barrier.wait(30), number)[1])

        results.append(caller.call(work))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == list(range(50))


def test_errors_come_back_as_they_are():
    """A function's error reaches the call that handed it over, and from there the thread."""
    caller = BlockedCaller()

    async def work():
        await caller.run(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        caller.call(work)


def test_interrupted_function_leaves_a_working_loop():
    """An interrupt in a function reaches its thread alone; others see that the thread is gone."""
    caller = BlockedCaller()
    seen = []

    def interrupted():
        raise KeyboardInterrupt

    async def work():
        try:
            await caller.run(interrupted)
        except CallerGoneError as exc:
            seen.append(exc)
            raise

    with pytest.raises(KeyboardInterrupt):
        caller.call(work)

    async def later():
        with pytest.raises(CallerGoneError):
            await caller.run(lambda: None)
        return len(seen)

    assert call(later) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork on this platform")
def test_child_gets_a_loop_of_its_own():
    """After a fork the child starts its own loop instead of waiting for its parent's for ever."""
    script = """
        import os, signal, sys
        from asynccache.runtime.background import call

        async def number():
            return 7

        assert call(number) == 7
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # no waiting for ever
            sys.exit(call(number))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        print(call(number))
    """
    done = ran(script, "-W", "ignore")
    assert done.stdout == "7\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork on this platform")
def test_a_child_forked_in_a_function_is_told_that_it_has_no_call():
    """Forked in the middle of a call, the child doesn't wait for an answer that never comes."""
    script = """
        import os, signal
        from asynccache import Cache

        def value():
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                return "the child's"
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        with Cache.memory() as cache:
            try:
                print(cache.get_or_create("key", value))
            except RuntimeError as exc:
                assert "forked" in str(exc)
                os._exit(7)
    """
    done = ran(script, "-W", "ignore")
    assert done.stdout == "7\n", done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send to a process")
def test_process_ends_although_something_waits_in_the_loop():
    """What still runs in the background keeps no process from ending or being interrupted."""
    script = """
        import os, signal, threading
        import anyio
        from asynccache.runtime.background import call

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` turns it off
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            call(anyio.sleep_forever)
        except KeyboardInterrupt:
            print("interrupted")
        threading.Thread(target=call, args=(anyio.sleep_forever,), daemon=True).start()
    """
    done = ran(script)
    assert (done.stdout, done.returncode) == ("interrupted\n", 0), done.stderr


def test_threads_that_outlive_the_main_one_get_their_answers():
    """Python waits for threads before it ends, and so does the loop they call into."""
    script = """
        import os, threading, time
        from asynccache import Cache

        cache = Cache.memory().__enter__()
        called = threading.Barrier(4)

        def slow():
            called.wait(20)
            time.sleep(0.5)  # while the main thread ends
            return "slow"

        def answers(thread):
            assert cache.get_or_create(thread, slow) == "slow"
            assert cache.get_or_create("later", lambda: "anew") == "anew"
            os.write(1, b"all\\n")  # in one go

        for thread in range(3):
            threading.Thread(target=answers, args=(thread,)).start()
        called.wait(20)
    """
    done = ran(script)
    assert done.stderr == ""
    assert sorted(done.stdout.split()) == ["all"] * 3
