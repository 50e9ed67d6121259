"""LiteLLM stores in the background: under what was looked up, and where that was in force."""

from __future__ import annotations

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches one when it is imported

import asyncio
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import litellm
import openai
import pytest

import asynccache
from asynccache import Cache
from asynccache.integrations.litellm.lookups import Key, PendingLookups
from tests.helpers.litellm_calls import echo, embed, stored, text_of, user
from tests.helpers.openai_server import DONE, choice, chunk, sse

pytest_plugins = ("tests.helpers.litellm_fixtures",)
# LiteLLM's types, as pydantic sees them; and what LiteLLM itself does with its answers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*ReadOnly.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]


async def parts(seen):
    """Answer with the text of the first part of the first message."""
    text = seen.body["messages"][0]["content"][0]["text"]
    await seen.answer(choice(message={"role": "assistant", "content": text}))


@pytest.mark.parametrize("stream", [False, True])
async def test_list_that_grows_after_the_call(server, cache, asked, stream):
    """A conversation whose next question stands in the list before LiteLLM has stored."""
    server.program = echo
    # By position: of messages by name LiteLLM makes a list of its own.
    ask = partial(litellm.acompletion, "openai/gpt-4o", client=asked()["client"], stream=stream)
    messages = [user("one")]
    for count, (question, following) in enumerate(pairwise(["one", "two", "three", "four"]), 1):
        answer = await ask(messages)
        messages += [{"role": "assistant", "content": "An answer."}, user(following)]
        assert await text_of(answer) == f"gpt-4o: {question}"
        await stored(cache, count)
    assert await text_of(await ask(messages[:1])) == "gpt-4o: one"
    assert len(server.requests) == 3


async def test_parts_that_change_after_the_call(server, cache, asked):
    """Messages by name share what they hold with those that the caller changes."""
    server.program = parts
    content = [{"type": "text", "text": "one"}]
    for text in ("one", "two"):
        content[0] = {"type": "text", "text": text}
        answer = await litellm.acompletion(**asked(messages=[user(content)]))
        content[0] = {"type": "text", "text": "two"}
        assert await text_of(answer) == text
        await stored(cache, 1 if text == "one" else 2)
    again = await litellm.acompletion(**asked(messages=[user([{"type": "text", "text": "one"}])]))
    assert await text_of(again) == "one"
    assert len(server.requests) == 2


@pytest.mark.parametrize("dumped", [False, True])
async def test_tool_loop_is_found_again(server, cache, asked, dumped):
    """LiteLLM rewrites the messages that it is given; a loop's second run is made of hits."""

    async def loop(seen):
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        if seen.body["messages"][-1]["role"] == "tool":
            message = {"role": "assistant", "content": "Done."}
        await seen.answer(choice(message=message))

    server.program = loop
    ask = partial(litellm.acompletion, "openai/gpt-4o", client=asked()["client"])
    for _ in range(2):
        messages = [user("Go")]
        called = (await ask(list(messages))).choices[0].message
        result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "21"}
        messages += [called.model_dump() if dumped else called, result]
        done = await ask(messages)
        assert done.choices[0].message.content == "Done."
        await stored(cache, 2)
    assert len(server.requests) == 2


async def test_inputs_that_change_after_the_call(server, cache, asked):
    """Vectors are stored for the inputs that were embedded, whatever the list holds since."""
    server.program = embed
    call = asked(model="openai/e")
    del call["messages"]
    inputs = ["a", "bb"]
    await litellm.aembedding(**call, input=inputs)
    inputs[0] = "other"
    await stored(cache, 2)
    inputs = ["bb", "ccc", "a", "dddd"]
    await litellm.aembedding(**call, input=inputs)
    inputs[:] = ["else", "other"]
    await stored(cache, 4)
    found = await litellm.aembedding(**call, input=["other", "dddd", "ccc", "bb", "a"])
    assert [item["embedding"] for item in found.data] == [[5.0], [4.0], [3.0], [2.0], [1.0]]
    assert [seen.body["input"] for seen in server.requests] == [
        ["a", "bb"], ["ccc", "dddd"], ["other"]
    ]  # fmt: skip


@pytest.mark.parametrize("past", [{"cache": {"no-cache": True}}, {"caching": False}])
async def test_what_was_not_looked_up_is_not_stored(server, cache, asked, past):
    """A call past the cache leaves nothing: its lists may have changed by then."""
    server.program = echo
    ask = partial(litellm.acompletion, "openai/gpt-4o", client=asked()["client"])
    messages = [user("one")]
    await ask(messages, **past)
    messages[0] = user("two")
    await text_of(await ask(messages, stream=True, **past))
    messages[0] = user("three")
    await ask([user("four")])
    await stored(cache)  # in the order of the calls
    for text in ("one", "two", "three"):
        assert await text_of(await ask([user(text)])) == f"gpt-4o: {text}"
    await stored(cache, 4)
    assert len(server.requests) == 6


async def test_calls_of_one_id(server, cache, asked):
    """Calls at the same time are kept apart, though their owner gives them one id."""
    server.program = echo
    texts = [str(number) for number in range(8)]

    async def ask(text):
        return await litellm.acompletion(**asked(messages=[user(text)], litellm_call_id="id"))

    await asyncio.gather(*map(ask, texts))
    await stored(cache, 8)
    answers = await asyncio.gather(*map(ask, texts))
    assert [answer.choices[0].message.content for answer in answers] == [
        f"gpt-4o: {text}" for text in texts
    ]
    assert len(server.requests) == 8


async def test_one_logging_object_with_one_list():
    """Of two lookups that only a list's contents told apart, neither's answer is stored."""

    class Logging:
        llm_caching_handler: SimpleNamespace

    def handler():
        return SimpleNamespace(request_kwargs={}, original_function=litellm.acompletion)

    logging, lookups = Logging(), PendingLookups()
    first = {"litellm_logging_obj": logging, "model": "m", "messages": [user("one")]}
    second = {**first, "messages": [user("two")]}
    logging.llm_caching_handler = handler()
    lookups.note(first, Key("1"))
    assert lookups.keys(first) == ["1"]
    logging.llm_caching_handler = handler()
    lookups.note(second, Key("2"))
    assert (lookups.keys(first), lookups.keys(second)) == (["1"], ["2"])
    logging.llm_caching_handler = handler()
    lookups.note(first, Key("3"))
    assert (lookups.keys(first), lookups.keys(second)) == ([], ["2"])
    assert lookups.keys({**first, "litellm_logging_obj": Logging()}) == []


@pytest.mark.parametrize(
    "block", [{"cache_seed": "other"}, {"sample": 1}, {"mode": "read_only"}, {"mode": "off"}]
)
async def test_options_are_those_of_the_call(server, cache, asked, block):
    """An answer that is stored after its block was left is stored by that block's options."""
    server.program = echo
    with asynccache.options(**block):
        await litellm.acompletion(**asked())
    await litellm.acompletion(**asked(messages=[user("later")]))
    kept = 1 if "mode" in block else 2
    await stored(cache, kept)  # in the order of the calls
    await litellm.acompletion(**asked())
    await stored(cache, kept + 1)
    assert len(server.requests) == 3
    with asynccache.options(**block):
        await litellm.acompletion(**asked())
    assert len(server.requests) == (4 if block == {"mode": "off"} else 3)


async def test_cache_is_that_of_the_call(server, cache, asked):
    """A stream that is read to its end elsewhere is stored where it was asked for."""
    other = Cache.memory()
    await other.open()
    with asynccache.options(cache=other):
        stream = await litellm.acompletion(**asked(stream=True))
    await text_of(stream)
    await stored(other)
    assert cache.stats().stored == 0
    await other.aclose()


@pytest.mark.parametrize("stream", [False, True])
async def test_each_sample_of_a_block(server, cache, asked, stream):
    """The identical calls of a block are answered independently, and found again in order."""
    answered = 0

    async def count(seen):
        nonlocal answered
        answered += 1
        message = {"role": "assistant", "content": str(answered)}
        if seen.body.get("stream"):
            await seen.stream(sse(chunk(str(answered))), sse(chunk("", finish="stop")), DONE)
        else:
            await seen.answer(choice(message=message))

    async def votes():
        with asynccache.options(sample="each"):
            return [await text_of(await litellm.acompletion(**asked(stream=stream))) for _ in "123"]

    server.program = count
    assert await votes() == ["1", "2", "3"]
    await stored(cache, 3)
    assert await votes() == ["1", "2", "3"]
    with asynccache.options(sample=1):
        assert await text_of(await litellm.acompletion(**asked(stream=stream))) == "2"
    assert await text_of(await litellm.acompletion(**asked(stream=stream))) == "1"


async def test_each_sample_of_sync_calls(server, cache):
    """Sync calls are numbered as well; who only asks for a key isn't."""
    with openai.OpenAI(base_url=server.base_url, api_key="sk-1") as client:
        call = {"model": "openai/gpt-4o", "messages": [user("one")], "client": client}
        for _ in range(2):
            with asynccache.options(sample="each"):
                for _ in range(3):
                    litellm.cache.get_cache_key(**call)
                    await asyncio.to_thread(litellm.completion, **call)
    assert len(server.requests) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_fallback_is_stored_as_its_own_model(server, cache, stream):
    """What another model answered in an outage is never the answer of the one that was down."""

    async def down(seen):
        if seen.body["model"] == "strong":
            await seen.answer({"error": {"message": "down"}}, status=500)
        else:
            await echo(seen)

    async def ask(model, **more):
        at = {"api_base": server.base_url, "api_key": "k", "max_retries": 0}
        call = {"model": model, "messages": [user("one")], "stream": stream, **at, **more}
        return await text_of(await litellm.acompletion(**call))

    server.program = down
    assert await ask("openai/strong", fallbacks=["openai/weak"]) == "weak: one"
    await stored(cache)
    assert await ask("openai/strong", fallbacks=["openai/weak"]) == "weak: one"
    assert await ask("openai/weak") == "weak: one"
    assert [seen.body["model"] for seen in server.requests] == ["strong", "weak", "strong"]
    server.program = echo
    assert await ask("openai/strong", fallbacks=["openai/weak"]) == "strong: one"
    await stored(cache, 2)
    assert await ask("openai/strong") == "strong: one"
    assert len(server.requests) == 4
    with asynccache.options(mode="replay"):
        assert await ask("openai/strong", fallbacks=["openai/weak"]) == "strong: one"
    assert cache.stats().bypassed == 0
    await litellm.close_litellm_async_clients()


async def test_router_falls_back(server, cache):
    """A router's answers are stored under the deployment that gave them."""

    async def down(seen):
        if seen.body["model"] == "strong":
            await seen.answer({"error": {"message": "down"}}, status=500)
        else:
            await echo(seen)

    server.program = down
    at = {"api_base": server.base_url, "api_key": "k", "max_retries": 0}
    router = litellm.Router(
        model_list=[
            {"model_name": name, "litellm_params": {"model": f"openai/{name}", **at}}
            for name in ("strong", "weak")
        ],
        fallbacks=[{"strong": ["weak"]}], num_retries=0, cache_responses=True,
    )  # fmt: skip
    answers = [await router.acompletion("strong", [user("one")])]
    await stored(cache)
    server.program = echo
    answers += [await router.acompletion(name, [user("one")]) for name in ("weak", "strong")]
    assert [await text_of(answer) for answer in answers] == [
        "weak: one", "weak: one", "strong: one"
    ]  # fmt: skip
    assert [seen.body["model"] for seen in server.requests] == ["strong", "weak", "strong"]
    await litellm.close_litellm_async_clients()
