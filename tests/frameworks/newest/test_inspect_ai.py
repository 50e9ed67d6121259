"""Inspect, over both of its APIs of OpenAI. It makes its clients itself, and marks each request."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
from inspect_ai.model import GenerateConfig, ResponseSchema, get_model
from inspect_ai.tool import tool
from inspect_ai.util import json_schema

import asynccache
from asynccache import Cache
from tests.helpers.frameworks_server import TEXT, Model
from tests.helpers.frameworks_suite import FrameworkSuite, Weather

pytest_plugins = ("tests.helpers.openai_fixtures",)
# What Inspect itself does with the library that it retries with.
pytestmark = pytest.mark.filterwarnings("ignore:The 'initial' parameter:DeprecationWarning")


@tool
def get_weather():
    """Make the tool."""

    async def execute(city: str):
        """Tell the degrees in a city.

        Args:
            city: Its name.
        """
        return "21"

    return execute


def model_of(url, *, responses=False):
    """Return a model that nobody else has."""
    return get_model(
        "openai/gpt-4o", base_url=url, api_key="sk-a", responses_api=responses, memoize=False
    )


class InspectSuite(FrameworkSuite):
    options = {"ignore_headers": ["x-irid"]}  # noqa: RUF012 - declared as a ClassVar above
    responses: bool

    @asynccontextmanager
    async def client(self, url):
        async with model_of(url, responses=self.responses) as model:
            yield model

    async def plain(self, model):
        return (await model.generate("How warm is it?")).completion

    async def tools(self, model):
        _, output = await model.generate_loop("How warm is it?", tools=[get_weather()])
        return output.completion

    async def structured(self, model):
        schema = ResponseSchema(name="weather", json_schema=json_schema(Weather))
        config = GenerateConfig(response_schema=schema)
        output = await model.generate("How warm is it?", config=config)
        return Weather.model_validate_json(output.completion)

    async def streamed(self, model):
        texts = []

        async def note(event):
            texts.append(getattr(event, "text", ""))

        await model.generate_loop("How warm is it?", tools=[get_weather()], on_stream=note)
        return texts


class TestResponses(InspectSuite):
    name = "Inspect, Responses"
    responses = True


class TestChat(InspectSuite):
    name = "Inspect, Chat"
    responses = False


@pytest.mark.parametrize(("ignored", "paid"), [([], 2), (["x-irid"], 1)])
async def test_what_marks_each_request(api, ignored, paid):
    """Each request has a header of its own, without which `ignore_headers` makes them one."""
    api.program = Model()
    async with Cache.memory(ignore_headers=ignored):
        with asynccache.instrument_openai():
            for _ in range(2):
                async with model_of(api.base_url) as model:
                    assert (await model.generate("How warm is it?")).completion == TEXT
    assert len(api.requests) == paid
    assert len({seen.headers["x-irid"] for seen in api.requests}) == paid


SCRIPT = """
import asynccache
from asynccache import Cache
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

asynccache.instrument_openai()

def evaluate(**changes):
    task = Task([Sample("How warm is it?", target="21")], solver=generate(), scorer=includes())
    (log,) = eval(task, model="openai/gpt-4o", **changes)
    assert log.results.scores[0].metrics["accuracy"].value == 1

for _ in range(2):
    with Cache.disk(ignore_headers=["x-irid"]) as cache:
        for epochs in (1, 3):
            evaluate(epochs=epochs)
            print(cache.stats().misses)
        with asynccache.options(sample="each"):
            evaluate(epochs=3)
        print(cache.stats().misses)
"""


def test_evaluations(api, tmp_path):
    """A script's second run pays nothing; with `sample="each"` epochs are answered one by one."""
    api.program = Model()
    where = {"OPENAI_BASE_URL": api.base_url, "OPENAI_API_KEY": "sk-a", "INSPECT_DISPLAY": "none"}
    # In a process of its own: Inspect leaves the connections of a model's name open.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path, env={**os.environ, **where}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["1", "1", "3", "0", "0", "0"]
    assert len(api.requests) == 3
