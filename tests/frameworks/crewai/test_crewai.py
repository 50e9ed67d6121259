"""CrewAI, whose agents are synchronous."""

from __future__ import annotations

import os

os.environ["CREWAI_DISABLE_TELEMETRY"] = os.environ["OTEL_SDK_DISABLED"] = "true"

import contextlib
import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about its own modules
    from crewai import LLM, Agent
    from crewai.events import LLMStreamChunkEvent, crewai_event_bus
    from crewai.tools import tool

from tests.helpers.frameworks_suite import FrameworkSuite, Weather

pytest_plugins = ("tests.helpers.openai_fixtures",)
pytestmark = pytest.mark.filterwarnings("default")  # its own objects warn of each other

ASKED = "How warm is it?"


@tool("get_weather")
def get_weather(city: str) -> str:
    """Tell the degrees in a city."""
    return "21"


class TestCrewAI(FrameworkSuite):
    name = "CrewAI"
    by_name = True
    # There it has the tokens of each request counted beforehand, some of them twice.
    more_at_official = {"plain": 1, "tools": 3, "structured": 1, "streamed": 3}  # noqa: RUF012

    def client(self, url):
        return contextlib.nullcontext(url)

    def agent(self, url, *, stream=False, **changes):
        model = LLM("openai/gpt-4o", base_url=url, api_key="sk-a", max_retries=0, stream=stream)
        about = {"role": "Assistant", "goal": "Help", "backstory": "You help."}
        return Agent(**about, llm=model, **changes)

    def plain(self, url):
        return self.agent(url).kickoff(ASKED).raw

    def tools(self, url):
        return self.agent(url, tools=[get_weather]).kickoff(ASKED).raw

    def structured(self, url):
        return self.agent(url).kickoff(ASKED, response_format=Weather).pydantic

    def streamed(self, url):
        pieces = []
        with crewai_event_bus.scoped_handlers():

            @crewai_event_bus.on(LLMStreamChunkEvent)
            def note(source, event):
                pieces.append(event.chunk)

            self.agent(url, stream=True, tools=[get_weather]).kickoff(ASKED)
        return pieces

    def shared(self, url):
        return contextlib.nullcontext(self.agent(url).llm)

    def light(self, model):
        return model.call(ASKED)
