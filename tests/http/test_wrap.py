"""Clients of SDKs over a cache: copies of their types, which leave the originals as they were."""

from __future__ import annotations

import asyncio
import gc
import importlib
import subprocess
import sys
from operator import attrgetter
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

from asynccache import Cache
from asynccache.http import endpoint, register
from tests.helpers.openai_server import Gate, running
from tests.helpers.providers_server import Providers
from tests.helpers.sdks import KEY, MESSAGES, SDKS, Sync, outcome, sync_outcome

pytest_plugins = ("tests.helpers.sdk_fixtures",)
pytestmark = [
    pytest.mark.usefixtures("offline"),
    pytest.mark.filterwarnings(
        "ignore:Inheritance class AiohttpClientSession:DeprecationWarning"  # google-genai's
    ),
]

STAINLESS = ("anthropic", "groq", "together", "cerebras")
PLACES: dict[str, tuple[str, ...]] = {
    # Where an SDK has its HTTP clients, asynchronous and synchronous; a method with parentheses.
    **dict.fromkeys((*STAINLESS, "anthropic, aiohttp"), ("_client", "_client")),
    "ollama": ("_client", "_client"),
    "mistralai": ("sdk_configuration.async_client", "sdk_configuration.client"),
    "cohere, httpx": ("_client_wrapper.httpx_client.httpx_client",) * 2,
    "cohere, aiohttp": ("_client_wrapper.httpx_client.httpx_client",) * 2,
    "google-genai, httpx": ("_api_client._async_httpx_client", "_api_client._httpx_client"),
    "google-genai, aiohttp": ("_api_client._get_aiohttp_session()", "_api_client._httpx_client"),
    "huggingface_hub": ("_get_async_client()", "_inner_post.__globals__.get_session()"),
}
ASYNC = [SDKS[name] for name in PLACES]
HTTP_CLIENTS = (
    httpx.AsyncClient, httpx.Client, httpx2.AsyncClient, httpx2.Client, aiohttp.ClientSession,
)  # fmt: skip


@pytest.fixture(scope="module")
def anyio_backend():
    """Run on one loop, as there is much to run."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(scope="module")
def running_server():
    """One server for all tests."""
    with running() as server:
        yield server


@pytest.fixture
def server(running_server):
    """The server as it is at first."""
    running_server.program = Providers()
    running_server.requests.clear()
    return running_server


@pytest.fixture
async def cache():
    """An open cache."""
    async with Cache.memory() as cache:
        yield cache


@pytest.fixture
def at(server):
    """Return a function that gives an SDK's URL of the server."""

    def found(sdk):
        url = f"http://127.0.0.1:{server.port}"
        if sdk.like:
            register(endpoint(url, like=sdk.like))
        return url

    return found


def ask(sdk, client):
    """Ask for a plain answer."""
    return outcome(sdk.ask(client, "plain"))


async def http_client(client, place):
    """Return the HTTP client that stands at a place."""
    found = client
    for name in place.removesuffix("()").split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    if place.endswith("()"):
        found = found()
        return await found if asyncio.iscoroutine(found) else found
    return found


def state(value):
    """Return what an object holds, and what that holds."""
    return {
        name: (id(part), {**getattr(part, "__dict__", {})}) for name, part in vars(value).items()
    }


@pytest.mark.parametrize("sdk", ASYNC, ids=lambda sdk: sdk.name)
async def test_where_the_http_client_is(sdk, cache, at):
    """The SDK has it where it is known to be; a copy has a copy there, and the original its own."""
    place = PLACES[sdk.name][0]
    async with sdk.opened(at(sdk)) as client:
        before = state(client)
        copied = cache.wrap(client)
        assert state(client) == before
        assert type(copied) is type(client)
        ours, theirs = await http_client(copied, place), await http_client(client, place)
        assert isinstance(ours, HTTP_CLIENTS)
        assert ours is not theirs
        assert isinstance(ours, type(theirs))
        if hasattr(copied, "close") and asyncio.iscoroutinefunction(copied.close):
            await copied.close()


@pytest.mark.parametrize("sdk", [sdk for sdk in ASYNC if sdk.has_sync], ids=lambda sdk: sdk.name)
def test_where_the_synchronous_http_client_is(sdk, at):
    """So it is for synchronous clients."""
    place = PLACES[sdk.name][1]
    with Cache.memory() as cache, sdk.opened_sync(at(sdk)) as opened:
        client = opened.both if isinstance(opened, Sync) else opened
        copied = cache.wrap(client)
        assert type(copied) is type(client)
        ours, theirs = (asyncio.run(http_client(one, place)) for one in (copied, client))
        assert isinstance(ours, HTTP_CLIENTS)
        assert ours is not theirs


@pytest.mark.parametrize("sdk", ASYNC, ids=lambda sdk: sdk.name)
async def test_the_original_goes_on_after_its_copy_was_closed(sdk, server, cache, at):
    """Its later requests are sent, uncached; and so is one that is under way while a copy ends."""
    gate = Gate()
    async with sdk.opened(at(sdk)) as client:
        await ask(sdk, client)
        server.program = Providers(gate=gate)
        under_way = asyncio.ensure_future(ask(sdk, client))
        await server.arrived(len(server.requests) + 1)
        copied: Any = cache.wrap(client)
        del copied
        gc.collect()
        gate.open()
        await under_way
        copied = cache.wrap(client)
        asked = server.program.asked
        for _ in range(2):
            await ask(sdk, copied)
        assert server.program.asked == asked + 1
        inner = getattr(copied, "aio", copied)
        if "aiohttp" not in sdk.name or "genai" in sdk.name:  # there one closes the other's
            async with inner:
                pass
        await ask(sdk, client)
        assert server.program.asked == asked + 2
    assert cache.stats().hits == 1


@pytest.mark.parametrize("sdk", ASYNC, ids=lambda sdk: sdk.name)
async def test_an_original_that_nobody_has_any_more(sdk, server, cache, at):
    """A client is wrapped as it is made: what it does when it is collected must wait."""
    async with sdk.opened(at(sdk), wrap=cache.wrap) as client:
        gc.collect()
        await asyncio.sleep(0)
        for _ in range(2):
            events = await outcome(sdk.ask(client, "streamed"))
        assert events
        assert cache.stats().hits == 1


@pytest.mark.parametrize("sdk", ASYNC, ids=lambda sdk: sdk.name)
async def test_a_copy_is_wrapped_for_another_cache(sdk, server, cache, at):
    """The first cache isn't asked by it, and by what the first has wrapped."""
    async with sdk.opened(at(sdk), wrap=cache.wrap) as client, Cache.memory() as second:
        await ask(sdk, client)
        again = second.wrap(client)
        for _ in range(2):
            await ask(sdk, again)
        assert server.program.asked == 2
        assert (second.stats().misses, second.stats().hits) == (1, 1)
        assert cache.stats().hits == 0
        await ask(sdk, client)
        assert cache.stats().hits == 1
        if sdk.name == "huggingface_hub":
            await again.close()


@pytest.mark.parametrize("name", STAINLESS)
async def test_what_a_client_makes_of_itself_is_cached_too(name, server, cache, at):
    """With other options, or another HTTP client. A name is for the server it was given to."""
    sdk: Any = SDKS[name]
    async with sdk.made(at(sdk), sync=False) as bare:
        client = cache.wrap(bare, upstream="one")
        await ask(sdk, client)
        await ask(sdk, client.with_options(timeout=30, max_retries=1))
        await ask(sdk, client.copy().copy())
        library = httpx2 if isinstance(bare._client, httpx2.AsyncClient) else httpx
        async with library.AsyncClient() as own:
            await ask(sdk, client.with_options(http_client=own))
        assert server.program.asked == 1
        elsewhere = str(client.base_url).replace("127.0.0.1", "localhost")
        await ask(sdk, client.with_options(base_url=elsewhere))
        assert server.program.asked == 2


@pytest.mark.parametrize("name", STAINLESS)
async def test_resources_that_were_used_before(name, server, cache, at):
    """The copy's are its own, raw and streaming responses as well."""
    sdk: Any = SDKS[name]
    async with sdk.made(at(sdk), sync=False) as bare:
        resource = "messages" if name == "anthropic" else "chat.completions"
        found = attrgetter(resource)
        raw = attrgetter(f"{resource}.with_raw_response")
        asked: dict[str, Any] = {"model": "m", "messages": MESSAGES}
        if name == "anthropic":
            asked["max_tokens"] = 9
        await found(bare).create(**asked)
        await raw(bare).create(**asked)
        client = cache.wrap(bare)
        for create in (found(client).create, raw(client).create, found(client).create):
            await create(**asked)
        assert server.program.asked == 3
        assert cache.stats().hits == 2


async def test_parts_of_mistral_and_gemini_that_were_used_before(server, cache, at):
    """So it is for SDKs that keep their parts otherwise; a part alone can be wrapped."""
    for name in ("mistralai", "google-genai, aiohttp"):
        sdk = SDKS[name]
        async with sdk.opened(at(sdk)) as client:
            await ask(sdk, client)
            asked = server.program.asked
            for _ in range(2):
                await ask(sdk, cache.wrap(client))
            assert server.program.asked == asked + 1
    sdk = SDKS["google-genai, aiohttp"]
    async with sdk.opened(at(sdk)) as client:
        aio = cache.wrap(client.aio)
        await aio.models.generate_content(model="m", contents="Hello?")
        await aio.models.generate_content(model="m", contents="Hello?")
        assert cache.stats().hits == 3


async def test_version_1_of_cohere(server, cache, at):
    """Its methods are functions that keep hold of the client they were made for."""
    import cohere

    url = at(SDKS["cohere, httpx"])
    async with (
        httpx.AsyncClient() as http,
        cohere.AsyncClient(KEY, base_url=url, httpx_client=http) as bare,
    ):
        client = cache.wrap(bare)
        for _ in range(2):
            await client.v2.chat(model="m", messages=MESSAGES)
            await client.rerank(model="m", query="q", documents=["a"])
        assert cache.stats().hits == 2
        assert client.chat is not bare.chat


def test_gemini_over_httpx_in_two_loops(server, monkeypatch, at):
    """It has an HTTP client for each loop, made when it is needed: each of them is wrapped."""
    module = importlib.import_module("google.genai._api_client")
    monkeypatch.setattr(module, "has_aiohttp", False)
    sdk: Any = SDKS["google-genai, aiohttp"]
    cache = Cache.memory()
    client = cache.wrap(sdk._over_client(at(sdk), {}))

    async def once():
        async with cache:
            await ask(sdk, client)
            await ask(sdk, client)
        await client._api_client._async_httpx_client._client_for_running_loop().aclose()

    for _ in range(2):
        asyncio.run(once())
    client.close()
    assert server.program.asked == 1
    assert cache.stats().hits == 3


CLOUDS: dict[str, dict[str, Any]] = {
    "AsyncAnthropicBedrock": {"aws_region": "r", "aws_access_key": "a", "aws_secret_key": "s"},
    "AsyncAnthropicVertex": {"region": "r", "project_id": "p", "access_token": "t"},
    "AsyncAnthropicFoundry": {"api_key": "k", "resource": "r"},
}


@pytest.mark.parametrize("flavour", CLOUDS)
async def test_anthropics_at_other_clouds(flavour, cache):
    """They are wrapped as well; what isn't known of their requests passes."""
    import anthropic

    async with getattr(anthropic, flavour)(**CLOUDS[flavour]) as bare:
        client = cache.wrap(bare)
        assert type(client) is type(bare)
        assert type(client.with_options(timeout=1)) is type(bare)


async def test_a_class_of_ones_own(server, cache, at):
    """It may want other arguments, and its attributes stay what they are."""
    import groq

    class Corporate(groq.AsyncGroq):
        def __init__(self, team: str, where: str):
            super().__init__(api_key=KEY, base_url=where)
            self.team = team

    async with Corporate("search", at(SDKS["groq"])) as bare:
        client = cache.wrap(bare)
        assert (type(client), client.team) == (Corporate, "search")
        for _ in range(2):
            await ask(SDKS["groq"], client)
    assert server.program.asked == 1


@pytest.mark.parametrize("name", ["anthropic", "mistralai", "ollama", "huggingface_hub"])
def test_synchronous_clients_are_their_own(name, server, at):
    """A copy answers from the cache; the original doesn't, then and later."""
    sdk = SDKS[name]
    with Cache.memory() as cache, sdk.opened_sync(at(sdk)) as opened:
        client = opened.both if isinstance(opened, Sync) else opened
        copied: Any = cache.wrap(client)
        copied = Sync(copied) if isinstance(opened, Sync) else copied
        for one in (copied, copied, opened):
            sync_outcome(sdk.ask(one, "plain"))
        assert server.program.asked == 2
        assert cache.stats().hits == 1


@pytest.mark.parametrize("library", [httpx, httpx2], ids=lambda library: library.__name__)
async def test_what_is_set_on_a_copy_is_not_on_the_original(library, cache):
    """Headers and cookies are each client's own from then on."""
    async with library.AsyncClient(headers={"x-both": "1"}, cookies={"both": "1"}) as bare:
        client = cache.wrap(bare)
        assert (client.headers, client.cookies["both"]) == (bare.headers, "1")
        client.headers["x-new"] = "2"
        client.cookies.set("new", "2")
        assert "x-new" not in bare.headers
        assert "new" not in bare.cookies


def test_nothing_has_to_be_installed():
    """Without any HTTP library the package is there, and says what is missing."""
    script = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['aiohttp', 'httpx', 'httpx2']))\n"
        "import asynccache.http\n"
        "from asynccache import Cache\n"
        "for call in (asynccache.http.aiohttp_middleware, Cache.memory().transport):\n"
        "    try: call()\n"
        "    except ImportError as exc: print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "aiohttp isn't installed: run pip install aiohttp",
        "neither httpx2 nor httpx is installed: run pip install httpx2",
    ]
