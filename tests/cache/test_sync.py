from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from aiocache import SimpleMemoryCache
from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import BaseModel

import asynccache
from asynccache import Cache, CacheClosedError, StoreRefusedError, SyncCache
from asynccache.cache import lifecycle, values
from asynccache.cache.cache import values_of
from asynccache.cache.computing import VALUE_META
from asynccache.entries.entry import Meta
from asynccache.entries.values import encode_value
from asynccache.runtime import background
from tests.helpers.inside import engines_of, flights_of, store_of, sync_frames
from tests.helpers.openai_answers import RESPONSE, TEXT
from tests.helpers.openai_server import COMPLETION, stored
from tests.helpers.script import run_script

ANSWERS = [(ChatCompletion, COMPLETION), (Completion, TEXT), (Response, RESPONSE)]


@pytest.fixture(params=["memory", "aiocache", "disk"])
def made(request, tmp_path):
    """A cache that isn't open yet."""
    if request.param == "memory":
        return Cache.memory()
    if request.param == "aiocache":
        return Cache.aiocache(SimpleMemoryCache())
    return Cache.disk(cache_path_root=tmp_path)


@pytest.fixture
def cache(made):
    """The cache as `with` gives it."""
    with made as face:
        yield face


def in_threads(count, function):
    """Call a function of a number in so many threads at the same moment; return its results."""
    barrier = threading.Barrier(count)

    def one(number):
        barrier.wait(30)
        return function(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


class Held:
    """A function to cache that waits until it is let go, and counts its calls."""

    def __init__(self, answer="made"):
        self.answer = answer
        self.begun = threading.Event()
        self.go = threading.Event()
        self.calls: list[int] = []

    def __call__(self):
        self.calls.append(threading.get_ident())
        self.begun.set()
        assert self.go.wait(30)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def waiting(made, count):
    """Wait until so many callers have joined a call of another's."""
    for engine in engines_of(made):
        for flight in flights_of(engine):
            return flight.caller_count > count
    return False


# -- values --------------------------------------------------------------------------------------


def test_values_go_in_and_out(cache):
    """Everything that coroutines do with values works without any."""
    assert cache.set("a", {"x": 1})
    assert cache.set_many({"b": 2, "c": None}) == [True, True]
    assert cache.get("a") == {"x": 1}
    assert cache.get("none", "default") == "default"
    assert cache.get_many(["b", "c", "none"], asynccache.MISSING) == [2, None, asynccache.MISSING]
    assert cache.contains("c")
    assert cache.delete("c")
    assert not cache.contains("c")
    assert cache.clear() == 2
    assert cache.stats().stored == 3


def test_keys_may_be_dicts_in_any_order(cache):
    """AG2's keys are requests as dicts: the order of arguments is no part of them."""
    cache.set({"model": "m", "messages": [{"role": "user", "content": "a"}]}, 1)
    assert cache.get({"messages": [{"content": "a", "role": "user"}], "model": "m"}) == 1
    assert cache.get({"messages": [{"content": "b", "role": "user"}], "model": "m"}) is None


async def test_coroutines_and_threads_see_the_same(made):
    """What one kind of code stores, the other finds; what one deletes is gone for both."""
    async with made as awaited:
        with made as face:
            await asyncio.to_thread(face.set, "a", 1)
            assert await awaited.get("a") == 1
            await awaited.set("b", 2)
            assert await asyncio.to_thread(face.get, "b") == 2
            assert await asyncio.to_thread(face.delete, "b")
            assert await awaited.get("b") is None


@pytest.mark.parametrize(
    ("kind", "answer"), ANSWERS, ids=lambda value: getattr(value, "__name__", "")
)
def test_answers_of_the_sdk_come_back_as_such(cache, kind, answer):
    """An answer comes back whole, with what was set on it, but for what can't be stored."""
    value = kind.construct(**answer)
    value.cost = 0.5
    value.message_retrieval_function = print
    cache.set("answer", value)
    found = cache.get("answer")
    assert type(found) is kind
    assert found is not value
    assert found.cost == 0.5
    assert not hasattr(found, "message_retrieval_function")
    assert found.to_dict() == {**kind.construct(**answer).to_dict(), "cost": 0.5}
    found.message_retrieval_function = print  # as AutoGen does next


async def test_stored_answers_are_plain_data(made):
    """What lies in the store is data: who awaits it gets a dict, or the type that is named."""
    async with made as awaited:
        with made as face:
            assert face.set("answer", ChatCompletion.construct(**COMPLETION))
        assert (await awaited.get("answer"))["id"] == COMPLETION["id"]
        assert type(await awaited.get("answer", type=ChatCompletion)) is ChatCompletion


def test_only_known_classes_are_made(cache):
    """A class that a store names is looked up among the SDK's answers and nowhere else."""
    meta = Meta("value", content_type=f"{VALUE_META.content_type}; class=os.system")

    def packed(value, type):
        return meta, encode_value(value)

    put = values_of(cache.asynchronous).put
    background.call(put, [("key", {"command": "true"})], packed)
    assert cache.get("key") == {"command": "true"}


def test_own_models_come_back_as_data(cache):
    """A model of the user's own is plain data, unless its type is named."""

    class Point(BaseModel):
        x: int

    with pytest.raises(TypeError, match="type="):
        cache.set("point", Point(x=1))
    assert cache.set_many({"point": Point(x=1)}, type=Point) == [True]
    assert cache.get("point") == {"x": 1}
    assert cache.get("point", type=Point) == Point(x=1)


@dataclass
class Invoice:
    """A value of the user's own, that has a cost."""

    cost: float


REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}


@pytest.mark.parametrize("key", [REQUEST, json.dumps(REQUEST)], ids=["AG2", "AutoGen 0.2"])
def test_what_autogen_would_lose_is_not_stored(cache, caplog, key):
    """An object under a request, with a cost, is AutoGen's: not stored as data, and told once."""
    for value in (Invoice(1.0), SimpleNamespace(cost=1.0), Invoice(2.0)):
        assert not cache.set(key, value)
    assert not cache.contains(key)
    assert cache.stats().bypassed == 3
    told = [r.getMessage() for r in caplog.records if "not cached" in r.getMessage()]
    assert len(told) == 2
    assert "Invoice" in told[0]


@pytest.mark.parametrize("key", ["invoice", '{"no": "request"}', "{", {"prompts": 1}], ids=repr)
def test_own_values_may_have_a_cost(cache, key):
    """Under any other key it is a value like others: data if it can be, an error if it can't."""
    with pytest.raises(TypeError, match="type="):
        cache.set(key, Invoice(1.0))
    assert cache.set(key, Invoice(1.0), type=Invoice)
    assert cache.get(key) == {"cost": 1.0}
    assert cache.get(key, type=Invoice) == Invoice(1.0)
    with pytest.raises(TypeError, match="can't be cached"):
        cache.set(key, SimpleNamespace(cost=1.0))
    assert cache.set(json.dumps(REQUEST), {"cost": 1.0})
    assert cache.set(REQUEST, Invoice(1.0), type=Invoice)


def test_answer_is_stored_whole_or_not_at_all(cache):
    """A field of the SDK's answer is never left out; what was set beside the fields may be."""
    said = {"role": "assistant", "content": "no text: \ud800"}
    value: Any = ChatCompletion.construct(
        **{**COMPLETION, "choices": [{"index": 0, "message": said}]}
    )
    with pytest.raises(TypeError, match="surrogates"):
        cache.set("answer", value)
    value.cost = 0.5
    assert not cache.set(REQUEST, value)
    assert cache.stats().stored == 0


# -- calls ---------------------------------------------------------------------------------------


def test_fifty_threads_pay_once(cache):
    """However many threads ask at once, one makes the value, in its own thread."""
    calls = []

    def make():
        calls.append(threading.get_ident())
        return {"made": len(calls)}

    results = in_threads(50, lambda _: (threading.get_ident(), cache.get_or_create("key", make)))
    assert [value for _, value in results] == [{"made": 1}] * 50
    assert len(calls) == 1
    assert calls[0] in {thread for thread, _ in results}
    assert len({id(value) for _, value in results}) == 50


async def test_threads_and_coroutines_share_a_call(made):
    """A thread's call is waited for by coroutines, and a coroutine's by threads."""
    held = Held()

    async def never():
        raise AssertionError("paid twice")

    def never_either():
        raise AssertionError("paid twice")

    async with made as awaited:
        with made as face:
            ask = asyncio.create_task(asyncio.to_thread(face.get_or_create, "a", held))
            await asyncio.to_thread(held.begun.wait, 30)
            joining = asyncio.create_task(awaited.get_or_create("a", never))
            held.go.set()
            assert await ask == await joining == "made"

            begun, go = asyncio.Event(), asyncio.Event()

            async def slow():
                begun.set()
                await go.wait()
                return "slow"

            leading = asyncio.create_task(awaited.get_or_create("b", slow))
            await begun.wait()
            ask = asyncio.create_task(asyncio.to_thread(face.get_or_create, "b", never_either))
            go.set()
            assert await leading == await ask == "slow"


@pytest.mark.parametrize("error", [ZeroDivisionError("no"), StopIteration("no")])
def test_errors_are_shared_and_not_stored(made, error):
    """An error of the one who made the value reaches all who waited; the next one tries again."""
    held = Held(error)
    expected = RuntimeError if isinstance(error, StopIteration) else type(error)

    with made as face:

        def one(_):
            with pytest.raises(expected):
                face.get_or_create("key", held)

        with ThreadPoolExecutor(10) as pool:
            asking = [pool.submit(one, number) for number in range(10)]
            until(lambda: waiting(made, 9))
            held.go.set()
            for future in asking:
                future.result(30)
        assert len(held.calls) == 1
        assert face.get_or_create("key", lambda: 1) == 1


def until(condition):
    """Wait for something that has no event of its own."""
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it never came")


def test_interrupt_is_nobody_elses(made):
    """A thread that is interrupted lets the others make one new call between them."""
    held, calls = Held(KeyboardInterrupt()), []
    seen = []

    def make():
        calls.append(1)
        return "made"

    with made as face:

        def interrupted():
            try:
                face.get_or_create("key", held)
            except KeyboardInterrupt as exc:
                seen.append(exc)

        first = threading.Thread(target=interrupted)
        first.start()
        assert held.begun.wait(30)
        with ThreadPoolExecutor(10) as pool:
            asking = [pool.submit(face.get_or_create, "key", make) for _ in range(10)]
            until(lambda: waiting(made, 10))
            held.go.set()
            assert [future.result(30) for future in asking] == ["made"] * 10
        first.join(30)
        assert (len(seen), len(calls)) == (1, 1)


def test_threads_locals_and_options_hold(cache):
    """The function runs in the calling thread, and options around the caller hold for the call."""
    local = threading.local()
    local.name = "mine"
    assert cache.get_or_create("key", lambda: local.name) == "mine"
    with asynccache.options(cache_seed=7):
        assert cache.get("key") is None
        assert cache.get_or_create("key", lambda: "seven") == "seven"
    with asynccache.options(mode="refresh"):
        assert cache.get_or_create("key", lambda: "new") == "new"
    assert cache.get("key") == "new"


def test_function_may_use_the_cache(cache):
    """What is called to make a value may ask for other values on its way."""
    inner = lambda: cache.get_or_create("inner", lambda: 1)  # noqa: E731 - in place
    assert cache.get_or_create("outer", lambda: inner() + 1) == 2


def test_plain_functions_are_memoized(cache):
    """A decorated function is called once for the same arguments, and its result is typed."""
    calls = []

    @cache.memoize(ignore=["log"], version=2)
    def square(number: int, log: object = None) -> tuple[int, int]:
        """Say what it does."""
        calls.append(threading.get_ident())
        return number, number**2

    assert square(3) == square(number=3, log=print) == (3, 9)
    assert square(4) == (4, 16)
    assert calls == [threading.get_ident()] * 2
    assert square.__doc__ == "Say what it does."


def test_recursion_goes_as_deep_as_that_of_coroutines(cache):
    """A plain memoized function may call itself more often than one thread's stack can take."""
    under, threads = [], set()

    @cache.memoize()
    def total(number: int) -> int:
        under.append(asynccache.current_cache() is cache.asynchronous)
        threads.add(threading.get_ident())
        if number == 0:
            return 0
        return number + total(number - 1)

    with asynccache.options(cache=cache):
        assert total(15) == 120
        assert threads == {threading.get_ident()}
        assert total(600) == 180_300
    assert all(under)
    assert len(under) == 601
    assert cache.stats().upstream_calls == 601


def test_errors_come_up_from_the_depth(cache):
    """The error of the deepest call is that of all above it, and nothing is stored."""

    @cache.memoize()
    def fail(number: int) -> int:
        if number == 0:
            raise LookupError("the end")
        return fail(number - 1)

    for _ in range(2):
        with pytest.raises(LookupError, match="the end"):
            fail(100)
    assert cache.stats().stored == 0


def test_coroutine_functions_are_refused(cache):
    """A coroutine function is told where it belongs, before anything is paid for it."""

    async def make():
        return 1

    with pytest.raises(TypeError, match="AsyncCache"):
        cache.get_or_create("key", make)
    with pytest.raises(TypeError, match="is async"):
        cache.memoize()(make)


# -- blocks --------------------------------------------------------------------------------------


def test_one_face_for_a_cache(made):
    """Entered again, also by itself, it is the same object, and closes with the last block."""
    with made as one, made as two, one as three:
        assert one is two is three
        assert isinstance(one, SyncCache)
        assert len({one, two}) == 1
        assert one.asynchronous is made
        assert one.settings is made.settings
    assert not made.is_open
    with pytest.raises(CacheClosedError):
        one.get("a")
    with one:
        assert one.is_open


def test_blocks_nest_and_restore():
    """The innermost block's cache is in force, and each that is left restores the one around it."""
    with Cache.memory() as one:
        with Cache.memory() as two:
            with one:
                assert asynccache.current_cache() is one.asynchronous
            assert asynccache.current_cache() is two.asynchronous
        with asynccache.options(cache=two):
            assert asynccache.current_cache() is two.asynchronous
        assert asynccache.current_cache() is one.asynchronous
    assert asynccache.current_cache() is None


def test_failing_block_leaves_nothing(tmp_path):
    """An exception in a block, or in opening it, leaves no cache open and none in force."""
    made = Cache.disk(cache_path_root=tmp_path)
    with pytest.raises(ZeroDivisionError), made:
        raise ZeroDivisionError
    assert not made.is_open
    (tmp_path / "file").write_text("")
    refused = Cache.disk(cache_path_root=tmp_path / "open")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(StoreRefusedError), refused:
        raise AssertionError("opened")
    assert not refused.is_open
    assert asynccache.current_cache() is None


def test_threads_enter_and_leave_at_once(made):
    """Blocks of fifty threads around single calls don't close the cache under each other."""

    def many(number):
        for at in range(20):
            with made as face:
                face.set((number, at), at)
                assert face.get((number, at)) == at

    in_threads(50, many)
    assert not made.is_open
    assert sync_frames(made) == []


def test_close_ends_all_blocks(made):
    """`close` closes whatever blocks there are, twice as well; coroutines keep theirs."""
    with made as face, face:
        face.close()
        face.close()
        assert not made.is_open
    assert not made.is_open
    assert asynccache.current_cache() is None

    async def both():
        async with made, made as awaited:
            with made as face:
                face.close()
            assert awaited.is_open

    asyncio.run(both())
    assert not made.is_open


def test_bound_functions_and_defaults_take_it():
    """`bind` carries it into other threads, and it may be the default cache of the process."""
    with Cache.memory() as cache, ThreadPoolExecutor(1) as pool:
        assert pool.submit(asynccache.current_cache).result() is None
        current = cache.bind(asynccache.current_cache)
        assert pool.submit(current).result() is cache.asynchronous
        asynccache.set_default_cache(cache)
        try:
            assert pool.submit(asynccache.current_cache).result() is cache.asynchronous
        finally:
            asynccache.set_default_cache(None)


# -- threads that run loops, and forks -----------------------------------------------------------


@pytest.fixture
def endless(monkeypatch):
    """Let what waits for a loop that stands still wait for ever."""
    monkeypatch.setattr(values, "_FOREIGN_SETTLE", 1000)
    monkeypatch.setattr(lifecycle, "_FOREIGN_CLOSE", 1000)


async def test_thread_of_a_loop_may_wait(made, endless):
    """In a thread whose loop uses the cache too, everything works while that loop stands still."""
    async with made as awaited:
        await awaited.set("a", 1)
        with made as face:
            assert face.get("a") == 1
            assert face.set("a", 2)
            assert face.delete("a")
            assert face.get_or_create("b", lambda: 3) == 3
        await stored(awaited, 3)
        assert await awaited.get("b") == 3


async def test_last_block_may_be_left_in_a_loop_with_work_under_way(made, endless):
    """Closing doesn't wait for the work of the loop that it holds up."""
    await made.open()
    waiting_call = asyncio.create_task(made.get_or_create("a", asyncio.Event().wait))
    await asyncio.sleep(0)
    with made:
        await made.aclose()
    assert not made.is_open
    with pytest.raises(CacheClosedError):
        await waiting_call


async def test_opening_in_the_same_loop_is_refused():
    """A block can't wait for its own loop's opening of the cache: it says so instead of hanging."""
    made = Cache.memory()
    opening, go = asyncio.Event(), asyncio.Event()
    open_store = store_of(made).open

    async def slowly(*, read_only=False):
        opening.set()
        await go.wait()
        await open_store(read_only=read_only)

    store_of(made).open = slowly
    task = asyncio.create_task(made.open())
    await opening.wait()
    with pytest.raises(RuntimeError, match="this very thread"), made:
        raise AssertionError("entered")
    go.set()
    await task
    with made as face:
        assert face.set("a", 1)
    await made.aclose()


def test_background_loop_is_told(cache):
    """In the background loop itself a call that would wait for itself is an error."""

    async def inside():
        with pytest.raises(RuntimeError, match="wait for itself"):
            cache.get("a")
        with pytest.raises(RuntimeError, match="async with"), cache:
            raise AssertionError("entered")
        return await cache.asynchronous.get("a", 7)

    assert background.call(inside) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork on this platform")
def test_child_of_a_fork_goes_on(tmp_path):
    """In a child the block's cache is closed, and entering it again opens it: no deadlock."""
    ended = run_script(
        """
        import os, signal, sys, threading
        from asynccache import Cache, CacheClosedError
        with Cache.disk(cache_path_root=sys.argv[1]) as cache:
            cache.set("a", 1)
            locked = threading.Event()
            def hold():
                with cache._lock:
                    locked.set()
                    threading.Event().wait(2)
            threading.Thread(target=hold, daemon=True).start()
            locked.wait()
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                try:
                    cache.get("a")
                except CacheClosedError:
                    code = 3
                with cache:
                    code += cache.get("a")
                    code += cache.get_or_create("b", lambda: 3)
        if child == 0:
            sys.exit(code)
        with cache:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), cache.get("b"))
        """,
        str(tmp_path),
    )
    assert ended.stdout == "7 3\n", ended.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send to a process")
def test_interrupted_program_closes_its_cache(tmp_path):
    """An interrupt while a value is made ends the block in order, and the next one works."""
    ended = run_script(
        """
        import os, signal, sys, threading
        from asynccache import Cache
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` turns it off
        made = Cache.disk(cache_path_root=sys.argv[1])
        def make():
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(30)
        try:
            with made as cache:
                cache.get_or_create("a", make)
        except KeyboardInterrupt:
            print(made.is_open)
        with made as cache:
            print(cache.get_or_create("a", lambda: 1))
        """,
        str(tmp_path),
    )
    assert (ended.stdout, ended.returncode) == ("False\n1\n", 0), ended.stderr


def test_forget_takes_a_key(cache):
    """What an event calls its key can be forgotten, as by the cache itself."""
    with asynccache.record() as calls:
        cache.get_or_create("key", lambda: 1)
    until(lambda: cache.stats().stored)
    assert cache.forget(key=calls[0].key)
    assert not cache.contains("key")


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("what", ["clear", "delete", "set"])
@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_what_is_done_on_a_loops_own_thread_comes_after_its_answers(
    kind, what, turns, tmp_path
):
    """An answer that is still on its way into the store isn't stored over what comes later."""

    async def make():
        return "older"

    cache = Cache.memory() if kind == "memory" else Cache.disk(cache_path_root=tmp_path / "cache")
    async with cache as made:
        with made as view:
            assert await made.get_or_create("key", make) == "older"
            for _ in range(turns):
                await asyncio.sleep(0)
            if what == "clear":
                view.clear()
            elif what == "delete":
                view.delete("key")
            else:
                assert view.set("key", "newer")
            assert await made.get("key") == ("newer" if what == "set" else None)
            await asyncio.sleep(0.02)
            assert await made.get("key") == ("newer" if what == "set" else None)
