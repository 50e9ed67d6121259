"""What requests of each protocol demand of their answers, and which answers don't give it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asynccache.providers import anthropic, cohere, gemini, ollama
from asynccache.providers.provider import Operation
from asynccache.providers.vertex import OPERATIONS as VERTEX
from tests.helpers import providers_answers as answers

OBJECT = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["n"],
}
PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
# The same in OpenAPI's manner, as Gemini's SDK writes it.
OPEN = {
    "type": "OBJECT",
    "properties": {
        "n": {"type": "INTEGER", "format": "int32", "minimum": 0, "nullable": True},
        "tags": {"type": "ARRAY", "items": {"type": "STRING"}, "minItems": "1"},
        "x": {"anyOf": [{"type": "STRING"}, {"type": "NUMBER"}]},
        "y": {"type": "STRING", "enum": ["a", "b"]},
    },
    "required": ["n"],
    "propertyOrdering": ["n", "tags"],
}
COHERE = next(one for one in cohere.OPERATIONS if one.name == "cohere-chat")
OLLAMA = ollama.OPERATIONS[0]


def never():
    """Tick for judgements that take no time."""


def verdicts(operation: Operation, speaks: Any, request: dict, *said: answers.Said) -> list[bool]:
    """Return whether answers are usable, each plain and streamed, which has to be the same."""
    found = []
    for one in said:
        judge = operation.judge and operation.judge(request)
        if judge is None:
            found.append(True)
            continue
        plain = judge.work([json.dumps(speaks.plain(one)).encode()], streamed=False)
        streamed = judge.work([*speaks.events(one)], streamed=True)
        both = [work is None or work(never)[0] for work in (plain, streamed)]
        assert both[0] is both[1], one
        found.append(both[0])
    return found


def text(said):
    """Return an answer that is a text."""
    return answers.Said(1, said)


def call(**arguments):
    """Return an answer that calls a tool."""
    return answers.Said(1, "", arguments)


FORMAT = {"type": "json_schema", "schema": OBJECT}
DEMANDS: dict[str, Any] = {
    "anthropic": (anthropic.MESSAGES, answers.Anthropic(), {"output_config": {"format": FORMAT}}),
    "anthropic, as at first": (anthropic.MESSAGES, answers.Anthropic(), {"output_format": FORMAT}),
    "anthropic at Vertex": (
        next(one for one in VERTEX if one.name == "vertex-anthropic-messages"),
        answers.Anthropic(),
        {"output_config": {"format": FORMAT}},
    ),
    "gemini": (
        gemini.CONTENT,
        answers.Gemini(),
        {
            "generationConfig": {
                "responseMimeType": "application/json",
                "responseJsonSchema": OBJECT,
            }
        },
    ),
    "gemini, OpenAPI": (
        gemini.CONTENT,
        answers.Gemini(),
        {"generationConfig": {"responseMimeType": "application/json", "responseSchema": OPEN}},
    ),
    "gemini, otherwise spelled": (
        gemini.CONTENT,
        answers.Gemini(),
        {"generation_config": {"response_mime_type": "application/json", "response_schema": OPEN}},
    ),
    "cohere": (
        COHERE,
        answers.Cohere(),
        {"response_format": {"type": "json_object", "json_schema": OBJECT}},
    ),
    "cohere, as at first": (
        COHERE,
        answers.Cohere(),
        {"response_format": {"type": "json_object", "schema": OBJECT}},
    ),
    "ollama": (OLLAMA, answers.Ollama(), {"format": OBJECT}),
}
SCHEMALESS: dict[str, Any] = {
    "gemini": (
        gemini.CONTENT,
        answers.Gemini(),
        {"generationConfig": {"responseMimeType": "application/json"}},
    ),
    "cohere": (COHERE, answers.Cohere(), {"response_format": {"type": "json_object"}}),
    "ollama": (OLLAMA, answers.Ollama(), {"format": "json"}),
}


@pytest.mark.parametrize("demand", DEMANDS.values(), ids=DEMANDS)
def test_schemas(demand):
    """Text that is no JSON, or fits the schema not, is of no use."""
    good = ['{"n": 1}', '{"n": 1, "tags": ["a"]}', '```json\n{"n": 1}\n```']
    bad = ["n is 1", '{"n": 1', '{"n": "1"}', "{}", '{"n": 1, "tags": [2]}', "", "[]"]
    assert verdicts(*demand, *map(text, good)) == [True] * len(good)
    assert verdicts(*demand, *map(text, bad)) == [False] * len(bad)
    assert verdicts(*demand, call(city="Rome")) == [True]


@pytest.mark.parametrize("demand", SCHEMALESS.values(), ids=SCHEMALESS)
def test_json_without_a_schema(demand):
    """Any JSON will do."""
    assert verdicts(*demand, text("{}"), text("7"), text("[1"), text("a")) == [
        True,
        True,
        False,
        False,
    ]


def test_openapi_in_particular():
    """What is nullable may be null; choices and enumerations are looked at."""
    demand = DEMANDS["gemini, OpenAPI"]
    good = ['{"n": null}', '{"n": 1, "x": 1.5, "y": "a"}']
    bad = ['{"n": 1, "x": true}', '{"n": 1, "y": "c"}']
    assert verdicts(*demand, *map(text, good + bad)) == [True, True, False, False]


@pytest.mark.parametrize(
    ("operation", "speaks", "request_"),
    [
        (anthropic.MESSAGES, answers.Anthropic(), {}),
        (anthropic.MESSAGES, answers.Anthropic(), {"output_config": {"effort": "low"}}),
        (gemini.CONTENT, answers.Gemini(), {"generationConfig": {"temperature": 0}}),
        (
            gemini.CONTENT,
            answers.Gemini(),
            {"generationConfig": {"responseMimeType": "text/x.enum", "responseSchema": OPEN}},
        ),
        (COHERE, answers.Cohere(), {"response_format": {"type": "text"}}),
        (OLLAMA, answers.Ollama(), {"format": ""}),
    ],
)
def test_nothing_is_demanded(operation, speaks, request_):
    """Then any text is of use."""
    assert verdicts(operation, speaks, request_, text("n is 1"), text("")) == [True, True]


FUNCTION = {"type": "function", "function": {"name": answers.TOOL, "parameters": PLACE}}
STRICT = {
    "anthropic": (
        anthropic.MESSAGES,
        answers.Anthropic(),
        {"tools": [{"name": answers.TOOL, "strict": True, "input_schema": PLACE}]},
        {"tools": [{"name": answers.TOOL, "input_schema": PLACE}]},
    ),
    "cohere": (
        COHERE,
        answers.Cohere(),
        {"strict_tools": True, "tools": [FUNCTION]},
        {"tools": [FUNCTION]},
    ),
}


@pytest.mark.parametrize("given", STRICT.values(), ids=STRICT)
def test_arguments_of_strict_tools(given):
    """They have to fit the tool's schema, where the request says so."""
    operation, speaks, strict, loose = given
    said = (call(city="Rome"), call(city=7), call(town="Rome"))
    assert verdicts(operation, speaks, strict, *said) == [True, False, False]
    assert verdicts(operation, speaks, loose, *said) == [True, True, True]


def test_arguments_that_were_cut_off():
    """Pieces of arguments that are no JSON together are of no use; none at all mean {}."""
    judge = anthropic.judge_message({"tools": [{"name": "f"}]})
    assert judge is not None
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    for pieces, usable in ((['{"a"', ": 1}"], True), (['{"a"', ": "], False), ([], True)):
        events = [answers.named("content_block_start", index=0, content_block=block)]
        for piece in pieces:
            delta = {"type": "input_json_delta", "partial_json": piece}
            events.append(answers.named("content_block_delta", index=0, delta=delta))
        work = judge.work(events, streamed=True)
        assert work is not None
        assert work(never)[0] is usable


def test_what_may_take_the_place_of_a_text():
    """A refusal isn't judged, nor is a message of calls of the server's tools alone."""
    request = {"output_config": {"format": FORMAT}}
    judge = anthropic.judge_message(request)
    assert judge is not None
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    searched = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    said = {"type": "text", "text": "I look it up."}
    good = {"type": "text", "text": '{"n": 1}'}
    for content, reason, usable in (
        ([thought], "end_turn", False),
        ([thought, good], "end_turn", True),
        ([searched], "pause_turn", True),
        ([said, searched, good], "end_turn", True),
        ([said], "refusal", True),
        ([said], "end_turn", False),
    ):
        body = {"type": "message", "content": content, "stop_reason": reason}
        work = judge.work([json.dumps(body).encode()], streamed=False)
        assert work is not None
        assert work(never)[0] is usable, content


@pytest.mark.parametrize("operation", [anthropic.MESSAGES, gemini.CONTENT, COHERE, OLLAMA])
def test_odd_requests_and_answers_count_as_usable(operation):
    """Nothing that is sent or comes raises anything here."""
    deep: Any = {}
    for _ in range(3000):
        deep = {"items": deep}
    for odd in (7, "x", [], [7], {"type": 7}, {"format": 7}, {"type": "json_schema", "schema": 7}):
        for name in ("output_config", "output_format", "generationConfig", "response_format"):
            operation.judge({name: odd, "tools": odd})
    judge = operation.judge({
        "output_format": FORMAT,
        "generationConfig": {"responseMimeType": "application/json", "responseSchema": deep},
        "response_format": {"type": "json_object"},
        "format": "json",
    })  # fmt: skip
    for body in (b"{}", b"[]", b"7", b"data: 7\n\n", b'data: {"type": 7}\n\n', b"\xff", b""):
        for streamed in (False, True):
            work = judge.work([body], streamed=streamed)
            assert work is not None
            work(never)
