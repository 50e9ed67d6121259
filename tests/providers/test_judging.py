"""What of an answer is unusable, and that no schema keeps the judge busy."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import Any

import pytest

from asynccache.providers.chat import judge_chat
from asynccache.providers.openai import COMPLETIONS
from asynccache.providers.responses import judge_response
from asynccache.providers.schemas import fits
from tests.helpers.pages import ROOT

OBJECT = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}

JUDGES = {"/chat/completions": judge_chat, "/responses": judge_response}


def never():
    """Tick for judgements that take no time."""


def shape(schema=OBJECT, *, strict=True):
    """Return a request that demands JSON of a schema."""
    named = {"name": "s", "schema": schema, "strict": strict}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def offering(schema=OBJECT, **more):
    """Return a request that offers a tool."""
    return {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema, **more}}]
    }


def calls(arguments, name="f", **more):
    """Return a message that calls a tool."""
    function = {"name": name, "arguments": arguments}
    return {"content": None, "tool_calls": [{"type": "function", "function": function}], **more}


def work_of(path, request, chunks, *, streamed=False):
    """Return the work of judging an answer to a request that demands something of it."""
    judge = JUDGES[path](request)
    assert judge is not None
    work = judge.work(chunks, streamed=streamed)
    assert work is not None
    return work


def judged(request, *messages, path="/chat/completions", tick=never):
    """Return the verdict on messages of a chat, or on items of a response."""
    judge = JUDGES[path](request)
    if judge is None:
        return True
    body = {"choices": [{"message": one} for one in messages]}
    if path == "/responses":
        body = {"output": list(messages)}
    work = judge.work([json.dumps(body).encode()], streamed=False)
    return True if work is None else work(tick)[0]


JSON = {"response_format": {"type": "json_object"}}
FENCED = '```json\n{"n": 1}\n```'
CUSTOM = {"type": "custom", "custom": {"name": "f", "input": "{"}}
CHAT: dict[str, Any] = {
    "json": (JSON, {"content": '{"n": 1}'}, True),
    "no json": (JSON, {"content": "n is 1"}, False),
    "cut off": (JSON, {"content": '{"n": 1'}, False),
    "nothing": (JSON, {"content": ""}, False),
    "null": (JSON, {"content": None}, False),
    "NaN": (JSON, {"content": '{"n": NaN}'}, False),
    "any JSON": (JSON, {"content": "7"}, True),
    "a lone surrogate": (JSON, {"content": r'{"n": "\ud800"}'}, True),
    "a number beyond all bounds": (shape(), {"content": '{"n": 1e999}'}, True),
    "fenced": (JSON, {"content": FENCED}, True),
    "fenced, no name": (shape(), {"content": '```\n{"n": 1}```'}, True),
    "fenced by tildes": (shape(), {"content": '~~~json\n{"n": 1}\n~~~'}, True),
    "fenced, no fit": (shape(), {"content": '```json\n{"n": "1"}\n```'}, False),
    "fenced twice": (JSON, {"content": FENCED + "\n" + FENCED}, False),
    "fenced on one line": (JSON, {"content": '```json {"n": 1}```'}, True),
    "a fenced word": (JSON, {"content": "```true\n```"}, True),
    "a longer fence": (JSON, {"content": '````\n{"n": 1}\n````'}, True),
    "nothing but a fence": (JSON, {"content": "`" * 100_000}, False),
    "fences without end": (JSON, {"content": "```json\n" * 20_000}, False),
    "half a fence": (JSON, {"content": '```json\n{"n": 1}'}, False),
    "text before a fence": (JSON, {"content": "Here: " + FENCED}, False),
    "refused": (JSON, {"content": None, "refusal": "No."}, True),
    "refused in part": (JSON, {"content": "n is", "refusal": "No."}, True),
    "beside a call": (JSON, calls("{}"), True),
    "blank beside a call": (JSON, {**calls("{}"), "content": " "}, True),
    "text beside a call": (JSON, {**calls("{}"), "content": "Let me see."}, False),
    "one of two": (JSON, {"content": "{}"}, {"content": "{"}, False),
    "parts": (JSON, {"content": [{"type": "text", "text": "{"}]}, True),
    "nothing demanded": ({}, {"content": "{"}, True),
    "text demanded": ({"response_format": {"type": "text"}}, {"content": "{"}, True),
    "fits": (shape(), {"content": '{"n": 1}'}, True),
    "fits not": (shape(), {"content": '{"n": "1"}'}, False),
    "not strict": (shape(strict=False), {"content": '{"n": "1"}'}, True),
    "strict by another word": (shape(strict="true"), {"content": '{"n": "1"}'}, True),
    "arguments": (offering(), calls('{"n": "1"}'), True),
    "no arguments": (offering(), calls(""), True),
    "blank arguments": (offering(), calls(" \n"), True),
    "null arguments": (offering(), calls(None), True),
    "arguments cut off": (offering(), calls('{"n": '), False),
    "arguments as an object": (offering(strict=True), calls({"n": 1}), True),
    "strict arguments": (offering(strict=True), calls('{"n": "1"}'), False),
    "another tool's": (offering(strict=True), calls('{"n": "1"}', name="g"), True),
    "custom tool": (offering(), {"content": None, "tool_calls": [CUSTOM]}, True),
    "function": ({"functions": [{}]}, {"function_call": {"name": "f", "arguments": "{"}}, False),
    "odd message": (JSON, None, "text", True),
    "odd calls": (offering(), {"tool_calls": [7, {"function": 7, "x": '"arguments"'}]}, True),
}


@pytest.mark.parametrize("kind", CHAT)
def test_chat(kind):
    """Each kind of answer to a chat request."""
    request, *messages, usable = CHAT[kind]
    assert judged(request, *messages) is usable


def says(text, **more):
    """Return an item of a response that says something."""
    return {"type": "message", "content": [{"type": "output_text", "text": text}], **more}


FORMAT = {
    "text": {"format": {"type": "json_schema", "name": "s", "schema": OBJECT, "strict": True}}
}
FUNCTION = {"tools": [{"type": "function", "name": "f", "parameters": OBJECT, "strict": True}]}
REFUSAL = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}
TWO_PARTS = {
    "type": "message",
    "content": [{"type": "output_text", "text": part} for part in ('{"n"', ": 1}")],
}
RESPONSES = {
    "fits": (FORMAT, says('{"n": 1}'), True),
    "fits not": (FORMAT, says("{}"), False),
    "two parts": (FORMAT, TWO_PARTS, True),
    "refused": (FORMAT, REFUSAL, True),
    "the last counts": (FORMAT, says("I am looking."), says('{"n": 1}'), True),
    "reasoning alone": (FORMAT, {"type": "reasoning", "summary": []}, False),
    "nothing": (FORMAT, False),
    "a search alone": (FORMAT, {"type": "web_search_call"}, True),
    "a call alone": (
        FORMAT | FUNCTION,
        {"type": "function_call", "name": "f", "arguments": '{"n":1}'},
        True,
    ),
    "arguments cut off": (
        FUNCTION,
        {"type": "function_call", "name": "f", "arguments": "{"},
        False,
    ),
    "strict arguments": (
        FUNCTION,
        {"type": "function_call", "name": "f", "arguments": "{}"},
        False,
    ),
    "custom tool": (
        FUNCTION,
        {"type": "custom_tool_call", "name": "f", "input": '"arguments"{'},
        True,
    ),
}


@pytest.mark.parametrize("kind", RESPONSES)
def test_responses(kind):
    """Each kind of answer of the Responses API."""
    request, *items, usable = RESPONSES[kind]
    assert judged(request, *items, path="/responses") is usable


def event(**delta):
    """Return an event of a streamed chat."""
    data = {"choices": [{"index": delta.pop("choice", 0), "delta": delta}]}
    return f"data: {json.dumps(data)}\n\n".encode()


def called(arguments, **more):
    """Return what an event says of a call."""
    return {"function": {"arguments": arguments}, **more}


def begun(arguments, **more):
    """Return what the first event of a call says, where each call has the index 0."""
    return {"index": 0, "function": {"name": "f", "arguments": arguments}, **more}


STREAMS = {
    "parts": (JSON, [event(content='{"n"'), event(content=": 1}")], True),
    "cut off": (JSON, [event(content='{"n"'), event(content=": 1")], False),
    "two choices": (
        JSON,
        [event(content="{"), event(content="{}", choice=1), event(content="}")],
        True,
    ),
    "refused": (JSON, [event(content=""), event(refusal="N"), event(refusal="o.")], True),
    "a call": (
        offering(),
        [event(tool_calls=[called('{"n', index=0)]), event(tool_calls=[called('":1}', index=0)])],
        True,
    ),
    "a call cut off": (offering(), [event(tool_calls=[called('{"n', index=0)])], False),
    "two calls": (
        offering(),
        [
            event(tool_calls=[called("{", index=0), called("{", index=1)]),
            event(tool_calls=[called("}", index=1), called("}", index=0)]),
        ],
        True,
    ),
    "without index": (
        offering(),
        [event(tool_calls=[called("{}", id="a")]), event(tool_calls=[called("{}", id="b")])],
        True,
    ),
    "one index": (
        offering(),
        [
            event(tool_calls=[begun("{", id="a"), begun("{", id="b")]),
            event(tool_calls=[called("}", index=0)]),
        ],
        False,  # the first was cut off, the second wasn't
    ),
    "one index, whole calls": (
        offering(),
        [event(tool_calls=[begun("{}", id="a")]), event(tool_calls=[begun("{}", id="b")])],
        True,
    ),
    "an id for each part": (
        offering(),
        [event(tool_calls=[begun("{", id="a")]), event(tool_calls=[called("}", index=0, id="b")])],
        True,
    ),
    "a comment": (JSON, [b": keep-alive\n\n", event(content="{}")], True),
    "usage alone": (JSON, [event(content="{}"), b'data: {"choices": [], "usage": {}}\n\n'], True),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_streams_of_chats(kind):
    """The same, put together from events."""
    request, events, usable = STREAMS[kind]
    chunks = [*events, b"data: [DONE]\n\n"]
    work = work_of("/chat/completions", request, chunks, streamed=True)
    assert work(never)[0] is usable


@pytest.mark.parametrize("whole", [True, False])
def test_streams_of_responses(whole):
    """Some servers leave the items out of the event that ends a stream."""
    done = {"type": "response.output_item.done", "output_index": 0, "item": says("{}")}
    ended = {"type": "response.completed", "response": {"output": [says("{}")] if whole else []}}
    chunks = [f"data: {json.dumps(data)}\n\n".encode() for data in (done, ended)]
    work = work_of("/responses", FORMAT, chunks, streamed=True)
    assert work(never) == (False, frozenset())


REFS = {f"a{at}": {"allOf": [{"$ref": f"#/$defs/a{at + 1}"}] * 2} for at in range(60)}
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
SCHEMAS = {
    "pattern": ({"pattern": "^[a-z]{2}$"}, "ab", True),
    "pattern not": ({"pattern": "^[a-z]{2}$"}, "a1", False),
    "pattern of digits": ({"pattern": r"^\d+[\w-]*$"}, "1-a_", True),
    "catastrophic pattern": ({"pattern": "^(a+)+$"}, "a" * 3000 + "!", False),
    "catastrophic name": (
        {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
        {"a" * 3000 + "!": 1},
        False,
    ),
    "name of a pattern": (
        {"patternProperties": {"^a": {"type": "string"}}, "additionalProperties": False},
        {"ab": 1},
        False,
    ),
    "other names": ({"patternProperties": {"^a": {}}, "properties": {"b": {}}}, {"c": 1}, True),
    "unique": ({"uniqueItems": True}, [{"a": at} for at in range(5000)], True),
    "not unique": ({"uniqueItems": True}, [{"a": 1}, {"b": 1}, {"a": 1}], False),
    "a tree": (
        {"properties": {"more": {"$ref": "#"}, "n": {"type": "integer"}}},
        {"more": {"more": {"n": "x"}}},
        False,
    ),
    "draft 7": ({"$schema": DRAFT_7, "items": [{"type": "string"}]}, [1], False),
}
UNREAD = {
    "exponential": ({"$defs": {**REFS, "a60": {}}, "$ref": "#/$defs/a0"}, 1),
    "endless": ({"$ref": "#"}, 1),
    "endless in turns": ({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, 1),
    "remote": ({"$ref": "https://example.com/schema.json"}, 1),
    "local file": ({"$ref": "file:///etc/passwd"}, 1),
    "nowhere": ({"$ref": "#/$defs/none"}, 1),
    "look-ahead": ({"pattern": "^(?=x)"}, "y"),
    "a pattern that is none": ({"pattern": "("}, "y"),
    "a huge pattern": ({"pattern": "((a{50}){50}){50}"}, "y"),
    "no schema": ({"type": "whatever"}, 1),
    "names as text": ({"required": "name"}, {"x": 1}),
    "no dialect": ({"$schema": "https://example.com/dialect"}, 1),
    "another dialect within": (
        {"properties": {"a": {"$schema": DRAFT_7, "type": "string"}}},
        {"a": 1},
    ),
    "unevaluated": ({"unevaluatedProperties": False}, {"a": 1}),
}


@pytest.fixture
def offline(monkeypatch):
    """Nothing may be looked for elsewhere."""

    def refuse(*args, **kwargs):
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_schemas(offline, kind):
    """What fits, also where another engine would never end."""
    schema, instance, expected = SCHEMAS[kind]
    assert judged(shape(schema), {"content": json.dumps(instance)}) is expected


@pytest.mark.parametrize("kind", UNREAD)
def test_schemas_that_cannot_be_read(offline, kind):
    """Whatever answers them counts as usable, and they are named."""
    schema, instance = UNREAD[kind]
    body = {"choices": [{"message": {"content": json.dumps(instance)}}]}
    ticks = 0

    def tick():
        nonlocal ticks
        ticks += 1
        if ticks > 500:
            raise TimeoutError

    for _ in range(2):
        ticks = 0
        work = work_of("/chat/completions", shape(schema), [json.dumps(body).encode()])
        usable, unread = work(tick)
        assert (usable, [json.loads(one) for one in unread]) == (True, [schema])
    assert ticks < 10  # it isn't tried twice


_CHILD = """
import sys
from tests.providers.test_judging import JSON, judged, shape

assert judged(JSON, {"content": "{"}) is False
assert not {"jsonschema", "referencing", "pydantic_core"} & sys.modules.keys()
assert judged(shape(), {"content": "{}"}) is False
assert "jsonschema" in sys.modules
"""


def test_the_validator_is_loaded_when_it_is_needed():
    """What demands no schema never waits for it."""
    subprocess.run([sys.executable, "-c", _CHILD], check=True, timeout=60, cwd=ROOT)


def test_without_the_validator(monkeypatch):
    """Where only the SDK was installed, no schema can be read."""
    monkeypatch.setitem(sys.modules, "jsonschema.validators", None)
    schema = {"type": "integer", "title": "read where nothing can read it"}
    body = {"choices": [{"message": {"content": '"x"'}}]}
    work = work_of("/chat/completions", shape(schema), [json.dumps(body).encode()])
    usable, unread = work(never)
    assert usable
    assert len(unread) == 1


def test_time_is_bounded():
    """Whatever takes longer than it may counts as usable."""
    left = [None] * 10

    def tick():
        if not left:
            raise TimeoutError
        left.pop()

    items = shape({"type": "array", "items": {"anyOf": [{"type": "integer"}, {"const": "x"}]}})
    assert judged(items, {"content": json.dumps(["x"] * 9000 + [None])}, tick=tick)
    assert not left


def test_large_ones_are_not_held_against_a_schema():
    """Neither is read."""
    assert fits(b'{"type": "integer"}', json.dumps("x" * 200_000), never)


def test_requests_without_demands():
    """Nothing is judged where nothing is demanded."""
    assert COMPLETIONS.judge is None
    assert judge_response({"text": {"format": {"type": "text"}}}) is None
