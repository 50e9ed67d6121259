"""`asynccache[autogen]` alone: a chat completion client of one's own, cached."""

from __future__ import annotations

import asyncio

from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    RequestUsage,
    UserMessage,
)

from asynccache import Cache
from asynccache.integrations.autogen import CachedChatCompletionClient


class Client(ChatCompletionClient):
    """Answers with how often it was asked."""

    calls = 0

    async def create(self, messages, **arguments):
        self.calls += 1
        usage = RequestUsage(prompt_tokens=1, completion_tokens=1)
        return CreateResult(
            finish_reason="stop", content=f"Answer {self.calls}.", usage=usage, cached=False
        )

    async def create_stream(self, messages, **arguments):
        yield await self.create(messages)

    async def close(self):
        pass

    def actual_usage(self):
        return RequestUsage(prompt_tokens=0, completion_tokens=0)

    total_usage = actual_usage

    def count_tokens(self, messages, **arguments):
        return 1

    def remaining_tokens(self, messages, **arguments):
        return 1

    @property
    def capabilities(self):
        return self.model_info

    @property
    def model_info(self):
        return {
            "vision": False, "function_calling": False, "json_output": False,
            "structured_output": False, "family": "unknown",
        }  # fmt: skip


def test_hits():
    """The client is asked once for an answer and once for a stream."""

    async def use():
        messages = [UserMessage(content="Hello?", source="user")]
        async with Cache.memory() as cache:
            client = CachedChatCompletionClient(Client(), cache=cache, upstream="mine")
            found = [(await client.create(messages)).content for _ in range(2)]
            assert found == ["Answer 1."] * 2

    asyncio.run(use())
