"""What comes out of the cache equals what the bare client makes of the same bytes."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from openai import AsyncOpenAI

from tests.helpers.http import httpx
from tests.helpers.openai_described import described, dumped
from tests.helpers.openai_server import (
    CHOICE,
    COMPLETION,
    DONE,
    EVENTS,
    MESSAGES,
    CutError,
    Gate,
    ask,
    choice,
    chunk,
    completion,
    events_of,
    sse,
    state,
    stored,
)

pytest_plugins = ("tests.helpers.openai_fixtures",)

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TOKEN = {"token": "Hi", "bytes": [72, 105], "logprob": -0.25, "top_logprobs": []}

ANSWERS = {
    "plain": COMPLETION,
    "tools": choice(
        message={"role": "assistant", "content": None, "tool_calls": [CALL]},
        finish_reason="tool_calls",
    ),
    "custom tool": choice(
        message={
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "n", "input": "i"}}],
        }
    ),
    "logprobs": choice(logprobs={"content": [TOKEN, {**TOKEN, "logprob": 0}], "refusal": None}),
    "unknown fields": completion(
        extra={"deep": [1, {"x": None}]},
        choices=[{**CHOICE, "reasoning": "r", "message": {"role": "assistant", "thoughts": ["t"]}}],
    ),
    "unknown literals": choice(
        finish_reason="exhausted", message={"role": "oracle", "content": ""}
    ),
    "unknown tool": choice(
        message={"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "new"}]}
    ),
    "text for a number": completion(created="1700000000"),
    "number for a text": completion(id=7),
    "float for a number": completion(created=1700000000.5),
    "number for a float": choice(logprobs={"content": [{**TOKEN, "logprob": 3}], "refusal": None}),
    "huge number": completion(created=2**70),
    "missing fields": {"id": "x"},
    "null choices": completion(choices=None),
    "no choices": completion(choices=[]),
    "object for choices": completion(choices={"0": CHOICE}),
    "error": {"error": {"message": "overloaded", "code": 1}},
    "list": [COMPLETION],
    "text": "Hello",
    "number": 7,
    "null": None,
    "member named like a method": completion(model_dump="x", _request_id="y"),
}
RAW = {
    "doubled member": b'{"id":"a","id":"b","choices":[],"created":1,"model":"m"}',
    "not a number": b'{"id":"a","choices":[],"created":NaN,"model":"m","x":Infinity}',
    "lone surrogate": b'{"id":"\\ud800","choices":[],"created":1,"model":"m"}',
    "no utf-8": b'{"id":"\xff","choices":[],"created":1,"model":"m"}',
    "utf-16": json.dumps(COMPLETION).encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(COMPLETION).encode(),
    "nested deeply": b'{"id":"a","x":' + b"[" * 300 + b"]" * 300 + b"}",
    "empty": b"",
    "broken": b'{"id": "a"',
    "spaces": b'  {"id": "a"}  ',
}


async def outcome(awaitable):
    """Return all that can be told of a result or of the error in its place."""
    try:
        result = await awaitable
    except Exception as exc:  # noqa: BLE001 - whichever it is
        return type(exc), str(exc), getattr(exc, "body", None)
    return described(result), dumped(result)


def typed_error(error):
    """Return what of an error can be compared."""
    if isinstance(error, UnicodeDecodeError):  # its position is that in the line or in the data
        return type(error), error.reason
    return None if error is None else (type(error), str(error), getattr(error, "body", None))


async def compare_plain(api, cached, bare, body, content_type="application/json"):
    """Assert that miss, join and hit give what the bare client gives."""
    joined = Gate()

    async def slow(seen):
        await joined.wait()
        await seen.answer(body, content_type=content_type)

    async def quick(seen):
        await seen.answer(body, content_type=content_type)

    api.program = quick
    expected = await outcome(ask(bare))
    api.program = slow
    calls = [asyncio.ensure_future(outcome(ask(cached))) for _ in range(2)]
    await api.arrived(2)
    joined.open()
    found = [*await asyncio.gather(*calls), await outcome(ask(cached))]
    assert found == [expected] * 3


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
async def test_plain_answers(name, strict, api, bare, api_cache):
    """Whatever the server answers, the result or error is that of the bare client."""
    bare._strict_response_validation = strict
    body = json.dumps(ANSWERS[name]).encode()
    await compare_plain(api, api_cache.wrap(bare), bare, body)


@pytest.mark.parametrize("name", RAW)
async def test_odd_bytes(name, api, bare, cached):
    """JSON that readers disagree on is read as the SDK reads it."""
    await compare_plain(api, cached, bare, RAW[name])


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
@pytest.mark.parametrize("body", [b"<html>busy</html>", json.dumps(COMPLETION).encode(), b""])
@pytest.mark.parametrize(
    "content_type", ["text/html", "application/problem+json", "application/json; charset=utf-8", ""]
)
async def test_other_content_types(  # noqa: PLR0917 - fixtures
    content_type, body, strict, api, bare, api_cache
):
    """A page in place of an answer is what the SDK makes of it: its text, or an error."""
    bare._strict_response_validation = strict
    await compare_plain(api, api_cache.wrap(bare), bare, body, content_type)


async def test_a_hit_equals_the_bare_clients_answer(cached, bare):
    """Equality of models, as tests of users compare them, holds between cached and bare."""
    await ask(cached)
    hit = await ask(cached)
    expected = await ask(bare)
    assert hit == expected
    assert hit.model_copy(deep=True) == expected
    assert hit._request_id == expected._request_id == "req_1"


STREAMS = {
    "plain": EVENTS,
    "tools": (
        sse(chunk(choices=[{"index": 0, "delta": {"tool_calls": [{"index": 0, **CALL}]}}])),
        sse(chunk(None, finish="tool_calls")),
        DONE,
    ),
    "logprobs": (
        sse(chunk(choices=[{"index": 0, "delta": {}, "logprobs": {"content": [TOKEN]}}])),
        DONE,
    ),
    "usage": (sse(chunk(choices=[], usage=COMPLETION["usage"])), DONE),
    "unknown": (sse(chunk(extra=1, object="new", created="1")), sse({"id": 1}), sse([1]), DONE),
    "null": (sse("null"), sse(chunk()), DONE),
    "number": (sse("7"), DONE),
    "error": (sse(chunk()), sse({"error": {"message": "broken", "code": "c"}}), sse(chunk()), DONE),
    "error text": (sse({"error": "broken"}), DONE),
    "error number": (sse({"error": {"message": 7}}), DONE),
    "no error": (sse(chunk(error=None)), sse(chunk('"error"')), DONE),
    "error event": (b'event: error\ndata: {"error": {"message": "m"}}\n\n', DONE),
    "no end": EVENTS[:-1],
    "cut event": (EVENTS[0], EVENTS[1][:-1]),
    "nothing": (),
    "only end": (DONE,),
    "after end": (EVENTS[0], DONE, EVENTS[1]),
    "end with more": (EVENTS[0], b"data: [DONE] bye\n\n"),
    "CRLF": tuple(event.replace(b"\n", b"\r\n") for event in EVENTS),
    "CR": tuple(event.replace(b"\n", b"\r") for event in EVENTS),
    "byte by byte": tuple(bytes([byte]) for byte in b"".join(EVENTS)),
    "in one": (b"".join(EVENTS),),
    "comments": (
        b": hello\n\n",
        EVENTS[0],
        b":\n\n",
        b"\n\n\n",
        EVENTS[1],
        b": x\ndata: [DONE]\n\n",
    ),
    "names": tuple(b"event: message\nid: 1\nretry: 5\n" + event for event in EVENTS),
    "ping": (EVENTS[0], b"event: ping\n\n", EVENTS[1], DONE),
    "comment after id": (b"id: 7\n" + EVENTS[0], b": alive\n\n", EVENTS[1], DONE),
    "several lines": (b'data: {"id": "x",\ndata: "choices": []}\n\n', DONE),
    "no json": (EVENTS[0], sse("{broken"), DONE),
    "no text": (EVENTS[0], b"data: \xff\n\n", DONE),
    "no data": (b"data:\n\n", DONE),
    "json": (json.dumps(COMPLETION).encode(),),
}


async def described_stream(stream):
    """Read a stream; return all that can be told of its events, error, and response."""
    events, error = await events_of(stream)
    after = [event async for event in stream]
    return {
        "events": [(described(event), dumped(event)) for event in events],
        "error": typed_error(error),
        "after": after,
        "type": isinstance(stream, openai.AsyncStream),
        "status": stream.response.status_code,
        "content type": stream.response.headers.get("content-type"),
        "request id": stream.response.headers.get("x-request-id"),
    }


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
async def test_streams(name, strict, api, bare, api_cache):
    """Event by event a stream is that of the bare client, on a miss, joined and on a hit."""
    bare._strict_response_validation = strict
    cached = api_cache.wrap(bare)

    async def program(seen):
        await seen.stream(*STREAMS[name])

    api.program = program
    expected = await described_stream(await ask(bare, stream=True))
    streams = await asyncio.gather(ask(cached, stream=True), ask(cached, stream=True))
    found = await asyncio.gather(*map(described_stream, streams))
    found.append(await described_stream(await ask(cached, stream=True)))
    assert found == [expected] * 3


async def test_a_whole_stream_is_paid_once(cached, api):
    """What ended with its closing event is served from then on."""
    for _ in range(3):
        events, error = await events_of(await ask(cached, stream=True))
        assert (len(events), error) == (3, None)
    assert len(api.requests) == 1


def of_choice(index, *reasons):
    """Return events of one of several choices, each with a finish reason or None."""
    return [
        sse(chunk(choices=[{"index": index, "delta": {"content": "a"}, "finish_reason": reason}]))
        for reason in reasons
    ]


USED = sse(chunk(choices=[], usage=COMPLETION["usage"]))
ENDED = {
    "finished": (EVENTS[:-1], {}),
    "usage after that": ((*EVENTS[:-1], USED), {}),
    "a ping after that": ((*EVENTS[:-1], b": alive\n\n", b"\n"), {}),
    "each of two": ([*of_choice(0, None, "stop"), *of_choice(1, None, "length")], {"n": 2}),
    "a closing event cut short": ((*EVENTS[:-1], b"data: [DONE]"), {}),
    "an event for each member": (
        [*of_choice(0, "stop"), *of_choice(0, None), *of_choice(0, "")], {},
    ),
}  # fmt: skip
BROKEN = {
    "no finish reason": (EVENTS[:-2], {}),
    "an empty one": (of_choice(0, None, ""), {}),
    "nothing": ((), {}),
    "no choice": ((USED,), {}),
    "one of two": (of_choice(0, None, "stop"), {"n": 2}),
    "one begun that nobody asked for": ([*of_choice(0, "stop"), *of_choice(1, None)], {}),
    "an event cut short": ((*EVENTS[:-1], USED[:-30]), {}),
    "a choice without a number": (
        (sse(chunk(choices=[{"index": [], "delta": {}, "finish_reason": "stop"}])),), {},
    ),
    "an error": ((*EVENTS[:-1], sse({"error": {"message": "broken"}})), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", [*ENDED, *BROKEN])
async def test_streams_of_servers_that_send_no_closing_event(name, cached, api, api_cache):
    """A clean end after a finish reason for every choice is an end; any other isn't."""
    events, changes = {**ENDED, **BROKEN}[name]

    async def program(seen):
        await seen.stream(*events)

    api.program = program
    first, _ = await events_of(await ask(cached, stream=True, **changes))
    if name in ENDED:
        await stored(api_cache)
    second, _ = await events_of(await ask(cached, stream=True, **changes))
    assert len(api.requests) == (1 if name in ENDED else 2)
    assert api_cache.stats().stored == (name in ENDED)
    assert list(map(dumped, second)) == list(map(dumped, first))


async def test_a_connection_cut_after_a_finish_reason(cached, api, api_cache):
    """That is no clean end: the server had more to say."""

    async def program(seen):
        await seen.start()
        await seen.send(b"".join(EVENTS[:-1]))
        raise CutError

    api.program = program
    _, error = await events_of(await ask(cached, stream=True))
    assert error is not None
    assert api_cache.stats().stored == 0


@pytest.mark.parametrize("prompt", ["a", [1, 2], ["a", "b"], [[1], [2]]])
async def test_completions_of_servers_that_send_no_closing_event(prompt, cached, api, api_cache):
    """Each prompt has as many choices as were asked for."""
    count = 2 if type(prompt[0]) in {list, str} and len(prompt) == 2 else 1
    finishing = [2 * count - 1]

    async def program(seen):
        for_all = [{"index": at, "text": "a", "finish_reason": "stop"} for at in range(*finishing)]
        await seen.stream(*(sse({"id": "c", "choices": [one]}) for one in for_all))

    api.program = program
    for _ in range(2):
        asked = {"model": "m", "prompt": prompt, "n": 2, "stream": True}
        await events_of(await cached.completions.create(**asked))
    assert (len(api.requests), api_cache.stats().stored) == (2, 0)
    finishing[0] += 1
    for _ in range(2):
        await events_of(await cached.completions.create(**asked))
        await stored(api_cache)
    assert len(api.requests) == 3


async def test_a_connection_cut_in_a_stream(cached, bare, api, api_cache):
    """All readers get the events that came, then the bare client's error; nothing is stored."""

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        raise CutError

    api.program = program
    expected_events, expected = await events_of(await ask(bare, stream=True))
    streams = await asyncio.gather(ask(cached, stream=True), ask(cached, stream=True))
    found = await asyncio.gather(*map(events_of, streams))
    assert [events for events, _ in found] == [expected_events] * 2
    assert [typed_error(error) for _, error in found] == [typed_error(expected)] * 2
    assert type(expected) in {openai.APIConnectionError, httpx.RemoteProtocolError}
    assert type(found[0][1].__cause__) is type(expected.__cause__)
    assert found[0][1] is not found[1][1]
    assert api_cache.stats().stored == 0
    assert len(api.requests) == 2


async def test_a_read_timeout_in_a_stream(bare, api, api_cache):
    """A server that falls silent gives who called and who joined the SDK's timeout."""

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        await seen.hang()

    api.program = program
    impatient = bare.with_options(timeout=0.2)
    cached = api_cache.wrap(impatient)
    expected_events, expected = await events_of(await ask(impatient, stream=True))
    streams = await asyncio.gather(ask(cached, stream=True), ask(cached, stream=True))
    found = await asyncio.gather(*map(events_of, streams))
    assert [events for events, _ in found] == [expected_events] * 2
    assert [typed_error(error) for _, error in found] == [typed_error(expected)] * 2
    assert type(expected) in {openai.APITimeoutError, httpx.ReadTimeout}
    assert api_cache.stats().stored == 0


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
async def test_status_errors(status, api, cached, bare):
    """An error with a status is the bare client's, with its body, plain and streamed."""

    async def program(seen):
        await seen.answer({"error": {"message": "no", "code": "c"}}, status)

    api.program = program
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as expected:
            await ask(bare, stream=stream)
        with pytest.raises(openai.APIStatusError) as found:
            await ask(cached, stream=stream)
        assert typed_error(found.value) == typed_error(expected.value)
        assert found.value.status_code == status
        assert found.value.request_id == "req_1"


# -- the surface of a stream --------------------------------------------------------------------


async def test_the_streaming_helper_reads_a_cached_stream(cached, bare, api):
    """`chat.completions.stream()` gives the same events over the cache, and pays once."""

    async def helped(client):
        async with client.chat.completions.stream(model="gpt-4o", messages=MESSAGES) as stream:
            events = [described(event) async for event in stream]
            return events, described(await stream.get_final_completion())

    expected = await helped(bare)
    assert await helped(cached) == expected
    assert await helped(cached) == expected
    assert len(api.requests) == 2


async def test_leaving_the_helper_early_ends_the_call(cached, api):
    """The helper closes the response, and that closes the stream beneath."""

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        await seen.hang()

    api.program = program
    async with cached.chat.completions.stream(model="gpt-4o", messages=MESSAGES) as stream:
        await anext(stream)
    await api.requests[0].disconnected.wait()


async def test_next_iteration_goes_on_where_the_last_stopped(cached):
    """A loop left and entered again, anext() and the iterator beneath all read on."""
    for _ in range(2):
        stream = await ask(cached, stream=True)
        async for event in stream:
            first = event
            break
        second = await anext(stream)
        third = await anext(stream._iterator)
        texts = [event.choices[0].delta.content for event in (first, second, third)]
        assert texts == ["One ", "two ", "three"]
        assert [event async for event in stream] == []


async def test_the_response_of_a_stream_gives_its_bytes(cached):
    """Who reads the bytes beneath gets the events as they were recorded."""
    for _ in range(2):
        stream = await ask(cached, stream=True)
        assert await stream.response.aread() == b"".join(EVENTS)
        assert stream.response.is_closed


async def test_a_closed_stream_gives_nothing_more(cached, api):
    """Closing, twice and by any name, ends iteration at once."""
    for _ in range(2):
        stream = await ask(cached, stream=True)
        await anext(stream)
        await stream.close()
        await stream.aclose()
        await stream.response.aclose()
        assert [event async for event in stream] == []


async def test_stream_by_another_true_value(cached, api):
    """What the SDK takes for a wish to stream is one for us."""
    for _ in range(2):
        events, error = await events_of(await ask(cached, stream=1))
        assert (len(events), error) == (3, None)
    assert len(api.requests) == 1


async def test_a_stream_asked_for_in_extra_body(cached, bare, api):
    """The SDK returns such a stream as text; neither way breaks the other."""
    expected = await ask(bare, extra_body={"stream": True})
    first = await ask(cached, extra_body={"stream": True})
    assert first == expected
    assert (await events_of(await ask(cached, stream=True)))[1] is None
    assert await ask(cached, extra_body={"stream": True}) == expected
    assert (await events_of(await ask(cached, stream=True)))[1] is None


async def test_the_first_event_arrives_before_the_second_is_sent(cached, api):
    """Nobody waits for the whole stream: caller and joiners get each event as it comes."""
    second, rest = Gate(), Gate()

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        await second.wait()
        await seen.send(EVENTS[1])
        await rest.wait()
        await seen.send(b"".join(EVENTS[2:]))
        await seen.end()

    api.program = program
    leader = await ask(cached, stream=True)
    assert (await anext(leader)).choices[0].delta.content == "One "
    second.open()
    assert (await anext(leader)).choices[0].delta.content == "two "
    follower = await ask(cached, stream=True)
    assert state(follower).outcome == "joined"
    texts = [(await anext(follower)).choices[0].delta.content for _ in range(2)]
    assert texts == ["One ", "two "]
    rest.open()
    assert len((await events_of(follower))[0]) == len((await events_of(leader))[0]) == 1
    assert len(api.requests) == 1


async def test_a_client_without_credentials_replays(api, api_cache, cached):
    """A recorded answer needs no account, plain and streamed."""
    await ask(cached)
    await events_of(await ask(cached, stream=True))
    async with AsyncOpenAI(api_key="k", base_url=api.base_url) as client:
        client.api_key = ""
        wrapped = api_cache.wrap(client)
        assert state(await ask(wrapped)).outcome == "hit"
        assert state(await ask(wrapped, stream=True)).outcome == "hit"
