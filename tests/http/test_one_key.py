"""One request has one key and one entry, whether the SDK's method asked for it or its HTTP client.

The SDK's own requests are the measure: what its method computes a key of before anything is sent
has to be what the HTTP client sees.
"""

from __future__ import annotations

import asyncio
import json
from operator import attrgetter
from typing import Any
from urllib.parse import quote

import aiohttp
import anyio
import httpx as httpx1
import httpx2
import openai
import pytest
import yarl
from hypothesis import example, given, settings, strategies as st
from openai import AsyncAzureOpenAI, AsyncOpenAI, OpenAI, omit
from openai.types.chat import ChatCompletionMessage

from asynccache import Cache, options, record
from asynccache.core import engine
from asynccache.core.flight import Flight
from asynccache.http import aiohttp_session
from asynccache.http.httpx_transport import wire_request
from asynccache.http.request import question_of
from asynccache.keys.key import Namespace
from asynccache.providers.wire import address_of, prefix_of
from tests.helpers.http import httpx
from tests.helpers.openai_answers import RESPONSE, TEXT, response_events
from tests.helpers.openai_server import COMPLETION, DONE, EVENTS, sse, state, stored

URL = "https://api.openai.com/v1"
ANSWERS: dict[str, tuple[Any, tuple[bytes, ...]]] = {
    "/chat/completions": (COMPLETION, EVENTS),
    "/responses": (RESPONSE, response_events()),
    "/responses/input_tokens": ({"object": "response.input_tokens", "input_tokens": 7}, ()),
    "/completions": (TEXT, (sse({**TEXT, "usage": None}), DONE)),
}
ENDPOINTS: dict[str, dict[str, Any]] = {
    "chat.completions.create": {"model": "gpt-4o", "messages": [{"role": "user", "content": "?"}]},
    "responses.create": {"model": "gpt-4o", "input": "?"},
    "responses.input_tokens.count": {"model": "gpt-4o", "input": "?"},
    "completions.create": {"model": "gpt-4o", "prompt": "?"},
}
STREAMED = {*ENDPOINTS} - {"responses.input_tokens.count"}


class Upstream(httpx.AsyncBaseTransport, httpx.BaseTransport):  # type: ignore[misc]
    """Answers as the API does, and keeps what it is sent."""

    def __init__(self):
        self.requests = []

    def handle_request(self, request):
        self.requests.append(request)
        path = max((p for p in ANSWERS if request.url.path.endswith(p)), key=len)
        plain, events = ANSWERS[path]
        if json.loads(request.content).get("stream"):
            headers = {"content-type": "text/event-stream"}
            return httpx.Response(200, headers=headers, content=b"".join(events))
        return httpx.Response(200, json=plain)

    async def handle_async_request(self, request):
        return self.handle_request(request)


class Ways:
    """Clients of the same arguments: one has its methods cached, one its HTTP client."""

    def __init__(self, cache, *, kind=AsyncOpenAI, upstream=None, params=None, **given):
        self.server = Upstream()
        own = cache.wrap(self._http(params, self.server), upstream=upstream)
        if "azure_ad_token" not in given:
            given = {"api_key": "sk-a", **given}
        given = {"max_retries": 0, **given}
        bare = kind(http_client=self._http(params, self.server), **given)
        self.method = cache.wrap(bare, upstream=upstream)
        self.http = kind(http_client=own, **given)

    @staticmethod
    def _http(params, transport):
        return httpx.AsyncClient(transport=transport, params=params)


async def asked(client, method, call):
    """Make a call and read its answer to the end."""
    found = await attrgetter(method)(client)(**call)
    if call.get("stream"):
        async for _ in found:
            pass


async def keys_of(cache, ways, method, call, *, reverse=False):
    """Ask by both ways; return what was told of each."""
    clients = [ways.method, ways.http]
    with record() as told:
        for client in reversed(clients) if reverse else clients:
            await asked(client, method, dict(call))
            if told[-1].outcome == "miss":
                with anyio.fail_after(9):
                    await stored(cache, [one.outcome for one in told].count("miss"))
    return told


async def one_entry(ways_of, method, call, **cached):
    """Check that both ways share an entry, whichever asks first."""
    for reverse in (False, True):
        async with Cache.memory(**cached) as cache:
            ways = ways_of(cache)
            first, second = await keys_of(cache, ways, method, call, reverse=reverse)
        assert (first.outcome, second.outcome) == ("miss", "hit"), second.reason or first.reason
        assert first.key == second.key
        assert first.endpoint == second.endpoint
        assert len(ways.server.requests) == 1


# -- what may be given -----------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
NAMES = st.sampled_from(["x-a", "X-A", "x-b", "OpenAI-Beta", "Authorization", "Accept"])
HEADERS = st.dictionaries(NAMES, st.text("ab ,;=", min_size=1).map(str.strip) | st.just(omit))
PRIMITIVES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | TEXTS
QUERIES = st.dictionaries(
    st.sampled_from(["a", "b", "a[]", "api-version", "key"]),
    st.recursive(
        PRIMITIVES,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=2).map(tuple)
            | st.dictionaries(st.sampled_from("xy"), inner, max_size=2)
        ),
        max_leaves=4,
    ),
    max_size=3,
)
VALUES = st.recursive(
    PRIMITIVES | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
MODEL = ChatCompletionMessage(role="assistant", content="Well")
CHANGES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "chat.completions.create": st.fixed_dictionaries({}, optional={
        "messages": st.lists(
            st.builds(lambda text: {"role": "user", "content": text}, TEXTS) | st.just(MODEL),
            min_size=1, max_size=3,
        ).flatmap(lambda found: st.sampled_from([found, tuple(found)])),
        "temperature": st.sampled_from([0, 1, 0.5, 1.0, None, omit, openai.NOT_GIVEN]),
        "stop": st.lists(TEXTS, max_size=2).map(tuple) | st.none() | st.just(omit),
        "metadata": st.dictionaries(TEXTS, TEXTS, max_size=2),
        "prompt_cache_key": TEXTS,
    }),
    "responses.create": st.fixed_dictionaries({}, optional={
        "input": TEXTS | st.lists(st.builds(lambda t: {"role": "user", "content": t}, TEXTS)),
        "instructions": TEXTS | st.none() | st.just(omit),
        "store": st.booleans(),
    }),
    "responses.input_tokens.count": st.fixed_dictionaries({}, optional={"instructions": TEXTS}),
    "completions.create": st.fixed_dictionaries({}, optional={
        "prompt": st.lists(TEXTS, min_size=1, max_size=3) | st.just([[1, 2], [3]]),
        "echo": st.booleans(),
    }),
}  # fmt: skip


@st.composite
def calls(draw):
    """Return a method, and arguments for it."""
    method = draw(st.sampled_from([*ENDPOINTS]))
    more = st.fixed_dictionaries({}, optional={
        "extra_headers": HEADERS, "extra_query": QUERIES,
        "extra_body": st.dictionaries(st.sampled_from(["a", "b", "metadata"]), VALUES, max_size=2),
    })  # fmt: skip
    call = {**ENDPOINTS[method], **draw(CHANGES[method]), **draw(more)}
    if method in STREAMED and draw(st.booleans()):
        call["stream"] = draw(st.booleans())
    return method, call


CLIENTS = st.fixed_dictionaries(
    {"base_url": st.sampled_from([
        URL, f"{URL}/", "https://API.openai.com:443/v1", "http://127.0.0.1:80/a%20b/%7Ec/v1",
        "http://[::1]:8000/v1//", "https://u:p%40w@llm.corp/v1", "https://llm.corp/deployments/gpt-4o",
        "https://llm.corp/deployments/other/",
    ])},
    optional={
        "default_headers": HEADERS.map(lambda found: {n: v for n, v in found.items() if v != omit}),
        "default_query": QUERIES,
        "params": st.sampled_from([{"p": "1"}, "p=1&p=2", {"api-version": "x"}]),
        "organization": st.just("org-1"),
        "upstream": st.just("prod"),
    },
)  # fmt: skip


def first_message(body):
    """Keep of a body what it asks first."""
    return {**body, "messages": body["messages"][:1]} if "messages" in body else body


CACHED = st.fixed_dictionaries({}, optional={
    "tenant": st.just("acme"),
    "ignore": st.just(["metadata", "a"]),
    "normalize": st.just([first_message]),
    "ignore_headers": st.just(["X-B"]),
})  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(calls(), CLIENTS, CACHED, st.sampled_from([None, 3]))
@example(
    ("chat.completions.create", {**ENDPOINTS["chat.completions.create"],
     "extra_query": {"n": 1, "l": [1, True, None], "d": {"x": 0.5}}}),
    {"base_url": URL, "default_headers": {"X-A": "1"}}, {}, None,
)  # fmt: skip
def test_whatever_is_asked_has_one_entry(asked_for, client, cached, sample):
    """Arguments, headers and queries of all kinds, whatever is set: what is sent has one key."""

    async def both():
        with options(sample=sample) if sample else options():
            await one_entry(lambda cache: Ways(cache, **client), *asked_for, **cached)

    anyio.run(both)


# -- Azure -----------------------------------------------------------------------------------

AZURE: dict[str, dict[str, Any]] = {
    "in the base URL": {"azure_deployment": "gpt-4o"},
    "by the model": {},
    "another one in the base URL": {"azure_deployment": "other"},
    "a spelling of its own": {"azure_deployment": "gpt 4o"},
}


AZURE_GIVEN = {"azure_endpoint": "https://a.openai.azure.com", "api_version": "v1"}


def azure(cache, **given):
    """Return both ways to an Azure resource."""
    return Ways(cache, kind=AsyncAzureOpenAI, **{**AZURE_GIVEN, **given})


@pytest.mark.parametrize("method", ENDPOINTS)
@pytest.mark.parametrize("given", AZURE.values(), ids=AZURE)
async def test_azure_has_one_entry(method, given):
    """Wherever the deployment comes from; `/responses` has none."""
    model = given.get("azure_deployment", "gpt-4o").replace("other", "gpt-4o")
    call = {**ENDPOINTS[method], "model": model}
    await one_entry(lambda cache: azure(cache, **given), method, call)
    await one_entry(lambda cache: azure(cache, **given, upstream="prod"), method, call)


async def test_azures_deployments_are_left_out_where_the_model_says_it():
    """The same deployment has one entry, another one its own, and so has another version."""
    call = ENDPOINTS["chat.completions.create"]
    keys = []
    async with Cache.memory() as cache:
        for given in (
            {}, {"azure_deployment": "gpt-4o"}, {"azure_deployment": "b"}, {"api_version": "v2"},
        ):  # fmt: skip
            ways = azure(cache, **given)
            first, second = await keys_of(cache, ways, "chat.completions.create", call)
            assert first.key == second.key
            keys.append(first.key)
    assert keys[0] == keys[1]
    assert len({*keys}) == 3


@pytest.mark.parametrize("base_url", [
    "https://api.openai.com/v1", "https://api.openai.com:443/v1/", "HTTPS://API.OPENAI.COM/v1",
    "https://api.openai.com/%76%31", "https://user:pw@api.openai.com/v1",
])  # fmt: skip
async def test_spellings_of_an_address_share_an_entry(base_url):
    """What no server can tell apart is one address."""
    async with Cache.memory() as cache:
        one = Ways(cache, base_url=base_url)
        other = Ways(cache, base_url="https://api.openai.com/v1")
        call = ENDPOINTS["chat.completions.create"]
        told = [
            *await keys_of(cache, one, "chat.completions.create", call),
            *await keys_of(cache, other, "chat.completions.create", call),
        ]
    assert [event.outcome for event in told] == ["miss", "hit", "hit", "hit"]


async def test_synchronous_clients_share_the_entry():
    """Of both ways, and with the asynchronous ones."""
    call = ENDPOINTS["chat.completions.create"]
    with Cache.memory() as cache:
        server = Upstream()
        wrapped = cache.wrap(httpx.Client(transport=server))
        by_http = OpenAI(api_key="sk-a", http_client=wrapped)
        by_method = cache.wrap(OpenAI(api_key="sk-a", http_client=httpx.Client(transport=server)))
        found = await anyio.to_thread.run_sync(
            lambda: [c.chat.completions.create(**call) for c in (by_http, by_method)]
        )
        told = state(found[1])
        ways = Ways(cache.asynchronous)
        with record() as events:
            await asked(ways.http, "chat.completions.create", call)
    assert told.outcome == events[0].outcome == "hit"
    assert told.key == events[0].key
    assert len(server.requests) == 1


# -- whose it is -----------------------------------------------------------------------------

ACCOUNTS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "a key": (AsyncOpenAI, {}, {}),
    "an organization": (AsyncOpenAI, {"organization": "org-1", "project": "p"}, {}),
    "headers": (AsyncOpenAI, {"default_headers": {"X-Api-Key": "x"}}, {}),
    "a query": (AsyncOpenAI, {"default_query": {"api-key": "x"}}, {}),
    "a call's own": (AsyncOpenAI, {}, {"extra_headers": {"Authorization": "Bearer sk-b"}}),
    "Azure's key": (AsyncAzureOpenAI, AZURE_GIVEN, {}),
    "Azure's token": (AsyncAzureOpenAI, {**AZURE_GIVEN, "azure_ad_token": "t"}, {}),
}


async def test_both_ways_know_an_account_by_the_same_digest():
    """So that a 429 of an account is shared; no two accounts are taken for one."""
    digests: list[bytes] = []

    class Watched(Flight):
        def __init__(self, namespace, key, starter, **given):
            digests.append(starter.credentials)
            super().__init__(namespace, key, starter, **given)

    async with Cache.memory() as cache:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "Flight", Watched)
            for account, (kind, given, changes) in enumerate(ACCOUNTS.values()):
                ways = Ways(cache, kind=kind, **given)
                for way, client in enumerate((ways.method, ways.http)):
                    call = {**ENDPOINTS["completions.create"], "seed": 2 * account + way, **changes}
                    await asked(client, "completions.create", call)
    assert digests[::2] == digests[1::2]
    assert len({*digests}) == len(ACCOUNTS)


# -- libraries -------------------------------------------------------------------------------

ALLOWED = "!$&'()*+,;=:@~"  # as they are, in a path
ESCAPED = " é%/?#[]|<>{}^`\\" + '"'
SEGMENTS = st.text(st.sampled_from(f"aZ0-._{ESCAPED}{ALLOWED}"), min_size=1, max_size=5)
PAIRS = st.lists(st.tuples(SEGMENTS, SEGMENTS), max_size=3)
HOSTS = st.sampled_from([
    "llm.corp", "LLM.corp:443", "llm.corp:8443", "127.0.0.1", "[::1]:443", "bücher.example",
])  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(HOSTS, st.lists(SEGMENTS, max_size=2), PAIRS)
@example("llm.corp", ["a b%é~"], [("a+b", "c d"), ("a+b", "~")])
def test_libraries_have_one_key_for_a_url(host, segments, query):
    """However each of them writes what has to be escaped in it."""
    named = (segment for segment in segments if segment not in {".", ".."})
    path = "".join(f"/{quote(segment, safe=ALLOWED)}" for segment in named)
    asked = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query)
    url = f"https://{host}{path}/v1/chat/completions?{asked}".removesuffix("?")
    body = json.dumps(ENDPOINTS["chat.completions.create"]).encode()

    async def aiohttps():
        async with aiohttp.ClientSession() as session:
            loop = asyncio.get_running_loop()
            request = aiohttp.ClientRequest("POST", yarl.URL(url), loop=loop, session=session)
            return aiohttp_session._wire_request(request, body)

    wires = [
        asyncio.run(aiohttps()),
        *(wire_request(lib, lib.Request("POST", url, content=body)) for lib in (httpx1, httpx2)),
    ]
    keys = set()
    for wire in wires:
        question: Any = question_of(wire)
        source = question.source
        where = (
            Namespace("42"),
            address_of(wire, source.match.place, "gpt-4o", None),
            wire.query,
            "",
            frozenset[str](),
        )
        keys.add(prefix_of(source.headers, source.match.place.path, where)[0].key(b""))
    assert len(keys) == 1
