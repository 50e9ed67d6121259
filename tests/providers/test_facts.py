"""What answers say of themselves, by provider: tokens, reasons, errors, and when they are whole."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings, strategies as st

from asynccache.providers import anthropic, cohere, gemini, ollama, openai, vertex
from asynccache.providers.provider import Operation
from asynccache.providers.recording import StreamRecorder
from asynccache.providers.table import _KNOWN
from tests.helpers import providers_answers as answers
from tests.helpers.openai_server import DONE, chunk, sse

ALL = {operation.name: operation for one in _KNOWN for operation in one.operations}
SAID = answers.Said(7, "It is sunny.")
CALLED = answers.Said(7, "", {"city": "Rome"})


class Protocol(NamedTuple):
    """How one protocol answers, and what is to be read from that."""

    operation: Operation
    speaks: Any
    model: str
    tokens: tuple[int, int, int, int] = (9, 3, 4, 0)
    """Input, output, and of the input what was read from and written to the provider's cache."""
    least: int = 0
    """Records at a stream's end without which it is whole all the same."""


CHAT = Protocol(openai.CHAT, answers.Chat(), "gpt-4o-2024-08-06", least=1)
PROTOCOLS = {
    "openai": CHAT,
    "groq": CHAT._replace(speaks=answers.GroqChat()),
    "cerebras": CHAT._replace(speaks=answers.CerebrasChat()),
    "anthropic": Protocol(
        anthropic.MESSAGES, answers.Anthropic(), "claude-sonnet-4-5", (11, 3, 4, 2)
    ),
    "gemini": Protocol(gemini.CONTENT, answers.Gemini(), "gemini-2.5-flash", (9, 5, 4, 0)),
    "cohere": Protocol(ALL["cohere-chat"], answers.Cohere(), "", least=1),
    "ollama": Protocol(ALL["ollama-chat"], answers.Ollama(), "llama3.2", (9, 3, 0, 0)),
}
EACH = pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
BOTH = pytest.mark.parametrize("said", [SAID, CALLED], ids=["text", "tool"])


class Chunks(list):
    """Stands in for a flight."""

    ending = False
    add = list.append


def recorded(operation, pieces, choices=1):
    """Record a stream that comes in pieces: return whether it is whole, its facts and chunks."""

    async def come():
        for piece in pieces:
            yield piece

    into, facts = Chunks(), operation.facts()
    recorder = StreamRecorder(into, facts, operation.streamed, choices, lambda: None)
    whole = None
    try:
        recorder.record(come()).send(None)  # nothing in it waits
    except StopIteration as stop:
        whole = stop.value
    return whole, facts, into


def told(facts):
    """Return all that facts say."""
    names = ("model", "cut", "filtered", "error", "complete", "closed")
    return {**{name: getattr(facts, name) for name in names}, "tokens": tokens_of(facts)}


def tokens_of(facts):
    """Return all numbers of tokens."""
    cached = (facts.cache_read_tokens, facts.cache_write_tokens)
    return (facts.input_tokens, facts.output_tokens, *cached)


def plain(operation, body):
    """Read a plain answer."""
    return operation.read(json.dumps(body).encode())


def is_good(facts):
    """Tell whether facts let an answer be stored."""
    return facts.complete and not facts.error and not facts.filtered


# -- whole ones -----------------------------------------------------------------------------------


@EACH
@BOTH
def test_plain_answers(protocol, said):
    """A plain answer says which model made it, of how many tokens."""
    facts = plain(protocol.operation, protocol.speaks.plain(said))
    assert is_good(facts)
    assert not facts.cut
    assert facts.model == protocol.model
    assert tokens_of(facts) == protocol.tokens


@EACH
@BOTH
def test_streams(protocol, said):
    """A stream says the same as the plain answer, and is told to end before it does."""
    events = [*protocol.speaks.events(said)]
    whole, facts, into = recorded(protocol.operation, events)
    assert whole
    assert is_good(facts)
    assert facts.model == protocol.model
    assert tokens_of(facts) == protocol.tokens
    assert into.ending
    assert b"".join(into) == b"".join(events[: len(into)])


@EACH
@BOTH
def test_streams_that_are_cut_short_are_not_whole(protocol, said):
    """However many records have come, a stream without its end isn't whole."""
    events = [*protocol.speaks.events(said)]
    for end in range(len(events) - protocol.least):
        whole, facts, _ = recorded(protocol.operation, events[:end])
        assert not whole, end
        assert not facts.error


@EACH
def test_streams_that_are_cut_within_a_record_are_not_whole(protocol):
    """Half a record is none, at the end too."""
    events = [*protocol.speaks.events(SAID)]
    last = len(events) - protocol.least
    body = b"".join(events[:last])
    for end in range(len(body) - len(events[last - 1]), len(body.rstrip(b"}\r\n"))):
        whole, facts, into = recorded(protocol.operation, [body[:end]])
        assert not (whole and is_good(facts)), body[:end]
        assert b"".join(into) == body[:end]


@EACH
def test_an_error_within_a_stream_is_one(protocol):
    """It makes the stream useless, wherever it stands and whatever follows."""
    events = [*protocol.speaks.events(SAID)]
    for at in range(len(events) - protocol.least):
        for rest in ([], events[at:]):
            whole, facts, _ = recorded(
                protocol.operation, [*events[:at], protocol.speaks.broken, *rest]
            )
            assert facts.error or not whole, at
        assert facts.error


def test_an_event_named_error_is_one():
    """A server that says in its data something else has failed all the same."""
    events = [*answers.Chat().events(SAID)]
    failed = b'event: error\ndata: {"message": "Overloaded"}\n\n'
    assert recorded(openai.CHAT, [events[0], failed, *events[1:]])[1].error


@EACH
@BOTH
@settings(max_examples=20)
@given(data=st.data())
def test_any_pieces_give_the_same_facts(protocol, said, data):
    """Wherever the network cuts a stream, it says the same, in the same chunks."""
    events = [*protocol.speaks.events(said)]
    body = b"".join(events)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=12)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    whole, facts, into = recorded(protocol.operation, pieces)
    expected, said_then, chunks = recorded(protocol.operation, events)
    assert (whole, told(facts)) == (expected, told(said_then))
    assert [*filter(None, map(bytes.strip, into))] == [*map(bytes.strip, chunks)]


def test_a_stream_ends_where_all_choices_have_their_reason():
    """One of two isn't enough."""
    half = [sse(chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]))]
    both = [*half, sse(chunk(choices=[{"index": 1, "delta": {}, "finish_reason": "stop"}]))]
    assert [recorded(openai.CHAT, one, 2)[0] for one in (half, both)] == [False, True]
    assert [recorded(openai.CHAT, one, 2)[2].ending for one in (half, both)] == [False, True]
    assert openai.CHAT.choices({"n": 2}) == 2
    assert gemini.CONTENT.choices({"generationConfig": {"candidateCount": 2}}) == 2
    assert openai.COMPLETIONS.choices({"prompt": ["a", "b"], "n": 2}) == 4


# -- reasons --------------------------------------------------------------------------------------


def chats(reason):
    """Return a chat's answer that ended for a reason."""
    return openai.CHAT, {"choices": [{"index": 0, "message": {}, "finish_reason": reason}]}


def messages(reason):
    """Return a message of Anthropic's that ended for a reason."""
    return anthropic.MESSAGES, {"type": "message", "content": [], "stop_reason": reason}


def contents(reason):
    """Return a content of Gemini's that ended for a reason."""
    return gemini.CONTENT, {"candidates": [{"content": {}, "finishReason": reason}]}


def coheres(reason):
    """Return a chat of Cohere's that ended for a reason."""
    return ALL["cohere-chat"], {"message": {}, "finish_reason": reason}


def ollamas(reason):
    """Return a chat of Ollama's that ended for a reason."""
    return ALL["ollama-chat"], {"message": {}, "done": True, "done_reason": reason}


REASONS = {
    chats: {
        "good": "stop tool_calls function_call eos",
        "cut": "length model_length",
        "filtered": "content_filter",
        "error": "error abort insufficient_system_resource",
    },
    messages: {
        "good": "end_turn tool_use stop_sequence pause_turn",
        "cut": "max_tokens model_context_window_exceeded",
        "filtered": "refusal",
    },
    contents: {
        "good": "STOP",
        "cut": "MAX_TOKENS",
        "filtered": "SAFETY RECITATION LANGUAGE BLOCKLIST PROHIBITED_CONTENT SPII IMAGE_SAFETY"
        " IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION MODEL_ARMOR",
        "error": "MALFORMED_FUNCTION_CALL UNEXPECTED_TOOL_CALL OTHER IMAGE_OTHER NO_IMAGE"
        " TOO_MANY_TOOL_CALLS MISSING_THOUGHT_SIGNATURE MALFORMED_RESPONSE A_NEW_ONE",
    },
    coheres: {
        "good": "COMPLETE STOP_SEQUENCE TOOL_CALL",
        "cut": "MAX_TOKENS",
        "filtered": "ERROR_TOXIC",
        "error": "ERROR TIMEOUT ERROR_LIMIT",
    },
    ollamas: {"good": "stop", "cut": "length", "error": "load unload"},
}
EVERY = [
    (answered, reason, kind)
    for answered, kinds in REASONS.items()
    for kind, reasons in kinds.items()
    for reason in reasons.split()
]


@pytest.mark.parametrize(("answered", "reason", "kind"), EVERY)
def test_reasons(answered, reason, kind):
    """Each reason, as its provider spells it, says that an answer is good, cut, filtered or bad."""
    operation, body = answered(reason)
    facts = plain(operation, body)
    found = {name for name in ("cut", "filtered", "error") if getattr(facts, name)}
    assert found == ({kind} - {"good"})


def test_a_blocked_prompt_is_filtered():
    """Gemini answers without candidates, then."""
    facts = plain(gemini.CONTENT, {"promptFeedback": {"blockReason": "SAFETY"}})
    assert facts.filtered
    assert not facts.complete


# -- tokens ---------------------------------------------------------------------------------------

USAGES = {
    "no details": ({"prompt_tokens": 9, "completion_tokens": 3}, (9, 3, 0, 0)),
    "openai": ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}, (9, 0, 4, 0)),
    "deepseek": ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 4}, (9, 0, 4, 0)),
    "moonshot": ({"prompt_tokens": 9, "cached_tokens": 4}, (9, 0, 4, 0)),
    "openrouter": (
        {"prompt_tokens": 9, "prompt_tokens_details": {"cache_write_tokens": 2}},
        (9, 0, 0, 2),
    ),
    "litellm": (
        {
            "prompt_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 4},
            "cache_creation_input_tokens": 2,
        },
        (9, 0, 4, 2),
    ),
    "nulls": ({"prompt_tokens": None, "prompt_tokens_details": None}, (0, 0, 0, 0)),
    "odd": ({"prompt_tokens": "9", "completion_tokens": -3}, (0, 0, 0, 0)),
}


@pytest.mark.parametrize(("usage", "tokens"), USAGES.values(), ids=USAGES)
def test_tokens_of_chats(usage, tokens):
    """Whoever speaks the protocol has his own names for what was cached."""
    assert tokens_of(plain(openai.CHAT, {"choices": [], "usage": usage})) == tokens


def test_tokens_of_responses():
    """Those that were cached stand among the input's, as in chats."""
    usage = {
        "input_tokens": 9,
        "output_tokens": 3,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    }
    body = {"status": "completed", "output": [], "usage": usage}
    assert tokens_of(plain(openai.RESPONSES, body)) == (9, 3, 4, 2)


def test_tokens_that_a_message_tells_at_its_end():
    """What Anthropic says last holds; what it doesn't repeat stays."""
    begun = {"type": "message", "model": "m", "usage": {"input_tokens": 5, "output_tokens": 1}}
    ends = {"output_tokens": 8, "input_tokens": 6, "cache_read_input_tokens": 2}
    body = [
        answers.named("message_start", message=begun),
        answers.named("message_delta", delta={"stop_reason": "end_turn"}, usage=ends),
        answers.named("message_delta", delta={}, usage=None),
        answers.named("message_stop"),
    ]
    whole, facts, _ = recorded(anthropic.MESSAGES, body)
    assert whole
    assert tokens_of(facts) == (8, 8, 2, 0)


def test_tokens_of_other_answers():
    """Embeddings and reranking say what they took; counting tokens takes none."""
    embedded = {"embeddings": {}, "meta": {"billed_units": {"input_tokens": 5.0}}}
    assert tokens_of(plain(ALL["cohere-embed"], embedded)) == (5, 0, 0, 0)
    assert tokens_of(plain(ALL["ollama-embed"], {"embeddings": [], "prompt_eval_count": 5}))[0] == 5
    assert tokens_of(plain(openai.EMBEDDINGS, {"data": [], "usage": {"prompt_tokens": 5}}))[0] == 5
    for operation, body in (
        (ALL["anthropic-tokens"], {"input_tokens": 14}),
        (ALL["gemini-tokens"], {"totalTokens": 14}),
        (ALL["vertex-anthropic-tokens"], {"input_tokens": 14}),
    ):
        facts = plain(operation, body)
        assert is_good(facts)
        assert tokens_of(facts) == (0, 0, 0, 0)


def test_version_1_of_cohere():
    """Its streams are lines, of which the last has the whole answer."""
    operation = ALL["cohere-chat-v1"]
    meta = {"tokens": {"input_tokens": 9, "output_tokens": 3}}
    end = {"event_type": "stream-end", "finish_reason": "MAX_TOKENS"}
    lines = [
        {"event_type": "stream-start", "generation_id": "g"},
        {"event_type": "text-generation", "text": "It is"},
        {**end, "response": {"text": "It is", "meta": meta}},
    ]
    body = [json.dumps(line).encode() + b"\n" for line in lines]
    whole, facts, _ = recorded(operation, body)
    assert whole
    assert facts.cut
    assert tokens_of(facts) == (9, 3, 0, 0)
    assert not recorded(operation, body[:2])[0]
    assert recorded(operation, [*body[:2], body[2].rstrip()])[0]


# -- other shapes ---------------------------------------------------------------------------------

OTHERS = ["{}", "[]", '"text"', "7", "null", "", "<html>", '{"message_id": 1}', '{"detail": "no"}']


@pytest.mark.parametrize("operation", ALL.values(), ids=ALL)
def test_answers_of_other_shapes_are_none(operation):
    """What isn't of the provider's shape is nothing to store."""
    for body in OTHERS:
        assert not is_good(operation.read(body.encode())), body
    held: dict = {name: [] for name in operation.holds}
    assert not is_good(operation.read(json.dumps({**held, "error": {"message": "no"}}).encode()))


@pytest.mark.parametrize("operation", ALL.values(), ids=ALL)
def test_streams_of_other_shapes_are_none(operation):
    """So is a stream of something else, even if it comes to an end."""
    for body in (*OTHERS, '{"text": "a"}'):
        framed = [body.encode() + b"\n"] if operation.streamed == "lines" else [sse(body), DONE]
        whole, facts, _ = recorded(operation, framed)
        assert not (whole and is_good(facts)), body


NAMES = st.sampled_from(
    [
        "type",
        "event_type",
        "model",
        "message",
        "messages",
        "delta",
        "usage",
        "choices",
        "index",
        "finish_reason",
        "stop_reason",
        "candidates",
        "finishReason",
        "usageMetadata",
        "promptFeedback",
        "content",
        "done",
        "error",
        "response",
        "output",
        "status",
        "x_groq",
        "meta",
        "tokens",
        "input_tokens",
        "message_start",
        "message_delta",
        "stream-end",
        "message-end",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=100)
@given(st.lists(JSON, max_size=4))
def test_nothing_that_a_server_sends_breaks_a_reader(found):
    """Whatever it is, the caller gets it: reading raises nothing."""
    for operation in (*ALL.values(), *vertex.OPERATIONS, *cohere.OPERATIONS, *ollama.OPERATIONS):
        facts = operation.facts()
        for data in found:
            facts.read_event(json.dumps(data).encode())
            operation.read(json.dumps(data).encode())
        facts.is_finished(1)
