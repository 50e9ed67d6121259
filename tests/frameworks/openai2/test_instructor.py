"""instructor: its objects, whole and in part, from asynchronous and synchronous clients."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import instructor
import pytest
from instructor.core import InstructorRetryException
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, field_validator

import asynccache
from asynccache import Cache
from tests.helpers.frameworks_server import OBJECT, Model
from tests.helpers.frameworks_suite import FrameworkSuite, Weather
from tests.helpers.openai_server import choice

pytest_plugins = ("tests.helpers.openai_fixtures",)

ASKED: dict = {"model": "gpt-4o", "messages": [{"role": "user", "content": "How warm is it?"}]}


class Answer(BaseModel):
    """What a streamed answer is made into."""

    answer: str


class TestInstructor(FrameworkSuite):
    name = "instructor"
    reasons = {"tools": "its tools are the structure"}  # noqa: RUF012 - a ClassVar above
    requests = {**FrameworkSuite.requests, "streamed": 1}  # noqa: RUF012 - a ClassVar above

    @asynccontextmanager
    async def client(self, url):
        async with AsyncOpenAI(base_url=url, api_key="sk-a", max_retries=0) as client:
            yield client

    async def plain(self, client):
        answer = await instructor.from_openai(client).create(response_model=None, **ASKED)
        return answer.choices[0].message.content

    async def structured(self, client):
        return await instructor.from_openai(client).create(response_model=Weather, **ASKED)

    async def streamed(self, client):
        made = instructor.from_openai(client).create_partial(response_model=Answer, **ASKED)
        return [part.answer async for part in made]


@pytest.mark.parametrize("mode", ["TOOLS", "JSON", "JSON_SCHEMA", "MD_JSON", "RESPONSES_TOOLS"])
async def test_modes(api, mode):
    """In each mode of OpenAI's the second run pays nothing, synchronous clients' in threads too."""
    api.program = Model(answer='```json\n{"city": "Paris", "degrees": 21}\n```')

    def ask():
        with OpenAI(base_url=api.base_url, api_key="sk-a", max_retries=0) as client:
            made = instructor.from_openai(client, mode=instructor.Mode[mode])
            return made.create(response_model=Weather, **ASKED)

    async with Cache.memory():
        with asynccache.instrument_openai():
            first = await asyncio.to_thread(ask)
            async with AsyncOpenAI(base_url=api.base_url, api_key="sk-a") as client:
                made = instructor.from_openai(client, mode=instructor.Mode[mode])
                second = await made.create(response_model=Weather, **ASKED)
    assert first.model_dump() == second.model_dump() == OBJECT
    assert len(api.requests) == 1


async def test_wrapped_clients(api):
    """Instructor patches what `wrap` has put there, and both do their work."""
    api.program = Model()
    async with Cache.memory() as cache:
        for _ in range(2):
            async with AsyncOpenAI(base_url=api.base_url, api_key="sk-a") as bare:
                client = instructor.from_openai(cache.wrap(bare))
                assert (await client.create(response_model=Weather, **ASKED)).degrees == 21

        def ask():
            with OpenAI(base_url=api.base_url, api_key="sk-a") as bare:
                client = instructor.from_openai(cache.wrap(bare))
                return client.create(response_model=Weather, **ASKED)

        assert (await asyncio.to_thread(ask)).degrees == 21
    assert len(api.requests) == 1


class Cold(BaseModel):
    """What the first answer isn't."""

    city: str
    degrees: int

    @field_validator("degrees")
    @classmethod
    def cold(cls, value):
        """Refuse what is warm."""
        if value > 10:
            raise ValueError("too warm")
        return value


async def test_asking_again(api):
    """Retries that tell the model what was wrong are found too: they carry recorded ids."""
    api.program = Model()
    attempts = []
    async with Cache.memory():
        with asynccache.instrument_openai():
            for _ in range(2):
                async with AsyncOpenAI(base_url=api.base_url, api_key="sk-a") as bare:
                    client = instructor.from_openai(bare)
                    with pytest.raises(InstructorRetryException) as failed:
                        await client.create(response_model=Cold, max_retries=2, **ASKED)
                    attempts.append(failed.value.n_attempts)
    assert attempts == [3, 3]
    assert len(api.requests) == 3


@pytest.mark.parametrize("mode", ["TOOLS", "JSON", "JSON_SCHEMA"])
async def test_a_run_with_its_repairs_replays(api, tmp_path, mode):
    """The repair asks about the malformed answer, which a replay gives as it was."""
    texts = ["It is warm.", "It is 21 degrees.", json.dumps(OBJECT)]

    async def program(seen):
        text = texts.pop(0)
        said = {"role": "assistant", "content": text}
        for tool in seen.body.get("tools") or ():
            call = {"name": tool["function"]["name"], "arguments": text}
            calls = [{"id": f"call_{len(texts)}", "type": "function", "function": call}]
            said = {"role": "assistant", "content": None, "tool_calls": calls}
        await seen.answer(choice(message=said))

    api.program = program
    for run in ("read_write", "replay"):
        async with (
            Cache.disk(cache_path_root=tmp_path, mode=run) as cache,
            AsyncOpenAI(base_url=api.base_url, api_key="sk-a") as bare,
        ):
            client = instructor.from_openai(cache.wrap(bare), mode=instructor.Mode[mode])
            found = await client.create(response_model=Weather, max_retries=2, **ASKED)
            assert found.model_dump() == OBJECT
    assert (len(api.requests), texts) == (3, [])
