"""Chat completion clients: of a real server, and a user's own, as small as they may be."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from autogen_core import Component
from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    ModelFamily,
    RequestUsage,
    SystemMessage,
    UserMessage,
)
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel, SecretStr

from asynccache.integrations.autogen import CachedChatCompletionClient

HELLO = [SystemMessage(content="Be brief."), UserMessage(content="Hello?", source="user")]
CLIENTS: list = []
INFO = {
    "vision": True, "function_calling": True, "json_output": True, "structured_output": True,
    "family": ModelFamily.UNKNOWN,
}  # fmt: skip


def kept(client):
    """Remember a client, which is closed when its test is over."""
    CLIENTS.append(client)
    return client


async def close_all():
    """Close what was kept."""
    for client in CLIENTS:
        await client.close()
    CLIENTS.clear()


def openai_client(api, **changes):
    """Return AutoGen's client for a server."""
    arguments = {"model": "gpt-4o-2024-08-06", "api_key": "sk-of-one", "base_url": api.base_url}
    return kept(OpenAIChatCompletionClient(**{**arguments, "max_retries": 0, **changes}))


def named(client, cache=None, upstream="test"):
    """Return the cached form of a client that isn't autogen-ext's, and so needs a name."""
    return CachedChatCompletionClient(client, cache, upstream=upstream)


def answer(content="Hello!", **changes):
    """Return a whole answer."""
    usage = RequestUsage(prompt_tokens=1, completion_tokens=1)
    arguments = {"finish_reason": "stop", "content": content, "usage": usage, "cached": False}
    return CreateResult(**{**arguments, **changes})


class Nameless(ChatCompletionClient):
    """Answers, and says of itself no more than its class."""

    component_type: ClassVar[str] = "model"

    def __init__(self):
        self.calls = 0
        self.tokens = []

    async def create(self, messages, *, cancellation_token=None, **arguments):
        self.calls += 1
        self.tokens.append(cancellation_token)
        return answer(f"Answer {self.calls}.")

    async def create_stream(self, messages, *, cancellation_token=None, **arguments):
        yield await self.create(messages, cancellation_token=cancellation_token)

    async def close(self):
        pass

    def actual_usage(self):
        return RequestUsage(prompt_tokens=self.calls, completion_tokens=0)

    def total_usage(self):
        return RequestUsage(prompt_tokens=self.calls, completion_tokens=0)

    def count_tokens(self, messages, *, tools=()):
        return len(messages)

    def remaining_tokens(self, messages, *, tools=()):
        return 100 - len(messages)

    @property
    def capabilities(self):
        return self.model_info

    @property
    def model_info(self):
        return INFO


class ModestConfig(BaseModel):
    model: str
    temperature: float = 1.0
    api_key: SecretStr | None = None
    base_url: str = ""


class Modest(Nameless, Component[ModestConfig]):
    """Has a component config."""

    component_config_schema = ModestConfig

    def __init__(self, config):
        super().__init__()
        self.config = config

    def _to_config(self):
        return self.config

    @classmethod
    def _from_config(cls, config):
        return cls(config)


class Scripted(Modest):
    """Streams what it is told to."""

    def __init__(self, items, *, epilogue=False):
        super().__init__(ModestConfig(model="scripted"))
        self.items = items
        self.finished = 0
        self._epilogue = epilogue

    async def create_stream(self, messages, *, cancellation_token=None, **arguments):
        self.calls += 1
        for item in self.items:
            yield item
        if self._epilogue:  # as clients do that note usage at the very end
            await asyncio.sleep(0.01)
        self.finished += 1
