"""What is in the key of a chat completion, and what never is."""

from __future__ import annotations

import asyncio
import collections.abc
import copy
import enum
import inspect
import logging
import sys
import types
import typing
from operator import attrgetter

import openai
import pytest
import typing_extensions
from openai import NOT_GIVEN, APITimeoutError, AsyncOpenAI, omit
from openai.types.chat import ChatCompletion, ChatCompletionMessage

import asynccache
from asynccache import Cache
from asynccache.openai.wrapping import CACHED_METHODS
from tests.helpers.http import httpx
from tests.helpers.openai_api import GetWeather, Weather, whole_api
from tests.helpers.openai_server import MESSAGES, ask, state

pytest_plugins = ("tests.helpers.openai_fixtures",)


STRICT_TOOL = openai.pydantic_function_tool(GetWeather)
RESPONSES_TOOL = {
    "type": "function", "name": "f", "strict": True, "parameters": {"type": "object"},
}  # fmt: skip
METHODS: dict[str, dict[str, typing.Any]] = {
    "chat.completions.create": {"model": "gpt-4o", "messages": MESSAGES},
    "chat.completions.parse": {"model": "gpt-4o", "messages": MESSAGES},
    "responses.create": {"model": "gpt-4o", "input": "Hello?"},
    "responses.parse": {"model": "gpt-4o", "input": "Hello?"},
    "completions.create": {"model": "gpt-4o", "prompt": "Hello?"},
    "embeddings.create": {"model": "gpt-4o", "input": "Hello?"},
}
NEVER_IN_THE_KEY = {"timeout": (5, 7), "prompt_cache_key": ("a", "b")}
NEVER_CACHED = {"background", "conversation"}
BY_HAND = {
    "messages": ([{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]),
    "extra_headers": ({"x-a": "1"}, {"x-a": "2"}),
    "extra_query": ({"a": "1"}, {"a": "2"}),
    "extra_body": ({"a": 1}, {"a": 2}),
    # The SDK itself looks at the shape of these.
    "response_format": ({"type": "text"}, {"type": "json_object"}),
    "chat.completions.parse response_format": (Weather, GetWeather),
    "chat.completions.parse tools": (
        [STRICT_TOOL], [openai.pydantic_function_tool(Weather)],
    ),
    "responses.parse text_format": (Weather, GetWeather),
    "responses.parse tools": ([RESPONSES_TOOL], [{**RESPONSES_TOOL, "name": "g"}]),
    "responses.parse text": ({"verbosity": "low"}, {"verbosity": "high"}),
    "responses.parse stream": (False, None),  # a true one breaks the SDK's own parser
    "context_management": ([{"type": "compaction"}], []),
    "encoding_format": ("float", "base64"),
}  # fmt: skip
JSON_TEXT: typing.Any = {"format": {
    "type": "json_schema", "name": "w", "schema": {"type": "object"},
}}  # fmt: skip
NOT_SENT = {"responses.parse parse_as"}
"""What the SDK itself uses after the answer."""
SAME_AS_LEFT_OUT = {"embeddings.create encoding_format": "base64"}
"""What the SDK sends where nothing is given."""


def method_of(client, method):
    """Return a method by its dotted name."""
    return attrgetter(method)(client)


PARAMETERS = [
    (method, name)
    for method in METHODS
    for name, parameter in inspect.signature(
        method_of(AsyncOpenAI(api_key="k"), method)
    ).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
]


def values(annotation):  # noqa: C901 - one line for each form of annotation
    """Return two plausible values of an annotated type."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin in {typing.Required, typing.NotRequired, typing.Annotated}:
        return values(arguments[0])
    if origin is typing.Literal:
        return arguments[0], arguments[-1] if len(arguments) > 1 else "another"
    if origin in {typing.Union, types.UnionType}:
        for kind in arguments:
            if kind is not type(None) and not getattr(kind, "__name__", "").startswith(
                ("Omit", "Not")
            ):
                return values(kind)
    if annotation is bool:
        return True, False
    if annotation is int:
        return 1, 2
    if annotation is float:
        return 0.25, 0.5
    if annotation is str:
        return "a", "b"
    if origin is dict:
        first, second = values(arguments[1])
        return {"k": first}, {"k": second}
    if typing_extensions.is_typeddict(annotation):
        return {"name": "a"}, {"name": "b"}
    if origin in {list, collections.abc.Iterable, collections.abc.Sequence} or arguments:
        first, second = values(arguments[0])
        return [first], [second]
    raise AssertionError(f"no values for {annotation!r}: write some into BY_HAND")


def pair(method, name):
    """Return two values of a parameter."""
    found = BY_HAND.get(f"{method} {name}") or BY_HAND.get(name)
    if found is None:
        function = method_of(AsyncOpenAI(api_key="k"), method).__func__
        namespace = vars(sys.modules[function.__module__])
        hints = typing.get_type_hints(function, namespace)
        found = values(hints[name])
    return found


async def key_by(client, method, **changes):
    """Return the key of a call of any method that is really made."""
    response = await method_of(client, method)(**{**METHODS[method], **changes})
    found = state(response)
    if hasattr(response, "close"):
        await response.close()
    return found.key


async def key_of(client, **changes):
    """Return the key of a call that is really made."""
    response = await ask(client, **changes)
    found = state(response)
    if hasattr(response, "close"):
        await response.close()
    return found.key


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("method", "name"), PARAMETERS)
async def test_every_parameter_is_in_the_key(method, name, bare, api):
    """Given or not, with one value or another, a parameter makes another key, but for a few."""
    api.program = whole_api
    async with Cache.memory() as cache:
        client = cache.wrap(bare)
        if name in NEVER_IN_THE_KEY:
            keys = [
                await key_by(client, method),
                *[await key_by(client, method, **{name: v}) for v in NEVER_IN_THE_KEY[name]],
            ]
            assert len(set(keys)) == 1
            return
        if name in NEVER_CACHED:
            await method_of(client, method)(**METHODS[method], **{name: pair(method, name)[0]})
            assert cache.stats().bypassed == 1
            return
        if f"{method} {name}" in NOT_SENT:
            assert await key_by(client, method, **{name: Weather, "text": JSON_TEXT}) == (
                await key_by(client, method, text=JSON_TEXT)
            )
            return
        given = pair(method, name)
        keys = [await key_by(client, method, **{name: value}) for value in given]
        if name not in METHODS[method] or METHODS[method][name] not in given:
            left_out = await key_by(client, method)
            same = SAME_AS_LEFT_OUT.get(f"{method} {name}")
            if same is None:
                keys.append(left_out)
            else:
                assert keys[given.index(same)] == left_out
        assert len(set(keys)) == len(keys)


async def test_where_a_server_routes_a_request_to_is_in_no_key(cached, api):
    """`prompt_cache_key` is left out by whichever way it comes, and is sent as it is."""
    body = {"model": "gpt-4o", "messages": MESSAGES, "prompt_cache_key": "c"}
    keys = {
        await key_of(cached),
        await key_of(cached, extra_body={"prompt_cache_key": "a"}),
        state(
            await cached.chat.completions.with_raw_response.create(
                model="gpt-4o", messages=MESSAGES, prompt_cache_key="b"
            )
        ).key,
        state(await cached.post("/chat/completions", cast_to=ChatCompletion, body=body)).key,
    }
    assert len(keys) == len(api.requests) == 1
    nested = {"metadata": {"prompt_cache_key": "a"}}  # the user's own
    assert await key_of(cached, extra_body=nested) not in keys
    await key_of(cached, prompt_cache_key="d", seed=1)
    assert api.requests[-1].body["prompt_cache_key"] == "d"


def test_every_method_is_looked_at():
    """The methods above are those that have a way of their own through the cache."""
    own = {f"{endpoint.resource}.{name}" for endpoint, name, _ in CACHED_METHODS}
    assert own == set(METHODS)


async def test_a_parameter_given_as_none_is_not_one_left_out(cached, api):
    """None travels as null, so that it is in the key; the SDK's markers for left out are not."""
    left_out = await key_of(cached)
    assert await key_of(cached, seed=None) != left_out
    assert await key_of(cached, seed=omit) == left_out
    assert await key_of(cached, seed=NOT_GIVEN) == left_out


async def test_order_is_not_in_the_key(cached):
    """Arguments and dicts in another order are the same request."""
    first = await key_of(
        cached, tools=[{"type": "function", "function": {"name": "f", "a": 1}}], seed=1
    )
    second = await key_of(
        cached, seed=1, tools=[{"function": {"a": 1, "name": "f"}, "type": "function"}]
    )
    response = await cached.chat.completions.create(
        seed=1,
        tools=[{"type": "function", "function": {"a": 1, "name": "f"}}],
        messages=[{"content": "Hello?", "role": "user"}],
        model="gpt-4o",
    )
    assert first == second == state(response).key


async def test_what_is_sent_keeps_the_callers_order(cached, bare, api):
    """Models read tools in order, so that only the key is sorted, never the request."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": 2}}}]
    await ask(cached, tools=tools, extra_body={"y": 1, "b": 2})
    await ask(bare, tools=tools, extra_body={"y": 1, "b": 2})
    assert api.requests[0].raw == api.requests[1].raw


@pytest.mark.parametrize(
    "changes",
    [
        {"api_key": "sk-b"},
        {"organization": "org-b"},
        {"project": "proj-b"},
        {"timeout": 7},
        {"max_retries": 1},
        {"default_headers": {"Authorization": "Bearer other"}},
        {"default_headers": {"Api-Key": "other"}},
        {"default_headers": {"User-Agent": "other"}},
        {"default_headers": {"X-Stainless-Lang": "other"}},
        {"default_headers": {"Idempotency-Key": "other"}},
        {"default_headers": {"traceparent": "other"}},
        {"default_headers": {"X-Goog-Api-Key": "other"}},
        {"default_headers": {"X-Request-Id": "other"}},
        {"default_query": {"api-key": "other"}},
    ],
    ids=str,
)
async def test_credentials_and_transport_are_not_in_the_key(changes, cached):
    """Who asks, for how long, and how it travels makes no other request of it."""
    assert await key_of(cached.with_options(**changes)) == await key_of(cached)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer x"},
        {"Idempotency-Key": "x"},
        {"X-Stainless-Anything": "x"},
        {"User-Agent": "x"},
        {"X-Request-Id": "x"},
        {"X-Goog-Api-Key": "x"},
        {"traceparent": "x"},
    ],
    ids=str,
)
async def test_denied_headers_of_a_call_are_not_in_the_key(headers, cached):
    """The deny-list holds for the headers of one call as for the client's own."""
    assert await key_of(cached, extra_headers=headers) == await key_of(cached)


async def test_user_info_and_key_in_the_base_url_are_not_in_the_key(api, bare, api_cache):
    """Credentials in a base URL are left out of keys, whichever they are."""
    plain = await key_of(api_cache.wrap(bare))
    host = api.base_url.removeprefix("http://")
    for base_url in (f"http://user:pw@{host}", f"http://user:other@{host}"):
        client = api_cache.wrap(bare.with_options(base_url=base_url))
        assert await key_of(client) == plain


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": 5}, {"Authorization": "\ud800"}, {"x-a": "\ud800"}],
)
async def test_headers_that_cannot_be_sent_fail_as_without_a_cache(headers, bare, cached):
    """The SDK's own call says what is wrong."""
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever the SDK raises
        await ask(bare, extra_headers=headers)
    with pytest.raises(expected.type) as caught:
        await ask(cached, extra_headers=headers)
    assert str(caught.value) == str(expected.value)


async def test_what_the_sdk_sends_elsewhere_goes_past_the_cache(api, bare, api_cache):
    """The SDK puts the path behind a query of the base URL, so that no chat is asked."""
    client = api_cache.wrap(bare.with_options(base_url=f"{api.base_url}?api-key=x"))
    assert asynccache.status(await ask(client)) is None
    assert api_cache.stats().bypassed == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"default_headers": {"X-Tenant": "b"}},
        {"default_query": {"version": "2"}},
    ],
    ids=str,
)
async def test_what_else_a_client_sends_is_in_the_key(changes, cached):
    """Headers and query parameters that aren't on the deny-list are part of the request."""
    assert await key_of(cached.with_options(**changes)) != await key_of(cached)


async def test_base_url_is_in_the_key_and_may_change(cached, api):
    """Another address is another request, also when it is set on the client while in use."""
    first = await key_of(cached)
    assert await key_of(cached.with_options(base_url=f"http://localhost:{api.port}/v1")) != first
    cached.base_url = f"{api.base_url}/other"
    assert await key_of(cached) != first
    cached.base_url = api.base_url
    assert await key_of(cached) == first


async def test_a_query_parameter_named_twice_counts_whole(bare, api, api_cache):
    """Not just the first value of a repeated parameter is in the key."""
    keys = set()
    for query in ("a=1&a=2", "a=1&a=3", "a=1"):
        async with httpx.AsyncClient(params=query) as http:
            keys.add(await key_of(api_cache.wrap(bare.with_options(http_client=http))))
    assert len(keys) == 3


async def test_what_the_http_client_adds_is_in_the_key(api, api_cache):
    """Headers and query set on the user's own HTTP client travel too, and count, changed or not."""
    keys = []
    async with httpx.AsyncClient(headers={"X-Tenant": "a"}) as http:
        client = api_cache.wrap(AsyncOpenAI(api_key="k", base_url=api.base_url, http_client=http))
        keys.append(await key_of(client))
        http.headers["X-Tenant"] = "b"
        keys.append(await key_of(client))
        http.params = {"version": "2"}
        keys.append(await key_of(client))
    assert len(set(keys)) == 3
    assert [seen.headers["x-tenant"] for seen in api.requests] == ["a", "b", "b"]


async def test_a_subclass_that_makes_its_headers_anew(api, api_cache):
    """Headers that a subclass computes for each request are in the key."""

    class Tenant(AsyncOpenAI):
        tenant = "a"

        @property
        def default_headers(self):
            return {**super().default_headers, "X-Tenant": self.tenant}

    async with Tenant(api_key="k", base_url=api.base_url) as client:
        wrapped = api_cache.wrap(client)
        first = await key_of(wrapped)
        wrapped.tenant = "b"
        assert await key_of(wrapped) != first


async def test_a_named_upstream_takes_the_addresss_place(bare, api, api_cache):
    """With a name, the address may change from run to run; another name is another server."""
    named = api_cache.wrap(bare, upstream="ours")
    moved = api_cache.wrap(
        bare.with_options(base_url=f"http://localhost:{api.port}/v2"), upstream="ours"
    )
    assert await key_of(named) == await key_of(moved)
    assert await key_of(named) != await key_of(api_cache.wrap(bare))
    assert await key_of(named) != await key_of(api_cache.wrap(bare, upstream="theirs"))


async def test_a_name_stays_with_the_server_it_was_given_to(bare, api, api_cache):
    """with_options() to another address drops the name: it would give that server our answers."""
    named = api_cache.wrap(bare, upstream="ours")
    elsewhere = named.with_options(base_url=f"http://localhost:{api.port}/v1")
    assert await key_of(elsewhere) != await key_of(named)
    assert await key_of(named.with_options(timeout=3)) == await key_of(named)


class Role(enum.StrEnum):
    USER = "user"


@pytest.mark.parametrize(
    ("make", "wire"),
    [
        (lambda: (*MESSAGES,), MESSAGES),
        (lambda: (dict(message) for message in MESSAGES), MESSAGES),
        (lambda: map(dict, list(MESSAGES)), MESSAGES),
        (lambda: {"a": MESSAGES[0]}.values(), MESSAGES),  # noqa: PLW0108 - a view of its own each time
        (
            lambda: [ChatCompletionMessage(role="assistant", content="Hi")],
            [{"role": "assistant", "content": "Hi"}],
        ),
        (lambda: [{"role": Role.USER, "content": "Hello?"}], MESSAGES),
        (
            lambda: [{"role": "user", "content": ({"type": "text", "text": c} for c in "ab")}],
            [{"role": "user", "content": [{"type": "text", "text": c} for c in "ab"]}],
        ),
        (lambda: [{"role": "user", "content": "Hello?", "name": omit}], MESSAGES),
    ],
    ids=["tuple", "generator", "map", "view", "model", "enum", "nested", "omit"],
)
async def test_objects_have_the_key_of_their_wire_form(make, wire, cached, api):
    """However messages are given, the key is that of what is sent, and it is sent whole."""
    assert await key_of(cached, messages=make()) == await key_of(cached, messages=wire)
    assert [seen.body["messages"] for seen in api.requests] == [wire]


async def test_a_message_of_an_earlier_answer_has_the_key_of_its_wire_form(cached, api):
    """An answer's message put back into the conversation is the request that it is on the wire."""
    message = (await ask(cached)).choices[0].message
    first = await key_of(cached, messages=[*MESSAGES, message])
    assert await key_of(cached, messages=api.requests[1].body["messages"]) == first
    assert len(api.requests) == 2


async def test_integer_keys_are_the_strings_that_travel(cached):
    """logit_bias by token number is the same request as by its text."""
    first = await key_of(cached, logit_bias={50256: -100})
    assert await key_of(cached, logit_bias={"50256": -100}) == first


async def test_an_argument_in_extra_body_is_that_argument(cached, api):
    """One wire request has one key, whichever way its body was put together."""
    assert await key_of(cached, seed=1) == await key_of(cached, extra_body={"seed": 1})
    assert await key_of(cached, seed=2, extra_body={"seed": 1}) == await key_of(cached, seed=1)
    await key_of(cached, seed=3, extra_body={"seed": omit})
    assert len(api.requests) == 2
    assert "seed" not in api.requests[1].body


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), b"bytes", {1, 2}, object()],
    ids=["nan", "inf", "bytes", "set", "object"],
)
async def test_what_has_no_wire_form_gets_the_sdks_own_error(  # noqa: PLR0917 - fixtures
    value, cached, bare, api_cache, api, caplog
):
    """What can't be canonical goes past the cache, and there the SDK says what is wrong with it."""
    caplog.set_level(logging.CRITICAL, "asynccache")
    with pytest.raises((TypeError, ValueError)) as expected:
        await ask(bare, metadata={"a": value})
    for messages in (MESSAGES, iter(MESSAGES)):
        with pytest.raises(type(expected.value)) as found:
            await ask(cached, messages=messages, metadata={"a": value})
        assert str(found.value) == str(expected.value)
    assert api_cache.stats().bypassed == 2
    assert api.requests == []


async def test_an_iterator_that_fails_fails_the_call(cached, api):
    """An error in the middle of the messages reaches the caller, and no half request is sent."""

    def messages():
        yield MESSAGES[0]
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        await ask(cached, messages=messages())
    assert api.requests == []


async def test_an_iterator_in_a_bypassed_call_is_sent_whole(cached, bare, api):
    """What was read for a key that can't be is still sent: nothing is lost on the way past."""
    name = "a header that isn't text bypasses"
    await ask(cached, messages=iter(MESSAGES), extra_headers={"X-Name": name.encode()})
    assert api.requests[0].body["messages"] == MESSAGES
    assert api.requests[0].headers["x-name"] == name


async def test_a_member_named_twice_goes_past_the_cache_whole(cached, api, api_cache):
    """JSON that names a member twice has no one meaning: it is sent as it is, and not cached."""
    await ask(cached, messages=iter(MESSAGES), logit_bias={1: 1, "1": 2})
    assert api.requests[0].body["messages"] == MESSAGES
    assert api_cache.stats().bypassed == 1


async def test_headers_as_bytes_are_never_ignored(cached, api_cache):
    """A header of a kind that can't be in a key takes the call past the cache."""
    await ask(cached, extra_headers={"X-Name": b"a"})
    await ask(cached, extra_headers={"X-Name": b"b"})
    assert api_cache.stats().bypassed == 2


async def test_messages_changed_after_the_call_began_are_not_sent(api, bare):
    """The request that goes out is the one that its key was made of, whatever happens then."""
    messages = copy.deepcopy(MESSAGES)
    body = {"deep": {"list": [1]}}
    async with Cache.memory() as cache:
        client = cache.wrap(bare)
        call = asyncio.ensure_future(ask(client, messages=messages, extra_body=body))
        await asyncio.sleep(0)  # the key is made, and nothing sent
        messages.append({"role": "user", "content": "One more"})
        body["deep"]["list"].append(2)
        await call
    assert api.requests[0].body["messages"] == MESSAGES
    assert api.requests[0].body["deep"] == {"list": [1]}


async def test_ignored_paths_are_left_out_of_the_key_alone(bare, api):
    """What `ignore=` names is sent as ever."""
    async with Cache.memory(ignore=["metadata.run"], ignore_headers=["X-Run"]) as cache:
        client = cache.wrap(bare)
        first = await key_of(client, metadata={"run": "1"}, extra_headers={"x-run": "1"})
        assert await key_of(client, metadata={"run": "2"}, extra_headers={"x-run": "2"}) == first
        assert await key_of(client, metadata=[("run", "1")]) != first
    assert api.requests[0].body["metadata"] == {"run": "1"}
    assert api.requests[0].headers["x-run"] == "1"


async def test_the_ignored_headers_are_those_of_the_cache_in_force(cached):
    """Another cache chosen by options() keys by its own settings."""
    async with Cache.memory(ignore_headers=["x-run"]) as other:
        with asynccache.options(cache=other):
            first = await key_of(cached, extra_headers={"x-run": "1"})
            assert await key_of(cached, extra_headers={"x-run": "2"}) == first


async def test_no_secret_is_in_errors_or_logs(api, api_cache, bare, caplog):
    """What a bypass logs and a timeout says names no credential."""
    base_url = f"http://user:hunter2@[::1]:{api.port}/v1?api-key=hunter2"
    client = api_cache.wrap(bare.with_options(base_url=base_url))
    url = client.chat.completions.create.__wrapped__.__self__._client.base_url
    assert "hunter2" in str(url)  # as the SDK needs it
    from asynccache.openai.client.address import RequestAddress
    from asynccache.openai.client.endpoints import CHAT
    from asynccache.openai.client.sdk import sdk_error

    address = RequestAddress(client, CHAT.path, CHAT.operation, None, frozenset())
    error = sdk_error(client, address.url, TimeoutError())
    assert isinstance(error, APITimeoutError)
    assert str(error.request.url) == f"http://[::1]:{api.port}/v1/chat/completions"
    with pytest.raises(TypeError):
        await ask(client, metadata={"a": b"hunter2"})
    assert "hunter2" not in caplog.text
    assert "past" in caplog.text or "not cached" in caplog.text
