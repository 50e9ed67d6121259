"""Natural mistakes: each gets an error with the sentence that mends it."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import aiocache
import pytest

import asynccache
from asynccache import Cache, CacheClosedError
from asynccache.errors import described

SECRET = "hunter2"
MADE: Any = Cache  # what is wrong by its types, too
OPTIONS: Any = asynccache.options

CALLS = {
    "redis, an address first": (
        lambda: MADE.redis(f"redis://:{SECRET}@host:6379/0"),
        'Cache.redis(redis_url="redis://host:6379/0")',
    ),
    "redis, host and port first": (lambda: MADE.redis("host:6379"), "redis_url="),
    "disk, a folder first": (lambda: MADE.disk("./dir"), "Cache.disk(cache_path_root='./dir')"),
    "disk, an absolute folder": (lambda: MADE.disk("/srv/c"), "cache_path_root='/srv/c'"),
    "disk, a folder at home": (lambda: MADE.disk("~/c"), "cache_path_root='~/c'"),
    "disk, a path": (lambda: MADE.disk(Path("a/b")), "cache_path_root='a/b'"),
    "disk, a path of one part": (lambda: MADE.disk(Path("a")), "cache_path_root='a'"),
    "disk, a hidden folder": (lambda: MADE.disk(".cache"), "cache_path_root='.cache'"),
    "a cache by name": (lambda: MADE("disk"), "call Cache.disk(), Cache.memory()"),
    "a cache by option": (lambda: MADE(mode="replay"), "call Cache.disk(), Cache.memory()"),
    "options, misspelt": (
        lambda: OPTIONS(tenent="x"),
        "options: no option 'tenent' (did you mean tenant?); it takes mode, ttl, cache_seed,",
    ),
    "options, the cache's": (lambda: OPTIONS(max_bytes=1), "options: no option 'max_bytes'; it"),
    "options, without a name": (lambda: OPTIONS("refresh"), "write options(mode='refresh')"),
    "options, of no name": (lambda: OPTIONS(Cache.memory()), "options takes its options by name"),
    "options, a secret": (lambda: OPTIONS(SECRET), "options takes its options by name"),
    "disk, here": (lambda: MADE.disk("."), "cache_path_root='.'"),
    "disk, a URL first": (lambda: MADE.disk("redis://host"), "Cache.from_url"),
    "memory, a URL first": (lambda: MADE.memory("redis://host"), "Cache.from_url"),
    "redis, url and host": (
        lambda: MADE.redis(url="redis://host", host="host"),
        "no option 'host' (did you mean redis_url?), no option 'url' (did you mean redis_url?)",
    ),
    "disk, path": (lambda: MADE.disk(path="x"), "did you mean cache_path_root?"),
    "disk, directory": (lambda: MADE.disk(directory="x"), "did you mean cache_path_root?"),
    "disk, seed": (lambda: MADE.disk(seed=1), "did you mean cache_seed?"),
    "disk, size_limit": (lambda: MADE.disk(size_limit=1), "did you mean max_bytes?"),
    "disk, misspelt": (lambda: MADE.disk(cache_path="x"), "did you mean cache_path_root?"),
    "memory, misspelt": (lambda: MADE.memory(max_byte=1), "did you mean max_bytes?"),
    "memory, expire": (lambda: MADE.memory(expire=1), "did you mean ttl?"),
    "the store's own are listed": (
        lambda: MADE.redis(colour=1),
        "it takes cache_seed, redis_url, client, max_connections, local_max_bytes, local_ttl,",
    ),
    "and the common ones": (lambda: MADE.disk(colour=1), "store_if, store_timeout, tenant, ttl"),
    "cosmos, url": (lambda: MADE.cosmos_db(url="https://x"), "did you mean endpoint?"),
    "cosmos, key": (lambda: MADE.cosmos_db(key=SECRET), "did you mean credential?"),
    "url, a folder": (lambda: MADE.from_url("./dir"), "write 'disk:./dir'"),
    "url, an absolute folder": (lambda: MADE.from_url("/srv/c"), "write 'disk:/srv/c'"),
    "url, a drive": (lambda: MADE.from_url(r"C:\cache"), "write 'disk:C:"),
    "url, a file": (lambda: MADE.from_url("file:///srv/c"), "write 'disk:/srv/c'"),
    "url, redis": (lambda: MADE.from_url("redis"), "write 'redis://localhost:6379/0'"),
    "url, disk": (lambda: MADE.from_url("disk"), "write 'disk:'"),
    "url, memory": (lambda: MADE.from_url("memory"), "write 'memory:'"),
    "url, host and port": (lambda: MADE.from_url("host:6379"), "write 'redis://host:6379'"),
    "url, no slashes": (lambda: MADE.from_url("redis:host"), "redis://localhost:6379/0"),
    "url, misspelt": (lambda: MADE.from_url("reddis://x"), "did you mean redis:?"),
    "url, another store": (lambda: MADE.from_url(f"mongodb://u:{SECRET}@h"), "no store is called"),
    "url, a connection string": (
        lambda: MADE.from_url(f"AccountEndpoint=https://x/;AccountKey={SECRET}"),
        "Cache.cosmos_db(connection_string=...)",
    ),
    "url, https": (
        lambda: MADE.from_url("https://x.documents.azure.com:443/"),
        "cosmos://:key@host/database/container",
    ),
    "url, a path": (lambda: MADE.from_url(Path("dir")), "Cache.disk(cache_path_root=...)"),
    "url, None": (lambda: MADE.from_url(None), "not None"),
    "url, an option misspelt": (
        lambda: MADE.from_url("redis://host?ttll=3"),
        "no option 'ttll' (did you mean ttl?)",
    ),
    "url, an option of redis": (
        lambda: MADE.from_url("redis://host?ssl_certfil=3"),
        "did you mean ssl_certfile?",
    ),
    "url, another store's option": (
        lambda: MADE.from_url("disk:?max_connections=3"),
        "no option 'max_connections'",
    ),
    "redis_url without a scheme": (
        lambda: MADE.redis(redis_url=f"{SECRET}@host"),
        "like redis://localhost:6379/0",
    ),
    "from_store, a seed": (lambda: MADE.from_store(42), "not an int"),
    "from_store, a class": (lambda: MADE.from_store(dict), "not the class dict"),
    "half a character": (lambda: MADE.memory(tenant="\ud800"), "tenant"),
}


@pytest.mark.parametrize(("call", "said"), CALLS.values(), ids=CALLS)
def test_the_message_mends_the_mistake(call, said):
    """What was meant stands in the message, and no password."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("kind", ["memory", "disk", "redis", "aiocache"])
def test_half_a_character_is_no_tenant_in_any_store(kind, tmp_path):
    """It is refused when the cache is made, not by some stores at their first write."""
    made: dict[str, Any] = {
        "memory": Cache.memory,
        "disk": lambda **options: Cache.disk(cache_path_root=tmp_path, **options),
        "redis": Cache.redis,
        "aiocache": lambda **options: Cache.aiocache(aiocache.SimpleMemoryCache(), **options),
    }
    with pytest.raises(ValueError, match="surrogate"):
        made[kind](tenant="acme\udc80")


# -- clients -----------------------------------------------------------------------------------


class AsyncAnthropic:
    """A client of another SDK, of a version that stands on no HTTP library that is known."""


class Session:
    """A client of an HTTP library that isn't served."""


AsyncAnthropic.__module__, Session.__module__ = "anthropic", "requests.sessions"

WRONG = {
    "a class": (AsyncAnthropic, r"the class AsyncAnthropic: pass an instance.*AsyncAnthropic\("),
    "an old SDK": (AsyncAnthropic(), r"an AsyncAnthropic: there is no HTTP client.*memoize"),
    "another library": (Session(), r"a Session: requests by requests aren't cached.*memoize"),
    "a module": (json, r"the module json: asynccache.instrument\(\) serves"),
    "a function": (json.dumps, r"a function: wrap takes a client.*memoize"),
    "a method": (json.JSONDecoder().decode, r"a method: wrap takes a client.*memoize"),
    "an object": (object(), r"an object: pass a client.*instrument\(\).*memoize"),
    "None": (None, "None: pass a client"),
    "a dict": ({}, "a dict: pass a client"),
}


@pytest.mark.parametrize(("wrong", "said"), WRONG.values(), ids=WRONG)
def test_what_cant_be_wrapped(wrong, said):
    """The message says what would work for it."""
    with pytest.raises(TypeError, match=f"can't wrap {said}"):
        Cache.memory().wrap(wrong)


async def test_outside_of_the_block(caplog):
    """Whoever uses a closed cache is told how it is opened."""
    cache = Cache.memory()

    async def create():
        return 1

    with pytest.raises(CacheClosedError, match=r"`async with cache:`.*`await cache.open\(\)`"):
        await cache.get("key")
    await cache.get_or_create("key", create)
    assert "`async with cache:`" in caplog.text


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("openai", "openai", "openai"),
        ("integrations.langchain", "langchain_core", "langchain"),
        ("integrations.langgraph", "langgraph", "langgraph"),
        ("integrations.litellm", "litellm", "litellm"),
        ("integrations.autogen", "autogen_core", "autogen"),
        ("integrations.aiocache", "aiocache", "aiocache"),
    ],
)
def test_an_integration_without_its_extra(module, package, extra):
    """The error names the extra; another error of the import stays what it is."""
    program = f"""
        import sys

        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == {package!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Missing())
        try:
            import asynccache.{module}
        except ImportError as exc:
            print(exc)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert f'{package} isn\'t installed: run pip install "asynccache[{extra}]"' in run.stdout


# -- options as a decorator ----------------------------------------------------------------------


async def test_options_decorate_functions_of_all_kinds(async_cache_counter):
    """A coroutine function, a plain one, and a plain one that returns a coroutine."""
    cache, made = async_cache_counter

    async def ask():
        return await cache.get_or_create("key", made)

    @asynccache.options(mode="refresh")
    async def asked():
        """Ask anew."""
        return await ask()

    assert [await asked() for _ in range(3)] == [1, 2, 3]
    assert asked.__doc__ == "Ask anew."
    assert await ask() == 3

    @asynccache.options(mode="refresh")
    def begun():
        return ask()

    assert await begun() == 4

    @asynccache.options(mode="off")
    def mode():
        return asynccache.cache.in_force.current_options().mode

    assert mode() == "off"
    assert await ask() == 4


@pytest.fixture
async def async_cache_counter():
    """A cache, and a coroutine function that counts its calls."""
    count = 0

    async def made():
        nonlocal count
        count += 1
        return count

    async with Cache.memory() as cache:
        yield cache, made


async def test_calls_of_a_decorated_function_at_once_have_blocks_of_their_own(async_cache_counter):
    """What one call leaves doesn't end the other's."""
    cache, made = async_cache_counter
    await cache.get_or_create("key", made)
    inside, leave = asyncio.Event(), asyncio.Event()

    @asynccache.options(mode="refresh")
    async def asked(first):
        if first:
            inside.set()
            await leave.wait()
        return await cache.get_or_create("key", made)

    one = asyncio.create_task(asked(first=True))
    await inside.wait()
    assert await asked(first=False) == 2
    leave.set()
    assert await one == 3


async def test_what_options_dont_decorate():
    """Of a generator the block would leak into its reader; of a class nothing would be in it."""

    async def events():
        yield 1

    def numbers():
        yield 1

    block: Any = asynccache.options(mode="off")
    for wrong in (events, numbers, AsyncAnthropic, 1):
        with pytest.raises(TypeError, match="with options"):
            block(wrong)
    recording: Any = asynccache.record()
    with pytest.raises(TypeError, match="not callable"):
        recording(events)


async def test_options_are_checked_where_they_are_named():
    """Not only once the block is entered."""
    wrong: Any = "readwrite"
    with pytest.raises(ValueError, match="mode must be"):
        asynccache.options(mode=wrong)


async def test_a_block_of_options_is_one_block():
    """It may be entered again once it was left, and not while it is entered."""
    block = asynccache.options(mode="off")
    for _ in range(2):
        with block:
            with pytest.raises(RuntimeError, match="for each block"):
                block.__enter__()
            assert asynccache.cache.in_force.current_options().mode == "off"


# -- copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_a_cache_has_no_copies(copied):
    """A copy would share half of its state, so that one's end were the other's."""
    cache = Cache.memory()
    with cache as view:
        for one in (cache, view, {"cache": cache} if copied is not copy.copy else cache):
            with pytest.raises(TypeError, match="pass the object itself"):
                copied(one)


def test_articles():
    """Messages have "an" where it is due."""
    kinds = (
        "an int", "a dict", "an object", "an OpenAI", "an HTTPError", "a UUID", "a User",
        "an Unknown", "a Europe", "a OneOf",
    )  # fmt: skip
    for kind in kinds:
        assert described(type(kind.partition(" ")[2], (), {})()) == kind
    assert described(None) == "None"
