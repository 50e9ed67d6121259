"""The promises of `asynccache.stores.Store`, as tests that any store can be run through."""
# ruff: noqa: S101, PLR2004 - tests: assertions, and numbers that are clearest as numbers

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ClassVar, get_args

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from asynccache.stores.base import UNKNOWN, Capabilities, Counted, Record, Store
from asynccache.testing.clock import ManualClock
from asynccache.testing.contract_entries import EntryContract
from asynccache.testing.contract_leases import LeaseContract
from asynccache.testing.contract_parts import (
    HOME,
    PATIENCE,
    Elsewhere,
    body_of,
    get,
    key_of,
    needs,
    record_of,
    scanned,
)


class StoreContract(EntryContract, LeaseContract):
    """What every store promises, as tests for pytest with anyio's plugin.

    Subclass it, state the store's capabilities, and give a fixture ``store`` that yields an open,
    empty store and closes it. Tests of capabilities that aren't stated are not collected, and one
    test sees to it that what is stated is what the store says of itself. If the store takes its
    time from a `asynccache.stores.Clock`, give a fixture ``clock`` with the `ManualClock` it was
    made with; the tests of expiry at a given moment are collected then.

    Example::

        class TestMyStore(StoreContract):
            capabilities = MyStore.capabilities

            @pytest.fixture
            def clock(self):
                return ManualClock()

            @pytest.fixture
            async def store(self, clock):
                store = MyStore(clock=clock)
                await store.open()
                yield store
                await store.aclose()
    """

    capabilities: ClassVar[Capabilities] = Capabilities()
    pytestmark = pytest.mark.anyio

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        given = {name for name in Capabilities.__struct_fields__ if getattr(cls.capabilities, name)}
        if inspect.getattr_static(cls, "clock") is not StoreContract.__dict__["clock"]:
            given.add("clock")
        for name, test in inspect.getmembers(cls, inspect.isfunction):
            if not getattr(test, "needs", given) <= given:
                setattr(cls, name, None)  # pytest passes over it

    @pytest.fixture
    def store(self) -> Store:
        """Yield an open, empty store: every subclass gives its own."""
        raise NotImplementedError("a subclass of StoreContract gives a fixture `store`")

    @pytest.fixture
    def clock(self) -> ManualClock:
        """Return the clock that the store was made with: a subclass may give one."""
        raise NotImplementedError("tests that need a clock are collected only where there is one")

    @pytest.fixture
    def elsewhere(
        self, anyio_backend_name: str, anyio_backend_options: dict[str, Any]
    ) -> Elsewhere:
        """Return a function that runs work in another loop, of the same kind, in a thread."""

        async def run(work: Callable[[], Awaitable[Any]], /) -> Any:  # noqa: ANN401 - see Elsewhere
            async def bounded() -> Any:  # noqa: ANN401 - as above
                with anyio.fail_after(PATIENCE):  # nobody outside could cancel it
                    return await work()

            backend = partial(
                anyio.run,
                bounded,
                backend=anyio_backend_name,
                backend_options=anyio_backend_options,
            )
            return await anyio.to_thread.run_sync(backend)

        return run

    async def test_capabilities_are_the_stated_ones(self, store: Store) -> None:
        """The tests that are collected are those for what the store says it can do."""
        assert store.capabilities == self.capabilities

    @pytest.mark.parametrize("size", [100, 3_000_000])
    async def test_a_cancelled_set_is_whole_or_absent(self, store: Store, size: int) -> None:
        """Cancelling a set, whenever, leaves the old entry or the new, and a store that works."""
        old, new = body_of("old", size), body_of("new", size)
        for turns in range(8):
            await store.set_many(HOME, [Record(key=key_of("a"), body=old)])
            async with anyio.create_task_group() as group:
                group.start_soon(store.set_many, HOME, [Record(key=key_of("a"), body=new)])
                group.start_soon(store.set_many, HOME, [Record(key=key_of(turns), body=new)])
                for _ in range(turns):
                    await checkpoint()
                group.cancel_scope.cancel()
            assert await get(store, "a") in (old, new)
            assert await get(store, turns) in (None, new)
        await store.set_many(HOME, [record_of("a")])
        assert await get(store, "a") == body_of("a")

    async def test_readers_see_whole_entries(self, store: Store, elsewhere: Elsewhere) -> None:
        """While a large entry is overwritten in another loop, readers see one or the other."""
        bodies = [body_of(n, 500_000) for n in range(2)]
        await store.set_many(HOME, [Record(key=key_of("a"), body=bodies[0])])
        done = False

        async def write() -> None:
            nonlocal done
            try:
                for n in range(20):
                    await store.set_many(HOME, [Record(key=key_of("a"), body=bodies[n % 2])])
            finally:
                done = True

        async with anyio.create_task_group() as group:
            group.start_soon(elsewhere, write)
            while not done:
                assert await get(store, "a") in bodies
                assert store.peek(HOME, key_of("a")) in (*bodies, UNKNOWN)
                await checkpoint()

    async def test_several_loops_at_once(self, store: Store, elsewhere: Elsewhere) -> None:
        """Event loops in several threads use one store at the same time, and see each other."""

        async def work(worker: int) -> None:
            for n in range(30):
                await store.set_many(HOME, [record_of((worker, n)), record_of("shared")])
                assert await get(store, (worker, n)) == body_of((worker, n))
                assert await get(store, "shared") == body_of("shared")
            assert await store.delete_many(HOME, [key_of((worker, n)) for n in range(20)]) == 20

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for worker in range(4):
                    group.start_soon(elsewhere, partial(work, worker))
                await work(4)
        assert len(await scanned(store)) == 5 * 10 + 1

    async def test_closing_twice_and_opening_again(self, store: Store) -> None:
        """A store may be closed twice, and opened and used again."""
        await store.set_many(HOME, [record_of("a")])
        await store.aclose()
        await store.aclose()
        await store.open()
        await store.set_many(HOME, [record_of("b")])
        assert await get(store, "b") == body_of("b")

    @needs("durable")
    async def test_what_was_set_survives_closing(self, store: Store) -> None:
        """A durable store has after opening what it had before closing, also only for reading."""
        await store.set_many(HOME, [record_of("a"), record_of("b", size=1_000_000)])
        for read_only in (True, False):
            await store.aclose()
            await store.open(read_only=read_only)
            assert await get(store, "a") == body_of("a")
            assert await get(store, "b") == body_of("b", 1_000_000)
            assert len(await scanned(store)) == 2

    async def test_counters_are_numbers(self, store: Store) -> None:
        """What a store did of its own accord is counted under the known names."""
        counters = store.counters()
        assert counters.keys() <= set(get_args(Counted))
        assert all(count >= 0 for count in counters.values())
