"""Every door of the SDK, with every kind of request: paid once, then nothing, and always alike."""

from __future__ import annotations

import asyncio

import pytest
from openai import AsyncOpenAI

from asynccache import Cache
from tests.helpers import matrix
from tests.helpers.openai_api import whole_api
from tests.helpers.openai_doors import cells, clients
from tests.helpers.openai_server import state, stored

pytest_plugins = ("tests.helpers.openai_fixtures",)

CELLS = cells()
MAIN = [cell for cell in CELLS if "(" not in cell.door and not cell.door.startswith("beta")]
WIRES = {
    wire: [cell for cell in CELLS if cell.wire == wire]
    for wire in dict.fromkeys(cell.wire for cell in CELLS)
}


@pytest.fixture(scope="module")
def anyio_backend():
    """One loop is enough: what differs between loops is tested elsewhere."""
    return "asyncio"


@pytest.fixture
def api(api):
    """A server that answers as the whole API does."""
    api.program = whole_api
    return api


def _id(cell):
    return f"{cell.door}-{cell.kind}-{cell.wire}".replace(" ", "_")


@pytest.mark.parametrize("cell", CELLS, ids=_id)
async def test_a_door(cell, bare, api):
    """The first call pays, the second doesn't, a hundred at once pay once; all are equal."""
    expected = (await cell.call(bare)).told
    api.requests.clear()
    async with Cache.memory() as cache:
        client = cache.wrap(bare)
        first = await cell.call(client)
        assert len(api.requests) == 1
        assert cache.stats().bypassed == 0
        matrix.note(cell, "pays once")
        await stored(cache)
        second = await cell.call(client)
        assert len(api.requests) == 1
        assert state(first.marked).outcome == "miss"
        assert state(second.marked).outcome == "hit"
        matrix.note(cell, "then nothing")
        assert first.told == expected
        assert second.told == expected
        matrix.note(cell, "equal")
    async with Cache.memory() as cache:
        client = cache.wrap(bare)
        api.requests.clear()
        results = await asyncio.gather(*(cell.call(client) for _ in range(100)))
        assert len(api.requests) == 1
        assert all(result.told == expected for result in results)
        assert {state(result.marked).outcome for result in results} == {"miss", "joined"}
        matrix.note(cell, "100 at once pay once")


@pytest.mark.parametrize("kind", ["subclass", "AsyncAzureOpenAI"])
@pytest.mark.parametrize("cell", MAIN, ids=_id)
async def test_a_door_of_another_client(cell, kind, api):
    """Subclasses and Azure's client are cached as well, with results of their own kind."""
    client = clients(api)[kind]
    async with client, Cache.memory() as cache:
        expected = (await cell.call(client)).told
        wrapped = cache.wrap(client)
        api.requests.clear()
        assert (await cell.call(wrapped)).told == expected
        await stored(cache)
        assert (await cell.call(wrapped)).told == expected
        assert len(api.requests) == 1


@pytest.mark.parametrize("wire", WIRES)
async def test_one_wire_request_has_one_key(wire, bare, api):
    """Whichever door a request goes through, it is sent once, alike, and has one key."""
    doors = WIRES[wire]
    for first in doors:
        await first.call(bare)
    sent = {seen.raw for seen in api.requests}
    bodies = [seen.body for seen in api.requests]
    assert all(body == bodies[0] for body in bodies), f"{wire} isn't one request: {sent}"
    api.requests.clear()
    async with Cache.memory() as cache:
        client = cache.wrap(bare)
        keys = {state((await cell.call(client)).marked).key for cell in doors}
        assert len(keys) == 1
        assert len(api.requests) == 1


async def test_objects_taken_before(bare, api):
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
    assert len(api.requests) == 1


async def test_raw_headers_worth_keeping(bare, api):
    """A recorded response has the headers that tell of the answer, and not those of its journey."""
    async with Cache.memory() as cache:
        client = cache.wrap(bare)
        for _ in range(2):
            response = await client.chat.completions.with_raw_response.create(
                model="m", messages=[]
            )
            assert response.headers["openai-version"] == "2020-10-01"
            assert response.headers["x-request-id"] == response.request_id == "req_1"
            assert "x-other" not in response.headers
            assert response.elapsed.total_seconds() > 0
            assert str(response.url).endswith("/v1/chat/completions")


def test_the_docs_have_what_was_measured():
    """The table in docs/doors.md is that of this run; write it anew with the command that it says.

    WRITE_DOORS=1 .venv/bin/nox -s tests tests_openai2 -- tests/test_openai_matrix.py
    """
    if matrix.wanted():
        matrix.write()
    claims = matrix.documented()
    found = {place for place in matrix.measured if matrix.held(*place)}
    claimed = {place for place, sdks in claims.items() if matrix.SDK in sdks}
    assert found <= claimed
    if len(matrix.measured) == len({(cell.door, cell.kind) for cell in CELLS}):
        assert claimed == found


def test_a_client_that_is_no_client_has_no_door():
    """The cells are made for the client's own methods, so that a missing one would show."""
    assert all(hasattr(AsyncOpenAI, cell.door.partition(".")[0].partition("(")[0]) or
               cell.door.startswith("client") for cell in CELLS)  # fmt: skip
