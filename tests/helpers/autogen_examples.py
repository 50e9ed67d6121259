"""AutoGen's documentation of its cache as tests, for 0.2 and for AG2 before 1.0.

The examples stand as they are in AutoGen's documentation, but for ``from autogen import Cache``,
which is this library's, and for the addresses of servers, which are the test's.
"""

from __future__ import annotations

import asyncio
import functools
import os
import warnings

import openai
import pytest

import asynccache
from asynccache import Cache
from tests.helpers.cosmos_servers import CosmosServer
from tests.helpers.openai_server import CHOICE, completion
from tests.helpers.redis_servers import Valkey

os.environ["AUTOGEN_USE_DOCKER"] = "False"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about optional packages
    import autogen

REDIS = """
with Cache.redis(redis_url="redis://localhost:6379/0") as cache:
    user.initiate_chat(assistant, message=coding_task, cache=cache)
"""
DISK = """
with Cache.disk() as cache:
    user.initiate_chat(assistant, message=coding_task, cache=cache)
"""
COSMOS = """
with Cache.cosmos_db(connection_string="your_connection_string", database_id="your_database_id", container_id="your_container_id") as cache:
    user.initiate_chat(assistant, message=coding_task, cache=cache)
"""  # noqa: E501 - as it stands there
CREATE = """
with Cache.disk() as cache:
    client.create(messages=[{"role": "user", "content": coding_task}], cache=cache)
"""
SEED = """
with Cache.disk(cache_seed=1) as cache:
    user.initiate_chat(assistant, message=coding_task, cache=cache)
"""
ROOT = """
with Cache.disk(cache_path_root="/tmp/autogen_cache") as cache:
    user.initiate_chat(assistant, message=coding_task, cache=cache)
"""
EXAMPLES = {
    "redis": REDIS, "disk": DISK, "cosmos": COSMOS, "create": CREATE, "seed": SEED, "root": ROOT
}  # fmt: skip
TASK = "Plot a chart of NVDA's stock price."


@pytest.fixture(autouse=True)
def closed_clients(monkeypatch):
    """Close the clients that AutoGen makes: it never does, and Python warns of their sockets."""
    made = []
    init = openai.OpenAI.__init__

    @functools.wraps(init)
    def kept(client, *args, **kwargs):
        init(client, *args, **kwargs)
        made.append(client)

    monkeypatch.setattr(openai.OpenAI, "__init__", kept)
    yield
    for client in made:
        client.close()


@pytest.fixture
def model(api, tmp_path, monkeypatch):
    """Answer each request in its own words: at first with more to do, then with the end."""
    monkeypatch.chdir(tmp_path)

    async def program(seen):
        number = len(api.requests)
        messages = seen.body["messages"]
        last = messages[-1]["content"]
        if "select the next role" in str(messages) or "role play game" in str(messages):
            content = ["writer", "critic"][sum("Draft" in str(m) for m in messages) % 2]
        elif "go on" in last:
            content = f"Done in {number}. TERMINATE"
        else:
            content = f"Draft {number}"
        message = {**CHOICE["message"], "content": content}
        await seen.answer(
            completion(id=f"chatcmpl-{number}", choices=[{**CHOICE, "message": message}])
        )

    api.program = program
    return api


def config(api, **changes):
    """The words of an agent's ``llm_config``, with AutoGen's own cache off."""
    entry = {
        "model": "gpt-4o", "api_key": "sk-a", "base_url": api.base_url, "max_retries": 0,
        "price": [0.1, 0.2],
    }  # fmt: skip
    return {"config_list": [entry], "cache_seed": None, **changes}


def agents(api, **changes):
    """Return new agents, as in another run of the same program."""
    assistant = autogen.AssistantAgent("assistant", llm_config=config(api, **changes))
    user = autogen.UserProxyAgent(
        "user", human_input_mode="NEVER", code_execution_config=False, default_auto_reply="go on",
        is_termination_msg=lambda said: "TERMINATE" in (said.get("content") or ""),
    )  # fmt: skip
    return user, assistant


def run(source, api, places):
    """Run an example as a new program; return what was said, and how many requests it made."""
    for stands, place in places.items():
        source = source.replace(stands, str(place))
    user, assistant = agents(api)
    before = len(api.requests)
    names = {
        "Cache": Cache, "user": user, "assistant": assistant, "coding_task": TASK,
        "client": autogen.OpenAIWrapper(**config(api)),
    }  # fmt: skip
    exec(source, names)
    said = [message["content"] for message in user.chat_messages.get(assistant, [])]
    return said, len(api.requests) - before


@pytest.fixture(scope="module")
def stores():
    """Run the servers that the examples name."""
    with Valkey() as valkey, CosmosServer() as cosmos:
        yield {
            "redis://localhost:6379/0": valkey.url,
            "your_connection_string": cosmos.connection_string,
            "your_database_id": "autogen",
            "your_container_id": "cache",
        }


@pytest.mark.parametrize("name", EXAMPLES)
def test_documented_lines_run_and_pay_once(name, model, stores, tmp_path):
    """Each example runs as it stands; run again, it makes no request and says the same."""
    places = {**stores, "/tmp/autogen_cache": tmp_path / "autogen_cache"}
    first, paid = run(EXAMPLES[name], model, places)
    again, more = run(EXAMPLES[name], model, places)
    assert (paid, more) == (1 if name == "create" else 2, 0)
    assert again == first
    assert asynccache.current_cache() is None
    assert (tmp_path / "autogen_cache").exists() is (name == "root")


def test_each_seed_has_answers_of_its_own(model, stores):
    """Another ``cache_seed`` is asked anew, and then has its own answers."""
    first, _ = run(DISK, model, {})
    other, paid = run(SEED, model, {})
    assert paid == 2
    assert other != first
    assert run(DISK, model, {}) == (first, 0)


def test_hit_is_as_good_as_the_answer(model):
    """A hit carries the cost, costs nothing, and is an answer that the wrapper can go on with."""
    asked = [{"role": "user", "content": TASK}]
    with Cache.disk() as cache:
        paid = autogen.OpenAIWrapper(**config(model)).create(messages=asked, cache=cache)
        wrapper = autogen.OpenAIWrapper(**config(model))
        hit = wrapper.create(messages=asked, cache=cache)
    assert type(hit) is type(paid)
    assert hit.cost == paid.cost == pytest.approx(0.0015)
    assert (cache.stats().misses, cache.stats().hits) == (1, 1)
    assert wrapper.extract_text_or_completion_object(hit) == ["Draft 1"]
    assert wrapper.actual_usage_summary is None
    assert wrapper.total_usage_summary["total_cost"] == paid.cost
    assert len(model.requests) == 1


def test_answer_without_a_cost_is_given_one(model):
    """A stored answer that has no cost gets one from AutoGen, which then stores it with its own."""
    asked = [{"role": "user", "content": TASK}]
    with Cache.memory() as cache:
        wrapper = autogen.OpenAIWrapper(**config(model))
        wrapper.create(messages=asked, cache=_Costless(cache))
        hit = wrapper.create(messages=asked, cache=cache)
    assert hit.cost > 0
    assert len(model.requests) == 1


class _Costless:
    """Stores what it is given without its cost."""

    def __init__(self, cache):
        self.cache = cache

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def get(self, key, default=None):
        return self.cache.get(key, default)

    def set(self, key, value):
        bare = value.model_copy()
        del bare.cost
        self.cache.set(key, bare)


def test_cache_need_not_be_in_a_block(model):
    """What a factory returns may be passed as it is: AutoGen opens and closes it around its use."""
    asked = [{"role": "user", "content": TASK}]
    cache = Cache.disk()
    for _ in range(2):
        autogen.OpenAIWrapper(**config(model)).create(messages=asked, cache=cache)
        assert not cache.is_open
    assert len(model.requests) == 1


def test_nested_blocks_restore(model):
    """Three blocks deep, each one left restores the one around it."""
    with Cache.disk(cache_seed=1) as one:
        with Cache.disk(cache_seed=2) as two:
            with Cache.disk(cache_seed=3) as three:
                assert asynccache.current_cache() is three.asynchronous
                _chat(model, cache=three)
            assert asynccache.current_cache() is two.asynchronous
            _chat(model, cache=two)
        assert asynccache.current_cache() is one.asynchronous
        _chat(model, cache=one)
        assert len(model.requests) == 6
        _chat(model, cache=one)
    assert len(model.requests) == 6
    assert asynccache.current_cache() is None


def _chat(api, **words):
    user, assistant = agents(api)
    return user.initiate_chat(assistant, message=TASK, **words)


def test_exception_leaves_nothing_behind(model):
    """A chat that fails leaves no cache in force or open, and nothing stored for its call."""
    answering = model.program

    async def failing(seen):
        await seen.answer({"error": {"message": "no", "code": "no"}}, 400)

    model.program = failing
    cache = Cache.disk()
    with pytest.raises(Exception, match="no"), cache as face:
        _chat(model, cache=face)
    assert asynccache.current_cache() is None
    assert not cache.is_open
    model.program = answering
    with cache as face:
        _chat(model, cache=face)
        assert len(model.requests) == 3


def test_awaited_chat_pays_once(model):
    """`a_initiate_chat` uses the cache from the executor's threads."""

    async def chat():
        user, assistant = agents(model)
        with Cache.disk() as cache:
            result = await user.a_initiate_chat(assistant, message=TASK, cache=cache)
        return result.chat_history

    first = asyncio.run(chat())
    assert len(model.requests) == 2
    assert asyncio.run(chat()) == first
    assert len(model.requests) == 2


def test_autogens_own_cache_is_untouched(model, tmp_path):
    """`cache_seed` of an agent is AutoGen's own cache, in whose folder ours may lie as well."""
    for _ in range(2):
        user, assistant = agents(model, cache_seed=42)
        user.initiate_chat(assistant, message=TASK)
    assert len(model.requests) == 2
    assert (tmp_path / ".cache" / "42" / "cache.db").exists()
    assert not (tmp_path / ".cache" / "42" / "asynccache.db").exists()
    assert run(DISK, model, {})[1] == 2
    assert (tmp_path / ".cache" / "42" / "asynccache.db").exists()
    assert run(DISK, model, {})[1] == 0


def test_group_chat_pays_nothing_when_it_is_run_again(model):
    """Under `instrument_openai` a group chat is cached whole, the choice of speakers included."""

    def chat():
        llm = config(model)
        user = autogen.UserProxyAgent(
            "user", human_input_mode="NEVER", code_execution_config=False, default_auto_reply="hm"
        )
        members = [autogen.AssistantAgent(n, llm_config=llm, description=n) for n in _MEMBERS]
        group = autogen.GroupChat(
            agents=[user, *members], messages=[], max_round=5, speaker_selection_method="auto"
        )
        manager = autogen.GroupChatManager(groupchat=group, llm_config=llm)
        with Cache.disk(), asynccache.instrument_openai():
            user.initiate_chat(manager, message=TASK)
        return [(said["name"], said["content"]) for said in group.messages]

    first = chat()
    paid = len(model.requests)
    chosen = sum("role play game" in str(seen.body["messages"]) for seen in model.requests)
    assert chosen >= 3
    assert paid > chosen
    assert {name for name, _ in first} == {"user", *_MEMBERS}
    assert chat() == first
    assert len(model.requests) == paid


_MEMBERS = ("writer", "critic")
