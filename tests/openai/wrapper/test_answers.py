"""What the wrapper hands back: objects, streams, texts, and the sums of what they have used."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest
from openai import AsyncStream
from openai.types.chat import ChatCompletion

import asynccache
from asynccache import Cache
from asynccache.openai import OpenAIWrapper
from tests.helpers.openai_server import (
    COMPLETION,
    DONE,
    EVENTS,
    MESSAGES,
    Gate,
    choice,
    chunk,
    completion,
    events_of,
    halted,
    sse,
    state,
)
from tests.helpers.wrapper import entry_of

pytest_plugins = ("tests.helpers.wrapper_fixtures",)

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
PRICE = [1, 2]  # of a thousand tokens: one answer of the server costs 0.015


# -- objects ------------------------------------------------------------------------------------


async def test_answers_equal_the_sdks(bare, entry, api, folder):
    """Value, dump and JSON are those of the bare client, on a miss and on a hit."""
    expected = await bare.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    wrapper = OpenAIWrapper(**entry, price=PRICE)
    for outcome in ("miss", "hit"):
        found = await wrapper.acreate(messages=MESSAGES)
        assert state(found).outcome == outcome
        assert type(found) is ChatCompletion
        assert found == expected
        assert found.model_dump() == expected.model_dump() == {**COMPLETION, **found.model_dump()}
        assert found.to_json() == expected.to_json()
        assert (found.config_id, found.pass_filter, found.cost) == (0, True, 0.015)
        assert found.model_copy(deep=True).config_id == 0


async def test_a_servers_own_fields_stay_in_the_dump(entry, api, folder):
    """A field that happens to be called as one of ours is dumped as the server sent it."""

    async def program(seen):
        await seen.answer(completion(cost=7, config_id="theirs"))

    api.program = program
    for _ in range(2):
        found = await OpenAIWrapper(**entry, price=PRICE).acreate(messages=MESSAGES)
        assert found.model_dump()["cost"] == 7
        assert found.model_dump()["config_id"] == "theirs"
        assert (found.cost, found.config_id) == (0.015, 0)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (completion(usage=None), "application/json"),
        (completion(usage={"prompt_tokens": "many"}, model=None), "application/json"),
        (b"hello", "text/plain"),
        (b"null", "application/json"),
    ],
    ids=["no usage", "odd usage", "text", "null"],
)
async def test_odd_answers_pass_through(entry, api, folder, body, content_type):
    """What the server gives is handed on as the SDK reads it, and counts as nothing."""

    async def program(seen):
        await seen.answer(body, content_type=content_type)

    api.program = program
    wrapper = OpenAIWrapper(**entry, price=PRICE)
    first, second = [await wrapper.acreate(messages=MESSAGES) for _ in range(2)]
    assert first == second
    used = wrapper.total_usage_summary
    assert used is not None
    assert used["total_cost"] == 0


async def test_tools_are_sent_and_their_calls_come_back(entry, api, folder):
    """An answer that calls tools or a function is extracted as the message itself."""
    function = {"name": "f", "arguments": "{}"}
    answers = [
        choice(message={"role": "assistant", "content": None, "tool_calls": [CALL]}),
        choice(message={"role": "assistant", "content": None, "function_call": function}),
        completion(),
    ]

    async def program(seen):
        await seen.answer(answers[len(api.requests) - 1])

    api.program = program
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    wrapper = OpenAIWrapper(**entry, tools=tools)
    extract = wrapper.extract_text_or_completion_object
    found = [await wrapper.acreate(messages=MESSAGES, n=n) for n in (1, 2, 3)]
    assert extract(found[0]) == [found[0].choices[0].message]
    assert extract(found[1]) == [found[1].choices[0].message]
    assert extract(found[2]) == ["Hello!"]
    assert api.requests[0].body["tools"] == tools
    again = await wrapper.acreate(messages=MESSAGES, n=1)
    assert extract(again) == extract(found[0])
    assert len(api.requests) == 3


async def test_a_stream_has_no_choices_to_extract(entry, api, folder):
    """Passing a stream is refused with a sentence."""
    stream = await OpenAIWrapper(**entry).acreate(messages=MESSAGES, stream=True)
    with pytest.raises(TypeError, match="has no choices: pass a completion"):
        OpenAIWrapper.extract_text_or_completion_object(stream)  # type: ignore[arg-type]  # wrong
    await stream.close()


# -- streams ------------------------------------------------------------------------------------


async def test_a_stream_is_handed_over_as_it_comes_and_replayed_exactly(entry, api, folder):
    """The first caller gets each event at once; a hit gives the same events in the SDK's type."""
    gate = Gate()
    api.program = halted(gate)
    wrapper = OpenAIWrapper(**entry)
    async with await wrapper.acreate(messages=MESSAGES, stream=True) as stream:
        assert isinstance(stream, AsyncStream)
        assert (stream.config_id, stream.pass_filter) == (0, True)
        first = [await anext(stream)]
        assert first[0].choices[0].delta.content == "One "
        gate.open()
        first += [event async for event in stream]
    again = await wrapper.acreate(messages=MESSAGES, stream=True)
    assert (state(stream).outcome, state(again).outcome) == ("miss", "hit")
    assert again.response.headers["x-request-id"] == "req_1"
    assert [event async for event in again] == first
    assert len(first) == 3
    assert len(api.requests) == 1


async def test_an_error_at_the_head_of_a_stream_leads_to_the_next_entry(api, folder):
    """A refused stream is asked for elsewhere; one that breaks later raises to its reader."""

    async def program(seen):
        if seen.body["model"] == "a":
            await seen.answer({"error": {"message": "no"}}, status=500)
        else:
            await seen.stream(EVENTS[0], sse({"error": {"message": "broken"}}))

    api.program = program
    wrapper = OpenAIWrapper(config_list=[entry_of(api, model=name) for name in "abc"])
    stream = await wrapper.acreate(messages=MESSAGES, stream=True)
    events, error = await events_of(stream)
    assert stream.config_id == 1
    assert len(events) == 1
    assert "broken" in str(error)
    assert [seen.body["model"] for seen in api.requests] == ["a", "b"]


async def test_a_dropped_stream_lets_go_of_the_call(entry, api, folder):
    """A bare `break` ends the call upstream once the stream is collected."""

    async def program(seen):
        await seen.start()
        await seen.send(EVENTS[0])
        await seen.hang()

    api.program = program
    stream = await OpenAIWrapper(**entry).acreate(messages=MESSAGES, stream=True)
    async for _ in stream:
        break
    del stream
    gc.collect()
    (seen,) = api.requests
    await seen.disconnected.wait()


# -- usage --------------------------------------------------------------------------------------


def numbers(summary, model="gpt-4o-2024-08-06"):
    """Return a summary's cost and all tokens of a model."""
    return None if summary is None else (summary["total_cost"], summary[model]["total_tokens"])


async def test_hits_and_joined_calls_count_in_total_only(entry, api, folder):
    """What was paid is in both sums, what cost nothing is in the total alone."""
    gate = Gate()

    async def program(seen):
        await gate.wait()
        await seen.answer(COMPLETION)

    api.program = program
    wrapper = OpenAIWrapper(**entry, price=PRICE)
    assert wrapper.actual_usage_summary is wrapper.total_usage_summary is None
    async with Cache.memory() as cache:
        tasks = [asyncio.create_task(wrapper.acreate(messages=MESSAGES)) for _ in range(3)]
        await api.arrived()
        gate.open()
        found = await asyncio.gather(*tasks)
        assert sorted(state(one).outcome for one in found) == ["joined", "joined", "miss"]
        await wrapper.acreate(messages=MESSAGES)
        assert cache.stats().hits == 1
    assert wrapper.actual_usage_summary == {
        "total_cost": 0.015,
        "gpt-4o-2024-08-06": {"cost": 0.015, **USAGE},
    }
    assert numbers(wrapper.total_usage_summary) == (pytest.approx(0.06), 48)
    wrapper.clear_usage_summary()
    assert wrapper.actual_usage_summary is wrapper.total_usage_summary is None
    await wrapper.acreate(messages=MESSAGES, cache_seed=None)
    assert numbers(wrapper.actual_usage_summary) == numbers(wrapper.total_usage_summary)


async def test_a_rejected_answer_that_was_paid_is_counted(api, folder):
    """Rejecting gives no money back: the actual sum has it, the total what was returned."""
    entries = [entry_of(api, model="a"), entry_of(api, model="b", price=[1000, 0])]
    wrapper = OpenAIWrapper(config_list=entries, price=PRICE)
    answer = await wrapper.acreate(
        messages=MESSAGES, filter_func=lambda context, response: len(api.requests) == 2
    )
    assert answer.cost == 9
    assert numbers(wrapper.actual_usage_summary) == (9.015, 24)
    assert numbers(wrapper.total_usage_summary) == (9.0, 12)


@pytest.mark.parametrize("told", ["at the end", "with each event"])
async def test_a_streams_usage_is_counted_as_its_events_tell_it(entry, api, folder, told):
    """Once, also where every event tells what was used so far; a replay counts in total only."""
    early = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    events = [
        sse(chunk("Hi", usage=early if told == "with each event" else None)),
        sse(chunk("", finish="stop", choices=[], usage=USAGE)),
        DONE,
    ]

    async def program(seen):
        await seen.stream(*events)

    api.program = program
    wrapper = OpenAIWrapper(**entry, price=0.5)
    for _ in range(2):
        stream = await wrapper.acreate(
            messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        assert stream.cost == 0
        await events_of(stream)
        assert stream.cost == 0.006
    assert numbers(wrapper.actual_usage_summary) == (pytest.approx(0.006), 12)
    assert numbers(wrapper.total_usage_summary) == (pytest.approx(0.012), 24)


async def test_without_a_price_cost_is_nothing_with_one_warning_for_each_model(
    entry, api, folder, caplog
):
    """There is no table of prices: tokens are counted, and the log says how to name a price."""

    async def program(seen):
        await seen.answer(completion(model=f"unpriced-{folder.name}"))

    api.program = program
    with caplog.at_level(logging.WARNING, "asynccache"):
        for _ in range(3):
            answer = await OpenAIWrapper(**entry).acreate(messages=MESSAGES)
            assert answer.cost == 0
    assert sum("has no price" in message for message in caplog.messages) == 1


async def test_the_summary_is_printed(entry, api, folder, capsys):
    """Both sums are printed, or the one that is asked for."""
    wrapper = OpenAIWrapper(**entry, price=PRICE)
    wrapper.print_usage_summary()
    assert capsys.readouterr().out == (
        "Paid for: nothing\nUsed, cached answers included: nothing\n"
    )
    for _ in range(2):
        await wrapper.acreate(messages=MESSAGES)
    wrapper.print_usage_summary(["total"])
    wrapper.print_usage_summary("actual")
    assert capsys.readouterr().out == (
        "Used, cached answers included: cost 0.03\n"
        "  gpt-4o-2024-08-06: cost 0.03, 18 prompt + 6 completion = 24 tokens\n"
        "Paid for: cost 0.015\n"
        "  gpt-4o-2024-08-06: cost 0.015, 9 prompt + 3 completion = 12 tokens\n"
    )
    wrong: Any
    for wrong in ("both", [], ["actual", "none"]):
        with pytest.raises(ValueError, match="mode must be"):
            wrapper.print_usage_summary(wrong)


async def test_status_tells_of_the_wrappers_answers(entry, api, folder):
    """`asynccache.status` works on what it returns, and `forget` removes it."""
    wrapper = OpenAIWrapper(**entry)
    async with Cache.memory() as cache:
        answer = await wrapper.acreate(messages=MESSAGES)
        assert await cache.forget(answer)
        again = await wrapper.acreate(messages=MESSAGES)
        assert state(again).outcome == "miss"
    bypassed = await wrapper.acreate(messages=MESSAGES, cache_seed=None)
    assert asynccache.status(bypassed) is None
