"""Which clients AutoGen's integration takes, how it tells them apart, and its component config."""

from __future__ import annotations

import asyncio
from time import perf_counter

import pytest
from autogen_core import CancellationToken, Image
from autogen_core.models import ChatCompletionClient, CreateResult, UserMessage
from autogen_ext.models.cache import ChatCompletionCache
from autogen_ext.models.openai import OpenAIChatCompletionClient
from autogen_ext.models.replay import ReplayChatCompletionClient
from msgspec.structs import replace
from PIL import Image as Picture
from pydantic import SecretStr

import asynccache
from asynccache import Cache, ReplayMiss
from asynccache.entries.entry import decode_entry, encode_entry
from asynccache.integrations.autogen import CachedChatCompletionClient
from asynccache.stores import Capabilities
from asynccache.stores.base import Record
from asynccache.stores.memory import MemoryStore
from asynccache.testing import FaultyStore
from tests.helpers.autogen_client import (
    HELLO,
    Modest,
    ModestConfig,
    Nameless,
    answer,
    close_all,
    kept,
    named,
    openai_client,
)
from tests.helpers.openai_server import state, stored

pytest_plugins = ("tests.helpers.autogen_fixtures",)


@pytest.fixture
async def api(api):
    """A server, whose clients are closed when their test is over."""
    yield api
    await close_all()


class OwnOpenAI(OpenAIChatCompletionClient):
    """May ask for anything."""

    async def create(self, messages, **arguments):
        return answer()


class Described(Modest):
    """Adds what changes no answer."""

    def greet(self):
        return "Hello"


def modest(**changes):
    """Return a client with a config."""
    return Modest(ModestConfig(**{"model": "m", **changes}))


def own_openai():
    """Return a client of a user's class, derived from one of autogen-ext's."""
    return kept(OwnOpenAI(model="gpt-4o", api_key="sk-a"))


async def test_own_client_is_told_apart_by_its_name_and_config(cache):
    """Clients of one class and name share when their configs do, credentials and address aside."""
    await named(modest(), cache).create(HELLO)
    for changes in ({"api_key": SecretStr("sk-other")}, {"base_url": "http://x/v1"}):
        assert (await named(modest(**changes), cache).create(HELLO)).cached
    for changes in ({"model": "n"}, {"temperature": 0.5}):
        assert not (await named(modest(**changes), cache).create(HELLO)).cached
    described = named(Described(ModestConfig(model="m")), cache)
    assert not (await described.create(HELLO)).cached
    assert not (await named(modest(), cache, "other").create(HELLO)).cached


class OwnCache(ChatCompletionCache):
    """A cache that somebody has derived from AutoGen's."""


@pytest.mark.parametrize("kind", [ChatCompletionCache, OwnCache])
async def test_autogens_own_cache_takes_no_cache_of_ours(kind, tmp_path):
    """It would never await it: the error has the line that works, and that line does."""
    cache = Cache.disk(cache_path_root=tmp_path)
    assert cache
    with pytest.raises(TypeError, match=r"CachedChatCompletionClient\(client, cache\)"):
        kind(modest(), cache)
    with Cache.memory() as face:
        assert face
        with pytest.raises(TypeError, match="CachedChatCompletionClient"):
            kind(modest(), face)
    async with cache:
        client = CachedChatCompletionClient(modest(), cache, upstream="test")
        await client.create(HELLO)
        assert (await client.create(HELLO)).cached


async def test_where_a_server_routes_a_request_to_is_in_no_key(cache):
    """`prompt_cache_key` is left out of a call's arguments."""
    client = named(modest(), cache)
    for given in ({}, {"prompt_cache_key": "a"}, {"extra_body": {"prompt_cache_key": "b"}}):
        found = await client.create(HELLO, extra_create_args=given)
        assert found.cached is bool(given)
    assert not (await client.create(HELLO, extra_create_args={"extra_body": {"seed": 1}})).cached


async def test_sync_face_is_its_cache():
    """What `with` gives stands for the cache behind it."""
    with Cache.memory() as face:
        client = named(modest(), face)
        await client.create(HELLO)
        assert (await client.create(HELLO)).cached


@pytest.mark.parametrize("other", [5, {}, object(), Cache], ids=["int", "dict", "object", "Cache"])
def test_what_is_no_cache_is_refused(other):
    """Said where the client is made, not by its first call."""
    with pytest.raises(TypeError, match="must be an AsyncCache"):
        named(modest(), other)


async def test_credentials_in_an_address_are_not_in_the_key(cache):
    """User-info and keys in a URL's query don't tell clients apart; the rest of it does."""
    urls = ["http://u:p@h/v1?api_key=a&v=1", "http://h/v1?v=1", "http://h/v1?v=2"]
    keys = [await key_of(client_at(base_url=url), cache) for url in urls]
    assert keys[0] == keys[1] != keys[2]
    queries = [{"api-key": "a", "v": "1"}, {"v": "1"}, {"v": "2"}]
    keys = [await key_of(client_at(default_query=query), cache) for query in queries]
    assert keys[0] == keys[1] != keys[2]


def client_at(**changes):
    """Return a client of AutoGen's that reaches no server."""
    arguments = {"model": "gpt-4o", "api_key": "sk-a", "base_url": "http://h/v1", **changes}
    return kept(OpenAIChatCompletionClient(**arguments))


async def key_of(inner, cache):
    """Return what names the key that a client's call has."""
    client = CachedChatCompletionClient(inner, cache)
    with asynccache.options(mode="replay"), pytest.raises(ReplayMiss) as missed:
        await client.create(HELLO)
    return str(missed.value)


async def test_client_that_is_changed_is_another(api, cache):
    """What a client is asked with is looked at in each call, not once."""
    inner = openai_client(api)
    client = CachedChatCompletionClient(inner, cache)
    await client.create(HELLO)
    inner._create_args["temperature"] = 0.1
    assert not (await client.create(HELLO)).cached
    assert api.requests[1].body["temperature"] == 0.1


@pytest.mark.parametrize(
    "make",
    [Nameless, modest, own_openai],
    ids=["without a config", "with a config", "a subclass of autogen-ext's"],
)
async def test_client_that_is_not_autogens_needs_a_name(cache, make):
    """Such a client is refused with advice; with a name it is cached, and told apart by it."""
    with pytest.raises(TypeError, match="upstream="):
        CachedChatCompletionClient(make(), cache)
    one = named(make(), cache, "one")
    assert not (await one.create(HELLO)).cached
    assert (await one.create(HELLO)).cached
    two = named(make(), cache, "two")
    assert not (await two.create(HELLO)).cached


async def test_argument_of_an_unknown_kind_needs_a_name(api, cache):
    """An argument without a form to make keys of, such as an HTTP client, needs a name as well."""
    import httpx2

    async with httpx2.AsyncClient() as http:
        inner = openai_client(api, http_client=http)
        with pytest.raises(TypeError, match="upstream="):
            CachedChatCompletionClient(inner, cache)
        one = CachedChatCompletionClient(inner, cache, upstream="gateway")
        await one.create(HELLO)
        warmer = openai_client(api, http_client=http, temperature=0.1)
        other = CachedChatCompletionClient(warmer, cache, upstream="gateway")
        assert not (await other.create(HELLO)).cached


async def test_name_takes_the_place_of_the_address(api, cache):
    """With a name, two addresses of one server share; other arguments still matter."""
    localhost = api.base_url.replace("127.0.0.1", "localhost")
    one = CachedChatCompletionClient(openai_client(api), cache, upstream="test")
    two = CachedChatCompletionClient(openai_client(api, base_url=localhost), cache, upstream="test")
    await one.create(HELLO)
    assert (await two.create(HELLO)).cached
    warmer = openai_client(api, temperature=0.1)
    assert not (
        await CachedChatCompletionClient(warmer, cache, upstream="test").create(HELLO)
    ).cached


async def test_replay_client_and_wrappers_work(api, cache):
    """AutoGen's replay client is cached; of its cache, the client beneath is what counts."""
    replayed = ReplayChatCompletionClient(["one", "two"])
    replayed.set_cached_bool_value(False)
    client = CachedChatCompletionClient(replayed, cache)
    assert (await client.create(HELLO)).content == "one"
    assert (await client.create(HELLO)).content == "one"
    for changes in ({}, {"max_completion_tokens": 5}):
        inner = ChatCompletionCache(openai_client(api, **changes))
        assert not (await CachedChatCompletionClient(inner, cache).create(HELLO)).cached
    assert len(api.requests) == 2


async def test_argument_that_has_no_key_is_passed_by(cache, caplog):
    """A call with an argument that no key can be made of isn't cached, counted and told once."""
    client = named(inner := modest(), cache)
    for _ in range(2):
        await client.create(HELLO, extra_create_args={"odd": object()})
    assert inner.calls == 2
    assert cache.stats().bypassed == 2
    assert len([r for r in caplog.records if "not cached" in r.getMessage()]) == 1


async def test_images_are_in_the_key(cache):
    """Two pictures are two requests; the same pixels are one."""

    def message(colour):
        return [
            UserMessage(content=["What?", Image(Picture.new("RGB", (8, 8), colour))], source="u")
        ]

    client = named(modest(), cache)
    assert not (await client.create(message("red"))).cached
    assert (await client.create(message("red"))).cached
    assert not (await client.create(message("blue"))).cached


async def test_client_that_heeds_tokens_alone_is_told(cache):
    """The call's own token is cancelled when its last caller leaves; callers' aren't passed on."""

    class Waiting(Modest):
        async def create(self, messages, *, cancellation_token=None, **arguments):
            self.tokens.append(cancellation_token)
            await asyncio.Event().wait()

    inner = Waiting(ModestConfig(model="m"))
    client = named(inner, cache)
    token = CancellationToken()
    call = asyncio.ensure_future(client.create(HELLO, cancellation_token=token))
    while not inner.tokens:
        await asyncio.sleep(0)
    assert inner.tokens[0] is not token
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    while not inner.tokens[0].is_cancelled():
        await asyncio.sleep(0)


async def test_counting_is_the_clients(cache):
    """Usage, tokens and model info are what the client says."""
    client = named(inner := modest(), cache)
    await client.create(HELLO)
    await client.create(HELLO)
    assert client.actual_usage().prompt_tokens == client.total_usage().prompt_tokens == 1
    assert client.count_tokens(HELLO) == 2
    assert client.remaining_tokens(HELLO) == 98
    assert client.model_info is inner.model_info
    assert client.client is inner


@pytest.mark.parametrize("streamed", [False, True], ids=["create", "create_stream"])
@pytest.mark.parametrize("inline", [True, False], ids=["inline", "remote"])
async def test_entry_of_another_version_is_asked_for_anew(inline, streamed):
    """An answer that this version of AutoGen can't read is replaced, wherever it was found."""
    store = FaultyStore(MemoryStore(), hide_inline=not inline)

    async def asked(client):
        if not streamed:
            return await client.create(HELLO)
        return [item async for item in client.create_stream(HELLO)][-1]

    async def spoil(cache, answered):
        """Put what no version of AutoGen has written in an answer's place."""
        await stored(cache, inner.calls)
        namespace, digest = state(answered).namespace, state(answered).digest
        (body,) = await store.get_many(namespace, [digest])
        entry = decode_entry(body, digest, now=lambda: 0, max_bytes=10**6)
        spoilt = encode_entry(replace(entry, chunks=(b'{"content": 1}\n',)))
        await store.set_many(namespace, [Record(key=digest, body=spoilt, expires=0)])

    async with Cache.from_store(store) as cache:
        client = named(inner := modest(), cache)
        first = await asked(client)
        await spoil(cache, first)
        second = await asked(client)
        assert second.content == "Answer 2."
        assert inner.calls == 2
        assert cache.stats().flaws == {"mistyped": 1}
        await spoil(cache, second)
        with asynccache.options(mode="replay"), pytest.raises(ValueError, match="version"):
            await asked(client)


# -- a slow store --------------------------------------------------------------------------------

SLOW = 0.3  # seconds that the store takes for each operation


class SlowStore(FaultyStore):
    """Takes its time for everything, as a remote store behind a bad network does."""

    def __init__(self, inner):
        remote = Capabilities(inline=False, remote=True)
        super().__init__(inner, hide_inline=True, capabilities=remote)

    async def get_many(self, *args):
        await asyncio.sleep(SLOW)
        return await super().get_many(*args)

    async def set_many(self, *args):
        await asyncio.sleep(SLOW)
        return await super().set_many(*args)

    async def claim(self, *args):
        await asyncio.sleep(SLOW)
        return await super().claim(*args)

    async def release(self, *args):
        await asyncio.sleep(SLOW)
        return await super().release(*args)


async def test_slow_store_never_holds_the_loop():
    """While lookups, claims and writes take 0.3 s each, the loop goes on turning."""
    gaps = []

    async def beat():
        while True:
            began = perf_counter()
            await asyncio.sleep(0.001)
            gaps.append(perf_counter() - began)

    store = SlowStore(MemoryStore())
    async with Cache.from_store(store, store_timeout=5) as cache:
        client = named(modest(), cache)
        beating = asyncio.ensure_future(beat())
        began = perf_counter()
        first = await client.create(HELLO)
        second = await client.create(HELLO)
        items = [item async for item in client.create_stream(HELLO)]
        took = perf_counter() - began
        beating.cancel()
    assert (first.cached, second.cached) == (False, True)
    assert isinstance(items[-1], CreateResult)
    assert took > 2 * SLOW  # the store was waited for
    assert max(gaps) < SLOW / 2  # but never on the loop
    assert store.calls["get_many"] >= 2


# -- component config ----------------------------------------------------------------------------


async def test_config_round_trip(api, tmp_path):
    """A dumped client, loaded again, asks the same client and the same cache."""
    url = f"disk:{tmp_path}?ttl=3600"
    async with Cache.from_url(url) as cache:
        client = CachedChatCompletionClient(openai_client(api), cache, upstream="test")
        await client.create(HELLO)
    dumped = client.dump_component()
    assert dumped.provider == "asynccache.integrations.autogen.CachedChatCompletionClient"
    assert dumped.config["cache"] == url
    assert "sk-of-one" not in dumped.model_dump_json()
    loaded = kept(ChatCompletionClient.load_component(dumped))
    assert isinstance(loaded, CachedChatCompletionClient)
    assert isinstance(loaded.client, OpenAIChatCompletionClient)
    assert (await loaded.create(HELLO)).cached
    assert loaded.dump_component() == dumped
    opened = loaded._cache
    assert opened is not None
    await loaded.close()
    assert not opened.is_open


async def test_config_without_a_cache_means_the_one_in_force():
    """A client without a cache of its own is one again after loading."""
    dumped = named(modest()).dump_component()
    loaded = ChatCompletionClient.load_component(dumped.model_dump())
    async with Cache.memory():
        await loaded.create(HELLO)
        assert (await loaded.create(HELLO)).cached


async def test_password_of_a_cache_is_masked():
    """A cache's URL with a password is kept as a secret, as AutoGen keeps keys."""
    url = "redis://user:hunter2@127.0.0.1:6379/0"
    dumped = named(modest(), Cache.from_url(url)).dump_component()
    assert "hunter2" not in dumped.model_dump_json()
    loaded = ChatCompletionClient.load_component(dumped)
    assert loaded._cache.url == url


@pytest.mark.parametrize(
    "make",
    [Cache.memory, lambda: Cache.from_url("memory:", ttl=5)],
    ids=["made otherwise", "a URL that doesn't say it all"],
)
def test_cache_without_a_url_cannot_be_dumped(make):
    """What a config couldn't say is refused, with what to do instead."""
    with pytest.raises(TypeError, match="from_url"):
        named(modest(), make()).dump_component()


async def test_cache_by_url_is_opened_once_asked_and_closed():
    """A cache named by its URL lives as long as the client; many first calls open it well."""
    client = named(inner := modest(), "memory:")
    answers = await asyncio.gather(*(client.create(HELLO) for _ in range(5)))
    assert {given.content for given in answers} == {"Answer 1."}
    assert inner.calls == 1
    cache = client._cache
    assert cache is not None
    assert cache.is_open
    with asynccache.options(cache=None):
        assert asynccache.status(await client.create(HELLO)) is None
    await client.close()
    assert not cache.is_open
