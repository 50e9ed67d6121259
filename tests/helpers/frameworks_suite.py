"""What every framework is put to, each in its own environment.

It is noted in docs/frameworks/frameworks.md.

A subclass says how one agent of the framework is run in each kind; each run makes its agents anew.
Each is run at two addresses: at one of this machine, and at OpenAI's own, which SDKs and frameworks
know.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

import asynccache
from asynccache import Cache
from tests.helpers.frameworks_server import OBJECT, TEXT, Model
from tests.helpers.frameworks_table import OFFICIAL, WHERE, Row
from tests.helpers.openai_server import Gate
from tests.helpers.whole_runs import check_whole

THOUSAND = 1000


class Weather(BaseModel):
    """What structured answers are made into."""

    city: str
    degrees: int


class FrameworkSuite:
    """The tests of one row of the table; what runs may be a plain or a coroutine function."""

    name: ClassVar[str]
    by_name: ClassVar[bool] = False
    """Whether it is run by name only, as its environment takes long to install."""
    reasons: ClassVar[dict[str, str]] = {}
    """Why a column isn't tested, by column."""
    options: ClassVar[dict[str, Any]] = {}
    """Of the cache, where the framework needs some."""
    requests: ClassVar[dict[str, int]] = {"plain": 1, "tools": 2, "structured": 1, "streamed": 2}
    """Calls that a run makes. A streamed run has tools too."""
    more_at_official: ClassVar[dict[str, int]] = {}
    """Further calls that it makes at the official address, by kind."""
    row: ClassVar[Row]

    def client(self, url: str | None) -> Any:
        """Return a context manager of whatever runs share: a client, a model, or only the URL.

        Args:
            url: Where to ask; None for the official address, which nobody is told.
        """
        return contextlib.nullcontext(url)

    def plain(self, client: Any) -> Any:
        """Return the model's text."""
        raise NotImplementedError

    def tools(self, client: Any) -> Any:
        """Return the text that it gave when it had the tool's result."""
        raise NotImplementedError

    def structured(self, client: Any) -> Any:
        """Return a `Weather`, or its members."""
        raise NotImplementedError

    def streamed(self, client: Any) -> Any:
        """Return the texts as they came, several of them."""
        raise NotImplementedError

    def shared(self, url: str | None) -> Any:
        """Return a context manager of what a thousand runs share."""
        return self.client(url)

    def light(self, client: Any) -> Any:
        """Return the model's text by the framework's lightest way, which a thousand take."""
        return self.plain(client)

    # -- the tests ---------------------------------------------------------------------------

    @classmethod
    def pytest_generate_tests(cls, metafunc):
        """Run each kind that the framework has, at each address."""
        if "row" not in cls.__dict__:
            cls.row = Row(cls.name, cls.reasons, dated=cls.by_name)
        if "kind" in metafunc.fixturenames:
            metafunc.parametrize("kind", cls.row.kinds)
        if "where" in metafunc.fixturenames:
            metafunc.parametrize("where", WHERE)

    @pytest.fixture(scope="class")
    @classmethod
    def anyio_backend(cls):
        """Run on one loop, as there is much to run."""
        return "asyncio", {"use_uvloop": False}

    @pytest.fixture
    def server(self, request):
        """A server that answers agents at an address."""
        asked = getattr(request.node, "callspec", None)
        official = asked is not None and asked.params.get("where") == OFFICIAL
        server = request.getfixturevalue("official_api" if official else "api")
        server.program = Model()
        return server

    async def test_a_kind_of_run(self, kind, where, server):
        """A run gives the same with a cache as without, pays once, and a second one nothing."""
        url = None if where == OFFICIAL else server.base_url
        self.row.begin(kind, where)
        without = await self.run(kind, url)
        count = len(server.requests)
        assert_right(kind, without)
        further = self.more_at_official.get(kind, 0) if where == OFFICIAL else 0
        assert count == self.requests[kind] + further
        paid = len({(seen.path, seen.raw) for seen in server.requests})  # the rest it asks twice
        server.requests = []
        async with Cache.memory(**self.options) as cache:
            with asynccache.instrument():
                first = await self.run(kind, url)
                works = first == without and len(server.requests) == paid
                await stored(cache, paid)
                second = await self.run(kind, url)
        again = second == without and len(server.requests) == paid
        self.row.end(kind, where, works=works, again=again)
        assert (first, second) == (without, without)
        assert len(server.requests) == paid
        stats = cache.stats()
        assert (stats.misses, stats.hits, stats.bypassed) == (paid, 2 * count - paid, 0)

    async def test_a_thousand_at_once(self, where, server):
        """A thousand identical runs that have all begun before the answer comes pay once."""
        url = None if where == OFFICIAL else server.base_url
        self.row.at_once(where, passed=False)
        gate, answer = Gate(), Model()
        run = self.light

        async def held(seen):
            await gate.wait()
            await answer(seen)

        server.program = held
        async with (
            Cache.memory(**self.options) as cache,
            opened(self.shared(url)) as client,
        ):
            with asynccache.instrument():
                if inspect.iscoroutinefunction(self.plain):
                    texts = await many_tasks(lambda: run(client), gate)
                else:
                    texts = await asyncio.to_thread(many_threads, lambda: run(client), gate)
        self.row.at_once(where, passed=texts == [TEXT] * THOUSAND and len(server.requests) == 1)
        assert texts == [TEXT] * THOUSAND
        assert len(server.requests) == 1
        stats = cache.stats()
        assert stats.misses == 1
        assert stats.hits + stats.joined == THOUSAND - 1

    def test_the_docs_show_what_was_measured(self, request):
        """The row in the docs is that of this run; `--update-docs` writes it."""
        check_whole(request.config, self.row.missing())
        if request.config.getoption("update_docs"):
            self.row.write()
        assert self.row.in_docs() == self.row.markdown(), (
            "to write it: run its session of frameworks with `-- <file> --update-docs`"
        )

    # -- running -----------------------------------------------------------------------------

    async def run(self, kind, url):
        """Run one kind, with clients and agents of its own."""
        method = getattr(self, kind)
        if inspect.iscoroutinefunction(method):
            async with opened(self.client(url)) as client:
                return as_data(await method(client))

        def work():
            with self.client(url) as client:
                return as_data(method(client))

        return await asyncio.to_thread(work)


@contextlib.asynccontextmanager
async def opened(made):
    """Enter a context manager of either kind."""
    async with contextlib.AsyncExitStack() as stack:
        if hasattr(made, "__aenter__"):
            yield await stack.enter_async_context(made)
        else:
            yield stack.enter_context(made)


def as_data(result):
    """Return a run's result as plain data, which the classes that frameworks derive aren't."""
    return result.model_dump() if isinstance(result, BaseModel) else result


def assert_right(kind, result):
    """Check what a run gave."""
    if kind == "structured":
        assert result == OBJECT
    elif kind == "streamed":
        pieces = [piece for piece in result if piece]
        assert len(pieces) > 1
        assert TEXT in "".join(pieces)
    else:
        assert result == TEXT


async def stored(cache, count):
    """Wait until all answers are stored, as second runs are to find them."""
    while cache.stats().stored < count:
        await asyncio.sleep(0.01)


async def many_tasks(run, gate):
    """Run a thousand tasks, and let the answer come when the last has begun."""
    begun = 0

    async def one():
        nonlocal begun
        begun += 1
        if begun == THOUSAND:
            gate.open()
        return await run()

    return await asyncio.gather(*(one() for _ in range(THOUSAND)))


def many_threads(run, gate):
    """Run a thousand threads, and let the answer come when the last has begun."""
    begun, lock = 0, threading.Lock()

    def one():
        nonlocal begun
        with lock:
            begun += 1
            if begun == THOUSAND:
                gate.open()
        return run()

    with ThreadPoolExecutor(THOUSAND) as pool:
        contexts = [contextvars.copy_context() for _ in range(THOUSAND)]
        return [done.result() for done in [pool.submit(one_.run, one) for one_ in contexts]]
