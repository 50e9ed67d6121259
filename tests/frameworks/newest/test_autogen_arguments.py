"""What AutoGen's clients are called with: keys and calls agree, and odd arguments go past."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from autogen_core import CancellationToken, FunctionCall, Image
from autogen_core.models import AssistantMessage, UserMessage
from PIL import Image as Picture
from pydantic import BaseModel

import asynccache
from asynccache import ReplayMiss
from tests.helpers.autogen_client import HELLO, Modest, ModestConfig, answer, named
from tests.helpers.inside import engine_of

pytest_plugins = ("tests.helpers.autogen_fixtures",)


class Echo(Modest):
    """Answers with what it is asked, which it reads when it is called."""

    async def create(self, messages, *, cancellation_token=None, **arguments):
        self.calls += 1
        said = [_text(message) for message in messages]
        extra = arguments.get("extra_create_args", {})
        return answer(" / ".join([*said, *map(str, extra.values())]))


def _text(message):
    parts = [message.content] if isinstance(message.content, str) else message.content
    return "".join(part for part in parts if isinstance(part, str))


def says(text):
    """Return a user's message."""
    return UserMessage(content=text, source="user")


@pytest.fixture
def inner():
    """A client that answers with what it is asked."""
    return Echo(ModestConfig(model="m"))


async def asked(client, how, messages, **arguments):
    """Return the text of an answer."""
    if how == "create":
        return (await client.create(messages, **arguments)).content
    return [item async for item in client.create_stream(messages, **arguments)][-1].content


WAYS = ["create", "create_stream"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("token", [None, CancellationToken], ids=["no token", "token"])
async def test_shared_history_is_asked_as_it_was(cache, inner, how, token):
    """Agents that share a list get, and store, answers to what it was when each of them asked."""
    client = named(inner, cache)
    history = [says("2 + 2?")]

    async def agent(note):
        history.append(says(note))
        return await asked(client, how, history, cancellation_token=token and token())

    said = await asyncio.gather(agent("one"), agent("two"))
    assert said == ["2 + 2? / one", "2 + 2? / one / two"]
    later = await asked(client, how, [says("2 + 2?"), says("one")])
    assert later == "2 + 2? / one"
    assert inner.calls == 2


async def test_joined_call_that_fails_is_made_anew_as_it_was_asked(cache):
    """Who waited for a call that was another's fate asks what it had asked for at first."""
    going = asyncio.Event()

    class Refusing(Echo):
        async def create(self, messages, *, cancellation_token=None, **arguments):
            if not going.is_set():
                await going.wait()
                raise PermissionError
            return await super().create(messages, **arguments)

    config = ModestConfig(model="m")
    one, two = (named(Refusing(config), cache) for _ in "ab")
    history = [says("first")]
    calls = [asyncio.ensure_future(client.create(history)) for client in (one, two)]
    await asyncio.sleep(0.01)
    history.append(says("later"))
    going.set()
    refused, given = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(refused, PermissionError)
    assert given.content == "first"


@pytest.mark.parametrize("how", WAYS)
async def test_images_are_asked_for_with_what_was_beside_them(cache, inner, how):
    """While pixels are read in a thread, a list that changes is another request's."""
    client = named(inner, cache)
    picture = UserMessage(content=["What?", Image(Picture.new("RGB", (64, 64)))], source="user")
    history = [says("first"), picture]
    call = asyncio.ensure_future(asked(client, how, history))
    await asyncio.sleep(0)
    history[0] = says("changed")
    picture.content[0] = "Changed?"
    assert await call == "first / What?"
    picture.content[0] = "What?"
    assert await asked(client, how, [says("first"), picture]) == "first / What?"
    assert inner.calls == 1


async def test_loop_that_is_busy_asks_what_was_asked(cache, inner):
    """A call that has to wait for its turn is made, and kept, with what it was given."""
    client = named(inner, cache)
    pacer = engine_of(cache).pacer
    waiting = asyncio.ensure_future(pacer.slot())
    await asyncio.sleep(0)
    assert pacer.spent()
    history = [says("first")]
    arguments = {"bias": [1]}
    call = asyncio.ensure_future(client.create(history, extra_create_args=arguments))
    await asyncio.sleep(0)
    history[0].content = "changed"
    arguments["bias"].append(2)
    assert (await call).content == "first / [1]"
    await waiting
    again = await client.create([says("first")], extra_create_args={"bias": [1]})
    assert (again.content, again.cached) == ("first / [1]", True)


async def test_cache_that_is_being_opened_asks_what_was_asked(inner, tmp_path):
    """The first call, which opens a cache named by its URL, is made with what it was given."""
    client = named(inner, f"disk:{tmp_path}")
    history = [says("first")]
    call = asyncio.ensure_future(client.create(history))
    await asyncio.sleep(0)
    history.append(says("later"))
    assert (await call).content == "first"
    assert (await client.create([says("first")])).cached
    await client.close()


async def test_calls_of_tools_are_copied(cache):
    """What a message holds may be changed by its owner while the call is under way."""
    seen = []

    class Slow(Echo):
        async def create(self, messages, *, cancellation_token=None, **arguments):
            await asyncio.sleep(0.01)
            seen.extend(call.name for call in messages[0].content)
            return answer("done")

    client = named(Slow(ModestConfig(model="m")), cache)
    call = FunctionCall(id="1", name="add", arguments="{}")
    message = AssistantMessage(content=[call], source="a")
    asking = asyncio.ensure_future(client.create([message]))
    await asyncio.sleep(0)
    call.name = "subtract"
    await asking
    assert seen == ["add"]


async def test_messages_that_can_be_read_once_are_read_once(cache, inner):
    """An iterator in place of a list is asked for whole, and is a hit as the list is."""
    client = named(inner, cache)
    assert (await client.create(iter([says("once")]))).content == "once"
    assert (await client.create([says("once")])).cached


# -- arguments without a key ---------------------------------------------------------------------


class Without(BaseModel):
    """Has no JSON schema."""

    call: Callable


class Raising(dict):
    """Raises what nobody foresees."""

    def items(self):
        raise LookupError("sk-secret")


def within_itself():
    """Return what holds itself."""
    found: dict = {}
    found["self"] = found
    return found


ODD = {
    "a class without a JSON schema": ({"json_output": Without}, "Without has no JSON schema"),
    "a key that JSON lacks": ({"extra_create_args": {"a": {object(): 1}}}, "key of type object"),
    "itself": ({"extra_create_args": {"a": within_itself()}}, "within itself"),
    "no mapping": ({"extra_create_args": None}, "AttributeError"),
    "what raises": ({"extra_create_args": {"a": Raising(b=1)}}, "LookupError"),
}


@pytest.mark.parametrize(("arguments", "reason"), ODD.values(), ids=ODD)
@pytest.mark.parametrize("how", WAYS)
async def test_argument_without_a_key_goes_past(cache, caplog, how, arguments, reason):
    """The client is asked, as it would be without a cache; counted, and told once with a reason."""
    inner = Modest(ModestConfig(model="m"))
    client = named(inner, cache)
    for number in (1, 2):
        assert await asked(client, how, HELLO, **arguments) == f"Answer {number}."
    assert cache.stats().bypassed == 2
    (told,) = [r.getMessage() for r in caplog.records if "not cached" in r.getMessage()]
    assert reason in told
    assert "sk-secret" not in told
    with asynccache.options(mode="replay"), pytest.raises(ReplayMiss, match=reason):
        await asked(client, how, HELLO, **arguments)
    assert inner.calls == 2
