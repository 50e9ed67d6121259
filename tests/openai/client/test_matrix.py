"""Every door of the SDK, for every kind of request, through every way of having the client.

A cell holds four checks: the first call pays once, the second pays nothing, both results equal the
bare client's, and a hundred callers at once pay once. The cells are printed as a table after the
run, and stand in docs/supported-endpoints.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial

import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI

import asynccache
from asynccache import Cache
from tests.helpers import openai_matrix
from tests.helpers.matrix import mark
from tests.helpers.openai_api import whole_api
from tests.helpers.openai_doors import ASKED, DOORS, KINDS, WIRE, plain, variants
from tests.helpers.openai_server import stored
from tests.helpers.whole_runs import check_whole

pytest_plugins = ("tests.helpers.openai_fixtures",)

MATRIX = openai_matrix.MATRIX
CALLERS = 100
SETTLED = 3  # seconds: a bound for an answer that is never stored


class Subclass(AsyncOpenAI):
    """What frameworks make of the client."""


@pytest.fixture(scope="module")
def anyio_backend():
    """Run on one loop, as there is much to run; the other tests of the adapter run on both."""
    return "asyncio", {"use_uvloop": False}


def openai_client(api, kind=AsyncOpenAI):
    """Return a bare client of the server."""
    return kind(api_key="sk-a", base_url=api.base_url, max_retries=0)


def azure_client(api):
    """Return a bare client of the server as an Azure resource."""
    return AsyncAzureOpenAI(
        api_key="sk-a",
        azure_endpoint=f"http://127.0.0.1:{api.port}",
        api_version="v1",
        max_retries=0,
    )


def taken_before(client, door):
    """Return the objects of a client from which another was made afterwards."""
    taken = door.taken(client)
    client.with_options(timeout=9)
    return taken


WAYS = {
    "with_options()": (
        openai_client,
        lambda client, door: door.taken(client.with_options(timeout=9)),
    ),
    "copy()": (openai_client, lambda client, door: door.taken(client.copy().copy())),
    "taken before": (openai_client, taken_before),
    "Azure": (azure_client, lambda client, door: door.taken(client)),
    "subclass": (
        lambda api: openai_client(api, Subclass),
        lambda client, door: door.taken(client),
    ),
}
WAY_KINDS = ("plain", "streamed", "raw")  # tools and structured go the same ways as plain
MAIN_DOORS = [door for door in DOORS if door.method != "post" and "beta." not in door.resource]

CELLS = [
    pytest.param(door, kind, [kind], openai_client, lambda client, door: door.taken(client))
    for door in DOORS
    for kind in door.kinds()
] + [pytest.param(door, way, WAY_KINDS, *how) for door in MAIN_DOORS for way, how in WAYS.items()]
MATRIX.tables[:] = [
    ([door.name for door in DOORS], list(KINDS)),
    ([door.name for door in MAIN_DOORS], list(WAYS)),
]
MATRIX.measured.update(
    {
        **{(door.name, kind): "" for door in DOORS for kind in door.kinds()},
        **{(door.name, way): "" for door in MAIN_DOORS for way in WAYS},
    }
)


@pytest.fixture
def server(api):
    """The server, answering as the API does."""
    api.program = whole_api
    return api


async def told(call):
    """Return what a call through a cache gave, how it was answered, and its key.

    Raises:
        AssertionError: `asynccache.status` says something else.
    """
    with asynccache.record() as calls:
        got = await call
    (event,) = calls
    for status in got.statuses:
        assert status is not None
        assert (status.outcome, status.key) == (event.outcome, event.key)
    return got, event.outcome, event.key


async def checked(server, bare, call, taken):
    """Return the four checks of one call, made by nobody before."""
    expected = (await call(taken(bare))).told()
    server.requests = []
    async with Cache.memory() as cache:
        client = cache.wrap(bare)
        first, how, key = await told(call(taken(client)))
        pays_once = (len(server.requests), how) == (1, "miss")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLED):
                await stored(cache)
        second, how, same_key = await told(call(taken(client)))
        pays_nothing = (len(server.requests), how, same_key) == (1, "hit", key)
        equal = first.told() == expected == second.told()
    server.requests = []
    async with Cache.memory() as cache:
        client = cache.wrap(bare)
        results = await asyncio.gather(*(call(taken(client)) for _ in range(CALLERS)))
        same = all(got.objects == results[0].objects for got in results)
        hundred = same and len(server.requests) == 1 and results[-1].told() == expected
        assert cache.stats().bypassed == 0
    return pays_once, pays_nothing, equal, hundred


@pytest.mark.parametrize(
    ("door", "column", "kinds", "make", "take"),
    CELLS,
    ids=lambda value: getattr(value, "name", value if isinstance(value, str) else ""),
)
async def test_cell(  # noqa: PLR0917 - what makes a cell
    door, column, kinds, make, take, server
):
    """The first pays once, the second nothing, results are equal, and a hundred pay once."""
    cell = (door.name, column)
    MATRIX.measured[cell] = mark([False] * 4)
    async with make(server) as bare:
        found = {
            name: await checked(server, bare, call, lambda client: take(client, door))
            for name, call in variants(door, kinds)
        }
    MATRIX.measured[cell] = mark(all(checks) for checks in zip(*found.values(), strict=True))
    assert all(all(checks) for checks in found.values()), found


DOORS_OF_ONE = [  # not one request for each door: these, and others, are the same
    {"chat.completions.create plain 0", 'post("/chat/completions") plain 0'},
    {"chat.completions.create plain 0", "chat.completions.create raw 0"},
    {"chat.completions.create streamed 0", "chat.completions.stream streamed 0"},
    {"chat.completions.parse structured 0", "chat.completions.create like parse"},
    {"responses.create plain 0", "responses.parse plain 0", 'post("/responses") raw 0'},
    {"responses.create structured 0", "responses.parse structured 0"},
    {"responses.create streamed 0", "responses.stream streamed 0", "responses.create raw 1"},
    {"completions.create streamed 0", 'post("/completions") streamed 0'},
    {"embeddings.create plain 0", "embeddings.create raw 0"},
]


def all_calls():
    """Yield every call of every door, named."""
    for door in DOORS:
        for name, call in variants(door):
            yield name, door, call
    parse = {**ASKED["chat"], **WIRE["chat", "structured"], "stream": False}  # as parse sends it
    yield "chat.completions.create like parse", DOORS[0], partial(plain, parse)


@pytest.mark.parametrize("make", [openai_client, azure_client], ids=["OpenAI", "Azure"])
async def test_one_wire_request_has_one_key(make, server):
    """Doors that send the same share key and payment, doors that don't share neither."""
    keys: dict[tuple, str] = {}
    names: dict[tuple, set] = {}
    async with make(server) as bare, Cache.memory() as cache:
        client = cache.wrap(bare)
        for name, door, call in all_calls():
            server.requests = []
            await call(door.taken(bare))
            (seen,) = server.requests
            wire = seen.path, seen.query, json.dumps(seen.body, sort_keys=True)
            server.requests = []
            _, outcome, key = await told(call(door.taken(client)))
            assert len(server.requests) == (wire not in keys), name
            assert (outcome == "miss") == (wire not in keys), name
            assert keys.setdefault(wire, key) == key, name
            names.setdefault(wire, set()).add(name)
    assert len(set(keys.values())) == len(keys)
    for group in DOORS_OF_ONE:
        assert any(group <= found for found in names.values()), group


async def test_objects_taken_before(bare, server):
    """Bound methods and raw resources of a wrapped client stay cached, also beside its copies."""
    async with Cache.memory() as cache:
        client = cache.wrap(bare)
        taken = client.chat.completions.create
        raws = client.chat.completions.with_raw_response
        whole = client.with_raw_response
        other = client.with_options(timeout=3)
        ask = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}
        await taken(**ask)
        await raws.create(**ask)
        await whole.chat.completions.create(**ask)
        await other.chat.completions.with_raw_response.create(**ask)
    assert len(server.requests) == 1


async def test_raw_headers_worth_keeping(bare, server):
    """A recorded response has the headers that tell of the answer, and not those of its journey."""
    async with Cache.memory() as cache:
        client = cache.wrap(bare)
        for is_hit in (False, True):
            response = await client.chat.completions.with_raw_response.create(
                model="m", messages=[]
            )
            assert response.headers["openai-version"] == "2020-10-01"
            assert response.headers["x-request-id"] == response.request_id == "req_1"
            assert ("x-other" not in response.headers) is is_hit
            assert response.elapsed.total_seconds() > 0
            assert str(response.url).endswith("/v1/chat/completions")


def test_the_docs_show_what_was_measured(request):
    """The table of docs/supported-endpoints.md is that of this run; `--update-docs` writes it."""
    check_whole(request.config, [cell for cell, marks in MATRIX.measured.items() if not marks])
    if request.config.getoption("update_docs"):
        openai_matrix.write_docs()
    assert openai_matrix.in_docs() == MATRIX.markdown(), (
        "to write it: .venv/bin/nox -s tests tests_openai2 --"
        " tests/openai/client/test_matrix.py --update-docs"
    )
