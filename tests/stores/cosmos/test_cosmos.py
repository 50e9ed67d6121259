"""The cache on Cosmos DB: containers, credentials, sizes, expiry, what is written, what it costs.

The contract runs on uvloop; here it is asyncio's own loop.
"""

from __future__ import annotations

import ast
import asyncio
import os
import random
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from azure.core.credentials import AccessToken
from azure.cosmos import PartitionKey
from azure.cosmos.aio import CosmosClient

from asynccache import (
    Cache,
    StoreAuthError,
    StoreDeniedError,
    StoreRefusedError,
    StoreUnavailableError,
    options,
)
from asynccache.entries.entry import Entry, Meta, encode_entry
from asynccache.keys.key import Namespace, value_key
from asynccache.runtime import pacer
from asynccache.stores.base import Claim, Lease, Record
from asynccache.stores.cosmos.items import (
    GenerationText,
    document,
    id_of,
    item_content,
    pack,
    prefix_of,
    read,
    unpack,
)
from tests.helpers.changes import CHANGES, old_answer_stays_out
from tests.helpers.cosmos_servers import CosmosServer, store_in
from tests.helpers.inside import engine_of, store_of
from tests.helpers.remote_stores import Upstream, opened, settled, used

ROOT = Path(__file__).parents[3]


async def make_container(server, *paths, **properties):
    """Make a container as its owner would."""
    key = PartitionKey(list(paths), kind="MultiHash") if len(paths) > 1 else PartitionKey(paths[0])
    async with CosmosClient(server.endpoint, server.key) as client:
        database = await client.create_database_if_not_exists(server.database)
        await database.create_container(server.container, key, **properties)


# -- containers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/id", "/partitionKey", "/meta/key", "/model-name"])
async def test_any_single_partition_key_works(server, path):
    """A container of the user's own is used as it is, whatever single path partitions it."""
    await make_container(server, path, default_ttl=-1)
    await used(server.cache(ttl=3600))
    async with server.cache() as cache:
        await cache.set("key", os.urandom(2_000_000))  # parts are items, too
        assert len(await cache.get("key")) == 2_000_000
    for item in server.items():
        found = item
        for name in path[1:].split("/"):
            found = found[name]
        assert found == item["id"]


async def test_hierarchical_key_is_refused(server):
    """A container with a hierarchical key is refused, with what to do, and left untouched."""
    await make_container(server, "/tenant", "/user")
    with pytest.raises(StoreRefusedError, match=r"hierarchical.*single path, such as /id"):
        await server.cache().open()
    assert server.items() == []


@pytest.mark.parametrize("path", ["/ttl", "/entry/body", "/lease", "/_etag", "/id/x"])
async def test_paths_that_answers_need_are_refused(server, path):
    """A container partitioned by a field of ours, or of Cosmos DB's, is refused."""
    await make_container(server, path)
    with pytest.raises(StoreRefusedError, match="such as /id"):
        await server.cache().open()


async def test_ttl_switched_off(server):
    """Where the container's time to live is off, a ttl is refused; without one all works."""
    await make_container(server, "/id")
    with pytest.raises(StoreRefusedError, match="set its default TTL to -1"):
        await server.cache(ttl=60).open()
    await used(server.cache())
    async with server.cache() as cache:  # one by one it is refused, too, and costs no call
        assert not await cache.set("key", "value", ttl=60)
        assert await cache.get_or_create("other", Upstream(), ttl=60) == {"call": 1}
    assert cache.stats().store_errors == {"refused": 2}
    assert cache.stats().breaker == "closed"


async def test_missing_database_and_container(server):
    """What is missing is named, and made where that is allowed."""
    with pytest.raises(StoreRefusedError, match=r"no database 'asynccache'.*create=True"):
        await server.cache(create=False).open()
    with pytest.raises(StoreRefusedError, match="no database"):
        await server.cache(mode="replay").open()
    async with CosmosClient(server.endpoint, server.key) as client:
        await client.create_database(server.database)
    with pytest.raises(StoreRefusedError, match="no container 'answers' in database"):
        await server.cache(create=False).open()
    await used(server.cache())
    await used(server.cache(create=False))
    properties = None
    async with CosmosClient(server.endpoint, server.key) as client:
        container = client.get_database_client(server.database).get_container_client("answers")
        properties = await container.read()
    assert properties["partitionKey"]["paths"] == ["/id"]
    assert properties["defaultTtl"] == -1
    assert properties["indexingPolicy"]["excludedPaths"] == [{"path": "/*"}]


async def test_many_open_an_empty_account_at_once(server):
    """Caches that find nothing at the same moment all end up in one container."""
    caches = [server.cache() for _ in range(8)]
    await asyncio.gather(*(cache.open() for cache in caches))
    await caches[0].set("key", "value")
    assert await asyncio.gather(*(cache.get("key") for cache in caches)) == ["value"] * 8
    await asyncio.gather(*(cache.aclose() for cache in caches))


# -- who asks --------------------------------------------------------------------------------------


async def test_autogens_order(server):
    """Connection string, container, seed and client come in AutoGen's order."""
    await used(Cache.cosmos_db(server.connection_string, "answers", 7, None, store_timeout=5))
    async with Cache.cosmos_db(server.connection_string, "answers", 7) as cache:
        await cache.set("key", "value")
    server.database, database = "autogen_cache", server.database
    try:
        (item,) = server.items()
    finally:
        server.database = database
    assert item["namespace"] == "7"


async def test_key(server):
    """Endpoint and key do as a connection string does."""
    names = {"endpoint": server.endpoint, "credential": server.key}
    await used(Cache.cosmos_db(store_timeout=5, **names))


class Credential:
    """A token credential, as azure.identity.aio has them."""

    def __init__(self, token):
        self.token = token
        self.asked = 0
        self.closed = False

    async def get_token(self, *scopes, **kwargs):
        self.asked += 1
        return AccessToken(self.token, 4_000_000_000)

    async def close(self):
        self.closed = True

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        await self.close()


async def test_token_credential():
    """A token credential is asked for tokens, and not closed; one that isn't accepted is said."""
    with CosmosServer(tls=True) as server:
        credential = Credential(server.token)
        names = {"endpoint": server.endpoint, "store_timeout": 5}
        await used(Cache.cosmos_db(credential=credential, **names))
        assert credential.asked > 0
        assert not credential.closed
        wrong = Cache.cosmos_db(credential=Credential("x"), on_store_error="raise", **names)
        with pytest.raises(StoreAuthError, match="check connection_string or credential"):
            await wrong.open()
        server.empty()
        server.control(readOnly=True)  # this identity may do data, and not management
        denied = Cache.cosmos_db(credential=credential, on_store_error="raise", **names)
        with pytest.raises(StoreDeniedError, match="create database and container first"):
            await denied.open()


async def test_wrong_key(server, caplog):
    """Who isn't let in goes past Cosmos DB, counted as auth; the log says what to check."""
    upstream = Upstream()
    wrong = "d3Jvbmc="
    names = {"endpoint": server.endpoint, "credential": wrong}
    async with Cache.cosmos_db(store_timeout=0.3, **names) as cache:
        for number in range(20):
            await cache.get_or_create(number, upstream)
        stats = cache.stats()
    assert upstream.calls == 20
    # The SDK asks thrice for the account, and a call may meet its deadline meanwhile.
    errors = stats.store_errors.keys()
    assert {"auth", "breaker_open"} <= errors <= {"auth", "breaker_open", "timeout"}
    assert "check connection_string or credential" in caplog.text
    with pytest.raises(StoreAuthError) as caught:
        await Cache.cosmos_db(on_store_error="raise", **names).open()
    assert caught.value.__cause__ is not None


async def test_client_of_the_users_own(server):
    """A client that is given is used as it is, serves its own loop, and stays open."""
    async with CosmosClient(server.endpoint, server.key) as client:
        for _ in range(2):
            await used(Cache.cosmos_db(None, "answers", 42, client, database_id=server.database))
        cache = Cache.cosmos_db(None, "answers", 42, client, database_id=server.database)
        async with cache:

            def elsewhere():
                async def ask():
                    assert await cache.get_or_create("key", Upstream()) == {"call": 1}

                asyncio.run(ask())

            await asyncio.to_thread(elsewhere)
        assert cache.stats().store_errors.keys() == {"unavailable"}
        assert [database["id"] async for database in client.list_databases()] == ["asynccache"]


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({}, ValueError, "say where the account is"),
        ({"connection_string": "Account=x"}, ValueError, "as the portal shows it"),
        ({"connection_string": "AccountEndpoint=https://x/;"}, ValueError, "AccountKey"),
        ({"endpoint": "https://x"}, ValueError, "credential"),
        ({"client": object()}, TypeError, "azure.cosmos.aio.CosmosClient"),
        ({"connection_string": "AccountEndpoint=https://x/;AccountKey=eA==", "endpoint": "y"},
         ValueError, "not both"),
        ({"connection_string": "AccountEndpoint=https://x/;AccountKey=eA==", "local_ttl": 5},
         ValueError, "local_max_bytes"),
    ],
)  # fmt: skip
def test_bad_arguments(given, error, says):
    """What can't work is refused when the cache is made, with what to give."""
    with pytest.raises(error, match=says):
        Cache.cosmos_db(**given)


async def test_from_url(server, monkeypatch):
    """One line of configuration names account, key, database, container and options."""
    key = quote(server.key, safe="")
    url = f"cosmos+http://:{key}@127.0.0.1:{server.port}/asynccache/answers"
    await used(Cache.from_url(f"{url}?ttl=60&cache_seed=9&store_timeout=5"))
    async with Cache.from_url(f"{url}?ttl=60&cache_seed=9") as cache:
        await cache.set("key", "value")
    (item,) = server.items()
    assert item["namespace"] == "9"
    assert 0 < item["ttl"] <= 60
    monkeypatch.setenv("COSMOS_CONNECTION_STRING", server.connection_string)
    await used(Cache.from_url("cosmos:?store_timeout=5"))
    async with Cache.from_url("cosmos:/asynccache/answers?cache_seed=9&create=no") as cache:
        assert await cache.get("key") == "value"
    monkeypatch.delenv("COSMOS_CONNECTION_STRING")
    for wrong, says in [
        ("cosmos:", "COSMOS_CONNECTION_STRING"),
        ("cosmos://host/database/container", "key before it"),
        ("cosmos://:key@host/database", "both names or in none"),
        (f"{url}?colour=red", "no option 'colour'"),
    ]:
        with pytest.raises(ValueError, match=says):
            Cache.from_url(wrong)


# -- sizes -----------------------------------------------------------------------------------------

SIZES = [1_000, 100_000, 1_900_000, 2_100_000, 16_000_000]


@pytest.mark.parametrize("size", SIZES)
async def test_sizes_come_back_whole(server, size):
    """Answers of any size come back byte for byte, and leave nothing when they are deleted."""
    value = random.Random(size).randbytes(size)
    async with server.cache() as cache:
        assert await cache.set("key", value)
        assert all(len(str(item)) < 2**20 for item in server.items())
    async with server.cache() as cache:
        assert await cache.get("key") == value
        assert await cache.get_many(["key"] * 2 + list(range(10))) == [value] * 2 + [None] * 10
        assert await cache.delete("key")
        assert await cache.get("key") is None
    assert server.items() == []


async def test_overwriting_removes_parts(server):
    """What replaces a split entry, large or small, leaves no part of the old one behind."""
    async with server.cache() as cache:
        for size in (2_900_000, 2_000_000, 10, 2_900_000):
            value = os.urandom(size)
            assert await cache.set("key", value)
            assert await cache.get("key") == value
            parts = [item for item in server.items() if "part" in item]
            assert len(parts) == (-(-size // 750_000) if size > 10 else 0)
        assert await cache.clear() == 1
    assert server.items() == []


async def test_readers_of_split_entries_see_whole_ones(server):
    """While a split entry is overwritten again and again, a reader sees one or the other."""
    values = [os.urandom(1_600_000) for _ in range(2)]
    async with server.cache() as cache, server.cache() as reader:
        await cache.set("key", values[0])

        async def write():
            for n in range(12):
                await cache.set("key", values[n % 2])

        writing = asyncio.create_task(write())
        seen = 0
        while not writing.done():
            assert await reader.get("key") in values
            seen += 1
        await writing
        assert seen > 3


async def test_overwritten_between_item_and_parts(server):
    """A reader whose parts are gone when it asks for them finds the entry that took their place."""
    values = [os.urandom(2_000_000) for _ in range(2)]
    async with server.cache() as cache, server.cache() as reader:
        await cache.set("key", values[0])
        server.control(reset=True)
        # The item is read at once, its three parts only after they were removed.
        server.faults({"methods": ["GET"], "after": 1, "times": 3, "delay": 1500})
        reading = asyncio.create_task(reader.get("key"))
        while server.counts().get("GET", 0) < 4:
            await asyncio.sleep(0.01)
        await cache.set("key", values[1])
        assert not reading.done()
        assert await reading == values[1]


WRITER = """
import asyncio, os, sys
from asynccache import Cache

async def main():
    names = {"container_id": "answers", "database_id": "asynccache", "store_timeout": 60}
    async with Cache.cosmos_db(sys.argv[1], **names) as cache:
        await cache.set("key", os.urandom(2_999_000))

asyncio.run(main())
"""


@pytest.mark.parametrize("before", ["nothing", "an answer"])
@pytest.mark.parametrize("passed", [1, 3, 4], ids="{} written".format)
async def test_kill_between_the_parts(server, before, passed):
    """Killed before all of a split entry is written, a writer leaves nothing visible.

    What was there stands, and clearing takes the rest away.
    """
    expected = "old" if before == "an answer" else None
    async with server.cache() as cache:
        if expected:
            await cache.set("key", expected)
        old = len(server.items())
        # Four parts, then the entry; requests after these are held, so that it gets no further.
        server.faults({"methods": ["POST", "PUT"], "after": passed, "times": -1, "delay": 600_000})
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, server.connection_string, cwd=ROOT
        )
        while len(server.items()) < old + passed:
            assert writer.returncode is None
            await asyncio.sleep(0.02)
        writer.send_signal(signal.SIGKILL)
        await writer.wait()
        assert await cache.get("key") == expected
        assert await cache.contains("key") == (expected is not None)
        server.faults()
        assert len(server.items()) == old + passed
        assert await cache.clear() == old
        assert server.items() == []


async def test_missing_part_is_a_miss(server):
    """A split entry that has lost a part is nothing, and is made anew."""
    async with server.cache() as cache:
        await cache.set("key", os.urandom(3_000_000))
        part = next(item["id"] for item in server.items() if "part" in item)
        async with CosmosClient(server.endpoint, server.key) as client:
            container = client.get_database_client("asynccache").get_container_client("answers")
            await container.delete_item(part, part)
        assert await cache.get("key") is None
        assert await cache.get_or_create("key", Upstream()) == {"call": 1}
        await settled(cache)
        assert await cache.get("key") == {"call": 1}
    assert [item for item in server.items() if "part" in item] == []


# -- expiry ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 2_000_000])
async def test_items_expire_by_their_own_ttl(server, size):
    """Cosmos DB ends an answer when its own time is over: by the server's clock, not by ours."""
    value = os.urandom(size)
    async with server.cache() as cache:
        await cache.set("a minute", value, ttl=60)
        await cache.set("an hour", value, ttl=3600)
        await cache.set("for ever", value)
        server.control(skew=55)
        assert await cache.get_many(["a minute", "an hour", "for ever"]) == [value] * 3
        server.control(skew=61)
        assert await cache.get("a minute") is None
        assert await cache.get_many(["an hour", "for ever"]) == [value] * 2
        server.control(skew=3700)
        assert await cache.get_many(["a minute", "an hour", "for ever"]) == [None, None, value]
        if size > 1_000_000:
            server.control(skew=3800)  # parts stay a minute longer, and go too
        assert await cache.clear() == 1
    assert server.items() == []


async def test_items_expire_by_the_containers_default(server):
    """Without a ttl of its own an answer lasts as long as the container says."""
    await make_container(server, "/id", default_ttl=30)
    async with server.cache() as cache:
        await cache.set("default", "value")
        await cache.set("own", "value", ttl=300)
        server.control(skew=29)
        assert await cache.get_many(["default", "own"]) == ["value", "value"]
        server.control(skew=31)
        assert await cache.get_many(["default", "own"]) == [None, "value"]
        server.control(skew=301)
        assert await cache.get_many(["default", "own"]) == [None, None]


async def test_a_dead_holders_lease_ends(server):
    """A lease that nobody renews is taken over, or ended by Cosmos DB after a day."""
    async with server.cache(lease_ttl=0.5) as cache:
        store = store_of(cache)
        space, key = cache.settings.namespace, value_key(cache.settings.namespace, "value", "key")
        claim = Claim(key=key, token=b"t" * 16)
        assert (await store.claim(space, [claim], 0.5))[0].granted
        (item,) = server.items()
        assert item["ttl"] == 86_400
        server.control(skew=86_401)
        assert server.items() == []
        assert (await store.claim(space, [claim], 0.5))[0].granted
        assert await cache.get_or_create("key", Upstream()) == {"call": 1}
        await settled(cache)
        (item,) = server.items()
        assert not {"lease", "ttl"} & item.keys()


async def test_a_dead_holder_is_succeeded_where_ttl_is_off(server):
    """Where Cosmos DB ends no lease, whoever waits takes a silent one over, and pays once."""
    await make_container(server, "/id")
    upstream = Upstream()
    async with server.cache(lease_ttl=0.5) as cache:
        space = cache.settings.namespace
        claim = Claim(key=value_key(space, "value", "key"), token=b"t" * 16)
        assert (await store_of(cache).claim(space, [claim], 0.5))[0].granted
        async with server.cache(lease_ttl=0.5) as other:
            asked = [each.get_or_create("key", upstream) for each in (cache, other)]
            assert await asyncio.gather(*asked) == [{"call": 1}] * 2
    assert upstream.calls == 1
    (item,) = server.items()
    assert "lease" not in item


# -- what is written, and what it costs ------------------------------------------------------------


async def test_what_the_portal_shows(server):
    """Beside the body an item says in plain words what it is; the body is packed."""
    space = Namespace.of(1, "Acme & Söhne/#?" * 13)
    key = value_key(space, "value", "key")
    meta = Meta("json", model="gpt-6", input_tokens=12, output_tokens=34)
    body = encode_entry(Entry(key, 1_764_000_000_000_000, 0, meta, (b"word " * 300,)))
    async with opened(store_in(server)) as store:
        await store.set_many(space, [Record(key=key, body=body, meta=meta)])
        assert list(await store.get_many(space, [key])) == [body]
        (item,) = server.items()
    assert item["namespace"] == space.text
    assert item["key"] == key.hex()
    assert item["entry"]["model"] == "gpt-6"
    assert (item["entry"]["input_tokens"], item["entry"]["output_tokens"]) == (12, 34)
    assert item["entry"]["created"] == "2025-11-24T16:00:00Z"
    assert item["entry"]["codec"] == "zstd"
    assert len(item["entry"]["body"]) < len(body) / 5
    assert len(item["id"].encode()) <= 101  # of which old containers take a partition key


async def test_answers_of_calls_say_their_model(server):
    """What the cache stores for a call tells its model beside the body."""
    from asynccache.core.calls import Answer, CallRequest

    meta = Meta("json", model="gpt-6", input_tokens=1, output_tokens=2)

    async def upstream(flight):
        return Answer(meta=meta, chunks=(b"{}",))

    async with server.cache() as cache:
        space = cache.settings.namespace
        call = CallRequest(namespace=space, key=value_key(space, "test", 1), mode="read_write",
                    upstream=upstream)  # fmt: skip
        await engine_of(cache).read(call)
    (item,) = server.items()
    assert item["entry"]["model"] == "gpt-6"


async def test_requests_per_call(server, monkeypatch):
    """A hit is one request, a miss three; request units are summed in the statistics.

    Lookups of one slice of the loop travel together.
    """
    monkeypatch.setattr(pacer, "perf_counter", lambda: 0.0)  # a slow machine has smaller slices
    async with server.cache(lease_ttl=60) as cache:  # nothing is renewed meanwhile
        server.control(reset=True)
        await cache.get_or_create("key", Upstream())
        await settled(cache)
        assert server.counts() == {"GET": 1, "POST": 1, "PUT": 1}
        (item,) = server.items()
        assert "lease" not in item
        server.control(reset=True)
        assert await cache.get_or_create("key", Upstream()) == {"call": 1}
        assert server.counts() == {"GET": 1}
        server.control(reset=True)
        asked = [cache.get_or_create(n, Upstream()) for n in range(300)]
        await asyncio.gather(*asked)
        await settled(cache)
        counts = server.counts()
        assert (counts["POST"], counts["PUT"]) == (300, 300)
        assert counts.get("QUERY", 0) + counts.get("GET", 0) <= 10
        stats = cache.stats()
        assert stats.store_errors == {}
        assert stats.store["request_units"] > 300 * (5 + 10)
        assert stats.store["requests"] == 4 + sum(counts.values())
    server.control(reset=True)
    async with cache:  # counted anew
        await cache.get("key")
        assert cache.stats().store == {"requests": 1, "request_units": 1}


@pytest.mark.parametrize("change", CHANGES)
async def test_old_answers_stay_out(server, change):
    """What is changed by another cache object while a call is made stays changed after it."""
    await old_answer_stays_out(server.cache(), server.cache(), change)
    (item,) = server.items()
    assert "ttl" not in item  # what a refresh has left behind doesn't end it


async def test_a_refresh_is_stored_though_the_old_answer_expires(server):
    """What a refresh replaces may expire while it is made: the new answer is stored."""

    async def slow():
        server.control(skew=31)
        return "new"

    async with server.cache(ttl=30) as cache:
        await cache.set("key", "old")
        with options(mode="refresh"):
            assert await cache.get_or_create("key", slow) == "new"
        await settled(cache)
        assert await cache.get("key") == "new"
        (item,) = server.items()
        assert item["ttl"] == 30


async def test_a_refresh_that_fails_leaves_nothing_for_long(server):
    """The generation of a call without a lease is kept for a day, and hidden from all who look."""

    async def failing():
        raise ZeroDivisionError

    async with server.cache() as cache:
        with options(mode="refresh"), pytest.raises(ZeroDivisionError):
            await cache.get_or_create("key", failing)
        (item,) = server.items()
        assert item["ttl"] == 86_400
        assert not await cache.contains("key")
        assert await cache.get("key") is None
        assert await cache.clear() == 0
        assert server.items() == []


async def test_a_call_that_lost_its_lease_is_stored_where_nothing_is(server):
    """A call whose lease was taken over is stored, unless the key was changed."""
    async with server.cache(lease_ttl=3000) as cache:
        store, space = store_of(cache), cache.settings.namespace
        for changed in (False, True):

            async def slow(changed=changed):
                item = server.items()[-1]
                key = bytes.fromhex(item["key"])
                lease = Lease(key, bytes.fromhex(item["lease"]["token"]))
                taking = Claim(key=key, token=b"t" * 16, expect=lease)
                assert (await store.claim(space, [taking], 3000))[0].granted
                if changed:
                    await store.delete_many(space, [key])
                engine_of(cache)._leases._ttl = -1  # it asks whether it holds its lease yet
                return "paid"

            assert await cache.get_or_create(changed, slow) == "paid"
            await settled(cache)
            assert await cache.get(changed) == (None if changed else "paid")
            assert cache.stats().not_stored == ({"deleted": 1} if changed else {})


async def test_calls_whose_item_is_gone_store_nothing(server):
    """Where nobody knows what became of the key meanwhile, the answer isn't stored."""

    async def slow():
        server.control(skew=86_401)
        return "old"

    async with server.cache(lease_ttl=3000) as cache:
        assert await cache.get_or_create("key", slow) == "old"
        await settled(cache)
        assert cache.stats().not_stored == {"deleted": 1}
        assert server.items() == []


async def test_local_copies_cost_nothing(server):
    """With copies in the process a second hit asks nobody."""
    async with server.cache(local_max_bytes=2**20) as cache:
        await cache.set("key", "value")
        server.control(reset=True)
        assert [await cache.get("key") for _ in range(5)] == ["value"] * 5
        assert server.counts() == {}


async def test_clear_leaves_the_rest_alone(server):
    """Clearing removes this namespace's answers: not its leases, other namespaces', strangers'."""
    async with CosmosClient(server.endpoint, server.key) as client:
        async with server.cache(cache_seed=4) as cache, server.cache() as other:
            await other.set("key", os.urandom(2_000_000))
            container = client.get_database_client("asynccache").get_container_client("answers")
            await container.create_item({"id": "stranger"})
            await container.create_item({"id": "4:stranger", "entry": {"head": "x"}})
            gate = asyncio.Event()

            async def slow():
                await gate.wait()
                return "paid"

            calling = asyncio.create_task(cache.get_or_create("slow", slow))
            while not any("lease" in item for item in server.items()):
                await asyncio.sleep(0.01)
            await cache.set_many([(n, n) for n in range(5)])
            await cache.set("large", os.urandom(2_000_000))
            assert await store_of(cache).clear(cache.settings.namespace) == 6
            assert any("lease" in item for item in server.items())
            gate.set()
            assert await calling == "paid"
            await cache.clear()
            assert len(await other.get("key")) == 2_000_000
        ids = {item["id"] for item in server.items() if "part" not in item}
    assert {"stranger", "4:stranger"} < ids
    assert len(ids) == 3


async def test_damaged_items_are_misses(server):
    """Whatever stands where an answer should be is a miss, counted, and made good."""
    space = Namespace.of(42)
    name = id_of(space, value_key(space, "value", "key"))
    good = pack(encode_entry(Entry(b"k" * 32, 1, 0, Meta("json"), (b"x" * 2000,))), 0, None)[0]
    damages: list[dict[str, Any]] = [
        {}, {"entry": None}, {"entry": 5}, {"entry": {}}, {"entry": {"head": 3}},
        {"entry": {"head": "!", "body": ""}}, {"entry": {"head": "", "body": "AAAA"}},
        {"entry": {"head": good.head, "body": good.body[:-8], "codec": "zstd"}},
        {"entry": {"head": good.head, "body": "AAAA", "codec": "zstd"}},
        {"entry": {"head": good.head, "parts": ["gone.0", "gone.1"]}},
        {"entry": {"head": good.head, "parts": {"name": "gone"}}},
        {"lease": {"token": "zz", "renewals": 0, "seconds": 1}, "entry": 5},
    ]  # fmt: skip
    async with CosmosClient(server.endpoint, server.key) as client, server.cache() as cache:
        container = client.get_database_client("asynccache").get_container_client("answers")
        for damage in damages:
            await container.upsert_item({"id": name, **damage})
            assert await cache.get("key") is None
            upstream = Upstream()
            assert await cache.get_or_create("key", upstream) == {"call": 1}
            await settled(cache)
            assert await cache.get_or_create("key", upstream) == {"call": 1}, damage
            await container.upsert_item({"id": name, **damage})
            await cache.clear()
        assert cache.stats().store_errors == {}
        assert sum(cache.stats().flaws.values()) > 0


def test_names_are_one_to_one():
    """No two namespaces share a prefix, however long or strange their tenants are."""
    spaces = [Namespace.of(seed, tenant) for seed in (4, 42, "x" * 64)
              for tenant in (None, "a", "a/b", "a" * 200, "ä" * 200, "ö" * 200)]  # fmt: skip
    prefixes = [prefix_of(space) for space in spaces]
    assert len(set(prefixes)) == len(prefixes)
    for one in prefixes:
        assert not any(other.startswith(one) for other in prefixes if other is not one)
        assert not set(one) & set("/\\?#")


def test_documents_are_read_as_written():
    """What is made into a document for any partition key is what is read from it."""
    body = encode_entry(Entry(b"k" * 32, 1, 0, Meta("json"), (b"x" * 2000,)))
    entry, texts = pack(body, 0, None)
    assert texts == []
    for path in [("id",), ("partitionKey",), ("a", "b", "c")]:
        content = item_content(b"k" * 32, entry, None, GenerationText("g"), now=0)
        item = read({**document("id", Namespace.of(1), path, content), "_etag": "x"})
        assert item.entry is not None
        assert unpack(item.entry) == body


# -- loops, forks ----------------------------------------------------------------------------------


async def test_loops_in_threads(server):
    """Each loop has a client of its own, and closes it when it ends."""
    async with server.cache() as cache:
        await cache.set("key", "value")

        def elsewhere():
            async def ask():
                assert await cache.get("key") == "value"
                await cache.set(threading.get_ident(), "mine")

            asyncio.run(ask())

        await asyncio.gather(*(asyncio.to_thread(elsewhere) for _ in range(4)))
        assert await cache.get("key") == "value"
        assert cache.stats().store_errors == {}


async def test_thread_of_a_loop_may_wait(server):
    """Calls that don't await have a client of their own, also while they hold their loop up."""
    async with server.cache() as cache:
        await cache.set("a", 1)
        with cache as face:
            assert face.get("a") == 1
            assert face.set("a", 2)
            assert face.get_or_create("b", lambda: 3) == 3
        while cache.stats().stored < 3:  # of the last one the caller has the answer first
            await asyncio.sleep(0.001)
        assert await cache.get_many(["a", "b"]) == [2, 3]
        assert cache.stats().store_errors == {}


def test_successive_loops(server):
    """One cache object works in one loop after another."""
    cache = server.cache()

    async def once():
        async with cache:
            return await cache.get_or_create("key", Upstream())

    assert [asyncio.run(once()) for _ in range(3)] == [{"call": 1}] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_fork(server):
    """A forked child leaves the parent's client alone, and opens one of its own."""
    async with server.cache() as cache:
        await cache.set("key", "value")
        child = os.fork()
        if not child:
            ended = 1
            try:
                asyncio.events._set_running_loop(None)

                async def ask():
                    async with cache:
                        return await cache.get("key")

                ended = 0 if asyncio.run(ask()) == "value" else 2
            finally:
                os._exit(ended)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert await cache.get("key") == "value"
        assert cache.stats().store_errors == {}


async def test_a_closed_store_says_so(server):
    """Asked after it was closed, a store says that it isn't open."""
    with pytest.raises(StoreUnavailableError, match="isn't open"):
        await store_in(server).get_many(Namespace.of(1), [b"k" * 32])


# -- the docs --------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "stores" / "cosmos.md").read_text("utf-8")
BLOCKS = re.findall(r"^```py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
async def test_the_examples_in_the_docs_run(server, monkeypatch, number):
    """Each example of the page runs as it stands; the one with azure-identity compiles."""
    monkeypatch.setenv("COSMOS_CONNECTION_STRING", server.connection_string)
    code = compile(BLOCKS[number], "cosmos.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if "azure.identity" not in BLOCKS[number]:
        await eval(code, {})
    assert len(BLOCKS) == 4
