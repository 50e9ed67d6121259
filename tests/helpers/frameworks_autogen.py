"""What AutoGen 0.2 and AG2 before 1.0 are put to: chats of two agents, in threads."""

from __future__ import annotations

import contextlib
import json
import os
import warnings

from tests.helpers.frameworks_server import TOOL
from tests.helpers.frameworks_suite import FrameworkSuite, Weather

os.environ["AUTOGEN_USE_DOCKER"] = "False"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about optional packages
    from autogen import AssistantAgent, OpenAIWrapper, UserProxyAgent, register_function
    from autogen.io import IOStream

ASKED = [{"role": "user", "content": "How warm is it?"}]
FORM = {
    "type": "json_schema",
    "json_schema": {"name": "weather", "schema": Weather.model_json_schema()},
}


def get_weather(city: str) -> str:
    """Tell the degrees in a city."""
    return "21"


class Screen:
    """What agents print to: keeps the pieces of streamed answers."""

    def __init__(self):
        self.pieces = []

    def print(self, *objects, end="\n", flush=False, **how):
        if flush and not end:  # how 0.2 prints a piece
            self.pieces += objects

    def send(self, message):
        if message.type == "stream":  # AG2's event
            self.pieces.append(message.content.content)

    def input(self, prompt="", **how):
        raise EOFError


class AutoGenSuite(FrameworkSuite):
    """Agents that make their clients themselves, as AutoGen's configuration says."""

    def config(self, url):
        one = {"model": "gpt-4o", "api_key": "sk-a", "max_retries": 0}
        if url is not None:
            one["base_url"] = url
        # Else 0.2 would use a cache of its own, in ./.cache.
        return {"config_list": [one], "cache_seed": None}

    def client(self, url):
        return contextlib.nullcontext(self.config(url))

    def shared(self, url):
        # An agent makes a client, which takes longer than all else together.
        return contextlib.nullcontext(OpenAIWrapper(**self.config(url)))

    def light(self, wrapper):
        answer = wrapper.create(messages=ASKED)
        return wrapper.extract_text_or_completion_object(answer)[0]

    def chat(self, config, *, tools=False, **changes):
        (one,) = config["config_list"]
        config = {**config, "config_list": [{**one, **changes}]}
        assistant = AssistantAgent("assistant", llm_config=config)
        user = UserProxyAgent("user", human_input_mode="NEVER", code_execution_config=False)
        if tools:
            register_function(
                get_weather, caller=assistant, executor=user, name=TOOL, description="Tell it"
            )
        screen = Screen()
        with IOStream.set_default(screen):
            result = user.initiate_chat(
                assistant, message="How warm is it?", max_turns=2 if tools else 1
            )
        return result.chat_history[-1]["content"], screen.pieces

    def plain(self, config):
        return self.chat(config)[0]

    def tools(self, config):
        return self.chat(config, tools=True)[0]

    def structured(self, config):
        return json.loads(self.chat(config, response_format=FORM)[0])

    def streamed(self, config):
        return self.chat(config, tools=True, stream=True)[1]
