"""Model clients of one's own, as AutoGen's documentation has them, as tests for 0.2 and AG2."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from openai.types.chat import ChatCompletion

from asynccache import Cache
from tests.helpers.openai_server import choice

os.environ["AUTOGEN_USE_DOCKER"] = "False"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about optional packages
    import autogen

MESSAGES = [{"role": "user", "content": "Hello?"}]


def of_the_documentation(content):
    """Return the answer that the documentation's example makes."""
    message = SimpleNamespace(content=content, function_call=None)
    return SimpleNamespace(choices=[SimpleNamespace(message=message)], model="m")


@dataclass
class Message:
    """What is said."""

    content: str


@dataclass
class Choice:
    """Holds it."""

    message: Message


@dataclass
class Answer:
    """Can be stored, but not as what it is."""

    choices: list[Choice]
    model: str = "m"


def dataclassed(content):
    """Return an answer that is a dataclass."""
    return Answer([Choice(Message(content))])


def of_the_sdk(content):
    """Return an answer as the SDK makes it."""
    message = {"role": "assistant", "content": content}
    return ChatCompletion.construct(**choice(message=message))


def unspeakable(content):
    """Return an answer of the SDK's with text that no encoding takes."""
    return of_the_sdk(f"{content}\ud800")


class Client:
    """A model client of one's own."""

    def __init__(self, config, made, calls, **_):
        self._made, self._calls = made, calls

    def create(self, params):
        self._calls.append(params)
        return self._made(f"Answer {len(self._calls)}.")

    def message_retrieval(self, response):
        return [choice.message.content for choice in response.choices]

    def cost(self, response):
        response.cost = 0
        return 0

    @staticmethod
    def get_usage(response):
        return {}


def asked(cache, made, calls):
    """Ask as a new program would; return what is said."""
    wrapper = autogen.OpenAIWrapper(config_list=[{"model": "m", "model_client_cls": "Client"}])
    wrapper.register_model_client(Client, made=made, calls=calls)
    found = wrapper.create(messages=MESSAGES, cache=cache)
    return wrapper.extract_text_or_completion_object(found)


@pytest.mark.parametrize("made", [of_the_documentation, dataclassed, unspeakable])
def test_own_answer_is_not_cached(made, caplog):
    """What couldn't be given back as it was isn't stored: paid each time, and told once."""
    calls: list = []
    with Cache.memory() as cache:
        for number in (1, 2):
            assert asked(cache, made, calls)[0].startswith(f"Answer {number}.")
        stats = cache.stats()
    assert (len(calls), stats.stored, stats.bypassed) == (2, 0, 2)
    told = [r.getMessage() for r in caplog.records if r.name == "asynccache"]
    assert len(told) == 1
    assert "ChatCompletion" in told[0]


def test_answer_of_the_sdk_is_cached():
    """A model client of one's own that answers with the SDK's object is asked once."""
    calls: list = []
    with Cache.memory() as cache:
        said = [asked(cache, of_the_sdk, calls) for _ in range(2)]
    assert said == [["Answer 1."]] * 2
    assert len(calls) == 1
