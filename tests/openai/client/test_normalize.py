"""`normalize=`: from a copy of a request's body to the form that its key is made of."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import functools
import json
import logging
import random
import subprocess
import sys
import uuid
from email.utils import format_datetime

import pytest
from openai.types.chat import ChatCompletion

from asynccache import Cache, ReplayMiss, normalizers
from asynccache.normalizers import by_pattern, call_ids, dates, normalizer, schema_order, uuids
from tests.helpers.openai_answers import answer
from tests.helpers.openai_server import ask, state, stored

pytest_plugins = ("tests.helpers.openai_fixtures",)


@pytest.fixture(autouse=True)
def responding(api):
    """Answer at all endpoints."""
    api.program = answer


def said(text):
    """Return messages with a text."""
    return [{"role": "system", "content": text}, {"role": "user", "content": "Hello?"}]


async def keys_of(bare, normalize, *bodies):
    """Return the keys of chat completions under one cache, and their number."""
    async with Cache.memory(normalize=normalize) as cache:
        client = cache.wrap(bare)
        return [state(await ask(client, **body)).key for body in bodies]


async def keys_of_texts(bare, normalize, *texts):
    """Return the keys of requests with these texts."""
    return await keys_of(bare, normalize, *({"messages": said(text)} for text in texts))


def first_word(body):
    """Keep of a text its first word."""
    for message in body["messages"]:
        message["content"] = message["content"].split()[0]
    return body


# -- any function ------------------------------------------------------------------------------


async def test_the_key_is_made_of_the_form(bare, api):
    """Requests of one form share an answer, whichever way they come; others don't."""
    async with Cache.memory(normalize=first_word) as cache:
        client = cache.wrap(bare)
        keys = {state(await ask(client, messages=said(text))).key for text in ("a b", "a c")}
        body = {"model": "gpt-4o", "messages": said("a d")}
        keys.add(
            state(await client.post("/chat/completions", cast_to=ChatCompletion, body=body)).key
        )
        raw = client.chat.completions.with_raw_response
        keys.add(state(await raw.create(model="gpt-4o", messages=said("a e"))).key)
        assert len(keys) == len(api.requests) == 1
        assert state(await ask(client, messages=said("b"))).key not in keys


async def test_what_is_sent_stays_as_it_is(bare, api):
    """The function has a copy: neither the caller's body nor the one that is sent changes."""
    messages = said("a b")
    before = copy.deepcopy(messages)
    async with Cache.memory(normalize=first_word) as cache:
        await ask(cache.wrap(bare), messages=messages)
        await stored(cache)
    assert messages == before == api.requests[0].body["messages"]


async def test_name_and_version_are_in_the_key(bare):
    """Another function, another version, another order, or none: each has keys of its own."""

    def same(body):
        return body

    def other(body):
        return body

    one, two = normalizer(1, "one")(same), normalizer(1, "two")(same)
    several = [
        None, one, two, normalizer(2, "one")(same), normalizer("1", "one 1")(same), [one, two],
        [two, one], [one, one], normalizer(1, "one1")(same), call_ids, dates,
    ]  # fmt: skip
    keys = [(await keys_of(bare, each, {}))[0] for each in several]
    assert len({*keys}) == len(several)
    assert (await keys_of(bare, normalizer(1, "one")(other), {}))[0] == keys[1]


async def test_several_are_applied_in_their_order(bare):
    """Each gets what the one before it has made."""

    @normalizer(version=1, name="shout")
    def shout(body):
        return {**body, "messages": [m["content"].upper() for m in body["messages"]]}

    keys = await keys_of_texts(bare, [first_word, shout], "a b", "A c", "b")
    assert keys[0] == keys[1] != keys[2]


async def test_it_sees_neither_secrets_nor_what_is_ignored(bare):
    """Whatever it makes of a body, these can't come back into the key."""
    seen = []

    @normalizer(version=1, name="looks")
    def looks(body):
        seen.append(json.dumps(body))
        return body

    async with Cache.memory(normalize=looks, ignore=["metadata.run"]) as cache:
        client = cache.wrap(bare)
        tool = {"type": "mcp", "server_label": "s", "authorization": "secret-secret"}
        await client.responses.create(
            model="gpt-4o", input="x", tools=[tool], metadata={"run": "run-run"},
            prompt_cache_key="hint-hint",
        )  # fmt: skip
    assert not any(hidden in text for text in seen for hidden in ("secret-", "run-run", "hint-"))


async def fails(body):
    """Be no plain function."""


class Callable:
    """Has no name of its own."""

    def __call__(self, body):
        return body


@pytest.mark.parametrize(
    "given",
    [
        fails, 7, "dates", [7], [[first_word]], lambda body: body, Callable(),
        functools.partial(first_word),
    ],
)  # fmt: skip
def test_what_is_no_named_function_is_refused(given):
    """At once, with what to give instead."""
    with pytest.raises(TypeError, match="normali"):
        Cache.memory(normalize=given)


@pytest.mark.parametrize("version", [None, first_word, True, 1.5])
def test_versions_that_are_none(version):
    """`@normalizer` without its arguments is the likeliest of mistakes."""
    with pytest.raises(TypeError, match=r"@normalizer\(version=1\)"):
        normalizer(version)


@pytest.mark.parametrize("result", [None, [], "text", {1: 2}, {"a": {1, 2}}, {"a": float("nan")}])
async def test_what_makes_no_form_goes_past_the_cache(result, bare, api, caplog):
    """A function that returns nothing must not make one key of all requests."""

    @normalizer(version=1, name="bad")
    def bad(body):
        return result

    with caplog.at_level(logging.WARNING, "asynccache"):
        async with Cache.memory(normalize=bad) as cache:
            for text in ("a", "b"):
                await ask(cache.wrap(bare), messages=said(text))
            assert (cache.stats().bypassed, cache.stats().stored) == (2, 0)
    assert len(api.requests) == 2
    assert caplog.text


async def test_a_function_that_raises_takes_no_call_down(bare, api, caplog):
    """The call goes past the cache, counted and said once; in replay it is a miss."""

    @normalizer(version=1, name="broken")
    def broken(body):
        raise ValueError(body["messages"][0]["content"])

    with caplog.at_level(logging.WARNING, "asynccache"):
        async with Cache.memory(normalize=broken) as cache:
            for _ in range(2):
                await ask(cache.wrap(bare), messages=said("private"))
            assert cache.stats().bypassed == 2
    assert "broken raised ValueError" in caplog.text
    assert "private" not in caplog.text
    async with Cache.memory(normalize=broken, mode="replay") as cache:
        with pytest.raises(ReplayMiss, match="broken"):
            await ask(cache.wrap(bare))
    assert len(api.requests) == 2


async def test_a_plain_and_a_streamed_request_stay_two(bare, api):
    """Even for a function that drops what tells them apart."""

    @normalizer(version=1, name="rough")
    def rough(body):
        return {"model": body["model"]}

    for options in ({"normalize": rough}, {"ignore": ["stream"]}):
        async with Cache.memory(**options) as cache:
            client = cache.wrap(bare)
            plain = await ask(client)
            async for _ in await ask(client, stream=True):
                pass
            assert (await ask(client)).model_dump() == plain.model_dump()
    assert len(api.requests) == 4


async def test_a_thousand_at_once_pay_once(bare, api):
    """Texts that differ in a date alone share one call."""
    async with Cache.memory(normalize=dates) as cache:
        client = cache.wrap(bare)
        day = dt.datetime(2026, 11, 30, tzinfo=dt.UTC)
        texts = [f"It is {day + dt.timedelta(minutes=n)}." for n in range(1000)]
        await asyncio.gather(*(ask(client, messages=said(text)) for text in texts))
    assert len(api.requests) == 1


async def test_embeddings_input_by_input(bare, api):
    """Each input's key is made of its form alone."""
    async with Cache.memory(normalize=dates) as cache:
        client = cache.wrap(bare)

        async def embed(*texts):
            return await client.embeddings.create(model="m", input=[*texts])

        first = await embed("on 2026-11-30", "b")
        again = await embed("b", "on 2026-12-01")
        assert [len(seen.body["input"]) for seen in api.requests] == [2]
        assert again.data[0].embedding == first.data[1].embedding
        assert again.data[1].embedding == first.data[0].embedding
        await embed("on 2026-12-01 at noon", "b")
        assert [len(seen.body["input"]) for seen in api.requests] == [2, 1]


SCRIPT = """
import asyncio, sys
from asynccache import Cache
from openai import AsyncOpenAI

def short(body):
    body["messages"] = body["messages"][-1:]
    return body

async def main():
    async with Cache.disk(cache_path_root=sys.argv[2], normalize=short) as cache:
        client = cache.wrap(AsyncOpenAI(base_url=sys.argv[1], api_key="k"))
        messages = [{"role": "user", "content": text} for text in sys.argv[3:]]
        await client.chat.completions.create(model="m", messages=messages)

asyncio.run(main())
"""


async def test_a_scripts_function_keeps_its_name(tmp_path, api):
    """Two runs of a script share; a script of another file has another function."""
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(SCRIPT)
    for name, first in (("one.py", "a"), ("one.py", "b"), ("two.py", "c")):
        command = [sys.executable, name, api.base_url, str(tmp_path / "cache"), first, "end"]
        await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, check=True)
    assert len(api.requests) == 2


async def test_in_a_url(bare, api):
    """The ready ones have names there."""
    async with Cache.from_url("memory:?normalize=dates,call_ids") as cache:
        for text in ("2026-11-30", "2026-12-01"):
            await ask(cache.wrap(bare), messages=said(text))
    assert len(api.requests) == 1
    with pytest.raises(ValueError, match="schema_order"):
        Cache.from_url("memory:?normalize=date")


def test_the_ready_ones_are_functions():
    """They can be called in a function of one's own."""
    body = {"messages": said("on 2026-11-30")}
    assert dates(body)["messages"][0]["content"] == ["on ", [0], ""]
    assert all(callable(getattr(normalizers, name)) for name in normalizers.__all__)


# -- dates, UUIDs, patterns --------------------------------------------------------------------

NOW = dt.datetime(2026, 11, 30, 19, 36, 28, 123456, dt.UTC)
LATER = dt.datetime(2027, 5, 2, 7, 5, 9, 7, dt.UTC)
FORMS = (
    "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S.%fZ",
    "%Y-%m-%d %H:%M:%S%z", "%Y-%m-%d (%A)", "%Y-%m-%d, a %A", "%A, %Y-%m-%d", "%Y/%m/%d",
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%B %d, %Y", "%b %d, %Y", "%A, %B %d, %Y", "%d %B %Y",
    "%dth of %B %Y", "%d. %B %Y", "%a, %d %b %Y %H:%M:%S GMT", "%c", "%B %d, %Y at %I:%M %p",
    "%I:%M %p", "%H:%M:%S", "%d-%b-%Y", "%d/%b/%Y:%H:%M:%S %z", "%A, %d %B %Y, %H:%M",
    "%Y-%m-%d %H:%M UTC",
)  # fmt: skip
WRITTEN = {form: [moment.strftime(form) for moment in (NOW, LATER)] for form in FORMS} | {
    "isoformat": [NOW.isoformat(), LATER.isoformat()],
    "RFC 2822": [format_datetime(NOW), format_datetime(LATER)],
}


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize(
    "around", ["It is {}.", "{}", "<date>{}</date>", '{{"now": "{}"}}', "({})"]
)
async def test_dates(form, around, bare):
    """A date makes no difference, however it is written."""
    texts = [around.format(written) for written in WRITTEN[form]]
    assert len({*await keys_of_texts(bare, dates, *texts)}) == 1
    assert len({*await keys_of_texts(bare, None, *texts)}) == 2


APART = (
    "gpt-4o-2024-08-06 gpt-4o-2024-11-20", "1234-56-78 1234-56-79", "16:09 16:10", "v1.2.3 v1.2.4",
    "10.12.20261 10.12.20262", "2026 2027", "log-2026-11-30 log-2026-12-01", "May Jun",
    "555-2026-11 555-2026-12", "1:2:3 1:2:4", "2026-13-01 2026-14-01", "May 1 a 2026-1 b",
)  # fmt: skip


@pytest.mark.parametrize("pair", APART)
async def test_what_is_no_date_counts(pair, bare):
    """Versions, names of models, ratios and numbers tell requests apart."""
    assert len({*await keys_of_texts(bare, dates, *pair.split())}) == len(pair.split())


async def test_where_dates_are_equal_counts(bare):
    """Two dates that are one, and two that differ, are two questions."""
    texts = [
        "from 2026-11-30 to 2026-11-30", "from 2026-11-30 to 2026-12-01",
        "from 2026-12-01 to 2026-12-01", "from 2026-12-01 to 2026-11-30", "from [0] to [1]",
    ]  # fmt: skip
    keys = await keys_of_texts(bare, dates, *texts)
    assert keys[0] == keys[2] != keys[1] == keys[3]
    assert keys[4] not in keys[:4]


async def test_dates_outside_of_texts_count(bare):
    """Models, ids and addresses aren't texts: what they name lies at the server."""
    part = {"type": "image_url", "image_url": {"url": "http://h/{}.png"}}
    bodies = [
        body
        for day in ("2026-11-30", "2026-12-01")
        for body in (
            {"model": f"m {day}"}, {"user": day}, {"metadata": {"day": day}},
            {"messages": [{"role": "user", "name": day, "content": "a"}]},
            {"messages": [{"role": "user", "content": [
                {**part, "image_url": {"url": f"http://h/{day}"}},
            ]}]},
        )
    ]  # fmt: skip
    assert len({*await keys_of(bare, [dates, uuids], *bodies)}) == len(bodies)


async def test_everywhere_that_a_model_reads(bare):
    """Instructions, inputs, parts, results and arguments of tools, and what describes them."""
    async with Cache.memory(normalize=dates) as cache:
        client = cache.wrap(bare)
        keys = set()
        for day in ("2026-11-30", "2026-12-01"):
            given = [
                {"role": "user", "content": [{"type": "input_text", "text": f"On {day}"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": f'["{day}"]'},
                {"type": "function_call_output", "call_id": "c", "output": f"since {day}"},
            ]
            tool = {
                "type": "function",
                "name": "f",
                "description": f"As of {day}",
                "parameters": {},
            }
            found = await client.responses.create(
                model="gpt-4o", input=given, instructions=f"Today is {day}", tools=[tool]
            )
            keys.add(state(found).key)
    assert len(keys) == 1


@pytest.mark.parametrize("form", ["{}", "run_{}", "urn:uuid:{}", "{{{}}}", "/{}/", "id={},"])
@pytest.mark.parametrize("write", [str, lambda u: str(u).upper(), lambda u: u.hex])
async def test_uuids(form, write, bare):
    """A UUID makes no difference, however it is written, but where two are equal does."""
    one, two, three = (form.format(write(uuid.uuid4())) for _ in range(3))
    texts = [f"{one} {two}", f"{two} {three}", f"{one} {one}"]
    keys = await keys_of_texts(bare, uuids, *texts)
    assert keys[0] == keys[1] != keys[2]


async def test_what_is_no_uuid_counts(bare):
    """Digests and longer numbers tell requests apart."""
    texts = [
        "0" * 32,
        "1" * 32,
        "a" + str(uuid.uuid4()),
        "b" + str(uuid.uuid4()),
        "a" * 64,
        "b" * 64,
    ]
    assert len({*await keys_of_texts(bare, uuids, *texts)}) == len(texts)


async def test_patterns_of_ones_own(bare):
    """What a pattern finds is numbered; another pattern is another function."""
    runs = by_pattern(r"run-\d+")
    keys = await keys_of_texts(bare, runs, "in run-1", "in run-22", "in run-", "in run-1 of run-2")
    assert keys[0] == keys[1]
    assert len({*keys}) == 3
    other = await keys_of_texts(bare, by_pattern(r"run-[0-9]+"), "in run-1")
    assert other[0] not in keys
    for empty in ("", "a*", "(?=a)|"):
        with pytest.raises(ValueError, match="empty"):
            by_pattern(empty)


# -- schemas -----------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {
        "required": {"type": ["string", "null"], "enum": ["a", "b", "c"]},
        "default": {"anyOf": [{"type": "string"}, {"type": "integer"}, {"$ref": "#/$defs/d"}]},
        "list": {"type": "array", "items": {"type": "object", "required": ["x", "y", "z"]}},
    },
    "$defs": {"d": {"type": "object", "required": ["p", "q"], "properties": {}}},
    "required": ["required", "default", "list"],
    "dependentRequired": {"list": ["required", "default"]},
}


def shuffled(node, order):
    """Return a schema whose sets stand in another order."""
    if isinstance(node, dict):
        return {name: shuffled(value, order) for name, value in node.items()}
    if isinstance(node, list):
        return order.sample([shuffled(item, order) for item in node], len(node))
    return node


@pytest.mark.parametrize("place", ["tool", "answer", "responses"])
async def test_the_order_of_a_schemas_sets(place, bare):
    """`required` and its like make no difference, wherever a schema stands."""

    async def keys_of_schemas(normalize, schemas):
        async with Cache.memory(normalize=normalize) as cache:
            client = cache.wrap(bare)
            return {await key(client, schema) for schema in schemas}

    async def key(client, schema):
        if place == "tool":
            tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
            return state(await ask(client, tools=[tool])).key
        if place == "answer":
            form = {"type": "json_schema", "json_schema": {"name": "f", "schema": schema}}
            return state(await ask(client, response_format=form)).key
        tool = {"type": "function", "name": "f", "parameters": schema}
        text = {"format": {"type": "json_schema", "name": "f", "schema": schema}}
        made = await client.responses.create(model="m", input="x", tools=[tool], text=text)
        return state(made).key

    schemas = [shuffled(SCHEMA, random.Random(seed)) for seed in range(5)]
    assert len(await keys_of_schemas(None, schemas)) == 5
    assert len(await keys_of_schemas(schema_order, schemas)) == 1
    others = [
        {**SCHEMA, "required": ["required"]}, {**SCHEMA, "examples": [[1, 2]]},
        {**SCHEMA, "examples": [[2, 1]]}, {**SCHEMA, "prefixItems": [{"a": 1}, {}]},
        {**SCHEMA, "prefixItems": [{}, {"a": 1}]}, {**SCHEMA, "default": {"required": ["a", "b"]}},
        {**SCHEMA, "default": {"required": ["b", "a"]}},
    ]  # fmt: skip
    assert len(await keys_of_schemas(schema_order, [SCHEMA, *others])) == 1 + len(others)
