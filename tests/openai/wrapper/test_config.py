"""What the wrapper may be told, at which level, and what it says of the rest."""

from __future__ import annotations

import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, OpenAI
from openai.resources.chat.completions import AsyncCompletions

from asynccache import Cache
from asynccache.openai import OpenAIWrapper
from tests.helpers.openai_server import MESSAGES, completion, sse
from tests.helpers.wrapper import client_of, entry_of, say

pytest_plugins = ("tests.helpers.wrapper_fixtures",)


# -- levels -------------------------------------------------------------------------------------


async def test_per_call_wins_over_an_entry_and_an_entry_over_the_constructor(api, folder):
    """The order that AutoGen's documentation promises (its code lets the entry win)."""
    wrapper = OpenAIWrapper(
        config_list=[entry_of(api, temperature=0.2)], temperature=0.1, top_p=0.5, seed=1
    )
    await wrapper.acreate(messages=MESSAGES)
    await wrapper.acreate(messages=MESSAGES, temperature=0.3, model="gpt-4o-mini")
    first, second = (seen.body for seen in api.requests)
    assert (first["temperature"], first["top_p"], first["seed"]) == (0.2, 0.5, 1)
    assert (second["temperature"], second["top_p"], second["model"]) == (0.3, 0.5, "gpt-4o-mini")


async def test_words_of_the_client_reach_it(api, folder):
    """Keys, organisation, headers and timeouts are the client's; an entry's win here too."""
    wrapper = OpenAIWrapper(
        config_list=[entry_of(api, organization="org-1", default_headers={"x-a": "1"})],
        api_key="sk-other", timeout=7,
    )  # fmt: skip
    await wrapper.acreate(messages=MESSAGES)
    (seen,) = api.requests
    assert seen.key == "sk-a"
    assert seen.headers["openai-organization"] == "org-1"
    assert seen.headers["x-a"] == "1"
    assert client_of(wrapper).client.timeout == 7


async def test_words_of_the_wrapper_are_never_sent_and_never_in_the_key(numbered, folder):
    """What is the wrapper's own makes no difference to the request."""
    wrapper = OpenAIWrapper(**entry_of(numbered), tags=["a"], agent=object(), price=[1, 2])
    assert await say(wrapper) == 1
    own = {
        "agent": object(), "allow_format_str_template": True, "api_type": "openai",
        "api_version": "v1", "cache_path_root": ".cache", "cache_seed": 41, "context": {"a": 1},
        "filter_func": lambda context, response: True, "price": 0.1, "tags": {"b": 1},
    }  # fmt: skip
    for name, value in own.items():
        assert await say(wrapper, **{name: value}) == 1
    assert await say(wrapper, **own) == 1
    (seen,) = numbered.requests
    assert seen.body == {"messages": MESSAGES, "model": "gpt-4o"}


async def test_a_ready_client_may_stand_in_an_entry(bare, numbered, folder):
    """An entry's `client` is used as it is, and is its owner's to close."""
    async with OpenAIWrapper(config_list=[{"client": bare, "model": "a"}]) as wrapper:
        assert await say(wrapper) == 1
    assert not bare.is_closed()
    constructor = OpenAIWrapper(client=bare, model="b", timeout=5)
    assert await say(constructor) == 2
    mixed = OpenAIWrapper(config_list=[entry_of(numbered, model="b")], client=bare)
    assert await say(mixed, cache_seed=None) == 3
    assert "client" not in numbered.requests[0].body


async def test_an_sdk_that_was_patched_takes_what_it_takes(numbered, folder, monkeypatch):
    """Telemetry that hides the SDK's signatures hides no word that everybody uses."""

    def hidden(original):
        def hiding(*args, **kwargs):
            return original(*args, **kwargs)

        return hiding

    for kind in (AsyncOpenAI, AsyncAzureOpenAI):
        monkeypatch.setattr(kind, "__init__", hidden(kind.__init__))
    monkeypatch.setattr(AsyncCompletions, "create", hidden(AsyncCompletions.create))
    wrapper = OpenAIWrapper(config_list=[entry_of(numbered, organization="org-1")], top_p=1)
    assert [await say(wrapper), await say(wrapper)] == [1, 1]
    (seen,) = numbered.requests
    assert seen.headers["openai-organization"] == "org-1"
    assert seen.body["top_p"] == 1


async def test_azure(api, folder):
    """`api_type="azure"` makes an Azure client; the model names the deployment, without dots."""
    azure = {
        "api_type": "azure", "api_key": "k", "base_url": f"http://127.0.0.1:{api.port}",
        "api_version": "2024-02-01",
    }  # fmt: skip
    wrapper = OpenAIWrapper(
        config_list=[{**azure, "model": "gpt-3.5-turbo"}, {**azure, "azure_deployment": "my.own"}]
    )

    async def program(seen):
        if "gpt-35-turbo" in seen.path:
            await seen.answer({"error": {}}, status=400)
        else:
            await seen.answer(completion())

    api.program = program
    response = await wrapper.acreate(messages=MESSAGES, model="gpt-3.5-turbo")
    assert response.config_id == 1
    assert isinstance(client_of(wrapper).client, AsyncAzureOpenAI)
    paths = [(seen.path, seen.query) for seen in api.requests]
    assert paths == [
        ("/openai/deployments/gpt-35-turbo/chat/completions", "api-version=2024-02-01"),
        ("/openai/deployments/my.own/chat/completions", "api-version=2024-02-01"),
    ]
    assert api.requests[1].body["model"] == "gpt-35-turbo"


async def test_no_secret_shows(numbered, folder, caplog):
    """Keys and contexts are in no representation, and in nothing that is logged."""
    secret = "sk-very-secret"
    entries = [
        entry_of(numbered, api_key=secret, base_url="http://u:sk-very-secret@127.0.0.1:9/v1"),
        entry_of(numbered, api_key=secret),
    ]
    wrapper = OpenAIWrapper(config_list=entries, context={"password": secret})
    with caplog.at_level("DEBUG", "asynccache"):
        assert await say(wrapper) == 1
    assert "config_list[0]: APIConnectionError, the next is tried" in caplog.messages
    shown = [
        repr(wrapper),
        repr(wrapper._entries),
        repr(wrapper._entries[0].settings),
        *caplog.messages,
    ]
    assert not any(secret in text for text in shown)


# -- bad input ----------------------------------------------------------------------------------

BAD = [
    ({"config_list": {"model": "m"}}, TypeError, r"config_list must be a list of dicts, not dict"),
    ({"config_list": "m"}, TypeError, r"not str"),
    ({"config_list": []}, ValueError, r"config_list is empty: leave it out"),
    ({"config_list": ["m"]}, TypeError, r"config_list\[0\] must be a dict, not str"),
    ({"config_list": [{}, {"modle": "m"}]}, TypeError,
     r"config_list\[1\]: no client and no call takes 'modle'; did you mean 'model'"),
    ({"frobnicate": 1}, TypeError, r"put what the SDK doesn't know into extra_body"),
    ({"model_client_cls": "Mine"}, TypeError, r"isn't supported: pass a client of the SDK"),
    ({"config_list": [{"api_rate_limit": 1}]}, TypeError, r"isn't supported: limit the rate"),
    ({"api_type": "anthropic"}, ValueError, r'must be "openai" or "azure", not \'anthropic\''),
    ({"config_list": [{"azure_endpoint": "http://a"}]}, ValueError, r'needs api_type="azure"'),
    ({"api_type": "azure", "base_url": "http://a", "azure_ad_token_provider": "DEFAULT"},
     ValueError, r"must be a function, e.g. azure.identity.aio"),
    ({"client": object()}, TypeError, r"client must be an openai.AsyncOpenAI, not object"),
    ({"client": OpenAI(api_key="k")}, TypeError, r"AsyncOpenAI, not OpenAI"),
    ({"client": Cache.memory().wrap(AsyncOpenAI(api_key="k"))}, ValueError, r"as cache="),
    ({"config_list": [{"client": AsyncOpenAI(api_key="k"), "api_key": "k"}]}, ValueError,
     r"api_key belongs to a client, and there is one: set it there"),
    ({"cache": object()}, TypeError, r"cache must be an AsyncCache"),
    ({"cache_seed": 1.5}, TypeError, r"cache_seed must be an int or a str"),
    ({"cache_seed": "../up"}, ValueError, r"cache_seed"),
    ({"cache_path_root": 1}, TypeError, r"int"),
    ({"price": "cheap"}, ValueError, r"price must be \[per_1k_prompt, per_1k_completion\]"),
    ({"price": [1]}, ValueError, r"two numbers from 0 on"),
    ({"price": [1, -1]}, ValueError, r"from 0 on"),
    ({"filter_func": 1}, TypeError, r"filter_func must be a plain function"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "error", "says"), BAD)
def test_bad_words_are_refused_with_a_sentence(words, error, says):
    """The constructor says what is wrong, where it stands, and what to do instead."""
    words = {"api_key": "k", **words}
    if "client" in words:
        del words["api_key"]
    with pytest.raises(error, match=says):
        OpenAIWrapper(**words)


def test_a_client_that_lacks_its_key_says_so_at_once(monkeypatch):
    """The SDK's error comes from the constructor, not from the first call."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(openai.OpenAIError, match="api_key"):
        OpenAIWrapper(model="m")


@pytest.mark.parametrize(
    "words", [{}, {"messages": MESSAGES, "prompt": "p"}, {"messages": None, "prompt": None}]
)
async def test_a_call_has_either_messages_or_a_prompt(entry, api, words):
    """Neither and both are refused, as in AutoGen."""
    with pytest.raises(ValueError, match="either messages or prompt"):
        await OpenAIWrapper(**entry).acreate(**words)
    assert api.requests == []


# -- templates ----------------------------------------------------------------------------------


async def test_the_context_is_put_into_messages(entry, api, folder):
    """Functions always are called, text is formatted if that is allowed, the rest stays."""
    messages: list[dict] = [
        {"role": "system", "content": "{left} as it is"},
        {"role": "user", "content": lambda context: f"Hello, {context['name']}"},
        {"role": "user", "content": [{"type": "text", "text": "{name}"}]},
        {"role": "assistant", "content": None},
    ]
    wrapper = OpenAIWrapper(**entry, context={"name": "Ada", "left": "Kept"})
    await wrapper.acreate(messages=messages)
    await wrapper.acreate(messages=messages[:1], allow_format_str_template=True, context=None)
    first, second = (seen.body["messages"] for seen in api.requests)
    assert [message["content"] for message in first] == [
        "{left} as it is", "Hello, Ada", [{"type": "text", "text": "{name}"}], None,
    ]  # fmt: skip
    assert second[0]["content"] == "Kept as it is"
    assert callable(messages[1]["content"])


async def test_a_prompt_goes_to_the_completions_endpoint(entry, api, folder):
    """`prompt=` asks for a text completion, with the context put in."""

    async def program(seen):
        choice = {"index": 0, "text": "blue", "finish_reason": "stop", "logprobs": None}
        body = {"id": "c", "object": "text_completion", "created": 1, "model": "m"}
        if seen.body.get("stream"):
            await seen.stream(sse({**body, "choices": [choice]}), sse("[DONE]"))
        else:
            await seen.answer({**body, "choices": [choice]})

    api.program = program
    wrapper = OpenAIWrapper(**entry)
    response = await wrapper.acreate(
        prompt="The {what} is", messages=None, context={"what": "sky"},
        allow_format_str_template=True,
    )  # fmt: skip
    assert wrapper.extract_text_or_completion_object(response) == ["blue"]
    assert (response.config_id, response.pass_filter) == (0, True)
    stream = await wrapper.acreate(prompt="The sky is", stream=True)
    assert [event.choices[0].text async for event in stream] == ["blue"]
    assert [seen.path for seen in api.requests] == ["/v1/completions"] * 2
    assert api.requests[0].body["prompt"] == "The sky is"


@pytest.mark.parametrize(
    ("template", "context", "formats", "expected"),
    [
        ("{a}", {"a": 1}, True, "1"),
        ("{a}", {"a": 1}, False, "{a}"),
        ("{a}", None, True, "{a}"),
        (None, {"a": 1}, True, None),
        (lambda context: str(context["a"]), {"a": 1}, False, "1"),
    ],
)
def test_instantiate(template, context, formats, expected):
    """As AutoGen's method of that name."""
    assert OpenAIWrapper.instantiate(template, context, formats) == expected
