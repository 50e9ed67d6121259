"""Every client of the process is cached by one line, whichever library its SDK stands on."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import itertools
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import anthropic
import httpx
import httpx2
import openai
import pytest

import asynccache
from asynccache import Cache, instrument, instrument_openai, uninstrument, uninstrument_openai
from asynccache.cache.ambient import idle_watch
from tests.helpers.openai_server import ask, running, stored
from tests.helpers.providers_server import Providers

ROOT = Path(__file__).parents[2]
LIBRARIES = {"httpx": httpx, "httpx2": httpx2}
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}
CHOOSE = "_transport_for_url"


@pytest.fixture(autouse=True)
def as_before():
    """Leave the libraries as they were found, and begin to count anew."""
    idle_watch.over, idle_watch.numbers = False, itertools.count(1)
    yield
    uninstrument()


@pytest.fixture(params=["httpx", "httpx2"])
def library(request):
    """Each of the libraries."""
    return importlib.import_module(request.param)


@pytest.fixture(scope="module")
def server():
    """A server for the module."""
    with running() as found:
        yield found


@pytest.fixture
def url(server):
    """Where the server answers chat completions, with numbers."""
    server.program, server.requests = Providers(), []
    return f"{server.base_url}/chat/completions"


@pytest.fixture
async def cache():
    """An open cache."""
    async with Cache.memory() as cache:
        yield cache


def outcome(response):
    """Return where a response came from, None if no cache has seen it."""
    found = asynccache.status(response)
    return found and found.outcome


async def posted(library, url, body=BODY, **options):
    """Return what one request of a fresh client gave, and where it came from."""
    async with library.AsyncClient() as client:
        response = await client.post(url, json=body, **options)
    return outcome(response)


def posted_sync(library, url, body=BODY):
    """Return the same of a synchronous client."""
    with library.Client() as client:
        return outcome(client.post(url, json=body))


def held():
    """Return what stands in the places that are patched."""
    return [
        vars(owner)[CHOOSE]
        for library in LIBRARIES.values()
        for owner in (library.AsyncClient, library.Client)
    ]


async def test_clients_from_before_and_after_are_cached(library, url, server, cache):
    """Whoever made them and when; also a bound method that somebody holds since long."""
    async with library.AsyncClient() as before:
        post = before.post
        instrument()
        assert outcome(await post(url, json=BODY)) == "miss"
        await stored(cache)
        assert outcome(await before.post(url, json=BODY)) == "hit"
        assert await posted(library, url) == "hit"
        assert await asyncio.to_thread(posted_sync, library, url) == "hit"
    assert len(server.requests) == 1


async def test_libraries_share_their_answers(url, server, cache):
    """What one library's client has paid for, another's is served; and by the SDK's methods."""
    instrument()
    assert await posted(httpx, url) == "miss"
    await stored(cache)
    assert await posted(httpx2, url) == "hit"
    assert (cache.stats().misses, cache.stats().hits, cache.stats().joined) == (1, 1, 0)
    assert len(server.requests) == 1


async def test_mounts_and_custom_transports_are_covered(library, url, cache):
    """Whatever transport a client has for a URL stands beneath the cache."""
    calls = []

    class Own:  # no subclass of the library's: it asks for none
        async def handle_async_request(self, request):
            calls.append(request.url)
            return library.Response(200, json={"choices": [{"finish_reason": "stop"}]})

        async def aclose(self):
            pass

        async def __aenter__(self):
            return self

        async def __aexit__(self, *error):
            pass

    instrument()
    async with library.AsyncClient(mounts={"all://127.0.0.1": Own()}) as client:
        outcomes = [outcome(await client.post(url, json=BODY)) for _ in range(2)]
    assert outcomes == ["miss", "hit"]
    assert len(calls) == 1


async def test_it_is_idempotent_and_reversible():
    """Twice is once; afterwards the classes hold the very functions they came with."""
    before = held()
    instrument()
    once = held()
    assert all(new is not old for new, old in zip(once, before, strict=True))
    instrument()
    instrument(only=["httpx"])
    assert held() == once
    uninstrument()
    uninstrument()
    assert held() == before


async def test_as_a_context_manager_it_ends_with_its_block(url, cache):
    """A block inside another leaves the outer one in force, whatever the order of leaving."""
    before = held()
    with instrument():
        with instrument(only=["httpx"]):
            assert await posted(httpx, url) == "miss"
        assert await posted(httpx, url) == "hit"
    assert await posted(httpx, url) is None
    assert held() == before
    first, second = instrument(only=["httpx"]), instrument(only=["httpx2"])
    with contextlib.ExitStack() as later:
        with first:
            later.enter_context(second)
        assert await posted(httpx, url) is None
        assert await posted(httpx2, url) == "hit"
    assert held() == before


async def test_only_what_is_named_is_served(url, server, cache):
    """The rest is as it was, and is added by a later call."""
    before = held()
    instrument(only=["httpx2"])
    assert held()[:2] == before[:2]
    assert await posted(httpx, url) is None
    assert await posted(httpx2, url) == "miss"
    instrument(only=["httpx"])
    await stored(cache)
    assert await posted(httpx, url) == "hit"
    assert await posted(httpx2, url) == "hit"
    instrument_openai()
    uninstrument_openai()
    assert await posted(httpx, url) == "hit"


async def test_each_library_has_the_cache_that_was_named_for_it(url):
    """A cache that is named for some libraries serves no others; the latest is taken."""
    named, other = await Cache.memory().open(), await Cache.memory().open()
    try:
        instrument(named)
        instrument(other, only=["httpx2"])
        await asyncio.to_thread(threaded, url)
        assert [(one.stats().misses, one.stats().hits) for one in (named, other)] == [(1, 1)] * 2
    finally:
        await named.aclose()
        await other.aclose()


async def test_what_a_block_replaces_is_back_after_it(url):
    """A cache that a block names is in force for the block alone, whatever held before."""
    first, second, third = [await Cache.memory().open() for _ in range(3)]
    try:
        instrument(first, only=["httpx"])
        instrument(second, only=["httpx2"])
        with instrument(third):
            await asyncio.to_thread(threaded, url)
        assert (third.stats().misses, third.stats().hits) == (1, 3)
        await asyncio.to_thread(threaded, url)
        assert [(one.stats().misses, one.stats().hits) for one in (first, second)] == [(1, 1)] * 2
    finally:
        for one in (first, second, third):
            await one.aclose()


def threaded(url):
    """Make two calls by each library in a plain thread, where no block is in force."""

    def calls():
        for library in LIBRARIES.values():
            for _ in range(2):
                posted_sync(library, url)

    thread = threading.Thread(target=calls)
    thread.start()
    thread.join()


@pytest.mark.parametrize("only", [["requests"], "httpx", [], ["httpx", "Httpx2"]])
def test_wrong_names_are_refused(only):
    """The error lists those that are known; nothing is patched."""
    before = held()
    with pytest.raises(ValueError, match="httpx, httpx2, openai are known"):
        instrument(only=only)
    assert held() == before


def test_what_is_no_cache_is_refused():
    """A wrong argument is said at once."""
    with pytest.raises(TypeError, match="AsyncCache, a SyncCache or None, not a str"):
        instrument("redis://localhost")  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [instrument, instrument_openai])
def test_the_environment_switches_it_off(monkeypatch, make):
    """It is read at each call; what stands already stays."""
    before = held()
    monkeypatch.setenv("ASYNCCACHE_INSTRUMENT", "off")
    make(Cache.memory())
    with make():
        assert held() == before
    monkeypatch.setenv("ASYNCCACHE_INSTRUMENT", "on")
    with instrument():
        assert held() != before
        monkeypatch.setenv("ASYNCCACHE_INSTRUMENT", "off")
        instrument()
        assert held() != before
    monkeypatch.setenv("ASYNCCACHE_INSTRUMENT", "false")
    with pytest.raises(ValueError, match="set it to off or on"):
        instrument()
    assert held() == before


async def test_wrapped_clients_keep_their_own_cache(library, url, server):
    """Wrapped before or after: their requests pass through their own cache alone."""
    async with library.AsyncClient() as client, Cache.memory() as own:
        early = own.wrap(client)
        instrument()
        late = own.wrap(client)
        async with Cache.memory() as around:
            for wrapped in (early, late, early):
                await wrapped.post(url, json=BODY)
            with asynccache.options(mode="off"):
                assert outcome(await late.post(url, json=BODY)) is None
    assert (own.stats().misses, own.stats().hits, own.stats().bypassed) == (1, 2, 1)
    assert around.stats().misses == around.stats().hits == around.stats().bypassed == 0
    assert len(server.requests) == 2


async def test_the_sdks_own_way_in_is_asked_alone(server, url, cache):
    """Beneath the OpenAI SDK's methods the HTTP client lets all pass, and counts nothing."""
    instrument()
    async with openai.AsyncOpenAI(api_key="k", base_url=server.base_url) as client:
        for _ in range(2):
            await ask(client)
            stream = await ask(client, stream=True)
            assert [event async for event in stream]
        await stored(cache, 2)
        with pytest.raises(openai.APIStatusError):
            server.program.status = 400
            await ask(client, seed=9)
        server.program.status = 200
        # It reads and changes state at the server.
        await client.responses.create(model="m", input="Hello?", background=True)
        with asynccache.options(mode="off"):
            await ask(client)
    stats = cache.stats()
    assert (stats.misses, stats.hits, stats.bypassed, stats.stored) == (2, 2, 2, 2)
    assert len(server.requests) == 5


async def test_other_sdks_are_served(server, url, cache):
    """A hundred at once, plain and streamed, are paid for once each."""
    instrument()
    asked = {"model": "claude", "max_tokens": 9, "messages": BODY["messages"]}
    async with anthropic.AsyncAnthropic(api_key="k", base_url=server.base_url[:-3]) as client:
        plain = await asyncio.gather(*(client.messages.create(**asked) for _ in range(100)))  # type: ignore[call-overload]
        texts = await asyncio.gather(*(_streamed(client, asked) for _ in range(100)))
    assert len({one.content[0].text for one in plain}) == 1
    assert len({*texts}) == 1
    assert len(server.requests) == 2
    assert cache.stats().misses == 2


async def test_what_passes_two_libraries_is_counted_once(server, url, cache, monkeypatch):
    """LiteLLM sends by httpx over aiohttp: one of them asks the cache, or tells of no cache."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it fetches one
    litellm = importlib.import_module("litellm")
    asked = {
        "model": "mistral/m", "api_key": "k", "api_base": server.base_url, "max_retries": 0,
        "messages": BODY["messages"],
    }  # fmt: skip
    instrument()
    found = await asyncio.gather(*(litellm.acompletion(**asked) for _ in range(20)))
    assert len({one.choices[0].message.content for one in found}) == 1
    with asynccache.options(mode="off"):
        await litellm.acompletion(**asked)
    stats = cache.stats()
    assert (stats.misses, stats.joined + stats.hits, stats.bypassed) == (1, 19, 1)
    assert len(server.requests) == 2
    idle_watch.over, idle_watch.numbers = False, itertools.count(1)
    with asynccache.options(cache=None):
        for _ in range(3):
            await litellm.acompletion(**asked)
    assert next(idle_watch.numbers) == 4
    module = importlib.import_module("litellm.llms.custom_httpx.async_client_cleanup")
    await module.close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()


async def _streamed(client, asked):
    async with client.messages.stream(**asked) as stream:
        return "".join([text async for text in stream.text_stream])


async def test_without_a_cache_requests_are_the_same_bytes(library, server, url):
    """And nothing of the response is ours."""

    async def all_kinds():
        server.requests.clear()
        async with library.AsyncClient() as client:
            await client.post(url, json=BODY, headers={"x-own": "1"}, params={"q": "1"})
            async with client.stream("POST", url, json={**BODY, "stream": True}) as response:
                assert await response.aread()
            await client.post(url, content=b"[1]")
        await asyncio.to_thread(posted_sync, library, url)
        return [(one.path, one.query, one.headers, one.raw) for one in server.requests]

    before = await all_kinds()
    instrument()
    assert await all_kinds() == before
    idle_watch.over = True
    assert await all_kinds() == before
    assert await posted(library, url) is None


async def test_requests_of_others_pass_untouched(library, cache):
    """They reach the client's own transport, the very one; an upload isn't read before."""
    seen = []

    class Own(library.AsyncBaseTransport):  # type: ignore[misc, name-defined]  # of either library
        async def handle_async_request(self, request):
            seen.append(hasattr(request, "_content"))
            return library.Response(200)

    async def pieces():
        yield b'{"model": "m", "messages": []}'

    instrument()
    async with library.AsyncClient(transport=Own()) as client:
        await client.post("http://h/v1/chat/completions", content=pieces())
        await client.get("http://h/v1/chat/completions")
        await client.post("http://h/v1/messages", json={"to": "me"})
    assert seen == [False, True, True]
    assert cache.stats().bypassed == cache.stats().misses == 0


@pytest.mark.parametrize("first", ["theirs", "ours"])
@pytest.mark.usefixtures("cache")
async def test_other_patches_on_top_or_beneath_stay(library, url, server, first, monkeypatch):
    """Whoever patches the same method first or last is called, and is left in place."""
    seen = []

    def patch():
        original = library.AsyncClient._transport_for_url

        @functools.wraps(original)
        def theirs(self, url):
            seen.append(url)
            return original(self, url)

        monkeypatch.setattr(library.AsyncClient, CHOOSE, theirs)

    for step in [patch, instrument] if first == "theirs" else [instrument, patch]:
        step()
    assert [await posted(library, url) for _ in range(2)] == ["miss", "hit"]
    uninstrument()
    assert await posted(library, url) is None
    instrument()
    assert await posted(library, url) == "hit"
    assert len(seen) == 4
    assert len(server.requests) == 2


async def test_a_missing_hook_is_told_once(library, url, monkeypatch, caplog):
    """A version without the method is named, with what to do; the other library is served."""
    name, other = library.__name__, LIBRARIES["httpx2" if library is httpx else "httpx"]
    forget(name, monkeypatch)
    monkeypatch.delattr(library.Client, CHOOSE)
    with pytest.raises(ImportError, match="has no _transport_for_url: give its clients transport"):
        instrument(only=[name])
    instrument()
    instrument()
    (record,) = [one for one in caplog.records if "can't serve" in one.message]
    assert f"Client of {name} {library.__version__} has no _transport_for_url" in record.message
    async with Cache.memory():
        assert await posted(other, url) == "miss"
        assert await posted(library, url) is None


def forget(name, monkeypatch):
    """Have a library looked at anew."""
    module = importlib.import_module("asynccache.cache.instrument")
    monkeypatch.setattr(module, "_places", {k: v for k, v in module._places.items() if k != name})
    monkeypatch.setattr(module, "_refused", set())


@pytest.mark.parametrize("only", [None, ["httpx"], ["httpx2"]])
async def test_a_hundred_calls_without_a_cache_are_told_once(url, caplog, only):
    """Over all libraries there is one line; requests of others aren't counted."""
    instrument(only=only)
    library = LIBRARIES[only[0] if only else "httpx"]
    sdk = openai.AsyncOpenAI(api_key="k", base_url=url.removesuffix("/chat/completions"))
    async with library.AsyncClient() as client, sdk:
        for number in range(99):
            await client.get(url)
            await client.post(url, json={"to": "me"})
            await (ask(sdk) if number % 3 == 0 and only is None else client.post(url, json=BODY))
        assert not lines(caplog)
        for _ in range(20):
            await client.post(url, json=BODY)
    (line,) = lines(caplog)
    assert "there was no cache around it" in line


async def test_calls_past_a_closed_cache_are_told(url, caplog):
    """The line names the reason."""
    instrument(Cache.memory())
    async with httpx2.AsyncClient() as client:
        for _ in range(100):
            await client.post(url, json=BODY)
    (line,) = lines(caplog)
    assert "the cache isn't open" in line


async def test_nothing_is_told_once_something_was_served(url, cache, caplog):
    """A program that is served now and then is left in peace."""
    instrument()
    await posted(httpx2, url)
    with caplog.at_level(logging.WARNING, "asynccache"), asynccache.options(cache=None):
        async with httpx2.AsyncClient() as client:
            for _ in range(120):
                await client.post(url, json=BODY)
    assert not lines(caplog)


def lines(caplog):
    """Return the lines that say why nothing is served."""
    return [one.message for one in caplog.records if "no cache served any" in one.message]


def test_loops_and_threads_share_one_cache(url, server):
    """One client's requests of two loops and of plain threads go to the cache that was named."""
    instrument(cache := Cache.memory())
    with cache:
        assert asyncio.run(posted(httpx2, url)) == "miss"
        assert asyncio.run(posted(httpx2, url)) == "hit"
        threaded(url)
    assert len(server.requests) == 1


LATER = """
import asyncio, logging, sys, threading
import asynccache
logging.basicConfig(level="WARNING")
asynccache.instrument()
assert not {"httpx", "httpx2", "openai"} & {*sys.modules}
%s
url = sys.argv[1]
async def main():
    async with asynccache.Cache.memory() as cache, library.AsyncClient() as client:
        found = [asynccache.status(await client.post(url, json={"model": "m", "messages": []}))
                 for _ in range(2)]
        print([one and one.outcome for one in found], cache.stats().misses, cache.stats().bypassed)
asyncio.run(main())
"""
WAYS = {
    "plainly": "import httpx2 as library",
    "by an SDK": "import anthropic; import httpx2 as library",
    "by the OpenAI SDK": "import openai; import httpx2 as library",
    "from within": "from httpx2._client import AsyncClient; import httpx2 as library",
    "as httpx": "import httpx2; httpx2.alias_httpx(); import httpx as library",
    "lazily": """
import importlib.util
spec = importlib.util.find_spec("httpx")
spec.loader = importlib.util.LazyLoader(spec.loader)
library = sys.modules["httpx"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(library)""",
    "by many threads": """
threads = [threading.Thread(target=__import__, args=(name,))
           for name in ("httpx2", "openai", "httpx", "openai", "httpx2")]
threads += [threading.Thread(target=asynccache.instrument) for _ in range(5)]
[thread.start() for thread in threads]
[thread.join(30) for thread in threads]
assert not any(thread.is_alive() for thread in threads)
from openai.resources.chat.completions import AsyncCompletions
assert hasattr(AsyncCompletions.create, "__wrapped__")
import httpx as library""",
    "after it was undone": """
asynccache.uninstrument()
import httpx2 as library
assert not any("asynccache" in str(type(one)) for one in sys.meta_path)
asynccache.instrument()""",
    "anew": """
import httpx2 as before
for name in [name for name in sys.modules if name.split(".")[0] == "httpx2"]:
    del sys.modules[name]
import httpx2 as library
assert library is not before""",
}


def run(script, url, **environment):
    """Return what a script prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script, url], capture_output=True, text=True, timeout=60,
        check=False, env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("way", WAYS)
def test_what_is_imported_later_is_served(url, server, way):
    """Instrumenting imports none of the libraries; each is served once the program has it."""
    assert run(LATER % WAYS[way], url) == "['miss', 'hit'] 1 0"
    assert len(server.requests) == 1


def test_what_isnt_installed_is_told(monkeypatch):
    """A library that is named and isn't there is an error that says what to install."""
    forget("httpx2", monkeypatch)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ImportError, match="httpx2 isn't installed: run pip install httpx2"):
        instrument(only=["httpx2"])
    instrument()


FORKED = """
import os, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside a thread: it is meant
import httpx2
from asynccache import instrument, uninstrument
from asynccache.cache import instrument as module
held = threading.Event()
def hold():
    with module._lock:
        held.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
if (child := os.fork()) == 0:
    instrument()
    uninstrument()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""


def test_a_forked_child_waits_for_nobody():
    """Whatever a thread of the parent's was about, a child can instrument and undo it."""
    assert run(FORKED, "") == "7"
