"""Modes, options, samples, closed caches and events hold for HTTP clients as for all calls."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

import asynccache
from asynccache import Cache, CacheClosedError, ReplayMiss, options, record
from tests.helpers.openai_server import COMPLETION, DONE, MESSAGES, chunk, sse, stored

pytest_plugins = ("tests.helpers.openai_fixtures",)
pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

BODY: dict[str, Any] = {"model": "gpt-4o", "messages": MESSAGES}
USAGE = COMPLETION["usage"]


class Asked:
    """One kind of client, used as all others."""

    def __init__(self, kind, base_url):
        self.kind = kind
        self._url = f"{base_url}/chat/completions"
        made: dict[str, Any] = {
            "httpx": lambda: httpx.AsyncClient(verify=False),
            "httpx2": lambda: httpx2.AsyncClient(verify=False),
            "sync": lambda: httpx2.Client(verify=False),
            "aiohttp": aiohttp.ClientSession,
        }
        self.bare = made[kind]()
        self.client = self.bare

    def by(self, cache, **given):
        """Return the same over a cache."""
        made = object.__new__(Asked)
        vars(made).update(vars(self), client=cache.wrap(self.bare, **given))
        return made

    async def __call__(self, *, stream=False, **changes):
        """Ask; return the number of the answer, and where it came from."""
        body = {**BODY, **changes, **({"stream": True} if stream else {})}
        if self.kind == "aiohttp":
            async with self.client.post(self._url, json=body) as response:
                content = await response.read()
        elif self.kind == "sync":
            response = await asyncio.to_thread(self.client.post, self._url, json=body)
            content = response.content
        else:
            response = await self.client.post(self._url, json=body)
            content = response.content
        first = content.split(b"\n")[0].removeprefix(b"data: ") if stream else content
        status = asynccache.status(response)
        return json.loads(first)["id"], None if status is None else status.outcome

    async def aclose(self):
        """Close it."""
        if self.kind == "sync":
            self.bare.close()
        elif self.kind == "aiohttp":
            await self.bare.close()
        else:
            await self.bare.aclose()


@pytest.fixture(params=["httpx", "httpx2", "sync", "aiohttp"])
async def bare(request, api):
    """A client without a cache; the server numbers its answers."""

    async def program(seen):
        number = str(len(api.requests))
        if seen.body.get("stream"):
            events = (chunk("One", id=number), chunk("", finish="stop", id=number, usage=USAGE))
            await seen.stream(*map(sse, events), DONE)
        else:
            await seen.answer({**COMPLETION, "id": number})

    api.program = program
    client = Asked(request.param, api.base_url)
    yield client
    await client.aclose()


@pytest.fixture
def ask(bare, api_cache):
    """The same client over a cache."""
    return bare.by(api_cache)


forms = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


@forms
async def test_replay(stream, ask, api, api_cache):
    """What is stored is given; for all else there is our own error, and nothing goes upstream."""
    await ask(stream=stream)
    await stored(api_cache)
    with options(mode="replay"):
        assert await ask(stream=stream) == ("1", "hit")
        with pytest.raises(ReplayMiss, match=r"/chat/completions at .*model 'other'"):
            await ask(stream=stream, model="other")
        with pytest.raises(ReplayMiss):
            await ask(stream=stream, conversation="c")  # it isn't cacheable
    assert len(api.requests) == 1
    assert api_cache.stats().replay_misses == 2


@forms
async def test_refresh(stream, ask, api, api_cache):
    """It goes upstream and overwrites."""
    await ask(stream=stream)
    await stored(api_cache)
    with options(mode="refresh"):
        assert await ask(stream=stream) == ("2", "miss")
    await stored(api_cache, 2)
    assert await ask(stream=stream) == ("2", "hit")


@forms
async def test_read_only(stream, ask, api, api_cache):
    """What is there is given, and nothing is stored."""
    with options(mode="read_only"):
        assert await ask(stream=stream) == ("1", "miss")
        assert await ask(stream=stream) == ("2", "miss")
    assert api_cache.stats().stored == 0
    assert api_cache.stats().not_stored == {"mode": 2}
    await ask(stream=stream)
    await stored(api_cache)
    with options(mode="read_only"):
        assert await ask(stream=stream) == ("3", "hit")


@forms
async def test_off(stream, ask, api, api_cache):
    """As if there were no cache, and counted."""
    with options(mode="off"):
        for number in ("1", "2"):
            assert await ask(stream=stream) == (number, None)
    assert api_cache.stats().bypassed == 2
    assert api_cache.stats().stored == 0


async def test_samples_are_independent_answers(ask, api, api_cache):
    """By number, or one after the other."""
    for again in ("miss", "hit"):
        found = []
        with options(sample="each"):
            for _ in range(3):
                found.append(await ask())
                await stored(api_cache, len(api.requests))
        assert found == [(str(number), again) for number in (1, 2, 3)]
    with options(sample=1):
        assert await ask() == ("2", "hit")


async def test_tenants_and_seeds_are_apart(ask, api, api_cache):
    """Each has its own entries."""
    for given in ({"tenant": "a"}, {"tenant": "b"}, {"cache_seed": 7}):
        with options(**given):
            assert (await ask())[1] == "miss"
    assert len(api.requests) == 3


async def test_another_cache_for_a_block(ask, api):
    """It takes the place of the client's own."""
    async with Cache.memory() as other:
        with options(cache=other):
            await ask()
            await stored(other)
            assert await ask() == ("1", "hit")
        assert other.stats().stored == 1


async def test_what_is_stored_can_be_chosen(ask, api, api_cache):
    """By a function that sees the answer, and by its time to live."""
    seen: list[Any] = []

    def none_of_them(answer):
        seen.append(answer)
        return False

    with options(store_if=none_of_them):
        await ask()
        await ask()
    assert len(api.requests) == 2
    assert {answer.json()["model"] for answer in seen} == {COMPLETION["model"]}
    assert api_cache.stats().not_stored == {"store_if": 2}


async def test_a_closed_cache_lets_requests_pass(bare, api, caplog):
    """Counted and told once; in a replay it is an error."""
    cache = Cache.memory()
    ask = bare.by(cache)
    for number in ("1", "2"):
        assert await ask() == (number, None)
    assert cache.stats().bypassed == 2
    assert caplog.text.count("isn't open") == 1
    with options(mode="replay"), pytest.raises(CacheClosedError):
        await ask()
    assert len(api.requests) == 2


async def test_stats_and_events(ask, api, api_cache):
    """One call is one event, with its tokens."""
    with record() as told:
        await ask()
        await stored(api_cache)
        await ask()
        await ask(stream=True)
        await stored(api_cache, 2)
        await ask(stream=True)
        await ask(conversation="c")
    outcomes = [one.outcome for one in told]
    assert outcomes == ["miss", "hit", "miss", "hit", "bypass"]
    assert {one.endpoint for one in told} == {"/chat/completions"}
    assert {one.tokens for one in told[:4]} == {USAGE["total_tokens"]}
    assert {one.model for one in told[:4]} == {COMPLETION["model"]}
    stats = api_cache.stats()
    assert (stats.hits, stats.misses, stats.bypassed) == (2, 2, 1)
    assert stats.tokens_paid == stats.tokens_saved == 2 * USAGE["total_tokens"]


async def test_an_answer_can_be_forgotten(ask, api, api_cache):
    """By its key: the next request is paid for."""
    with record() as told:
        await ask()
    await stored(api_cache)
    await api_cache.forget(key=told[0].key)
    assert await ask() == ("2", "miss")


async def test_events_tell_a_refusal_by_its_status(ask, api):
    """There is no error then whose name could be told."""

    async def refuse(seen):
        await seen.answer({"error": {}}, 429)

    api.program = refuse
    with record() as told, pytest.raises(KeyError):
        await ask()
    assert [(one.outcome, one.reason) for one in told] == [("error", "HTTP 429")]
