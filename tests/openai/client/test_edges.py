"""What a hostile reader broke: each test failed before its mend."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest
from openai import APIConnectionError, AsyncAzureOpenAI, AsyncOpenAI, BadRequestError, omit
from openai.resources.chat.completions import AsyncCompletions
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, ConfigDict, Field

import asynccache
from asynccache.openai import OpenAIWrapper
from tests.helpers.http import httpx
from tests.helpers.openai_api import whole_api
from tests.helpers.openai_server import (
    DONE,
    MESSAGES,
    CutError,
    Gate,
    ask,
    choice,
    chunk,
    events_of,
    sse,
    state,
)

pytest_plugins = ("tests.helpers.openai_fixtures",)

EMBED = {"model": "text-embedding-3-small", "input": ["only"]}


@pytest.fixture(autouse=True)
def whole(api):
    """Let the server answer as the whole API does."""
    api.program = whole_api


@pytest.fixture
async def azure(api, api_cache):
    """A client that names its deployments by the model, cached."""
    url = f"http://127.0.0.1:{api.port}"
    async with AsyncAzureOpenAI(api_key="a", api_version="v1", azure_endpoint=url) as client:
        yield api_cache.wrap(client)


async def test_a_list_of_one_input_is_a_hit_like_any_other(api, bare, cached):
    """An input's own entry, whose key is that of a list of it alone, is not taken for an answer."""
    expected = await bare.embeddings.create(**EMBED)
    await cached.embeddings.create(**EMBED)
    again = await cached.embeddings.create(**EMBED)
    posted = await cached.post("/embeddings", body=EMBED, cast_to=CreateEmbeddingResponse)
    raw = await cached.embeddings.with_raw_response.create(**EMBED)

    assert again == raw.parse() == expected
    assert state(again).outcome == "hit"
    assert posted.data[0].embedding == expected.data[0].embedding
    assert len(api.requests) == 3  # the bare one's, the miss, and the post's of other encoding


async def test_no_secret_of_an_odd_url_is_told_to_those_who_watch(api, cached):
    """An event names the path alone, without user-info and query."""
    foreign = api.base_url.replace("//", "//user:hidden@").replace("127.0.0.1", "localhost")
    with asynccache.record() as calls:
        await cached.post(f"{foreign}/other?key=hidden", body={}, cast_to=object)
        await cached.get("/files?key=hidden&key=hidden", cast_to=object)

    assert [call.outcome for call in calls] == ["bypass", "bypass"]
    assert "hidden" not in repr(calls)


async def test_azure_is_asked_for_each_spelling_of_a_path(api, azure):
    """Its client sends a known path to a deployment, and any other spelling elsewhere."""
    whole = f"http://127.0.0.1:{api.port}/openai/chat/completions"
    for url in ("/chat/completions", "chat/completions", whole):
        body = {"model": "gpt-4o", "messages": MESSAGES}
        await azure.post(url, body=body, cast_to=ChatCompletion)

    assert len(api.requests) == 3


async def test_a_posted_stream_of_no_class_has_the_type_it_was_cast_to(api, bare, cached):
    """Without a class of stream the SDK takes its own, of what the answer is cast to."""
    body = {"model": "gpt-4o", "messages": MESSAGES, "stream": True}

    async def posted(client):
        stream = await client.post(
            "/chat/completions", body=body, cast_to=ChatCompletionChunk, stream=True
        )
        return await events_of(stream)

    assert await posted(cached) == await posted(cached) == await posted(bare)


async def test_every_entry_is_sent_what_an_iterator_gives(api, api_cache):
    """A request whose messages the first entry has read is whole for the second."""
    refused = {"model": "a", "api_key": "a", "base_url": "http://127.0.0.1:9/v1", "max_retries": 0}
    good = {"model": "b", "api_key": "a", "base_url": api.base_url}
    async with OpenAIWrapper(config_list=[refused, good], cache=api_cache) as wrapper:
        await wrapper.acreate(messages=iter(MESSAGES))

    assert [seen.body["messages"] for seen in api.requests] == [MESSAGES]


async def test_a_deployment_is_told_from_a_model_of_its_name(api, azure):
    """Azure's path is made of the argument, whatever ``extra_body`` puts into the body."""
    await azure.chat.completions.create(model="a", messages=MESSAGES, extra_body={"model": "b"})
    await azure.beta.chat.completions.create(
        model="a", messages=MESSAGES, extra_body={"model": "b"}
    )
    await azure.chat.completions.create(model="b", messages=MESSAGES)

    assert [seen.path.split("/")[3] for seen in api.requests] == ["a", "a", "b"]


@pytest.mark.parametrize("name", ["_prepare_url", "request"])
async def test_a_client_that_reroutes_its_requests_is_let_pass(api, api_cache, name):
    """Nobody can know the key where a subclass decides underneath what is sent where."""

    class Tenant(AsyncOpenAI):
        tenant = "a"

    def prepare_url(self, url):
        return AsyncOpenAI._prepare_url(self, url).copy_merge_params({"tenant": self.tenant})

    async def request(self, cast_to, options, **kwargs):
        options.headers = {**(options.headers or {}), "x-tenant": self.tenant}
        return await AsyncOpenAI.request(self, cast_to, options, **kwargs)

    setattr(Tenant, name, {"_prepare_url": prepare_url, "request": request}[name])
    async with Tenant(api_key="a", base_url=api.base_url) as client:
        await ask(api_cache.wrap(client))
        client.tenant = "b"
        await ask(api_cache.wrap(client))

    assert len(api.requests) == 2


@pytest.mark.parametrize("how", ["docstring", "inner docstring", "function", "field"])
async def test_a_class_that_is_described_anew_is_another_request(api, cached, how):
    """The schema that is sent is the one in the key, though no class was rebuilt."""
    choices = ["Paris"]

    def extra(schema):
        schema["enum"] = list(choices)

    class Place(BaseModel):
        """Where."""

        city: str = Field(json_schema_extra=extra if how == "field" else None)

    class Forecast(BaseModel):
        """What, and where."""

        model_config = ConfigDict(json_schema_extra=extra if how == "function" else None)
        place: Place | None

    async def program(seen):
        # Nobody could use text, and an answer that doesn't fit isn't given twice.
        await seen.answer(choice(message={"role": "assistant", "content": None, "refusal": "No."}))

    api.program = program
    for _ in range(2):
        for _ in range(2):
            await cached.chat.completions.parse(
                model="gpt-4o", messages=MESSAGES, response_format=Forecast
            )
        if how.endswith("docstring"):
            (Place if how.startswith("inner") else Forecast).__doc__ = "Something else."
        choices.append("Rome")

    first, second = [seen.body["response_format"] for seen in api.requests]
    assert first != second


async def test_an_answer_that_cannot_be_split_holds_nobody_up(api, cached):
    """Who asked for the same inputs gets it too; who asked for some of them asks at once."""
    gate = Gate()

    async def program(seen):
        await gate.wait()
        count = len(seen.body["input"])
        items = [{"object": "embedding", "index": 0, "embedding": [1.0]}] * count
        usage = {"prompt_tokens": count, "total_tokens": count}
        await seen.answer({"object": "list", "data": items, "model": "m", "usage": usage})

    api.program = program
    several = [["a", "b"]] * 10 + [["a"], ["b", "c"]]
    calls = [
        asyncio.ensure_future(cached.embeddings.create(model="m", input=given)) for given in several
    ]
    await api.arrived()
    gate.open()
    answers = await asyncio.gather(*calls)

    assert [len(answer.data) for answer in answers] == [len(given) for given in several]
    assert [state(answer).outcome for answer in answers[:10]] == ["miss"] + ["joined"] * 9
    assert len(api.requests) <= 5


@pytest.mark.parametrize("stream", [False, True])
async def test_who_joins_gets_no_answer_to_what_a_patch_sent_for_another(
    api, cached, monkeypatch, stream
):
    """A patch beneath that adds what differs from caller to caller costs the sharing."""
    who: ContextVar[str] = ContextVar("who")
    create = AsyncCompletions.create
    gate = Gate()

    async def patched(self, **arguments):
        return await create(self, **{**arguments, "user": who.get()})

    async def program(seen):
        await gate.wait()
        name = seen.body["user"]
        if stream:
            await seen.stream(sse(chunk(name)), DONE)
        else:
            await seen.answer(choice(message={"role": "assistant", "content": name}))

    async def asked(name):
        who.set(name)
        answer = await ask(cached, stream=stream)
        if not stream:
            return answer.choices[0].message.content
        return "".join([event.choices[0].delta.content async for event in answer])

    monkeypatch.setattr(AsyncCompletions, "create", patched)
    api.program = program
    names = ["ann", "bob", "cy"]
    calls = [asyncio.ensure_future(asked(name)) for name in names]
    await api.arrived()
    gate.open()

    assert await asyncio.gather(*calls) == names


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_asks_another_for_the_same_does_not_wait_for_itself(
    api, api_cache, monkeypatch, stream
):
    """One that turns to a second client, with another key of the same server, gets its answer."""
    create = AsyncCompletions.create
    async with (
        AsyncOpenAI(api_key="a", base_url=api.base_url) as first,
        AsyncOpenAI(api_key="b", base_url=api.base_url) as second,
    ):
        spare = api_cache.wrap(second)

        async def patched(self, **arguments):
            if self._client.api_key == "a":
                return await spare.chat.completions.create(**arguments)
            return await create(self, **arguments)

        monkeypatch.setattr(AsyncCompletions, "create", patched)
        async with asyncio.timeout(5):
            answer = await ask(api_cache.wrap(first), stream=stream)
            assert not stream or len((await events_of(answer))[0]) == 3

    assert [seen.key for seen in api.requests] == ["b"]


async def test_a_filter_may_judge_by_the_cost(api, api_cache):
    """As in AutoGen, which notes the cost on a response before it asks the filter."""
    costs = []

    def is_cheap(*, context, response):
        costs.append(response.cost)
        return True

    entry = {"model": "a", "api_key": "a", "base_url": api.base_url, "price": 1.0}
    async with OpenAIWrapper(config_list=[entry], cache=api_cache) as wrapper:
        answer = await wrapper.acreate(messages=MESSAGES, filter_func=is_cheap)

    assert costs == [answer.cost] == [0.012]


@pytest.mark.parametrize("extra", [{"input": omit}, {}])
async def test_a_request_without_input_is_left_to_the_server(api, cached, extra):
    """Nothing of ours is raised for what only the server can judge."""

    async def program(seen):
        await seen.answer({"error": {"message": "no input"}}, 400)

    api.program = program
    for embeddings in (cached.embeddings, cached.with_options(max_retries=0).embeddings):
        with pytest.raises(BadRequestError):
            await embeddings.create(model="m", input="a" if extra else omit, extra_body=extra)
    with pytest.raises(BadRequestError):
        await cached.post("/embeddings", body={"model": "m"}, cast_to=CreateEmbeddingResponse)

    assert [seen.body.keys() & {"input"} for seen in api.requests] == [set()] * 3


async def test_who_reads_a_raw_stream_sees_the_error_of_its_transport(api, bare, cached):
    """The SDK translates such an error only where it reads the events itself."""

    async def program(seen):
        await seen.start()
        await seen.send(sse(chunk("One ")))
        raise CutError

    async def read(client):
        create = client.chat.completions.with_streaming_response.create
        async with create(model="gpt-4o", messages=MESSAGES, stream=True) as response:
            async for _ in response.iter_lines():
                pass

    api.program = program
    for client in (bare, cached):
        with pytest.raises(httpx.RemoteProtocolError):
            await read(client)
    with pytest.raises((APIConnectionError, httpx.RemoteProtocolError)):
        await events_of_or_raise(await ask(cached, stream=True))


async def events_of_or_raise(stream):
    """Read a stream to its end."""
    return [event async for event in stream]
