"""What an SDK does with a cache, beside what it does without one: the columns of a table.

A cell of the table, which is printed after the run, has a mark for each of the `WAYS`.
"""

from __future__ import annotations

import asyncio
import functools
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest

import asynccache
from asynccache import Cache
from asynccache.http import endpoint, register
from tests.helpers.matrix import Matrix, mark
from tests.helpers.providers_server import ENCODERS, Providers
from tests.helpers.sdks import KINDS, OTHERS, failure, outcome, sync_outcome

CALLERS = 100
SETTLED = 3  # seconds: a bound for an answer that is never stored
WAYS = ("wrapped", "instrumented", "official")
"""At a local address by `wrap`, and by `instrument`; at the official names by `instrument`."""
ENDS = ("cut", "dropped", "broken")
BARE: dict[tuple, tuple] = {}
"""What SDKs have given without a cache."""


class Bench:
    """An SDK at a server, asked with a cache and without one.

    Args:
        sdk: Of `SDKS`.
        sync: Ask its synchronous client, in threads.
        way: Of `WAYS`.
        server: The local server, or the one at the official names.
    """

    def __init__(self, sdk, *, sync, way, server):
        self._sdk, self._sync, self._way, self._server = sdk, sync, way, server
        self._url = ""
        if way != "official":
            self._url = f"http://127.0.0.1:{server.port}"
            if sdk.like:
                register(endpoint(self._url, like=sdk.like))

    @property
    def asked(self):
        """How many requests for an answer have reached the server since it began."""
        return self._server.program.asked

    def begin(self, **how):
        """Let the server begin with answer number 1."""
        self._server.program = Providers(**how)

    @asynccontextmanager
    async def cache(self):
        """Have an open cache, as the users of such a client have it."""
        if not self._sync:
            async with Cache.memory() as cache:
                yield cache
            return
        with ExitStack() as stack:
            yield await asyncio.to_thread(stack.enter_context, Cache.memory())
            await asyncio.to_thread(stack.close)

    @asynccontextmanager
    async def client(self, cache=None):
        """Have a new client; without a cache a bare one."""
        options = {}
        if cache is not None and self._way == "wrapped":
            options["wrap"] = cache.wrap
        with ExitStack() as stack:
            if cache is not None and self._way != "wrapped":
                stack.enter_context(asynccache.instrument(cache))
            if self._sync:
                with self._sdk.opened_sync(self._url, **options) as client:
                    yield client
            else:
                async with self._sdk.opened(self._url, **options) as client:
                    yield client

    async def ask(self, client, kind, pool=None):
        """Return what the SDK gives, as plain data; what it raises, too."""
        try:
            if not self._sync:
                return await outcome(self._sdk.ask(client, kind))
            call = functools.partial(self._blocking, client, kind)
            return await asyncio.get_running_loop().run_in_executor(pool, call)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the bare client raises it too
            return failure(exc)

    def _blocking(self, client, kind):
        return sync_outcome(self._sdk.ask(client, kind))

    async def bare(self, kind, **how):
        """Return what the SDK gives without a cache, and how many requests that took."""
        asked = self._sdk.name, self._sync, self._url, kind, *how.items()
        if asked not in BARE:
            self.begin(**how)
            async with self.client() as client:
                BARE[asked] = await self.ask(client, kind), self.asked
        return BARE[asked]


def is_failure(told):
    """Tell whether this is an error that was raised."""
    return isinstance(told, tuple) and issubclass(told[0], Exception)


async def stored(cache, count):
    """Wait until so many answers were stored, some time at most."""
    until = time.monotonic() + SETTLED
    while cache.stats().stored < count and time.monotonic() < until:
        await asyncio.sleep(0.001)
    assert cache.stats().stored == count


async def check_kind(kind, bench, **how):
    """The first pays, the second run with a new client doesn't, both are as without a cache."""
    expected, _ = await bench.bare(kind, **how)
    assert not is_failure(expected)
    bench.begin(**how)
    async with bench.cache() as cache:
        async with bench.client(cache) as client:
            assert await bench.ask(client, kind) == expected
        await stored(cache, 1)
        async with bench.client(cache) as client:
            assert await bench.ask(client, kind) == expected
        assert bench.asked == 1
        stats = cache.stats()
        assert (stats.hits, stats.misses, stats.bypassed) == (1, 1, 0)


async def check_errors(bench):
    """Each caller gets the SDK's own error, which says when to come back, and none is stored."""
    for status in (400, 429, 529):
        for kind in ("plain", "streamed"):
            expected, asked = await bench.bare(kind, status=status)
            assert is_failure(expected)
            bench.begin(status=status)
            async with bench.cache() as cache:
                for count in (1, 2):
                    async with bench.client(cache) as client:
                        assert await bench.ask(client, kind) == expected
                    assert bench.asked == count * asked
                assert cache.stats().stored == 0


async def check_encodings(bench):
    """However the body was compressed, the SDK reads it, live and from the store."""
    for encoding in ENCODERS:
        for kind in ("plain", "streamed"):
            await check_kind(kind, bench, encoding=encoding)


async def check_at_once(bench):
    """A hundred who ask at once pay once, plain and streamed."""
    for kind in ("plain", "streamed"):
        expected, _ = await bench.bare(kind)
        bench.begin()
        with ThreadPoolExecutor(CALLERS) as pool:
            async with bench.cache() as cache, bench.client(cache) as client:
                asking = (bench.ask(client, kind, pool) for _ in range(CALLERS))
                results = await asyncio.gather(*asking)
        assert [*filter(lambda result: result != expected, results)] == []
        assert bench.asked == 1


async def check_broken(bench):
    """A stream that ends too soon reaches its caller as it is, and isn't stored."""
    whole, _ = await bench.bare("streamed")
    for end in ENDS:
        expected, asked = await bench.bare("streamed", end=end)
        bench.begin(end=end)
        async with bench.cache() as cache:
            async with bench.client(cache) as client:
                assert await bench.ask(client, "streamed") == expected
                assert bench.asked == asked
            bench.begin()
            async with bench.client(cache) as client:
                assert await bench.ask(client, "streamed") == whole
            assert bench.asked == 1
            await stored(cache, 1)


CHECKS: dict[str, Any] = {
    **{kind: functools.partial(check_kind, kind) for kind in (*KINDS, *OTHERS)},
    "400 429 529": check_errors,
    "gzip br zstd": check_encodings,
    "100 at once": check_at_once,
    "cut": check_broken,
}
ALONE = ("400 429 529", "gzip br zstd", "100 at once", "cut")
"""Columns that one way says enough of."""
OFFICIAL = ("plain", "streamed")
"""Columns that could differ where SDKs go by themselves."""


class Table:
    """Some of the SDKs by the columns.

    Args:
        title: What the SDKs have in common.
        sdks: Of `SDKS`.
    """

    def __init__(self, title, sdks):
        self._matrix = Matrix(f"{title}: wrapped, instrumented, at official names", "SDK")
        self.cells = [
            pytest.param(sdk, sync, way, column, id=f"{_row(sdk, sync)}-{way}-{column}")
            for sdk in sdks
            for sync in (False, True)[: 1 + sdk.has_sync]
            for way in WAYS
            for column in _columns(sdk, way, sync=sync)
        ]
        rows = dict.fromkeys(_row(sdk, sync) for sdk, sync, _, _ in (c.values for c in self.cells))
        self._matrix.tables = [([*rows], [*CHECKS])]
        self._passed: dict[tuple[str, str], dict[str, bool | None]] = {}

    async def check(self, sdk, sync, way, column, server):
        """Check a cell, and note what comes of it."""
        cell = _row(sdk, sync), column
        ways = self._passed.setdefault(cell, dict.fromkeys(WAYS))
        ways[way] = False
        try:
            await CHECKS[column](Bench(sdk, sync=sync, way=way, server=server))
            ways[way] = True
        finally:
            self._matrix.measured[cell] = mark(ways.values())


def _row(sdk, sync):
    return f"{sdk.name}, sync" if sync else sdk.name


def _columns(sdk, way, *, sync):
    if way == "official":
        return (*OFFICIAL, "100 at once") if sdk.wrapped and not sync else OFFICIAL
    if way == "wrapped" and not sdk.wrapped:
        return ()
    lacks = {*OTHERS} - {*sdk.others}
    if way == "instrumented" and sdk.wrapped:
        lacks |= {*ALONE}
    return [column for column in CHECKS if column not in lacks]
